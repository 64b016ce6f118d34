"""Options of `albert prepare`. Imports nothing heavy: the command line is built from this dataclass."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizer.errors import UserError, check_all

MIN_SEQ_LENGTH, MAX_SEQ_LENGTH = 8, (1 << 16) - 1
"""Below 8 two sentences hardly fit beside [CLS] and two [SEP]; positions in a row are stored as uint16."""

MASKING = ("mask_unit", "max_ngram", "mask_ratio", "max_predictions", "seed", "compression")
"""Options that `--remask` takes: they shape the masks and not the pairs."""

TASK = r"\d+(/\d+)?"

WEIGHT = r"[\w.-]+=(\d+\.?\d*|\.\d+)(e-?\d+)?"

NOT_IN_THE_BYTES = ("input", "tokenizer", "output", "workers", "executor", "sbatch", "plan", "stage", "task", "remask", "private")
"""Options that shape no byte of the shards: where things lie, who does the work and what is told of it."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Text and a tokenizer in, shards for training out."""

    input: list[str] = field(default_factory=list)
    """Files, folders, globs, URLs (s3://...) or `hf:NAME[:CONFIG[:SPLIT]]`: .txt (a blank line ends a document), .jsonl, .parquet;
    .gz and .zst. Each may be named, for --weights: wiki=PATH."""
    tokenizer: Path | None = None
    """Folder that `albert tokenizer` wrote."""
    output: str | None = None
    """Data folder to write, on this machine or a store (s3://...). One that is unfinished is gone on with."""
    max_seq_length: int = 512
    """Longest instance in pieces, [CLS] and [SEP] included."""
    language: str = "en"
    """ISO 639 code for the sentence splitter (sentencex); a code it has no rules for is treated like a relative, or English."""
    abbreviations: Path | None = None
    """File of abbreviations, one a line, that do not end a sentence: for languages that the splitter does not know well."""
    presegmented: bool = False
    """The text has one sentence a line: newlines end sentences, nothing else does."""
    text_field: str = "text"
    """Field of .jsonl and .parquet records that holds the document."""
    weights: list[str] = field(default_factory=list)
    """Share of the training text for each named input, such as wiki=0.7 books=0.3; whole documents are sampled or repeated."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a line, record or file that cannot be read does: stop, or be left out, counted, and listed in the manifest."""
    fix_unicode: bool = False
    """Mend text that was decoded wrongly, such as â€œ for a quote (ftfy), and compose letters with their marks (NFC)."""
    min_chars: int = 0
    """Leave out documents of fewer characters; 0 = keep all."""
    languages: list[str] = field(default_factory=list)
    """Languages to keep, as --language_model labels them, such as en; empty = keep all."""
    language_model: Path | None = None
    """fastText model for --languages, such as lid.176.bin; it is never downloaded."""
    language_threshold: float = 0.65
    """A document is kept if the model gives one of --languages a higher probability."""
    max_repeated_lines: float = 1.0
    """Leave out documents in which a larger share of the lines repeats an earlier one; 1 = keep all, 0.3 is Gopher's value."""
    dedup: Literal["none", "exact", "minhash"] = "none"
    """Leave out documents whose text is that of an earlier one (exact), or nearly so (minhash: finds a tenth replaced in one
    passage in nine cases of ten, but not every twentieth word changed)."""
    pair_objective: Literal["sop", "nsp", "none"] = "sop"
    """sop: B follows A, or they are swapped (ALBERT). nsp: B follows A, or is from another document (BERT). none: one segment."""
    mask_unit: Literal["ngram", "word", "piece"] = "ngram"
    """What is masked as one: up to max_ngram whole words (ALBERT), one whole word, or one piece (BERT)."""
    max_ngram: int = 3
    """Longest run in words for mask_unit ngram; a run of n words is drawn with probability proportional to 1/n."""
    mask_ratio: float = 0.15
    """Share of an instance's pieces to mask."""
    max_predictions: int | None = None
    """Most pieces to predict in one instance. Default: mask_ratio of max_seq_length (77 at 512)."""
    short_seq_prob: float = 0.1
    """Probability that an instance aims at a length uniform in [2, budget] pieces instead of the budget."""
    dupe_factor: int = 10
    """Times the training text is gone through, each with its own masks, borders and orders; held-out text once. 10 as in BERT and
    RoBERTa: ALBERT's 40 takes four times the disk, and each copy is still seen several times in a long run."""
    validation_fraction: float = 0.02
    """Share of the documents held out for validation, at least one document; 0 = none."""
    seed: int = 0
    """Seed of every random draw. Same corpus, options and seed: same bytes, whatever the number of workers."""
    shard_size: int = 256_000_000
    """Bytes of a shard, before compression; all shards of a split are equally large."""
    compression: Literal["none", "zstd"] = "none"
    """zstd takes about a quarter off the disk, and training must decompress what it reads."""
    task_size: int | None = None
    """Bytes of text that one task prepares. Default: from the size of the corpus, 4 MB to 1 GB."""
    private: bool = False
    """Show no text of the corpus in messages, logs and manifests; data of a private tokenizer is private, too. The folder remembers
    it, and every verb that reads it keeps to it. Shards and vocabulary hold the text itself."""
    workers: int | None = None
    """Tasks that run at the same time. Default: 1; with --executor slurm as many as the site lets run."""
    executor: Literal["local", "ray", "slurm"] = "local"
    """Who runs the tasks: processes on this machine, a Ray cluster (RAY_ADDRESS, or this machine), or Slurm job arrays."""
    sbatch: list[str] = field(default_factory=list)
    """More options for sbatch, each as one word: account=NAME partition=cpu time=02:00:00."""
    remask: str | None = None
    """Data folder whose pairs get new masks (mask_unit, max_ngram, mask_ratio, max_predictions, seed); needs no corpus."""
    plan: str | None = None
    """plan.json of a data folder: do a part of its work. What the Slurm script calls; give --stage and --task, nothing else."""
    stage: str | None = None
    """Stage of the plan."""
    task: str | None = None
    """I or I/N: task I of the stage, or every Nth from I on."""

    @property
    def num_predictions(self) -> int:
        """`max_predictions`, or its default."""
        return self.max_predictions or max(1, round(self.mask_ratio * self.max_seq_length))

    def shaping(self) -> dict[str, object]:
        """Every option that shapes the bytes."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in NOT_IN_THE_BYTES}

    def check(self) -> None:
        """Raise one UserError that lists every option that cannot be used."""
        if self.plan:
            wanted = self._left_out("--plan", "plan", "stage", "task") | {
                "stage": (self.stage is not None, "the name of a stage beside --plan"),
                "task": (bool(re.fullmatch(TASK, self.task or "")) and share_is_right(self.task), "I, or I/N with I below N"),
            }
        elif self.remask:
            wanted = self._left_out("--remask", *MASKING, "output", "workers", "executor", "remask", "private") | {
                "output": (bool(self.output), "a new folder"),
                "executor": (self.executor != "slurm", "local or ray beside --remask"),
                **self._wanted_for_masks(),
            }
        else:
            wanted = self._wanted_for_corpus()
        check_all(self, wanted)

    def _left_out(self, beside: str, *names: str) -> dict[str, tuple[bool, str]]:
        """Every other option must have its default."""
        defaults = PrepareOptions()
        others = sorted({item.name for item in dataclasses.fields(self)} - set(names))
        return {name: (getattr(self, name) == getattr(defaults, name), f"left out beside {beside}") for name in others}

    def _wanted_for_masks(self) -> dict[str, tuple[bool, str]]:
        return {
            "mask_unit": (self.mask_unit in ("ngram", "word", "piece"), "ngram, word or piece"),
            "max_ngram": (1 <= self.max_ngram <= 10, "from 1 to 10 words"),
            "mask_ratio": (0 < self.mask_ratio <= 0.5, "above 0 and at most 0.5"),
            "max_predictions": (self.max_predictions is None or self.max_predictions >= 1, "at least 1, or left out"),
            "seed": (0 <= self.seed < 1 << 63, "from 0 to 2**63 - 1"),
            "shard_size": (self.shard_size >= 1000, "at least 1000 bytes"),
            "compression": (self.compression in ("none", "zstd"), "none or zstd"),
            "workers": (self.workers is None or self.workers >= 1, "at least 1, or left out"),
        }

    def _wanted_for_corpus(self) -> dict[str, tuple[bool, str]]:
        return {
            "input": (bool(self.input), "at least one file, folder, glob, URL or hf:NAME"),
            "tokenizer": (
                self.tokenizer is not None and (self.tokenizer / "tokenizer.json").is_file(),
                "a folder made by `albert tokenizer` (no tokenizer.json in it)",
            ),
            "output": (bool(self.output), "a folder to write"),
            "max_seq_length": (
                MIN_SEQ_LENGTH <= self.max_seq_length <= MAX_SEQ_LENGTH,
                f"from {MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH} pieces",
            ),
            "language": (
                bool(re.fullmatch("[a-z]{2,3}(-[a-z]+)*", self.language)),
                "an ISO 639 code in lower case, such as en, de or zh",
            ),
            "text_field": (bool(self.text_field), "the name of a field"),
            "weights": (
                all(re.fullmatch(WEIGHT, weight) for weight in self.weights),
                "NAME=NUMBER for each named input",
            ),
            "on_error": (self.on_error in ("fail", "skip"), "fail or skip"),
            "min_chars": (self.min_chars >= 0, "at least 0 characters"),
            "languages": (not self.languages or self.language_model is not None, "used together with --language_model FILE"),
            "language_model": (self.language_model is None or bool(self.languages), "used together with --languages"),
            "language_threshold": (0 <= self.language_threshold <= 1, "from 0 to 1"),
            "max_repeated_lines": (0 < self.max_repeated_lines <= 1, "above 0 and at most 1"),
            "dedup": (self.dedup in ("none", "exact", "minhash"), "none, exact or minhash"),
            "pair_objective": (self.pair_objective in ("sop", "nsp", "none"), "sop, nsp or none"),
            "short_seq_prob": (0 <= self.short_seq_prob <= 1, "from 0 to 1"),
            "dupe_factor": (self.dupe_factor >= 1, "at least 1"),
            "validation_fraction": (0 <= self.validation_fraction < 1, "from 0 to below 1"),
            "stage": (self.stage is None, "left out without --plan"),
            "task": (self.task is None, "left out without --plan"),
            "task_size": (self.task_size is None or self.task_size >= 1, "at least 1 byte, or left out"),
            "executor": (self.executor in ("local", "ray", "slurm"), "local, ray or slurm"),
            **self._wanted_for_masks(),
        }


def parse_weights(weights: list[str], labels: set[str]) -> dict[str, float]:
    """Share of each label, adding up to 1; empty where no weights are given.

    Raises:
        UserError: a label without a weight or a weight without an input, or all weights are zero.
    """
    if not weights:
        return {}
    shares = {name: float(value) for name, _, value in (weight.partition("=") for weight in weights)}
    if shares.keys() != labels or len(shares) != len(weights) or not 0 < sum(shares.values()) < math.inf:
        names = [*sorted(labels - {""}), *(["and some without a name"] if "" in labels else [])]
        raise UserError(
            f"--weights {' '.join(weights)}: expected one weight, not all of them 0, for each named input ({', '.join(names)}). "
            "Name inputs as in --input wiki=PATH books=PATH."
        )
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def share_is_right(task: str) -> bool:
    """task: matches TASK."""
    share, _, num_shares = task.partition("/")
    return not num_shares or int(share) < int(num_shares)
