"""The tokenizer of a Hugging Face ALBERT in, a tokenizer folder like that of `albert tokenizer` out, or why its ids cannot be kept.

Releases of transformers differ in what they take from such a folder: 4 takes the chain of tokenizer.json as it is, 5 builds its own
from vocabulary, charsmap and two switches (tokenizer/chain.py). So only a chain that both read alike is taken: part by part it must
be the one that is built here.
"""

import json
import random
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tokenizer.chain import FILE_NAMES, FORMAT_VERSION, SPECIAL_IDS, Recipe, build_chain, parse_model, parse_vocabulary, write_chain
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError, first_line
from tokenizer.files import check_output_folder, replace_folder, sha256_of_files, write_json
from tokenizer.privacy import is_private_tokenizer
from tokenizer.provenance import PROVENANCE_NAME, close_session, new_record, open_session, parent, record_outputs, write_record
from tokenizer.special_tokens import FORBIDDEN_TEXT_IDS

FILES = "|".join(map(re.escape, (*FILE_NAMES, PROVENANCE_NAME)))
"""All that a tokenizer folder holds; one of data has a manifest.json, too, and the whole folder is about to be replaced."""
ODD = [
    "",
    "",
    "",
    " ",
    "\u3000",
    "\t",
    "\u00a0",
    "\u0301",
    "\u0323\u0302",
    "``",
    "''",
    "\u200d",
    "ﬁ",
    "7,",
    "①",
    "\u0e33",
    "\u1161",
    "İ",
]
"""What is put between pieces: spaces, marks, joiners, and signs that normalisation turns into others."""
FORMS = (str, str.upper, str.title, lambda piece: piece.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}))
"""How a piece is written: as it is, in capitals, and in full-width letters."""


def import_tokenizer(source: Path, output: Path) -> dict[str, Any]:
    """Write the folder `output`; return the content of its manifest.json.

    Raises:
        UserError: the source is no ALBERT tokenizer, or its chain is another; or the output is taken. Nothing is left then.
    """
    check_output_folder(output, "manifest.json", "tokenizer", FILES)
    session = open_session()
    recipe = read_recipe(source)
    spiece_model = source / "spiece.model"
    if spiece_model.is_file():
        check_spiece_model(spiece_model, recipe)
    options = {"lower_case": recipe.lower_case, "keep_accents": recipe.keep_accents}
    with replace_folder(output) as folder:
        write_chain(folder, recipe)
        if spiece_model.is_file():
            shutil.copyfile(spiece_model, folder / "spiece.model")
        encoder = Encoder(folder)
        num_compared = compare(source, encoder)
        manifest = {
            "format_version": FORMAT_VERSION,
            "tokenizer_sha256": encoder.sha256,
            "vocab_size": encoder.vocab_size,
            "private": is_private_tokenizer(source),
            "options": options,
            "imported_sha256": sha256_of_files(source / "tokenizer.json"),
            "versions": {"tokenizers": version("tokenizers")},
        }
        write_json(folder / "manifest.json", manifest)
        parents = [parent("imported", source, "tokenizer.json")]
        record = new_record("tokenizer", output.absolute(), session, options=options, parents=parents)
        close_session(record, 0, record_outputs(folder, FILE_NAMES))
        write_record(folder, record)
    case, accents = "lower case" if recipe.lower_case else "cased", "kept" if recipe.keep_accents else "stripped"
    print(
        f"{output}: {encoder.vocab_size:,} pieces of {source}, {case}, accents {accents}; {num_compared:,} strings of its pieces "
        "get the same ids from both."
    )
    return manifest


def read_recipe(folder: Path) -> Recipe:
    """What decides the ids, from a folder whose chain is that of `AlbertTokenizer`.

    Raises:
        UserError: tokenizer.json is missing or unreadable, or some part of the chain is another; all are listed.
    """
    path = folder / "tokenizer.json"
    tokenizer = load_file(path)
    content = json.loads(tokenizer.to_str())  # whatever release wrote it, in the words of this one
    steps = steps_of(content)
    kinds = [step["type"] for step in steps]
    recipe = Recipe(*parse_vocabulary(content, path), lower_case="Lowercase" in kinds, keep_accents="StripAccents" not in kinds)
    ours = json.loads(build_chain(recipe).to_str())
    faults = [
        f"its {part} is {shown(theirs)}, and that of AlbertTokenizer {shown(expected)}"
        for part, theirs, expected in (
            ("normalizer", steps, steps_of(ours)),
            *((part, content[part], ours[part]) for part in ("pre_tokenizer", "post_processor")),
            *((f"model's {name}", content["model"].get(name), ours["model"][name]) for name in ("unk_id", "byte_fallback")),
            ("list of added tokens", [token["content"] for token in content["added_tokens"]], list(SPECIAL_IDS)),
        )
        if theirs != expected
    ]
    faults += contradictions(folder, recipe)
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise UserError(
            f"{path}: releases of transformers would give this tokenizer other ids than one another, so it cannot be the same "
            f"from corpus to serving:\n{listed}\nTrain a vocabulary with `albert tokenizer`; model.init_from keeps the rows of "
            "the pieces that both have."
        )
    return recipe


