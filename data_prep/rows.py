"""Unmasked rows in memory, and the intermediate files between the two stages: rows in buckets of the final order.

The final order is that of the keys. A bucket holds the rows whose keys lie in one of `num_buckets` equal intervals, so a part of
the final order can be sorted by itself.
"""

import tempfile
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


INDEX = np.dtype([("begin", "<i8"), ("end", "<i8"), ("rows", "<i8"), ("pieces", "<i8")])
"""Of a part, one record a bucket: where its record batches lie (bytes), and what they hold."""


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


class PartWriter:
    """Writes one part: an Arrow IPC stream, bucket by bucket, and its index; `close` must come last.

    Rows wait in memory, then in a nameless file beside the part, so memory stays bounded however much a task reads.
    """

    def __init__(self, path: Path, piece_type: pa.DataType, num_buckets: dict[str, int]):
        """num_buckets: of each split; they are numbered one split after the other."""
        self._path, self._schema = path, part_schema(piece_type)
        self._first_bucket = dict(zip(num_buckets, np.cumsum([0, *num_buckets.values()]).tolist(), strict=False))
        self._num_buckets = num_buckets
        self._waiting: dict[str, list[Rows]] = {name: [] for name in num_buckets}
        self._spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  (closed in `close`)
        self._spilled: list[np.ndarray] = [np.empty((0, 5), np.int64)]
        """Each int64 [record batches, 5]: bucket, begin and end in the spool, rows, pieces."""

    def add(self, split: str, rows: Rows) -> None:
        self._waiting[split].append(rows)
        if sum(part.ids.nbytes for part in self._waiting[split]) >= SPILL_BYTES:
            self._spill(split)

    def close(self) -> np.ndarray:
        """Write the file; returns INDEX [all buckets]."""
        for split in self._waiting:
            self._spill(split)
        index = np.zeros(sum(self._num_buckets.values()), INDEX)
        spilled = np.concatenate(self._spilled)
        with self._spool, self._path.open("wb") as file:
            file.write(self._schema.serialize())
            index["begin"] = index["end"] = file.tell()
            for bucket, begin, end, num_rows, num_pieces in spilled[np.argsort(spilled[:, 0], kind="stable")].tolist():
                self._spool.seek(begin)
                if not index["rows"][bucket]:
                    index["begin"][bucket] = file.tell()
                file.write(self._spool.read(end - begin))
                index["end"][bucket] = file.tell()
                index["rows"][bucket] += num_rows
                index["pieces"][bucket] += num_pieces
            file.write(END_OF_STREAM)
        return index

    def _spill(self, split: str) -> None:
        waiting, self._waiting[split] = self._waiting[split], []
        if not any(len(part.keys) for part in waiting):
            return
        rows = concatenate(waiting)
        waiting.clear()
        # The upper half of a key, scaled: equal intervals of keys, in their order.
        buckets = ((rows.keys >> np.uint64(32)) * np.uint64(self._num_buckets[split]) >> np.uint64(32)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets))
        spilled = []
        for bucket in np.unique(buckets).tolist():
            some = take(rows, order[ends[bucket - 1] if bucket else 0 : ends[bucket]])
            begin = self._spool.tell()
            self._spool.write(to_record_batch(some, self._schema).serialize())
            spilled.append((self._first_bucket[split] + bucket, begin, self._spool.tell(), len(some.keys), len(some.ids)))
        self._spilled.append(np.array(spilled, np.int64))


def part_schema(piece_type: pa.DataType) -> pa.Schema:
    columns = [("key", pa.uint64()), ("input_ids", pa.list_(piece_type))]
    return pa.schema([*columns, ("segment_b_start", pa.uint16()), ("sentence_order_label", pa.int8())])


def to_record_batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    starts = pa.array(rows.row_starts.astype(np.int32))
    ids = pa.ListArray.from_arrays(starts, pa.array(rows.ids), type=schema.field("input_ids").type)
    others = (rows.segment_b_starts, rows.order_labels)
    return pa.RecordBatch.from_arrays([pa.array(rows.keys), ids, *map(pa.array, others)], schema=schema)


def read_sorted(
    folder: Folder, parts: Sequence[str], bucket: int, piece_type: pa.DataType, first: int, last: int
) -> Iterator[Rows]:
    """Rows first .. last - 1 of a bucket in the final order, some at a time.

    parts: names of the files in the order of the corpus, each with its index beside it as NAME.index.
    """
    place = bucket * INDEX.itemsize
    index = [np.frombuffer(folder.read_slice(f"{name}.index", place, place + INDEX.itemsize), INDEX)[0] for name in parts]
    num_rows = sum(int(record["rows"]) for record in index)
    rows = Rows(
        keys=np.empty(num_rows, np.uint64),
        ids=np.empty(sum(int(record["pieces"]) for record in index), piece_type.to_pandas_dtype()),
        row_starts=np.zeros(num_rows + 1, np.int64),
        segment_b_starts=np.empty(num_rows, np.uint16),
        order_labels=np.empty(num_rows, np.int8),
    )
    schema = part_schema(piece_type)
    row = piece = 0
    for name, record in zip(parts, index, strict=True):
        messages = pa.BufferReader(folder.read_slice(name, int(record["begin"]), int(record["end"])))
        while messages.tell() < messages.size():
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(messages), schema)
            ids, here = batch.column(1), slice(row, row + batch.num_rows)
            rows.keys[here], rows.segment_b_starts[here], rows.order_labels[here] = (batch.column(i).to_numpy() for i in (0, 2, 3))
            rows.row_starts[row + 1 : row + 1 + batch.num_rows] = piece + ids.offsets.to_numpy()[1:]
            rows.ids[piece : piece + len(ids.values)] = ids.values.to_numpy()
            row, piece = row + batch.num_rows, piece + len(ids.values)
    order = np.argsort(rows.keys, kind="stable")[first:last]  # the same key twice: in the order of the corpus
    for begin in range(0, len(order), BLOCK_ROWS):
        yield take(rows, order[begin : begin + BLOCK_ROWS])
