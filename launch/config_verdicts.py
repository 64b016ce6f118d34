"""A run config and its data in, rows of the table of `albert doctor` out: what would stop this run, or ruin it."""

from pathlib import Path

from data_prep.hazards import warnings
from data_prep.schema import Manifest
from launch.verdicts import Row, row
from pretrain.config import RunConfig, scaled_lr
from pretrain.data_faults import data_faults, tokenizer_faults

FAR_FROM_RULE = 2.0
"""Factor between the peak learning rate and that of the square-root rule beyond which a note is due."""


def config_rows(config: RunConfig, manifest: Manifest | None, num_procs: int) -> list[Row]:
    """What the config says by itself and, with a manifest, against the data. num_procs: processes on all hosts."""
    rows = [rate_row(config)]
    if manifest is not None:
        of_tokenizer = tokenizer_faults(config.data.path, manifest)
        red = [fault for fault in data_faults(config, manifest, num_procs) if fault not in of_tokenizer]
        batch = config.training.global_batch_size
        green = f"batches of {batch:,} for {num_procs:,} process(es), sequences of up to {manifest.max_seq_length} pieces"
        rows.insert(0, row("config and data", red, [], green, ""))
    return rows


def rate_row(config: RunConfig) -> Row:
    lr, batch = config.optimizer.lr, config.training.global_batch_size
    if config.optimizer.name != "lamb":
        return Row("learning rate", "green", f"{lr:.3g}; no rule is known for {config.optimizer.name}")
    rule = scaled_lr(batch)
    text = f"{lr:.3g} at batch {batch:,}; the square-root rule gives {rule:.3g}"
    is_far = not 1 / FAR_FROM_RULE <= lr / rule <= FAR_FROM_RULE
    return row(
        "learning rate", [], [text] * is_far, text, "", "Leave out optimizer.lr for the rule, or try the rate on a short run first."
    )


def data_rows(data: Path, manifest: Manifest) -> list[Row]:
    """The tokenizer beside the shards, and what in the data would ruin training."""
    green = f"that of the shards, {manifest.vocab_size:,} pieces (SHA-256 {manifest.tokenizer_sha256[:12]})"
    train = manifest.splits["train"]
    unknown = train.unknown_pieces / max(train.text_pieces, 1)
    text = f"{train.instances:,} instances; {unknown:.2%} unknown pieces, {manifest.duplicate_documents:,} duplicate documents"
    return [
        row("tokenizer", tokenizer_faults(data, manifest), [], green, ""),
        row("data", [], warnings(manifest), text, "", "`albert inspect` shows more; prepare again with what is said."),
    ]


def disk_row(config: RunConfig, vocab_size: int, run_folder: Path, free: float) -> Row:
    """Whether the checkpoints have room. free: bytes, where the first host would write them."""
    from launch.dry_run import checkpoint_bytes, disk_needed  # takes torch

    size, needed = checkpoint_bytes(config, vocab_size), disk_needed(config, vocab_size, run_folder)
    text = f"{free / 1e9:.2f} GB free; checkpoints take {needed / 1e9:.2f} GB ({size / 1e9:.2f} GB each)"
    return row(
        "disk", [text] if free < needed else [], [], text, "Make room, lower checkpoint.keep_last, or choose another --output."
    )