def load_file(path: Path) -> Tokenizer:
    """A tokenizer.json as the library reads it.

    Raises:
        UserError: it is missing or no such file.
    """
    if not path.is_file():
        more = ""
        if (path.parent / "spiece.model").is_file():
            more = " spiece.model alone will not do: each release of transformers makes another chain of it."
        elif (path.parent / "vocab.txt").is_file():
            more = " vocab.txt is a WordPiece vocabulary, and only those of SentencePiece (Unigram) are read: train one with "
            more += "`albert tokenizer --input CORPUS`."
        raise UserError(f"{path}: not there, and nothing is downloaded. Give the folder of an ALBERT with its tokenizer.{more}")
    try:
        return Tokenizer.from_file(str(path))
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of a damaged charsmap
            raise
        raise UserError(f"{path}: is no tokenizer that can be read ({first_line(error)}). Fetch or save it again.") from error


def steps_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the normalizer, but for the last step of some releases: white space in runs, which the pre-tokenizer splits anyway."""
    normalizer = content["normalizer"] or {"normalizers": []}
    steps = normalizer.get("normalizers", [normalizer])
    runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    return steps[:-1] if steps and steps[-1] == runs else steps


def shown(part: Any) -> str:
    """JSON, cut where a charsmap or a list is long."""
    return re.sub(r'("[^"]{40})[^"]{60,}"', r'\1..."', json.dumps(part, ensure_ascii=False))[:600]


def contradictions(folder: Path, recipe: Recipe) -> list[str]:
    """Where tokenizer_config.json, which transformers 5 follows, says something else than tokenizer.json, which 4 follows."""
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        says = {"do_lower_case": config.get("do_lower_case", True), "keep_accents": config.get("keep_accents", False)}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a JSON object, or not to be read ({error}). Fetch it again.") from error
    does = {"do_lower_case": recipe.lower_case, "keep_accents": recipe.keep_accents}
    return [
        f"{path.name} says {name}: {json.dumps(value)}{'' if name in config else ' by saying nothing'}, "
        "and the normalizer does the opposite"
        for name, value in says.items()
        if bool(value) != does[name]
    ]


def check_spiece_model(path: Path, recipe: Recipe) -> None:
    """Raise a UserError unless it holds the same pieces in the same order."""
    from google.protobuf.message import DecodeError

    try:
        pieces = [piece for piece, _ in parse_model(path.read_bytes())[0]]
    except DecodeError as error:
        raise UserError(f"{path}: is no SentencePiece model ({error}). Fetch it again, or take it away.") from error
    theirs = [piece for piece, _ in recipe.pieces]
    if pieces != theirs:
        pairs = zip([*pieces, None], [*theirs, None], strict=False)
        number, (piece, other) = next((number, pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
        raise UserError(
            f"{path}: holds other pieces than tokenizer.json (id {number}: {piece!r} and {other!r}), so one of them is of another "
            "model. Put the right ones there."
        )


def compare(source: Path, encoder: Encoder) -> int:
    """How many strings were encoded by both; those that spell special tokens are left out, whose ids differ on purpose.

    Raises:
        UserError: the ids of one differ.
    """
    theirs = load_file(source / "tokenizer.json")
    theirs.no_truncation()
    theirs.no_padding()
    texts = list(odd_texts(encoder.pieces))
    encodings = theirs.encode_batch_fast(texts, add_special_tokens=False)
    num_compared = 0
    for text, expected, found in zip(texts, encodings, encoder.encode(texts), strict=True):
        if set(expected.ids) & set(FORBIDDEN_TEXT_IDS):
            continue
        num_compared += 1
        if expected.ids != found.tolist():
            raise UserError(
                f"{source / 'tokenizer.json'}: gives {expected.ids} for {text!r}, and the chain that would train {found.tolist()}. "
                "It cannot be taken over exactly; train a vocabulary with `albert tokenizer`."
            )
    return num_compared


def odd_texts(pieces: list[str]) -> Iterator[str]:
    """Strings of eight pieces each, as words, written in several ways, with odd signs between; every piece comes twice."""
    source = random.Random(0)
    for _ in range(2):
        shuffled = pieces[:]
        source.shuffle(shuffled)
        for begin in range(0, len(shuffled), 8):
            parts = (source.choice(FORMS)(piece.replace("▁", " ")) + source.choice(ODD) for piece in shuffled[begin : begin + 8])
            yield "".join(parts)
