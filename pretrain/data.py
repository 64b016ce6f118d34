"""Prepared shards in, micro-batches out: memory-mapped, opened as they are needed, laid end to end without padding.

Which row a sample is, is a function of the seed and of the samples seen alone (pretrain/sample_order.py): no state to save, no file
to read through on resume, the same for any number of ranks.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from data_prep.schema import ROWS_PER_BATCH, Manifest, SplitCounts
from pretrain.model import MicroBatch
from tokenizer.errors import UserError


class Instance(NamedTuple):
    """One row of the data (data_prep/schema.py), as read-only views; without compression, of the file itself."""

    input_ids: np.ndarray
    segment_b_start: int
    sentence_order_label: int
    mlm_positions: np.ndarray
    mlm_labels: np.ndarray


class Column(NamedTuple):
    """One column of a record batch: a value for each row; or, for lists, all values and the offsets (int32) of each row's."""

    values: np.ndarray
    offsets: np.ndarray | None

    def at(self, place: int) -> Any:
        return self.values[place] if self.offsets is None else self.values[self.offsets[place] : self.offsets[place + 1]]


class Split:
    """Rows of one split; `len()` is the number of instances.

    Record batches of `window` shards are kept at hand, so that each is decoded about once an epoch: views of the file, or, where
    it is compressed, about a megabyte each.
    """

    def __init__(self, folder: Path, counts: SplitCounts, window: int):
        self.folder, self.shard_rows = folder, tuple(counts.shard_rows)
        self._paths = [folder / shard for shard in counts.shards]
        self._first_row = np.cumsum((0, *self.shard_rows))
        batches_per_shard = 1 + max(self.shard_rows, default=0) // ROWS_PER_BATCH
        self._open = functools.lru_cache(maxsize=window + 1)(lambda shard: open_shard(self._paths[shard]))
        self._decode = functools.lru_cache(maxsize=window * batches_per_shard)(self._read_batch)

    def __len__(self) -> int:
        return int(self._first_row[-1])

    def read(self, rows: np.ndarray) -> list[Instance]:
        """The instances in these rows (int64)."""
        return [Instance(*(column.at(place) for column in columns)) for columns, place in self._find(rows)]

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Pieces (int64) of the instances in these rows (int64)."""
        offsets = ((columns[0].offsets, place) for columns, place in self._find(rows))
        return np.array([offsets[place + 1] - offsets[place] for offsets, place in offsets], dtype=np.int64)

    def _find(self, rows: np.ndarray) -> Iterator[tuple[tuple[Column, ...], int]]:
        """Columns of the record batch that holds each row, and the row's place in it."""
        shards = np.searchsorted(self._first_row, rows, side="right") - 1
        batches, places = np.divmod(rows - self._first_row[shards], ROWS_PER_BATCH)
        for shard, batch, place in zip(shards.tolist(), batches.tolist(), places.tolist(), strict=True):
            yield self._decode(shard, batch), place

    def _read_batch(self, shard: int, batch: int) -> tuple[Column, ...]:
        schema, messages = self._open(shard)
        try:
            table = pa.ipc.read_record_batch(messages[batch], schema)
        except (OSError, pa.ArrowException, IndexError) as error:
            raise unreadable(self._paths[shard], error) from error
        return tuple(view(table.column(name)) for name in Instance._fields)


def view(column: pa.Array) -> Column:
    """Zero-copy."""
    if pa.types.is_list(column.type):
        return Column(column.values.to_numpy(), column.offsets.to_numpy())
    return Column(column.to_numpy(), None)


def open_split(folder: Path, manifest: Manifest, split: str, *, window: int = 8) -> Split:
    """The split `train` or `validation` of a data folder. window: shards that are read from at a time (`data.shuffle_window`).

    Raises:
        UserError: a shard is missing, of another size than the manifest says, or damaged.
    """
    counts = manifest.splits[split]
    for number, (shard, num_rows) in enumerate(zip(counts.shards, counts.shard_rows, strict=True)):
        path = folder / shard
        if counts.shard_bytes and path.is_file() and path.stat().st_size == counts.shard_bytes[number]:
            continue
        _, messages = open_shard(path)
        if len(messages) != -(-num_rows // ROWS_PER_BATCH) or counts.shard_bytes:
            raise unreadable(path, f"expected {num_rows} rows, as the manifest says")
    return Split(folder, counts, window)


def open_shard(path: Path) -> tuple[pa.Schema, list[pa.ipc.Message]]:
    """Schema and record batches of a memory-mapped Arrow IPC stream; nothing is decoded yet.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    try:
        schema, *messages = pa.ipc.MessageReader.open_stream(pa.memory_map(str(path)))
        return pa.ipc.read_schema(schema), messages
    except (OSError, pa.ArrowException, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: object) -> UserError:
    return UserError(f"{path}: cannot be read as an Arrow stream ({error}). Prepare the data again.")


def evenly_spaced(num_rows: int, max_instances: int) -> np.ndarray:
    """Rows (int64), ascending, that held-out figures are taken from: all, or `max_instances` of them."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, max_instances)).astype(np.int64))


def micro_batches(split: Split, rows: np.ndarray, micro_batch_size: int) -> Iterator[MicroBatch]:
    """The rows in order, at most `micro_batch_size` at a time."""
    for start in range(0, len(rows), micro_batch_size):
        yield collate(split.read(rows[start : start + micro_batch_size]))


def collate(instances: list[Instance], dropout_keys_B: torch.Tensor | None = None) -> MicroBatch:
    """Lay instances end to end."""
    ids, borders, labels, positions, masked = zip(*instances, strict=True)
    lengths, counts = (np.fromiter(map(len, arrays), np.int64) for arrays in (ids, positions))
    starts = np.concatenate(([0], lengths.cumsum()))
    position_ids = np.arange(starts[-1]) - starts[:-1].repeat(lengths)
    borders = np.array(borders, dtype=np.int64)
    segments = position_ids >= np.where(borders > 0, borders, lengths).repeat(lengths)  # border 0: a single segment
    read_positions = np.insert(np.concatenate(positions).astype(np.int64), counts.cumsum() - counts, 0)  # the first piece of each
    read_starts = np.concatenate(([0], (counts + 1).cumsum()))
    return MicroBatch(
        input_ids_N=torch.from_numpy(np.concatenate(ids).astype(np.int64)),
        segment_ids_N=torch.from_numpy(segments.astype(np.int64)),
        position_ids_N=torch.from_numpy(position_ids),
        lengths=tuple(lengths.tolist()),
        starts_B1=torch.from_numpy(starts.astype(np.int32)),
        read_index_R=torch.from_numpy(read_positions + starts[:-1].repeat(counts + 1)),
        read_lengths=tuple((counts + 1).tolist()),
        read_starts_B1=torch.from_numpy(read_starts.astype(np.int32)),
        mlm_index_M=torch.from_numpy(np.delete(np.arange(read_starts[-1]), read_starts[:-1])),
        mlm_labels_M=torch.from_numpy(np.concatenate(masked).astype(np.int64)),
        sop_labels_B=torch.from_numpy(np.array(labels, dtype=np.int64)),
        dropout_keys_B=dropout_keys_B,
    )
