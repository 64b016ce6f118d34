"""Unmasked rows in memory, and the intermediate files between the two stages: rows in buckets of the final order.

The final order is that of the keys. A bucket holds the rows whose keys lie in one of `num_buckets` equal intervals, so a part of
the final order can be sorted by itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.compiled import compiled
from data_prep.folder import Folder

SPILL_BYTES = 32_000_000
"""Bytes of pieces of one split that a part keeps in memory before it writes them out by bucket."""

BLOCK_ROWS = 8192
"""Rows that `read_sorted` gives at a time."""


END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""Of an Arrow IPC stream."""


class Rows(NamedTuple):
    """Rows end to end."""

    keys: np.ndarray
    """uint64 [rows]: the place in the final order."""
    ids: np.ndarray
    """uint16 or uint32 [pieces of all rows]: `[CLS] A [SEP] B [SEP]` or `[CLS] A [SEP]`, without masks."""
    row_starts: np.ndarray
    """int64 [rows + 1] into ids."""
    segment_b_starts: np.ndarray
    """uint16 [rows]: index of B's first piece in its row, 0 where there is no B."""
    order_labels: np.ndarray
    """int8 [rows]: 1 swapped, 0 in order, -100 none."""


class Segment(NamedTuple):
    """Where a part's rows of one bucket lie: one Arrow record batch."""

    split: str
    bucket: int
    num_rows: int
    num_pieces: int
    begin: int
    end: int
    """Bytes of the file."""


def take(rows: Rows, order: np.ndarray) -> Rows:
    """The rows of these numbers, in this order. order: int64 [any]."""
    ids, row_starts = gather(rows.ids, rows.row_starts, order)
    return Rows(rows.keys[order], ids, row_starts, rows.segment_b_starts[order], rows.order_labels[order])


@compiled
def gather(ids, row_starts, order):
    """Rows `order` of ids end to end, and their starts (int64)."""
    starts = np.zeros(len(order) + 1, np.int64)
    for place in range(len(order)):
        starts[place + 1] = starts[place] + row_starts[order[place] + 1] - row_starts[order[place]]
    gathered = np.empty(starts[-1], ids.dtype)
    for place in range(len(order)):
        begin = row_starts[order[place]]
        for index in range(starts[place + 1] - starts[place]):
            gathered[starts[place] + index] = ids[begin + index]
    return gathered, starts


def concatenate(parts: list[Rows]) -> Rows:
    """All rows, end to end. At least one part."""
    ends = np.cumsum([0] + [len(part.ids) for part in parts])
    starts = [part.row_starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    keys, ids, _, segment_b_starts, order_labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(keys, ids, np.concatenate([*starts, ends[-1:]]), segment_b_starts, order_labels)


def buckets_of(keys: np.ndarray, num_buckets: int) -> np.ndarray:
    """int64 [rows], in 0 .. num_buckets - 1."""
    return ((keys >> np.uint64(32)) * np.uint64(num_buckets) >> np.uint64(32)).astype(np.int64)


class PartWriter:
    """Writes one part: an Arrow IPC stream with a record batch for each split, spill and bucket; `close` must come last."""

    def __init__(self, path: Path, piece_type: pa.DataType, num_buckets: dict[str, int]):
        self.segments: list[Segment] = []
        self._schema = part_schema(piece_type)
        self._num_buckets = num_buckets
        self._waiting: dict[str, list[Rows]] = {name: [] for name in num_buckets}
        self._file = path.open("wb")
        self._file.write(self._schema.serialize())

    def add(self, split: str, rows: Rows) -> None:
        self._waiting[split].append(rows)
        if sum(part.ids.nbytes for part in self._waiting[split]) >= SPILL_BYTES:
            self._spill(split)

    def close(self) -> None:
        for split in self._waiting:
            self._spill(split)
        self._file.write(END_OF_STREAM)
        self._file.close()

    def _spill(self, split: str) -> None:
        waiting, self._waiting[split] = self._waiting[split], []
        if not any(len(part.keys) for part in waiting):
            return
        rows = concatenate(waiting)
        waiting.clear()
        buckets = buckets_of(rows.keys, self._num_buckets[split])
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets))
        for bucket in np.unique(buckets):
            begin = self._file.tell()
            some = take(rows, order[ends[bucket - 1] if bucket else 0 : ends[bucket]])
            self._file.write(to_record_batch(some, self._schema).serialize())
            self.segments.append(Segment(split, int(bucket), len(some.keys), len(some.ids), begin, self._file.tell()))


def part_schema(piece_type: pa.DataType) -> pa.Schema:
    columns = [("key", pa.uint64()), ("input_ids", pa.list_(piece_type))]
    return pa.schema([*columns, ("segment_b_start", pa.uint16()), ("sentence_order_label", pa.int8())])


def to_record_batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    starts = pa.array(rows.row_starts.astype(np.int32))
    ids = pa.ListArray.from_arrays(starts, pa.array(rows.ids), type=schema.field("input_ids").type)
    others = (rows.segment_b_starts, rows.order_labels)
    return pa.RecordBatch.from_arrays([pa.array(rows.keys), ids, *map(pa.array, others)], schema=schema)


def read_sorted(
    folder: Folder, found: Sequence[tuple[str, Segment]], piece_type: pa.DataType, first: int, last: int
) -> Iterator[Rows]:
    """Rows first .. last - 1 of a bucket in the final order, some at a time.

    found: the bucket's segments in the order of the corpus, each with the name of its file.
    """
    num_rows = sum(segment.num_rows for _, segment in found)
    num_pieces = sum(segment.num_pieces for _, segment in found)
    rows = Rows(
        keys=np.empty(num_rows, np.uint64),
        ids=np.empty(num_pieces, piece_type.to_pandas_dtype()),
        row_starts=np.zeros(num_rows + 1, np.int64),
        segment_b_starts=np.empty(num_rows, np.uint16),
        order_labels=np.empty(num_rows, np.int8),
    )
    schema = part_schema(piece_type)
    row = piece = 0
    for name, segment in found:
        batch = pa.ipc.read_record_batch(folder.read_slice(name, segment.begin, segment.end), schema)
        ids = batch.column(1)
        here = slice(row, row + segment.num_rows)
        rows.keys[here], rows.segment_b_starts[here], rows.order_labels[here] = (batch.column(i).to_numpy() for i in (0, 2, 3))
        rows.ids[piece : piece + segment.num_pieces] = ids.values.to_numpy()
        rows.row_starts[row + 1 : row + 1 + segment.num_rows] = piece + ids.offsets.to_numpy()[1:]
        row, piece = row + segment.num_rows, piece + segment.num_pieces
    order = np.argsort(rows.keys, kind="stable")[first:last]  # the same key twice: in the order of the corpus
    for begin in range(0, len(order), BLOCK_ROWS):
        yield take(rows, order[begin : begin + BLOCK_ROWS])
