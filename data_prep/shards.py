"""Rows in, shards out: Arrow IPC streams that `datasets` opens as they are and that training maps into memory.

The stream format, not the file format: `datasets.Dataset.from_file` reads only the former. Record batches have a fixed
number of rows and shards end at a fixed size, both counted from the content alone.
"""

from pathlib import Path

import pyarrow as pa

from data_prep.masks import Rows
from data_prep.schema import ROWS_PER_BATCH
from tokenizer.files import sha256_of_files

SHARD_BYTES = 256_000_000
"""A shard ends with the record batch that reaches this size."""


def to_table(rows: Rows, order_labels, schema: pa.Schema) -> pa.Table:
    """The rows as an Arrow table of at most ROWS_PER_BATCH rows a chunk. order_labels: integers [rows]."""
    batches = []
    for begin in range(0, len(order_labels), ROWS_PER_BATCH):
        end = min(begin + ROWS_PER_BATCH, len(order_labels))
        columns = [
            lists(rows.input_ids, rows.row_starts[begin : end + 1], schema.field("input_ids").type),
            pa.array(rows.segment_b_starts[begin:end].astype("uint16")),
            lists(rows.positions, rows.position_starts[begin : end + 1], schema.field("mlm_positions").type),
            lists(rows.labels, rows.position_starts[begin : end + 1], schema.field("mlm_labels").type),
            pa.array(order_labels[begin:end].astype("int8")),
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def lists(values, starts, list_type: pa.ListType) -> pa.ListArray:
    values = values[starts[0] : starts[-1]].astype(list_type.value_type.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array((starts - starts[0]).astype("int32")), pa.array(values), type=list_type)


class ShardWriter:
    """Writes the rows of one split into FOLDER/SPLIT-00000.arrow and so on; `close` must come last."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema, shard_bytes: int = SHARD_BYTES):
        self.folder, self.split, self.schema, self.shard_bytes = folder, split, schema, shard_bytes
        self.shards: list[str] = []
        self.shard_rows: list[int] = []
        self.shard_sha256: list[str] = []
        self._pending = schema.empty_table()
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Append rows. Full record batches go to disk; the rest waits for more."""
        self._pending = pa.concat_tables([self._pending, table])
        num_full = self._pending.num_rows - self._pending.num_rows % ROWS_PER_BATCH
        for begin in range(0, num_full, ROWS_PER_BATCH):
            self._write_batch(self._pending.slice(begin, ROWS_PER_BATCH))
        # A copy, or the slice would keep the whole table in memory.
        self._pending = self._pending.slice(num_full).combine_chunks()

    def close(self) -> None:
        """Write the last, shorter record batch and end the last shard."""
        if self._pending.num_rows:
            self._write_batch(self._pending)
        self._end_shard()

    def _write_batch(self, table: pa.Table) -> None:
        if self._writer is None:
            self.shards.append(f"{self.split}-{len(self.shards):05d}.arrow")
            self.shard_rows.append(0)
            self._writer = pa.ipc.new_stream(self.folder / self.shards[-1], self.schema)
            self._bytes = 0
        (batch,) = table.combine_chunks().to_batches()
        self._writer.write_batch(batch)
        self._bytes += batch.nbytes
        self.shard_rows[-1] += batch.num_rows
        if self._bytes >= self.shard_bytes:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.shard_sha256.append(sha256_of_files(self.folder / self.shards[-1]))
