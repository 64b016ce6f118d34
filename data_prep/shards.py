"""Masked rows in, one shard out: an Arrow IPC stream that `datasets` opens as it is and that training maps into memory.

The stream format, not the file format: `datasets.Dataset.from_file` reads only the former. Record batches have a fixed number of
rows, so that a reader finds row r without an index.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.masks import Targets
from data_prep.rows import Rows
from data_prep.schema import ROWS_PER_BATCH


def to_table(rows: Rows, targets: Targets, schema: pa.Schema) -> pa.Table:
    """The rows with their masks as a table. schema: from `schema.shard_schema`."""
    columns = [
        lists(rows.ids, rows.row_starts, schema.field("input_ids").type),
        pa.array(rows.segment_b_starts),
        lists(targets.positions, targets.position_starts, schema.field("mlm_positions").type),
        lists(targets.labels, targets.position_starts, schema.field("mlm_labels").type),
        pa.array(rows.order_labels),
    ]
    return pa.table(columns, schema=schema)


def lists(values: np.ndarray, starts: np.ndarray, list_type: pa.ListType) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(values), type=list_type)


class ShardWriter:
    """Writes the rows of one shard in record batches of ROWS_PER_BATCH; `close` must come last."""

    def __init__(self, path: Path, schema: pa.Schema, compression: str):
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
        self._writer = pa.ipc.new_stream(path, schema, options=options)
        self._pending = schema.empty_table()

    def write(self, table: pa.Table) -> None:
        """Append rows. Full record batches go to disk; the rest waits for more."""
        self._pending = pa.concat_tables([self._pending, table])
        num_full = self._pending.num_rows - self._pending.num_rows % ROWS_PER_BATCH
        self._write(self._pending.slice(0, num_full))
        self._pending = self._pending.slice(num_full)

    def close(self) -> None:
        """Write the last, shorter record batch."""
        self._write(self._pending)
        self._writer.close()

    def _write(self, table: pa.Table) -> None:
        for begin in range(0, table.num_rows, ROWS_PER_BATCH):
            # Combined: a slice that spans two chunks would become two record batches.
            self._writer.write_table(table.slice(begin, ROWS_PER_BATCH).combine_chunks(), max_chunksize=ROWS_PER_BATCH)
