"""The first stage: each task reads its part of the corpus and leaves unmasked rows in buckets, with its counts."""

import functools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

from data_prep.batches import BatchPreparer, cut_batches
from data_prep.documents import PARTS, Reading, read_kept
from data_prep.folder import Folder
from data_prep.mixing import read_repeats
from data_prep.plan import read_plan
from data_prep.rows import PartWriter, Segment
from data_prep.schema import shard_schema
from tokenizer.corpus import Document, Faults

ENCODER_COUNTS = ("num_guarded_words", "num_letters", "num_vanished")
"""Counts that an Encoder keeps, and that a task takes the difference of."""


@functools.lru_cache(maxsize=1)
def preparer_of(url: str, key: str) -> BatchPreparer:
    """One for all tasks of a process: loading a tokenizer takes a second."""
    return BatchPreparer(read_plan(url, key).options)


def encode_task(url: str, key: str, task: int) -> None:
    """Write parts/encode/TASK.arrow (rows), .pieces.arrow, .texts.arrow, and .json (counts and segments), the last.

    url: of the data folder, which holds plan.json. key: from `plan_key`.
    """
    folder, plan, preparer = Folder(url), read_plan(url, key), preparer_of(url, key)
    encoder = preparer.encoder
    reading = Reading(faults=Faults(plan.options.on_error))
    label = plan.inputs[plan.ranges[task].input_index].label
    repeats = read_repeats(plan, folder).get(label, 1.0)
    counts = {split: Counter() for split in plan.num_buckets}
    piece_counts = {split: np.zeros(plan.vocab_size, np.int64) for split in plan.num_buckets}
    texts: list[int] = []
    before = {count: getattr(encoder, count) for count in ENCODER_COUNTS}
    name = f"{PARTS}/encode/{task:05d}"

    def hashed(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            texts.append(xxhash.xxh3_64_intdigest(document.text.encode()))
            yield document

    with folder.write(f"{name}.arrow") as path:
        writer = PartWriter(path, shard_schema(plan.vocab_size).field("input_ids").type.value_type, plan.num_buckets)
        documents = hashed(read_kept(plan, folder, task, reading))
        for batch in cut_batches(documents, plan.options.seed, plan.cutoff):
            prepared = preparer.prepare(batch, repeats)
            writer.add(batch.split, prepared.rows)
            counts[batch.split].update(prepared.counts)
            piece_counts[batch.split] += prepared.piece_counts
        writer.close()
    folder.write_table(f"{name}.pieces.arrow", pa.table(piece_counts))
    folder.write_table(f"{name}.texts.arrow", pa.table({"hash": np.sort(np.array(texts, np.uint64))}))
    folder.write_json(
        f"{name}.json",
        {
            "label": label,
            "counts": counts,
            "encoder": {count: getattr(encoder, count) - before[count] for count in ENCODER_COUNTS},
            "dropped": reading.dropped,
            "changed": reading.changed,
            "num_faults": reading.faults.num,
            "faults": reading.faults.listed,
            "segments": writer.segments,
        },
    )


class PartIndex:
    """What all parts hold, read once in a process."""

    def __init__(self, folder: Folder, num_tasks: int):
        self.parts = [folder.read_json(f"{PARTS}/encode/{task:05d}.json") for task in range(num_tasks)]
        self._found: dict[tuple[str, int], list[tuple[str, Segment]]] = {}
        for task, part in enumerate(self.parts):
            for segment in map(lambda values: Segment(*values), part.pop("segments")):
                self._found.setdefault(segment[:2], []).append((f"{PARTS}/encode/{task:05d}.arrow", segment))

    def segments(self, split: str, bucket: int) -> list[tuple[str, Segment]]:
        """Of one bucket, in the order of the corpus, each with the name of its file."""
        return self._found.get((split, bucket), [])

    def num_rows(self, split: str, num_buckets: int) -> np.ndarray:
        """int64 [buckets]."""
        return np.array([sum(segment.num_rows for _, segment in self.segments(split, bucket)) for bucket in range(num_buckets)])

    def count(self, split: str, name: str) -> int:
        """A field of schema.SplitCounts, over all parts."""
        return sum(part["counts"][split].get(name, 0) for part in self.parts)


@functools.lru_cache(maxsize=1)
def part_index(url: str, key: str) -> PartIndex:
    return PartIndex(Folder(url), len(read_plan(url, key).ranges))
