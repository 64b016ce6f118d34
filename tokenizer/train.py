"""Corpus in, tokenizer folder out: SentencePiece learns the vocabulary on text that the exported chain has normalised.

Settings: google-research/albert README, section SentencePiece. In memory are `input_sentence_size` lines at most.
"""

import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version

from tokenizers.normalizers import Normalizer

from tokenizer.accents import LARGEST_SHARE, endangered_share
from tokenizer.chain import FORMAT_VERSION, build_normalizer, nmt_nfkc_charsmap, write_chain
from tokenizer.corpus import Document, read_documents
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder, write_json
from tokenizer.options import TokenizerOptions, check_options
from tokenizer.special_tokens import CONTROL_SYMBOLS, PAD_ID, UNK_ID, USER_DEFINED_SYMBOLS

MAX_LINE_BYTES = 4192
"""SentencePiece passes over longer lines without a word (its max_sentence_length), so they are cut."""

NUM_THREADS = 16
"""SentencePiece's default; fixed, because the number of threads decides the order of additions and so the bytes of the model."""

NUM_SHOWN_LINES = 10

_NOT_FOR_TRAINING = str.maketrans("\0\u2585", "  ")
"""SentencePiece passes over a whole line that holds one of these (the second is its sign for unknown)."""


def train_tokenizer(options: TokenizerOptions) -> dict:
    """Train, write the folder `options.output`, print ten lines before and after; return the content of manifest.json.

    The same corpus and options give the same bytes, wherever the corpus and the output lie.

    Raises:
        UserError: options out of range, an output that is taken, a corpus that cannot be read, a vocabulary size that does not fit
            the text, or marks to be stripped from a script that needs them. Nothing is left under the final name.
    """
    check_options(options)
    check_output_folder(options.output, marker="manifest.json", what="tokenizer")
    documents = read_documents(options.input, text_field=options.text_field)
    charsmap = nmt_nfkc_charsmap()
    lines = TrainingLines(
        documents, build_normalizer(options.lower_case, options.keep_accents, charsmap), options.keep_accents, options.seed
    )
    print(f"Training a vocabulary of {options.vocab_size:,} pieces ...", flush=True)
    spiece_model = _train_sentencepiece(lines, options)
    with replace_folder(options.output) as folder:
        write_chain(folder, spiece_model, options.lower_case, options.keep_accents)
        encoder = Encoder.load(folder)
        manifest = {
            "format_version": FORMAT_VERSION,
            "tokenizer_sha256": encoder.sha256,
            "vocab_size": encoder.vocab_size,
            "options": {name: value for name, value in asdict(options).items() if name not in ("input", "output")},
            "num_documents": lines.num_documents,
            "num_lines": lines.num_lines,
            "num_characters": lines.character_counts.total(),
            "num_unknown_characters": lines.num_characters_outside(encoder.pieces),
            "versions": {name: version(name) for name in ("sentencepiece", "tokenizers")},
        }
        write_json(folder / "manifest.json", manifest)
    _show(lines.shown, encoder)
    print(
        f"{options.output}: {encoder.vocab_size:,} pieces from {lines.num_documents:,} documents, {lines.num_lines:,} lines, "
        f"{manifest['num_characters']:,} characters ({manifest['num_unknown_characters']:,} of them unknown to the vocabulary)."
    )
    return manifest


