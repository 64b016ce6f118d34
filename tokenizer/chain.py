"""The chain from text to ids (normalizer, pre-tokenizer, Unigram model, post-processor), and its three files.

It is exactly the chain that transformers' AlbertTokenizer builds for itself, because its `from_pretrained` rebuilds the chain from
the vocabulary, the charsmap and do_lower_case/keep_accents, and drops whatever else tokenizer.json holds. Only this one survives.
Source: transformers 5.23, models/albert/tokenization_albert.py; scores: AlbertConverter in convert_slow_tokenizer.py.
"""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

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

_HINT = "Give a folder made by `albert tokenizer`, which with --from_hf takes over that of a Hugging Face ALBERT."

Pieces = list[tuple[str, float]]
"""(piece, log probability); the position is the id."""


class Recipe(NamedTuple):
    """What a chain is built from, and all that decides its ids."""

    pieces: Pieces
    charsmap: bytes
    lower_case: bool
    keep_accents: bool


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


def build_chain(recipe: Recipe) -> Tokenizer:
    """The whole chain. Ids 0-4 are the special tokens."""
    chain = _build_core(recipe)
    chain.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    cls, sep = special_tokens.CLS_TOKEN, special_tokens.SEP_TOKEN
    chain.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, special_tokens.CLS_ID), (sep, special_tokens.SEP_ID)],
    )
    chain.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_IDS])
    return chain


def build_guarded_chain(recipe: Recipe) -> Tokenizer:
    """The same chain for text that spells special tokens: no string whatsoever gives it a forbidden id.

    Their pieces get names with a space inside, and words reach the model without white space.
    """
    renamed = [
        (f" {piece}" if number in special_tokens.FORBIDDEN_TEXT_IDS else piece, score)
        for number, (piece, score) in enumerate(recipe.pieces)
    ]
    return _build_core(recipe._replace(pieces=renamed))


def _build_core(recipe: Recipe) -> Tokenizer:
    core = Tokenizer(Unigram(recipe.pieces, unk_id=special_tokens.UNK_ID, byte_fallback=False))
    core.normalizer = build_normalizer(recipe.lower_case, recipe.keep_accents, recipe.charsmap)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    return core


def write_chain(folder: Path, recipe: Recipe) -> None:
    """Write tokenizer.json and tokenizer_config.json; never ship spiece.model without them."""
    write_text(folder / "tokenizer.json", build_chain(recipe).to_str(pretty=True))
    config = {
        "tokenizer_class": "AlbertTokenizer",  # AutoTokenizer of transformers 4 refuses TokenizersBackend
        "do_lower_case": recipe.lower_case,
        "keep_accents": recipe.keep_accents,
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


def load_chain(folder: Path) -> Recipe:
    """From tokenizer.json and tokenizer_config.json, as `from_pretrained` takes them.

    Raises:
        UserError: a file is missing or unreadable, or this is not an ALBERT vocabulary with the special tokens at ids 0-4.
    """
    content, config = _read_json(folder, "tokenizer.json"), _read_json(folder, "tokenizer_config.json")
    kind = config.get("tokenizer_class", "AlbertTokenizer")
    if kind not in ("AlbertTokenizer", "AlbertTokenizerFast"):
        raise UserError(f"{folder}: expected an ALBERT tokenizer, found {kind}. {_HINT}")
    if (folder / "manifest.json").exists():  # a downloaded ALBERT has none
        version = _read_json(folder, "manifest.json").get("format_version")
        check_format_version(folder / "manifest.json", version, FORMAT_VERSION, "make the folder again with `albert tokenizer`.")
    pieces, charsmap = parse_vocabulary(content, folder / "tokenizer.json")
    return Recipe(pieces, charsmap, config.get("do_lower_case", True), config.get("keep_accents", False))


def parse_vocabulary(content: dict[str, Any], path: Path) -> tuple[Pieces, bytes]:
    """(pieces, charsmap) of a tokenizer.json. path: for messages. Raises as `load_chain`."""
    model = content.get("model") or {}
    if model.get("type") != "Unigram":
        raise UserError(
            f"{path}: expected an ALBERT tokenizer (Unigram), found {model.get('type')}. Train a vocabulary on your own text: "
            "`albert tokenizer --input CORPUS`."
        )
    try:
        pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its vocabulary is not a list of (piece, score). {_HINT}") from error
    for token, number in SPECIAL_IDS.items():
        there = pieces[number][0] if number < len(pieces) else "nothing"
        if there != token:
            raise UserError(f"{path}: expected {token} at id {number}, found {there}. {_HINT}")
    normalizer = content.get("normalizer") or {}
    charsmaps = [
        base64.b64decode(step["precompiled_charsmap"])
        for step in normalizer.get("normalizers", [normalizer])
        if step.get("type") == "Precompiled"
    ]
    if not charsmaps:
        raise UserError(f"{path}: no `Precompiled` normalizer in it. {_HINT}")
    return pieces, charsmaps[0]


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
