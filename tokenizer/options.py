"""Options of `albert tokenizer`. No heavy import: the command line is built from this dataclass."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from tokenizer.errors import UserError, check_all
from tokenizer.special_tokens import CONTROL_SYMBOLS, USER_DEFINED_SYMBOLS


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """Train a vocabulary, or take over another model's, and write a tokenizer folder."""

    input: list[str] = field(default_factory=list)
    """The corpus: files (.txt, .jsonl, each also .gz or .zst; .parquet), folders, globs, URLs (s3://...), or
    `hf:NAME[:CONFIG[:SPLIT]]`."""
    output: Path
    """Folder to write: spiece.model, tokenizer.json, tokenizer_config.json, manifest.json."""
    from_hf: Path | None = None
    """In place of --input and all other options: folder of a Hugging Face ALBERT, such as albert-base-v2, whose tokenizer is taken
    over as it is."""
    vocab_size: int = 30000
    """Size of the vocabulary in pieces, special tokens included."""
    lower_case: bool = True
    """Lower-case the text."""
    keep_accents: bool = True
    """Keep accents and other marks. False strips them all, as ALBERT's English models do; in most languages that hurts words."""
    text_field: str = "text"
    """Field (.jsonl) or column (.parquet, hf:) that holds the text."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a line, record or file that cannot be read does: stop, or be left out, counted, and listed in the manifest."""
    character_coverage: float = 0.99995
    """Fraction of the text's characters that get a piece of their own, 0.98 to 1; the rarest others become <unk>."""
    input_sentence_size: int = 10_000_000
    """Lines that training draws from the corpus at random. They decide its memory, about 25 times their size; it is stated before
    the training starts, which does not if there is less. More than 100."""
    seed: int = 0
    """Seed of that draw, from 0; without effect on a corpus of fewer lines."""
    private: bool = False
    """Show no text of the corpus in messages, logs and manifests. The folder remembers it, and so does data prepared with it. The
    vocabulary itself holds frequent pieces of the text."""


def check_options(options: TokenizerOptions) -> None:
    """Raise one UserError that lists every option that cannot be used."""
    if options.from_hf is not None:
        others = [
            f"--{item.name}"
            for item in fields(options)
            if item.name not in ("output", "from_hf") and getattr(options, item.name) not in (item.default, [])
        ]
        if others:
            raise UserError(f"--from_hf: takes a tokenizer over as it is, so {', '.join(others)} cannot be given with it.")
        return
    num_fixed = 2 + len(CONTROL_SYMBOLS) + len(USER_DEFINED_SYMBOLS)
    wanted = {
        "input": (bool(options.input), "at least one file, folder, glob, URL or hf:NAME (or give --from_hf)"),
        "vocab_size": (options.vocab_size > num_fixed, f"more than {num_fixed} (special tokens and fixed symbols)"),
        "text_field": (bool(options.text_field), "the name of a field"),
        "on_error": (options.on_error in ("fail", "skip"), "fail or skip"),
        "character_coverage": (0.98 <= options.character_coverage <= 1, "from 0.98 to 1"),
        "input_sentence_size": (options.input_sentence_size > 100, "more than 100 lines"),
        "seed": (0 <= options.seed < 2**32 - 1, f"from 0 to {2**32 - 2}"),
    }
    check_all(options, wanted)