class TrainingLines:
    """Iterates once over the corpus as lines for SentencePiece, and keeps the counts; an exception of the reader stays in `error`.

    SentencePiece turns exceptions of its iterator into text, so the caller asks for `error` afterwards.
    """

    def __init__(self, documents: Iterable[Document], normalizer: Normalizer, keep_accents: bool, seed: int) -> None:
        self.num_documents = 0
        self.num_lines = 0
        """Lines of text in the corpus, before long ones are cut."""
        self.character_counts: Counter[str] = Counter()
        """Characters after normalisation, without white space."""
        self.shown: list[str] = []
        """Raw lines drawn from the whole corpus."""
        self.error: BaseException | None = None
        self._documents = documents
        self._normalizer = normalizer
        self._raw_counts: Counter[str] | None = None if keep_accents else Counter()
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[str]:
        try:
            for document in self._documents:
                self.num_documents += 1
                for line in document.text.split("\n"):
                    yield from self._prepare(line)
            self._refuse_destructive_stripping()
        except BaseException as error:
            self.error = error
            raise

    def num_characters_outside(self, pieces: list[str]) -> int:
        """How many characters of the corpus no piece stands for alone: those are encoded as <unk>."""
        known = {piece for piece in pieces if len(piece) == 1}
        return sum(count for character, count in self.character_counts.items() if character not in known)

    def _prepare(self, line: str) -> Iterator[str]:
        normalised = self._normalizer.normalize_str(line).translate(_NOT_FOR_TRAINING)
        words = normalised.split()
        if not words:
            return
        self.num_lines += 1
        if self._raw_counts is not None:
            self._raw_counts.update(line)
        if len(self.shown) < NUM_SHOWN_LINES:
            self.shown.append(line)
        elif (place := self._random.randrange(self.num_lines)) < NUM_SHOWN_LINES:  # reservoir sampling
            self.shown[place] = line
        text = " ".join(words)
        self.character_counts.update("".join(words))
        yield from cut_line(text)

    def _refuse_destructive_stripping(self) -> None:
        if self._raw_counts is None:
            return
        share, scripts = endangered_share(self._raw_counts)
        if share > LARGEST_SHARE:
            raise UserError(
                f"--keep_accents false: {share:.1%} of the letters are {', '.join(scripts[:5])}, where marks carry meaning and "
                f"stripping them destroys words (at most {LARGEST_SHARE:.0%} is let through). Use --keep_accents true."
            )


def cut_line(line: str, max_bytes: int = MAX_LINE_BYTES) -> Iterator[str]:
    """The line in parts of at most `max_bytes` UTF-8 bytes, cut at spaces where there are any, else between characters."""
    if 4 * len(line) <= max_bytes:
        yield line
        return
    raw = line.encode("utf-8")
    start = 0
    while len(raw) - start > max_bytes:
        end = raw.rfind(b" ", start + 1, start + max_bytes + 1)
        if end < 0:
            end = start + max_bytes
            while raw[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
        yield raw[start:end].decode("utf-8")
        start = end + (raw[end] == 0x20)
    if start < len(raw):
        yield raw[start:].decode("utf-8")


def _train_sentencepiece(lines: TrainingLines, options: TokenizerOptions) -> bytes:
    import sentencepiece

    sentencepiece.set_random_generator_seed(options.seed)  # otherwise each run draws other lines
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=options.vocab_size,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            eos_id=-1,
            control_symbols=CONTROL_SYMBOLS,
            user_defined_symbols=USER_DEFINED_SYMBOLS,
            character_coverage=options.character_coverage,
            input_sentence_size=options.input_sentence_size,
            shuffle_input_sentence=True,
            max_sentence_length=MAX_LINE_BYTES,
            normalization_rule_name="nmt_nfkc",
            num_threads=NUM_THREADS,
            minloglevel=3,
        )
    except RuntimeError as error:
        if lines.error is not None:
            raise lines.error from None
        raise _explain(str(error), options) or error from error
    return model.getvalue()


def _explain(message: str, options: TokenizerOptions) -> UserError | None:
    """What a message of SentencePiece means for the user, where it is theirs to mend."""
    if largest := re.search(r"Vocabulary size too high.*value <= (\d+)", message):
        return UserError(
            f"--vocab_size {options.vocab_size}: too large for this text, which yields {largest[1]} pieces at most. "
            f"Use --vocab_size {largest[1]} or less, or more text."
        )
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UserError(
            f"--vocab_size {options.vocab_size}: too small, the characters of this text alone need {smallest[1]} pieces. "
            f"Use a larger --vocab_size, or a lower --character_coverage (now {options.character_coverage})."
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return UserError(f"--input {' '.join(options.input)}: no text is left after normalisation. Check the corpus.")
    if "too large" in message:
        return UserError(
            f"--input_sentence_size {options.input_sentence_size}: too much text for SentencePiece ({message}). Use fewer lines."
        )
    return None


def _show(lines: list[str], encoder: Encoder) -> None:
    """Print raw lines and their pieces."""
    print(f"{len(lines)} lines of the corpus, before and after:")
    for line in lines:
        shown = " ".join(line.split())[:160]
        print(f"  {shown}\n  {' '.join(encoder.pieces[number] for number in encoder.encode([shown])[0])}\n")
