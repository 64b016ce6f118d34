"""Options of `albert prepare`. Imports nothing heavy: the command line is built from this dataclass."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizer.errors import check_all

MIN_SEQ_LENGTH, MAX_SEQ_LENGTH = 8, (1 << 16) - 1
"""Below 8 two sentences hardly fit beside [CLS] and two [SEP]; positions in a row are stored as uint16."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Text and a tokenizer in, shards for training out."""

    input: list[str]
    """Files, folders, globs or `hf:NAME[:CONFIG[:SPLIT]]`: .txt (a blank line ends a document), .jsonl, .parquet; .gz and .zst."""
    tokenizer: Path
    """Folder that `albert tokenizer` wrote."""
    output: Path
    """Data folder to write; an earlier data folder is replaced."""
    max_seq_length: int = 512
    """Longest instance in pieces, [CLS] and [SEP] included."""
    language: str = "en"
    """ISO 639 code for the sentence splitter (sentencex); a code it has no rules for is treated like a relative, or English."""
    presegmented: bool = False
    """The text has one sentence a line: newlines end sentences, nothing else does."""
    text_field: str = "text"
    """Field of .jsonl and .parquet records that holds the document."""
    pair_objective: Literal["sop", "nsp", "none"] = "sop"
    """sop: B follows A, or they are swapped (ALBERT). nsp: B follows A, or is from another document (BERT). none: one segment."""
    mask_unit: Literal["ngram", "word", "piece"] = "ngram"
    """What is masked as one: up to max_ngram whole words (ALBERT), one whole word, or one piece (BERT)."""
    max_ngram: int = 3
    """Longest run in words for mask_unit ngram; a run of n words is drawn with probability proportional to 1/n."""
    mask_ratio: float = 0.15
    """Share of an instance's pieces to predict, [CLS] and [SEP] counted in."""
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
    workers: int = 1
    """Processes that split, encode, pair and mask."""

    @property
    def num_predictions(self) -> int:
        """`max_predictions`, or its default."""
        return self.max_predictions or max(1, round(self.mask_ratio * self.max_seq_length))

    def check(self) -> None:
        """Raise one UserError that lists every option that cannot be used."""
        wanted = {
            "input": (bool(self.input), "at least one file, folder, glob or hf:NAME"),
            "tokenizer": (
                (self.tokenizer / "tokenizer.json").is_file(),
                "a folder made by `albert tokenizer` (no tokenizer.json in it)",
            ),
            "max_seq_length": (
                MIN_SEQ_LENGTH <= self.max_seq_length <= MAX_SEQ_LENGTH,
                f"from {MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH} pieces",
            ),
            "language": (
                bool(re.fullmatch("[a-z]{2,3}(-[a-z]+)*", self.language)),
                "an ISO 639 code in lower case, such as en, de or zh",
            ),
            "text_field": (bool(self.text_field), "the name of a field"),
            "pair_objective": (self.pair_objective in ("sop", "nsp", "none"), "sop, nsp or none"),
            "mask_unit": (self.mask_unit in ("ngram", "word", "piece"), "ngram, word or piece"),
            "max_ngram": (1 <= self.max_ngram <= 10, "from 1 to 10 words"),
            "mask_ratio": (0 < self.mask_ratio <= 0.5, "above 0 and at most 0.5"),
            "max_predictions": (self.max_predictions is None or self.max_predictions >= 1, "at least 1, or left out"),
            "short_seq_prob": (0 <= self.short_seq_prob <= 1, "from 0 to 1"),
            "dupe_factor": (self.dupe_factor >= 1, "at least 1"),
            "validation_fraction": (0 <= self.validation_fraction < 1, "from 0 to below 1"),
            "seed": (0 <= self.seed < 1 << 63, "from 0 to 2**63 - 1"),
            "workers": (self.workers >= 1, "at least 1"),
        }
        check_all(self, wanted)
