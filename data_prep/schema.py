"""The contract between data preparation and training: columns of a shard, and manifest.json beside the shards.

In: a vocabulary size, or a data folder. Out: an Arrow schema, or a checked Manifest. Imports nothing heavy, so every
reader of a data folder can use it.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tokenizer.errors import UserError
from tokenizer.files import check_format_version, write_json

FORMAT_VERSION = 2
"""Version of shards and manifest together. A reader accepts this one and the one before; 2 added shuffling and counts."""

MANIFEST_NAME = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"
"""Folder inside the data folder with a copy of the tokenizer, so that training and export cannot meet another one."""

NO_LABEL = -100
"""`sentence_order_label` of an instance that must not train the order head: the index PyTorch's cross entropy ignores."""

ROWS_PER_BATCH = 1024
"""Rows of every record batch of a shard except the last: row r lies in batch r // 1024 at r % 1024."""


def shard_schema(vocab_size: int) -> pa.Schema:
    """Columns of a shard. Pieces are uint16 up to 65,536 pieces (ids up to 65,535), else uint32.

    input_ids: pieces of `[CLS] A [SEP] B [SEP]` with the masks applied; no padding.
    segment_b_start: index in input_ids of B's first piece; 0 = the instance has one segment, `[CLS] A [SEP]`.
    mlm_positions: ascending indices in input_ids of the pieces to predict.
    mlm_labels: the original pieces at mlm_positions.
    sentence_order_label: 1 swapped, 0 in order, -100 none; under `nsp` 1 = B is from another document.
    """
    piece = piece_type(vocab_size)
    return pa.schema(
        [
            ("input_ids", pa.list_(piece)),
            ("segment_b_start", pa.uint16()),
            ("mlm_positions", pa.list_(pa.uint16())),
            ("mlm_labels", pa.list_(piece)),
            ("sentence_order_label", pa.int8()),
        ]
    )


def piece_type(vocab_size: int) -> pa.DataType:
    """Of the pieces in a shard."""
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What one split holds."""

    documents: int
    """Documents of the corpus."""
    sentences: int
    """Sentences of the corpus, before copies."""
    cut_sentences: int
    """Sentences longer than the budget, which had to be cut; before copies."""
    text_pieces: int
    """Pieces of the corpus, before copies, without [CLS] and [SEP]."""
    unigram_entropy: float
    """Plug-in entropy of the text pieces in nats: the loss of the best guess that looks at no context. Documents that --weights
    repeats or leaves out count accordingly."""
    instances: int
    """Rows of the shards."""
    pieces: int
    """Pieces of all rows, with [CLS] and [SEP]."""
    masked_pieces: int
    """Pieces to predict in all rows."""
    one_sentence_instances: int
    """Rows that hold one sentence, or one part of a cut sentence: too little for an order."""
    in_order_instances: int
    """Rows with order label 0."""
    swapped_instances: int
    """Rows with order label 1. The other rows have none (-100)."""
    unknown_pieces: int = 0
    """Of text_pieces, those that are <unk>."""
    shard_bytes: list[int] = dataclasses.field(default_factory=list)
    """Size of each shard."""
    nearly_empty_instances: int = 0
    """Rows that fill less than a sixteenth of max_seq_length."""
    shards: list[str]
    """File names in the data folder, in row order."""
    shard_rows: list[int]
    """Rows of each shard."""
    shard_sha256: list[str]
    """Hex SHA-256 of each shard."""


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What came from one source, train and validation together, before copies."""

    documents: int
    text_pieces: int
    documents_taken: int = 0
    """Of them, how many copy 0 of the data holds: `--weights` repeats some, and leaves some out."""
    repeats: float = 1.0
    """Times a training document is taken, on average, by --weights."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """manifest.json of a data folder. Everything that shapes the bytes of the shards, and what came of it."""

    format_version: int
    tokenizer_sha256: str
    """Over tokenizer.json and tokenizer_config.json."""
    vocab_size: int
    max_seq_length: int
    """Longest row in pieces, [CLS] and [SEP] included."""
    seed: int
    options: dict[str, object]
    """Every option that shapes the bytes, defaults resolved. No paths: a moved corpus gives the same manifest."""
    num_guarded_words: int
    """Words of the text that looked like a special token and were encoded with their brackets apart."""
    splits: dict[str, SplitCounts]
    """"train", and "validation" unless `validation_fraction` is 0."""
    sources: dict[str, SourceCounts] = dataclasses.field(default_factory=dict)
    """By the label of `--input LABEL=PATH`; "" where there is none."""
    duplicate_documents: int = 0
    """Documents whose whole text is that of an earlier one, after de-duplication where it was asked for."""
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Documents that a quality step left out, by step."""
    changed: dict[str, int] = dataclasses.field(default_factory=dict)
    """Documents that a quality step changed, by step."""
    num_letters: int = 0
    """Letters and marks of the text."""
    num_vanished: int = 0
    """Of num_letters, those that normalisation took away."""
    num_faults: int = 0
    """Inputs, lines and records that could not be read and were left out (`--on_error skip`)."""
    faults: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """The first hundred of them: `location`, `reason`."""
    private: bool = False
    """Nothing that reads this folder shows text of the corpus (`--private`)."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a data folder.

    Raises:
        UserError: it is missing, damaged, of an unknown format version, or names shards that are not there.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise UserError(f"{path}: not found, so {folder} is no data folder. Make one with `albert prepare --output {folder}`.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    manifest = parse_manifest(content, path)
    missing = [name for counts in manifest.splits.values() for name in counts.shards if not (path.parent / name).is_file()]
    if missing or "train" not in manifest.splits:
        raise UserError(
            f"{path}: expected the shards it names, but missing: {', '.join(missing) or 'a train split'}. "
            f"Run `albert prepare --output {folder}` again."
        )
    return manifest


def parse_manifest(content: bytes, path: object) -> Manifest:
    """The manifest in the file's bytes. path: for messages.

    Raises:
        UserError: it is damaged, of another kind of folder, or of an unknown format version.
    """
    again = "Delete it, and run `albert prepare` again."
    try:
        fields = json.loads(content)
        if isinstance(fields, dict) and "splits" not in fields:
            raise UserError(
                f"{path}: names no splits, so it is not the manifest of a data folder, but of a tokenizer or a checkpoint, maybe. "
                "Give a folder that `albert prepare` made."
            )
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the manifest of a data folder, but it cannot be read ({error!r}). {again}") from error
    check_format_version(path, version, FORMAT_VERSION, again)
    try:
        splits = {name: SplitCounts(**counts) for name, counts in fields.pop("splits").items()}
        sources = {name: SourceCounts(**counts) for name, counts in fields.pop("sources", {}).items()}
        return Manifest(**fields, splits=splits, sources=sources)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: the manifest is damaged ({error}). {again}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, the last file of a data folder."""
    write_json(folder / MANIFEST_NAME, dataclasses.asdict(manifest))


def manifest_sha256(folder: Path) -> str:
    """Hex SHA-256 of manifest.json: since it holds the shards' own, it stands for the whole data folder."""
    return hashlib.sha256((Path(folder) / MANIFEST_NAME).read_bytes()).hexdigest()
