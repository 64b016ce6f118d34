"""Prepared shards in, micro-batches out: memory-mapped, shuffled by a keyed permutation, cut without changing the batch.

Sample number s of a run is row `permute(s mod N, N, key(seed, s div N))` of the training split. The order is a function of the seed
and of the samples seen alone: no state to save, no file to read through on resume, the same for any number of ranks.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from data_prep.schema import Manifest
from pretrain.model import MicroBatch
from tokenizer.errors import UserError
from tokenizer.special_tokens import PAD_ID

FEISTEL_ROUNDS = 6


class Split:
    """Rows of one split, memory-mapped; `len()` is the number of instances."""

    def __init__(self, folder: Path, shards: list[str]):
        self.batches = [columns(batch) for shard in shards for batch in open_shard(folder / shard)]
        self.first_row = np.cumsum([0] + [len(batch["segment_b_start"][0]) for batch in self.batches])

    def __len__(self) -> int:
        return int(self.first_row[-1])

    def row(self, index: int) -> dict[str, np.ndarray]:
        """The columns of one instance as read-only views into the file: no copy."""
        number = int(np.searchsorted(self.first_row, index, side="right")) - 1
        offset = index - int(self.first_row[number])
        return {
            name: values[offset] if offsets is None else values[offsets[offset] : offsets[offset + 1]]
            for name, (values, offsets) in self.batches[number].items()
        }


def columns(batch: pa.RecordBatch) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Zero-copy NumPy views of each column: values, and for lists the offsets (int32) of each row's values."""
    views = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if pa.types.is_list(column.type):
            views[name] = column.values.to_numpy(), column.offsets.to_numpy()
        else:
            views[name] = column.to_numpy(), None
    return views


def open_split(folder: Path, manifest: Manifest, split: str) -> Split:
    """The split `train` or `validation` of a data folder.

    Raises:
        UserError: a shard is missing, damaged, or the rows are not as many as the manifest says.
    """
    counts = manifest.splits[split]
    rows = Split(folder, counts.shards)
    if len(rows) != counts.instances:
        raise UserError(
            f"{folder}: the manifest counts {counts.instances} {split} instances, the shards hold {len(rows)}. Prepare it again."
        )
    return rows


def open_shard(path: Path) -> list[pa.RecordBatch]:
    """Memory-mapped record batches of an Arrow IPC stream."""
    try:
        with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
            return list(reader)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read as an Arrow stream ({error}). Prepare the data again.") from error


def sample_rows(samples: np.ndarray, num_rows: int, seed: int) -> np.ndarray:
    """Rows (int64) of the samples (int64, counted from the start of the run): each epoch is a permutation of its own."""
    epochs = samples // num_rows
    rows = np.empty_like(samples)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        rows[chosen] = permute(samples[chosen] % num_rows, num_rows, key=mix(np.uint64(seed), np.uint64(epoch)))
    return rows


def permute(indices: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """A keyed permutation of 0..size-1 at `indices` (int64): a balanced Feistel network, cycle-walked into the range.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (2002), section 5 and cycle walking.
    """
    half_bits = np.uint64(max(1, (max(1, size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    round_keys = [mix(key, np.uint64(number)) for number in range(FEISTEL_ROUNDS)]
    walking = indices.astype(np.uint64)
    outside = np.ones(len(walking), dtype=bool)
    while outside.any():
        left, right = walking[outside] >> half_bits, walking[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(round_key, right) & mask)
        walking[outside] = (left << half_bits) | right
        outside = walking >= size
    return walking.astype(np.int64)


def mix(a: np.uint64, b: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """A 64-bit hash of two numbers: splitmix64's finaliser (Steele et al. 2014) over each in turn."""
    with np.errstate(over="ignore"):
        x = a * np.uint64(0x9E3779B97F4A7C15)
        for number in (np.uint64(0), b):
            x = (x ^ number) + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x


def rank_slice(samples: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """This rank's contiguous part of a global batch; parts differ by at most one sample."""
    return samples[len(samples) * rank // world_size : len(samples) * (rank + 1) // world_size]


def micro_batches(split: Split, rows: np.ndarray, micro_batch_size: int) -> Iterator[MicroBatch]:
    """The rows in order, at most `micro_batch_size` at a time."""
    for start in range(0, len(rows), micro_batch_size):
        yield collate([split.row(int(row)) for row in rows[start : start + micro_batch_size]])


def collate(rows: list[dict[str, np.ndarray]]) -> MicroBatch:
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
    )
