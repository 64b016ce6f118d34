"""`albert evaluate`: models in, their figures on the very same held-out instances out, beside what needs no training.

One model is in memory at a time. Nothing is fetched, and of the text nothing is shown: figures, ranks and lengths alone.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from data_prep.instances import load_pieces, read_columns
from data_prep.schema import Manifest, manifest_sha256, read_manifest
from data_prep.statistics import MAX_ROWS
from pretrain.breakdown import (
    HeldOut,
    Scores,
    length_bands,
    masked_lm_figures,
    order_figures,
    rank_bands,
    read_held_out,
    run_bands,
    unigram_scores,
)
from pretrain.comparison_table import print_comparison
from pretrain.data import Split, evenly_spaced, micro_batches, open_split
from pretrain.evaluate_options import EvaluateOptions
from pretrain.head import masked_lm_scores
from pretrain.model import Albert
from pretrain.model_folder import Source, fit_faults, hash_of_weights, load_model, open_model, random_model
from pretrain.products import bound_cache
from tokenizer.device import choose_device
from tokenizer.errors import UserError
from tokenizer.files import write_json
from tokenizer.printable import printable

FORMAT_VERSION = 1
"""Of the JSON file."""


class Data(NamedTuple):
    """What the models are compared on."""

    folder: Path
    manifest: Manifest
    split: Split
    pieces: list[str]
    """id -> piece."""


class Bench(NamedTuple):
    """The same for every column."""

    data: Data
    held_out: HeldOut
    piece_counts: np.ndarray
    """int64 (V), of the train split's masked pieces."""
    micro_batch_size: int
    device: torch.device


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Print the figures of all models side by side, write them to `output`, and return them.

    Raises:
        UserError: an option, a model or the data cannot be used; all faults are listed.
    """
    options.check()
    bound_cache()
    check_output(options.output)
    device = choose_device(options.device)
    sources, data = open_all(options)
    rows = evenly_spaced(len(data.split), options.max_instances)
    held_out = read_held_out(data.split, rows, data.pieces, data.manifest)
    counts, num_rows = count_train_pieces(data)
    bench = Bench(data, held_out, counts, options.micro_batch_size, device)
    columns = [floor_column(bench), random_column(bench, sources[0], options.seed)]
    for number, source in enumerate(sources, 1):
        print(f"evaluating model {number} of {len(sources)}: {printable(source.path)}", flush=True)
        columns.append({"name": f"model {number}"} | model_column(bench, source))
    result = {
        "format_version": FORMAT_VERSION,
        "data": str(data.folder.absolute()),
        "data_sha256": manifest_sha256(data.folder),
        "split": options.split,
        "instances": len(held_out.rows),
        "instances_of_the_split": len(data.split),
        "pair_objective": data.manifest.options.get("pair_objective"),
        "mask_unit": data.manifest.options.get("mask_unit"),
        "train_rows_counted": num_rows,
        "train_pieces_counted": int(counts.sum()),
        "device": str(device),
        "columns": columns,
    }
    print_comparison(result)
    if options.output:
        write_json(options.output, result)
        print(f"wrote {printable(options.output)}")
    return result


def floor_column(bench: Bench) -> dict[str, Any]:
    scores = unigram_scores(bench.held_out, bench.piece_counts, bench.data.manifest)
    return {"name": "unigram"} | all_figures(bench, scores)


def random_column(bench: Bench, source: Source, seed: int) -> dict[str, Any]:
    """Of the shape of a model."""
    model = random_model(source.config, source.vocab_size or bench.data.manifest.vocab_size, seed)
    return {"name": "random", "seed": seed} | all_figures(bench, score_model(model, bench))


def model_column(bench: Bench, source: Source) -> dict[str, Any]:
    """`trained_on_this_data` is null where nothing says it."""
    model, has_order_head = load_model(source, bench.data.manifest.vocab_size)
    weights_sha256 = hash_of_weights(source)
    is_run = source.kind == "run"
    scores = score_model(model, bench)
    return {
        "path": str(source.path),
        "kind": source.kind,
        "step": source.state.get("step"),
        "weights_sha256": weights_sha256,
        "trained_on_this_data": source.state["data_sha256"] == manifest_sha256(bench.data.folder) if is_run else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sentence_order_head": has_order_head,
    } | all_figures(bench, scores if has_order_head else scores._replace(order_losses=None, order_correct=None))


@torch.inference_mode()
def score_model(model: Albert, bench: Bench) -> Scores:
    """Losses and hits of a model, dropout off, in fp32; only a chunk of the masked-LM logits exists at a time."""
    model = model.to(bench.device).eval()
    parts = []
    for host_batch in micro_batches(bench.data.split, bench.held_out.rows, bench.micro_batch_size):
        batch = host_batch.to(bench.device)
        masked_ME, order_logits_B2 = model.head_inputs(batch)
        word_VE, bias_V = model.embeddings.word.weight, model.mlm_head.bias
        losses_M, correct_M = masked_lm_scores(masked_ME, word_VE, bias_V, batch.mlm_labels_M)
        labels_B = batch.sop_labels_B.clamp(min=0)  # what has none counts nowhere
        order_losses_B = F.cross_entropy(order_logits_B2, labels_B, reduction="none")
        order_correct_B = order_logits_B2.argmax(-1) == labels_B
        parts.append([x.cpu().numpy() for x in (losses_M.double(), correct_M, order_losses_B.double(), order_correct_B)])
    return Scores(*map(np.concatenate, zip(*parts, strict=True)))


def all_figures(bench: Bench, scores: Scores) -> dict[str, Any]:
    held_out, manifest = bench.held_out, bench.data.manifest
    return {
        "masked_lm": masked_lm_figures(held_out, scores),
        "masked_lm_by_run_length": masked_lm_figures(held_out, scores, run_bands(held_out, manifest)),
        "masked_lm_by_piece_rank": masked_lm_figures(held_out, scores, rank_bands(held_out, bench.piece_counts)),
        "sentence_order": order_figures(held_out, scores),
        "sentence_order_by_length": order_figures(held_out, scores, length_bands(held_out, manifest.max_seq_length)),
    }


def check_output(path: Path | None) -> None:
    """Raise a UserError if a file is there that no evaluation wrote."""
    if path is None or not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_ours = {"format_version", "data_sha256", "columns"} <= content.keys()
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise UserError(f"{path}: this file is no earlier evaluation, so it is left alone. Choose another --output.")


def open_all(options: EvaluateOptions) -> tuple[list[Source], Data]:
    """All models and the data, each model loaded once to see that it can be; every fault in one `UserError`."""
    sources: list[Source] = []
    faults: list[str] = []
    for path in map(Path, options.model):
        try:
            sources.append(open_model(path, options.checkpoint))
        except UserError as error:
            faults.append(str(error))
    folder = options.data or next((source.data for source in sources if source.data), None)
    data = None
    try:
        if folder is not None:
            data = open_data(folder, options.split)
        elif not faults:
            faults.append("--data: give the data folder to evaluate on; none of the models is a run, which would name one.")
    except UserError as error:
        faults.append(str(error))
    for source in sources if data else []:
        try:
            unfit = fit_faults(source, data.folder, data.manifest)
            faults += unfit
            if not unfit:
                load_model(source, data.manifest.vocab_size)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(["these models cannot be compared:", *(f"  - {fault}" for fault in faults)]))
    return sources, data


def open_data(folder: Path, split: str) -> Data:
    """Raise a UserError if this is no data folder, has no such instances, or another tokenizer lies in it."""
    manifest = read_manifest(folder)
    counts = manifest.splits.get(split)
    if not counts or not counts.instances:
        raise UserError(
            f"{folder}: has no {split} instances. Give another --data, or prepare it with --validation_fraction above 0."
        )
    return Data(folder, manifest, open_split(folder, manifest, split), load_pieces(folder, manifest))


def count_train_pieces(data: Data) -> tuple[np.ndarray, int]:
    """How often each piece (int64, V) is to be predicted in the first rows of the train split, which are shuffled; and how many
    rows these are."""
    counts, num_rows = np.zeros(data.manifest.vocab_size, np.int64), 0
    for columns in read_columns(data.folder, data.manifest, "train", MAX_ROWS):
        counts += np.bincount(columns.labels, minlength=len(counts))
        num_rows += len(columns.order_labels)
    return counts, num_rows
