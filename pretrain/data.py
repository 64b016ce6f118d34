"""Prepared shards in, micro-batches out: memory-mapped, opened as they are needed, cut without changing the batch.

Which row a sample is, is a function of the seed and of the samples seen alone (pretrain/sample_order.py): no state to save, no file
to read through on resume, the same for any number of ranks.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from data_prep.schema import ROWS_PER_BATCH, Manifest, SplitCounts
from pretrain.model import MicroBatch
from tokenizer.errors import UserError
from tokenizer.special_tokens import PAD_ID

Views = dict[str, tuple[np.ndarray, np.ndarray | None]]


class Split:
    """Rows of one split; `len()` is the number of instances.

    Record batches of `window` shards are kept at hand, so that each is decoded about once an epoch: views of the file, or, where
    it is compressed, about a megabyte each.
    """

    def __init__(self, folder: Path, counts: SplitCounts, window: int):
        self.shard_rows = tuple(counts.shard_rows)
        self._paths = [folder / shard for shard in counts.shards]
        self._first_row = np.cumsum((0, *self.shard_rows))
        batches_per_shard = 1 + max(self.shard_rows, default=0) // ROWS_PER_BATCH
        self._open = functools.lru_cache(maxsize=window + 1)(lambda shard: open_shard(self._paths[shard]))
        self._decode = functools.lru_cache(maxsize=window * batches_per_shard)(self._read_batch)

    def __len__(self) -> int:
        return int(self._first_row[-1])

    def row(self, index: int) -> dict[str, np.ndarray]:
        """The columns of one instance as read-only views, without compression into the file itself: no copy."""
        views, place = self._find(index)
        return {
            name: values[place] if offsets is None else values[offsets[place] : offsets[place + 1]]
            for name, (values, offsets) in views.items()
        }

    def length(self, index: int) -> int:
        """Pieces of one instance."""
        views, place = self._find(index)
        _, offsets = views["input_ids"]
        return int(offsets[place + 1] - offsets[place])

    def _find(self, index: int) -> tuple[Views, int]:
        """Columns of the record batch that holds a row, and the row's place in it."""
        shard = int(np.searchsorted(self._first_row, index, side="right")) - 1
        batch, place = divmod(index - int(self._first_row[shard]), ROWS_PER_BATCH)
        return self._decode(shard, batch), place

    def _read_batch(self, shard: int, batch: int) -> Views:
        schema, messages = self._open(shard)
        try:
            return columns(pa.ipc.read_record_batch(messages[batch], schema))
        except (OSError, pa.ArrowException, IndexError) as error:
            raise unreadable(self._paths[shard], error) from error


def columns(batch: pa.RecordBatch) -> Views:
    """NumPy views of each column, zero-copy: values, and for lists the offsets (int32) of each row's values."""
    views = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if pa.types.is_list(column.type):
            views[name] = column.values.to_numpy(), column.offsets.to_numpy()
        else:
            views[name] = column.to_numpy(), None
    return views


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


def micro_batches(split: Split, rows: np.ndarray, micro_batch_size: int) -> Iterator[MicroBatch]:
    """The rows in order, at most `micro_batch_size` at a time."""
    for start in range(0, len(rows), micro_batch_size):
        yield collate([split.row(int(row)) for row in rows[start : start + micro_batch_size]])


def collate(rows: list[dict[str, np.ndarray]], dropout_keys_B: torch.Tensor | None = None) -> MicroBatch:
    """Pad to the longest row; masked positions become positions in the flattened micro-batch."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    longest = int(lengths.max())
    input_ids = np.full((len(rows), longest), PAD_ID, dtype=np.int64)
    segment_ids = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        input_ids[number, : lengths[number]] = row["input_ids"]
        if row["segment_b_start"]:
            segment_ids[number, row["segment_b_start"] : lengths[number]] = 1
    index = np.concatenate([row["mlm_positions"].astype(np.int64) + number * longest for number, row in enumerate(rows)])
    real = np.arange(longest) < lengths[:, None]
    return MicroBatch(
        input_ids_BT=torch.from_numpy(input_ids),
        segment_ids_BT=torch.from_numpy(segment_ids),
        attention_mask_BT=None if real.all() else torch.from_numpy(real),
        mlm_index_M=torch.from_numpy(index),
        mlm_labels_M=torch.from_numpy(np.concatenate([row["mlm_labels"] for row in rows]).astype(np.int64)),
        sop_labels_B=torch.tensor([int(row["sentence_order_label"]) for row in rows]),
        dropout_keys_B=dropout_keys_B,
    )
