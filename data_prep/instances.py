"""A data folder's shards in; flat columns for counting and single instances for reading out."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.schema import TOKENIZER_FOLDER, Manifest, shard_schema
from data_prep.words import SPACE
from tokenizer.chain import load_chain
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files
from tokenizer.printable import printable
from tokenizer.special_tokens import MASK_ID


class Columns(NamedTuple):
    """Some rows end to end."""

    ids: np.ndarray
    """Unsigned [pieces], masks applied."""
    row_starts: np.ndarray
    """int64 [rows + 1] into ids."""
    masked: np.ndarray
    """int64 [predictions], ascending indices in ids."""
    labels: np.ndarray
    """Unsigned [predictions], original pieces."""
    label_starts: np.ndarray
    """int64 [rows + 1] into masked and labels."""
    segment_b_starts: np.ndarray
    """[rows], index within the row; 0: no B."""
    order_labels: np.ndarray
    """[rows], 0, 1 or -100."""

    def originals(self) -> np.ndarray:
        """int32 [pieces], the pieces before they were masked."""
        pieces = self.ids.astype(np.int32)
        pieces[self.masked] = self.labels
        return pieces


class Token(NamedTuple):
    text: str
    """The original piece without its `▁`, made printable; a piece to predict that is `▁` alone keeps it."""
    after_space: bool
    """The piece starts with `▁`, or is [SEP], or the first of its segment."""
    segment: str
    """A or B; empty for [CLS] and [SEP]."""
    fate: str
    """mask, random or kept; empty where nothing is to be predicted."""
    shown: str
    """The piece that stands in the row."""


class Instance(NamedTuple):
    split: str
    row: int
    """Row of the split, counted from 0."""
    order_label: int
    tokens: list[Token]


def load_pieces(folder: Path, manifest: Manifest) -> list[str]:
    """id -> piece, from the tokenizer in the data folder.

    Raises:
        UserError: it is missing, or is not the one that the shards were made with.
    """
    path = Path(folder) / TOKENIZER_FOLDER
    pieces = [piece for piece, _ in load_chain(path).pieces]
    if sha256_of_files(path / "tokenizer.json", path / "tokenizer_config.json") != manifest.tokenizer_sha256:
        raise UserError(f"{path}: not the tokenizer that these shards were made with (manifest.json has its hash). Put it back.")
    return pieces


def read_columns(folder: Path, manifest: Manifest, split: str, max_rows: int) -> Iterator[Columns]:
    """The first max_rows rows of a split, a record batch at a time.

    Raises:
        UserError: a shard is damaged, or holds other columns or fewer rows than the manifest says.
    """
    left = min(max_rows, manifest.splits[split].instances)
    for name, num_rows in zip(manifest.splits[split].shards, manifest.splits[split].shard_rows, strict=True):
        for _, batch in read_shard(Path(folder) / name, num_rows, manifest.vocab_size):
            if left == 0:
                return
            batch = batch.slice(0, left)
            left -= batch.num_rows
            yield to_columns(batch, Path(folder) / name, manifest)


def sample_instances(
    folder: Path, manifest: Manifest, split: str, pieces: list[str], num: int, generator: np.random.Generator
) -> list[Instance]:
    """`num` random instances of a split in the order of their rows, or all where there are fewer.

    Raises:
        UserError: as `read_columns`.
    """
    counts = manifest.splits[split]
    chosen = np.sort(generator.choice(counts.instances, min(num, counts.instances), replace=False))
    instances, first_row = [], 0
    for name, num_rows in zip(counts.shards, counts.shard_rows, strict=True):
        rows = chosen[(chosen >= first_row) & (chosen < first_row + num_rows)] - first_row
        if len(rows):
            for begin, batch in read_shard(Path(folder) / name, num_rows, manifest.vocab_size):
                for row in rows[(rows >= begin) & (rows < begin + batch.num_rows)]:
                    columns = to_columns(batch.slice(row - begin, 1), Path(folder) / name, manifest)
                    instances.append(
                        Instance(split, int(first_row + row), int(columns.order_labels[0]), read_tokens(columns, pieces))
                    )
        first_row += num_rows
    return instances


def read_tokens(columns: Columns, pieces: list[str]) -> list[Token]:
    """The pieces of one row. pieces: id -> piece."""
    border, length = int(columns.segment_b_starts[0]), len(columns.ids)
    targets = set(columns.masked.tolist())
    tokens = []
    for position, (original, there) in enumerate(zip(columns.originals().tolist(), columns.ids.tolist(), strict=True)):
        is_special = position in (0, border - 1, length - 1)
        fate = "" if position not in targets else "mask" if there == MASK_ID else "kept" if there == original else "random"
        tokens.append(
            Token(
                text=printable(pieces[original].removeprefix(SPACE)) or (SPACE if fate else ""),
                after_space=position > 0 and (is_special or position in (1, border) or pieces[original].startswith(SPACE)),
                segment="" if is_special else "B" if 0 < border <= position else "A",
                fate=fate,
                shown=printable(pieces[there].removeprefix(SPACE)) or SPACE,
            )
        )
    return tokens


def read_shard(path: Path, num_rows: int, vocab_size: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, record batch) of an Arrow IPC stream, memory-mapped."""
    row = 0
    try:
        with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
            if not reader.schema.equals(shard_schema(vocab_size)):
                raise UserError(
                    f"{path}: expected the columns\n{shard_schema(vocab_size)}\nbut found\n{reader.schema}\nPrepare again."
                )
            for batch in reader:
                yield row, batch
                row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as an Arrow stream ({error}). Prepare the data again.") from error
    if row != num_rows:
        raise UserError(f"{path}: expected the {num_rows:,} rows of the manifest, but found {row:,}. Prepare the data again.")


def to_columns(batch: pa.RecordBatch, path: Path, manifest: Manifest) -> Columns:
    """The batch as flat arrays, checked: what a flipped bit could turn into an index out of range is a UserError."""
    try:
        batch.validate(full=True)
        (ids, row_starts), (positions, position_starts), (labels, label_starts) = (
            flat(batch.column(name)) for name in ("input_ids", "mlm_positions", "mlm_labels")
        )
        borders = batch.column("segment_b_start").to_numpy()
        lengths, num_targets = np.diff(row_starts), np.diff(position_starts)
        if not (
            np.array_equal(position_starts, label_starts)
            and (borders < lengths).all()
            and (positions < np.repeat(lengths, num_targets)).all()
            and lengths.max(initial=0) <= manifest.max_seq_length
            and max(ids.max(initial=0), labels.max(initial=0)) < manifest.vocab_size
        ):
            raise pa.ArrowInvalid("lengths, positions or pieces out of range")
    except pa.ArrowException as error:
        raise UserError(f"{path}: damaged ({error}). Prepare the data again.") from error
    masked = positions + np.repeat(row_starts[:-1], num_targets)
    return Columns(ids, row_starts, masked, labels, label_starts, borders, batch.column("sentence_order_label").to_numpy())


def flat(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """(values of all rows, int64 [rows + 1] where each row starts)."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.flatten().to_numpy(), offsets - offsets[0]
