"""Corpus in, tokenizer folder out: SentencePiece learns the vocabulary on text that the exported chain has normalised.

Settings: google-research/albert README, section SentencePiece. Memory is bounded by `input_sentence_size` lines, and
stated and compared with what there is before the training starts.
"""

import io
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version

from tokenizer.chain import FILE_NAMES, FORMAT_VERSION, Recipe, build_normalizer, parse_model, write_chain
from tokenizer.charsmap import charsmap
from tokenizer.corpus import Faults, read_all, resolve_inputs
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder, write_json
from tokenizer.imported import FILES, import_tokenizer
from tokenizer.input_records import file_stamps, record_inputs
from tokenizer.memory import check_memory, training_memory
from tokenizer.options import TokenizerOptions, check_options
from tokenizer.printable import printable
from tokenizer.privacy import words_withheld
from tokenizer.provenance import close_session, new_record, open_session, record_outputs, write_record
from tokenizer.sample import MAX_LINE_BYTES, draw_sample
from tokenizer.signals import handled
from tokenizer.special_tokens import CONTROL_SYMBOLS, PAD_ID, UNK_ID, USER_DEFINED_SYMBOLS

NUM_THREADS = 16
"""SentencePiece's default; fixed, because the number of threads decides the order of additions and so the bytes of the model."""


def train_tokenizer(options: TokenizerOptions) -> dict:
    """Train, write the folder `options.output`, print ten lines before and after; return the content of manifest.json.

    With `private` no line is printed. With `from_hf` nothing is trained (tokenizer/imported.py).

    The same corpus and options give the same bytes, wherever the corpus and the output lie.

    Raises:
        UserError: options out of range, an output that is taken, a corpus that cannot be read, more lines than memory holds, a
            vocabulary size that does not fit the text, or marks to be stripped from a script that needs them. Nothing is left under
            the final name.
    """
    with words_withheld(options.private):
        return _train(options)


def _train(options: TokenizerOptions) -> dict:
    check_options(options)
    if options.from_hf is not None:
        return import_tokenizer(options.from_hf, options.output)
    check_output_folder(options.output, "manifest.json", "tokenizer", FILES)
    session = open_session()
    faults = Faults(options.on_error, private=options.private)
    inputs = resolve_inputs(options.input, faults=faults)
    stamps = file_stamps(inputs)
    documents = read_all(inputs, text_field=options.text_field, faults=faults)
    print("Reading the corpus ...", flush=True)
    sample = draw_sample(
        documents,
        build_normalizer(options.lower_case, options.keep_accents, charsmap()),
        keep_accents=options.keep_accents,
        sample_size=options.input_sentence_size,
        seed=options.seed,
    )
    print("Hashing the corpus ...", flush=True)  # before the training, after which the files may be others
    recorded_inputs = record_inputs(inputs, stamps)
    needed = training_memory(sample.lines)
    memory = check_memory(needed, len(sample.lines), options.input_sentence_size)
    print(f"Training {options.vocab_size:,} pieces on {len(sample.lines):,} lines {memory} ...", flush=True)
    spiece_model = _train_sentencepiece(sample.lines, options)
    with replace_folder(options.output) as folder:
        (folder / "spiece.model").write_bytes(spiece_model)
        write_chain(folder, Recipe(*parse_model(spiece_model), options.lower_case, options.keep_accents))
        encoder = Encoder(folder)
        counts = sample.character_counts
        shaping = {name: value for name, value in asdict(options).items() if name not in ("input", "output", "private", "from_hf")}
        manifest = {
            "format_version": FORMAT_VERSION,
            "tokenizer_sha256": encoder.sha256,
            "vocab_size": encoder.vocab_size,
            "private": options.private,
            "options": shaping,
            "num_documents": sample.num_documents,
            "num_lines": sample.num_lines,
            "num_characters": counts.total(),
            # No piece of their own: they become <unk>, unless a longer piece covers them.
            "num_unknown_characters": sum(counts[character] for character in counts.keys() - encoder.pieces),
            "num_faults": faults.num,
            "faults": faults.listed,
            "versions": {name: version(name) for name in ("sentencepiece", "tokenizers")},
        }
        write_json(folder / "manifest.json", manifest)
        record = new_record("tokenizer", options.output.absolute(), session, options=shaping, inputs=recorded_inputs)
        close_session(record, 0, record_outputs(folder, FILE_NAMES))
        write_record(folder, record)
    if not options.private:
        _show(sample.shown, encoder)
    if faults.num:
        first = printable(f"{faults.listed[0]['location']}: {faults.listed[0]['reason']}")
        print(f"Faults of the input that were left out: {faults.num:,} (manifest.json lists them). The first: {first}")
    print(
        f"{options.output}: {encoder.vocab_size:,} pieces from {sample.num_documents:,} documents, {sample.num_lines:,} lines, "
        f"{manifest['num_characters']:,} characters ({manifest['num_unknown_characters']:,} of them unknown to the vocabulary)."
    )
    return manifest


def _train_sentencepiece(lines: list[bytes], options: TokenizerOptions) -> bytes:
    """The model's bytes, with the chain's table of normalisation; empties `lines` as SentencePiece copies them."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    lines.reverse()
    try:
        with ended_by_signals():
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_drain(lines),
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
                normalization_rule_name="identity",  # the lines are normalised already
                num_threads=NUM_THREADS,
                minloglevel=3,
            )
    except RuntimeError as error:
        if explained := _explain(str(error), options):
            raise explained from error
        raise
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    proto.normalizer_spec.name, proto.normalizer_spec.precompiled_charsmap = "user_defined", charsmap()
    return proto.SerializeToString()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SentencePiece does not come back to Python before it is done. Nothing is written yet, so signals may end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled((signal.SIGINT, signal.SIGTERM), signal.SIG_DFL):
        yield


def _drain(lines: list[bytes]) -> Iterator[bytes]:
    while lines:
        yield lines.pop()


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
    """Print raw lines and their pieces, as far as they can be shown."""
    print(f"{len(lines)} lines of the corpus, before and after:")
    for line in lines:
        shown = " ".join(line.split())[:160]
        pieces = " ".join(encoder.pieces[number] for number in encoder.encode([shown])[0])
        print(f"  {printable(shown)}\n  {printable(pieces)}\n")
