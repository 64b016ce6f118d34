"""The last stage: each task sorts its part of the final order, masks it, and writes one shard.

The final order of a split is that of the rows' keys, and shards are equal parts of it: neither depends on how the corpus was cut
into tasks or the rows into buckets. The masks of a row are a function of (seed, split, its number in the final order).
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_prep.documents import PARTS
from data_prep.encode import part_name
from data_prep.folder import Folder
from data_prep.gather import read_totals
from data_prep.masks import mask, ngram_weights, prediction_counts
from data_prep.options import PrepareOptions
from data_prep.plan import read_plan
from data_prep.rows import Rows, read_sorted
from data_prep.schema import piece_type, shard_schema
from data_prep.shards import ShardWriter, to_table
from data_prep.words import piece_classes
from tokenizer.chain import load_chain
from tokenizer.files import sha256_of_files
from tokenizer.special_tokens import FIRST_ORDINARY_ID

SPLITS = {"train": 0, "validation": 1}
"""Their numbers in the key of a mask."""


class Slot(NamedTuple):
    """One shard: rows first .. last - 1 of the final order of its split."""

    split: str
    name: str
    first: int
    last: int


@functools.lru_cache(maxsize=1)
def shard_slots(url: str, key: str) -> list[Slot]:
    """All shards of a data folder whose totals are known: train, then validation, each split into equal parts."""
    plan, totals = read_plan(url, key), read_totals(url, key)
    slots = []
    for split, counts in totals.counts.items():
        num_rows = counts.get("instances", 0)
        if num_rows:
            num_bytes = counts["pieces"] * bytes_per_piece(plan.options, plan.vocab_size, counts["pieces"] / num_rows)
            num_shards = min(max(1, round((num_bytes + 15 * num_rows) / plan.options.shard_size)), num_rows)
            borders = [num_rows * shard // num_shards for shard in range(num_shards + 1)]
            for shard in range(num_shards):
                slots.append(Slot(split, f"{split}-{shard:05d}.arrow", borders[shard], borders[shard + 1]))
    return slots


def bytes_per_piece(options: PrepareOptions, vocab_size: int, mean_length: float) -> float:
    """On disk without compression: the piece, and for the masked ones a position and a label."""
    piece = piece_type(vocab_size).bit_width // 8
    return piece + min(options.mask_ratio, options.num_predictions / mean_length) * (piece + 2)


class Masker:
    """Holds what masking needs of options and tokenizer; the same for a new data folder and for `--remask`."""

    def __init__(self, options: PrepareOptions, max_seq_length: int, num_predictions: int, pieces: list[str]):
        self.seed, self.vocab_size = options.seed, len(pieces)
        self.schema = shard_schema(len(pieces))
        self._classes = piece_classes(pieces if options.mask_unit != "piece" else [], FIRST_ORDINARY_ID)
        self._counts = prediction_counts(max_seq_length, options.mask_ratio, num_predictions)
        self._weights = ngram_weights(options.max_ngram if options.mask_unit == "ngram" else 1)

    def table(self, rows: Rows, split: str, first_row: int):
        """The rows masked, as a pyarrow Table; their ids are written over. first_row: number of the first in its split."""
        targets = mask(
            rows.ids,
            rows.row_starts,
            rows.segment_b_starts,
            (SPLITS[split], first_row),
            self.seed,
            self._classes,
            self._counts,
            self._weights,
            self.vocab_size,
        )
        return to_table(rows, targets, self.schema)


@functools.lru_cache(maxsize=1)
def masker_of(url: str, key: str) -> Masker:
    options = read_plan(url, key).options
    pieces = [piece for piece, _ in load_chain(options.tokenizer).pieces]
    return Masker(options, options.max_seq_length, options.num_predictions, pieces)


def shuffle_task(url: str, key: str, task: int) -> None:
    """Write shard number `task` of `shard_slots`, then parts/shuffle/SHARD.json with its rows, masked pieces, bytes and SHA-256."""
    folder, masker, slot = Folder(url), masker_of(url, key), shard_slots(url, key)[task]
    write_shard(folder, slot, masker, read_plan(url, key).options.compression, sorted_rows(url, key, slot))


def write_shard(folder: Folder, slot: Slot, masker: Masker, compression: str, blocks: Iterator[Rows]) -> None:
    """The shard of these unmasked rows, which come in their final order."""
    num_rows = num_masked = 0
    with folder.write(slot.name) as path:
        writer = ShardWriter(path, masker.schema, compression)
        for rows in blocks:
            table = masker.table(rows, slot.split, slot.first + num_rows)
            num_rows += table.num_rows
            num_masked += len(table["mlm_labels"].combine_chunks().flatten())
            writer.write(table)
        writer.close()
        digest, size = sha256_of_files(path), path.stat().st_size
    counts = {"rows": num_rows, "masked_pieces": num_masked, "bytes": size, "sha256": digest}
    folder.write_json(f"{PARTS}/shuffle/{slot.name}.json", counts)


def sorted_rows(url: str, key: str, slot: Slot) -> Iterator[Rows]:
    """The rows of one shard in the final order."""
    folder, plan = Folder(url), read_plan(url, key)
    sizes = np.array(read_totals(url, key).bucket_rows[slot.split])
    ends = np.cumsum(sizes)
    first_bucket = sum(number for split, number in plan.num_buckets.items() if SPLITS[split] < SPLITS[slot.split])
    parts = [part_name(task) for task in range(len(plan.tasks))]
    for bucket in np.flatnonzero((ends > slot.first) & (ends - sizes < slot.last) & (sizes > 0)).tolist():
        begin = int(ends[bucket] - sizes[bucket])
        inside = (max(0, slot.first - begin), slot.last - begin)
        yield from read_sorted(folder, parts, first_bucket + bucket, piece_type(plan.vocab_size), *inside)
