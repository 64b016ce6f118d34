"""Options of `albert tokenizer`. No heavy import: the command line is built from this dataclass."""

from dataclasses import dataclass
from pathlib import Path

from tokenizer.errors import UserError
from tokenizer.special_tokens import CONTROL_SYMBOLS, USER_DEFINED_SYMBOLS


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """Train a vocabulary and write a tokenizer folder."""

    input: list[str]
    """The corpus: files (.txt, .jsonl, each also .gz or .zst; .parquet), folders, globs, hf:NAME[:CONFIG[:SPLIT]]."""

    output: Path
    """Folder to write: spiece.model, tokenizer.json, tokenizer_config.json, manifest.json."""

    vocab_size: int = 30000
    """Size of the vocabulary in pieces, special tokens included."""

    lower_case: bool = True
    """Lower-case the text."""

    keep_accents: bool = True
    """Keep accents and other marks. False strips them all, as ALBERT's English models do; in most languages that hurts words."""

    text_field: str = "text"
    """Field (.jsonl) or column (.parquet, hf:) that holds the text."""

    character_coverage: float = 0.99995
    """Fraction of the text's characters that get a piece of their own, 0.98 to 1; the rarest others become <unk>."""

    input_sentence_size: int = 10_000_000
    """Lines that training draws from the corpus at random; they are held in memory. More than 100."""

    seed: int = 0
    """Seed of that draw, from 0; without effect on a corpus of fewer lines."""


def check_options(options: TokenizerOptions) -> None:
    """Raise one UserError that lists every value out of its range."""
    problems = []
    num_fixed = 2 + len(CONTROL_SYMBOLS) + len(USER_DEFINED_SYMBOLS)
    if not options.input:
        problems.append("input: expected at least one file, folder, glob or hf: name, none given")
    if options.vocab_size <= num_fixed:
        problems.append(f"vocab_size: expected more than {num_fixed} (special tokens and fixed symbols), got {options.vocab_size}")
    if not options.text_field:
        problems.append("text_field: expected the name of a field, got an empty string")
    if not 0.98 <= options.character_coverage <= 1:
        problems.append(f"character_coverage: expected 0.98 to 1, got {options.character_coverage}")
    if options.input_sentence_size <= 100:
        problems.append(f"input_sentence_size: expected more than 100 lines, got {options.input_sentence_size}")
    if not 0 <= options.seed < 2**32 - 1:
        problems.append(f"seed: expected 0 to {2**32 - 2}, got {options.seed}")
    if problems:
        raise UserError("albert tokenizer: these options cannot be used:\n" + "\n".join(f"  --{problem}" for problem in problems))
