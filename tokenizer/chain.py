"""The chain from text to ids (normalizer, pre-tokenizer, Unigram model, post-processor), and its three files.

It is exactly the chain that transformers' AlbertTokenizer builds for itself, because its `from_pretrained` rebuilds the chain from
the vocabulary, the charsmap and do_lower_case/keep_accents, and drops whatever else tokenizer.json holds. Only this one survives.
Source: transformers 5.23, models/albert/tokenization_albert.py; scores: AlbertConverter in convert_slow_tokenizer.py.
"""

import base64
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from tokenizer import special_tokens
from tokenizer.errors import UserError
from tokenizer.files import check_format_version, write_json, write_text

FILE_NAMES = ("spiece.model", "tokenizer.json", "tokenizer_config.json", "manifest.json")
"""All that a tokenizer folder holds."""

FORMAT_VERSION = 1
"""Of the tokenizer folder, in its manifest.json. A reader accepts this one and the one before."""

MODEL_MAX_LENGTH = 512
"""Pieces; the number of positions of every ALBERT."""

DIGIT_COMMA_PENALTY = 100
"""Taken off the score of pieces such as `7,`, so that text never yields them."""

SPECIAL_IDS = {
    special_tokens.PAD_TOKEN: special_tokens.PAD_ID,
    special_tokens.UNK_TOKEN: special_tokens.UNK_ID,
    special_tokens.CLS_TOKEN: special_tokens.CLS_ID,
    special_tokens.SEP_TOKEN: special_tokens.SEP_ID,
    special_tokens.MASK_TOKEN: special_tokens.MASK_ID,
}

_HINT = "Give a folder made by `albert tokenizer`."

Pieces = list[tuple[str, float]]
"""(piece, log probability); the position is the id."""


def parse_model(spiece_model: bytes) -> tuple[Pieces, bytes]:
    """(pieces with the scores of the chain, precompiled charsmap) of a SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(spiece_model)
    pieces = []
    for entry in proto.pieces:
        is_digit_comma = entry.piece[-1:] == "," and entry.piece[-2:-1].isdigit()
        pieces.append((entry.piece, entry.score - DIGIT_COMMA_PENALTY * is_digit_comma))
    return pieces, proto.normalizer_spec.precompiled_charsmap


def build_normalizer(lower_case: bool, keep_accents: bool, charsmap: bytes) -> normalizers.Normalizer:
    """What happens to text before it is cut into words."""
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if lower_case:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence([*steps, normalizers.Precompiled(charsmap)])


def build_chain(pieces: Pieces, lower_case: bool, keep_accents: bool, charsmap: bytes) -> Tokenizer:
    """The whole chain. Ids 0-4 of `pieces` are the special tokens."""
    chain = _build_core(pieces, lower_case, keep_accents, charsmap)
    chain.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    cls, sep = special_tokens.CLS_TOKEN, special_tokens.SEP_TOKEN
    chain.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, special_tokens.CLS_ID), (sep, special_tokens.SEP_ID)],
    )
    chain.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_IDS])
    return chain


def build_guarded_chain(pieces: Pieces, lower_case: bool, keep_accents: bool, charsmap: bytes) -> Tokenizer:
    """The same chain for text that spells special tokens: no string whatsoever gives it a forbidden id.

    Their pieces get names with a space inside, and words reach the model without white space.
    """
    renamed = [
        (f" {piece}" if number in special_tokens.FORBIDDEN_TEXT_IDS else piece, score)
        for number, (piece, score) in enumerate(pieces)
    ]
    return _build_core(renamed, lower_case, keep_accents, charsmap)


def _build_core(pieces: Pieces, lower_case: bool, keep_accents: bool, charsmap: bytes) -> Tokenizer:
    core = Tokenizer(Unigram(pieces, unk_id=special_tokens.UNK_ID, byte_fallback=False))
    core.normalizer = build_normalizer(lower_case, keep_accents, charsmap)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    return core


def write_chain(folder: Path, spiece_model: bytes, lower_case: bool, keep_accents: bool) -> None:
    """Write spiece.model, tokenizer.json and tokenizer_config.json; never ship the first without the other two."""
    pieces, charsmap = parse_model(spiece_model)
    chain = build_chain(pieces, lower_case, keep_accents, charsmap)
    (folder / "spiece.model").write_bytes(spiece_model)
    write_text(folder / "tokenizer.json", chain.to_str(pretty=True))
    config = {
        "tokenizer_class": "AlbertTokenizer",  # AutoTokenizer of transformers 4 refuses TokenizersBackend
        "do_lower_case": lower_case,
        "keep_accents": keep_accents,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],  # transformers 5 leaves out token_type_ids
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": special_tokens.PAD_TOKEN,
        "unk_token": special_tokens.UNK_TOKEN,
        "cls_token": special_tokens.CLS_TOKEN,
        "sep_token": special_tokens.SEP_TOKEN,
        "mask_token": special_tokens.MASK_TOKEN,
        "bos_token": special_tokens.CLS_TOKEN,
        "eos_token": special_tokens.SEP_TOKEN,
    }
    write_json(folder / "tokenizer_config.json", config)


def load_chain(folder: Path) -> tuple[Pieces, bool, bool, bytes]:
    """(pieces, lower_case, keep_accents, charsmap) from tokenizer.json and tokenizer_config.json, as `from_pretrained` takes them.

    Raises:
        UserError: a file is missing or unreadable, or this is not an ALBERT vocabulary with the special tokens at ids 0-4.
    """
    content, config = _read_json(folder, "tokenizer.json"), _read_json(folder, "tokenizer_config.json")
    model = content.get("model") or {}
    kind = config.get("tokenizer_class", "AlbertTokenizer")
    if model.get("type") != "Unigram" or kind not in ("AlbertTokenizer", "AlbertTokenizerFast"):
        raise UserError(f"{folder}: expected an ALBERT tokenizer (Unigram), found {kind} ({model.get('type')}). {_HINT}")
    if (folder / "manifest.json").exists():  # a downloaded ALBERT has none
        version = _read_json(folder, "manifest.json").get("format_version")
        check_format_version(folder / "manifest.json", version, FORMAT_VERSION, "make the folder again with `albert tokenizer`.")
    try:
        pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'tokenizer.json'}: its vocabulary is not a list of (piece, score). {_HINT}") from error
    for token, number in SPECIAL_IDS.items():
        there = pieces[number][0] if number < len(pieces) else "nothing"
        if there != token:
            raise UserError(f"{folder / 'tokenizer.json'}: expected {token} at id {number}, found {there}. {_HINT}")
    normalizer = content.get("normalizer") or {}
    charsmaps = [
        base64.b64decode(step["precompiled_charsmap"])
        for step in normalizer.get("normalizers", [normalizer])
        if step.get("type") == "Precompiled"
    ]
    if not charsmaps:
        raise UserError(f"{folder / 'tokenizer.json'}: no `Precompiled` normalizer in it. {_HINT}")
    return pieces, config.get("do_lower_case", True), config.get("keep_accents", False), charsmaps[0]


def _read_json(folder: Path, name: str) -> dict:
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there, so {folder} is no tokenizer folder. {_HINT}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON, or not to be read ({error}). {_HINT}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object. {_HINT}")
    return content
