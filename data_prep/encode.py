"""The first stage: each task reads its part of the corpus and leaves unmasked rows in buckets, with its counts."""

import functools
from array import array
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

from data_prep.batches import BatchPreparer, cut_batches
from data_prep.documents import PARTS, open_reading, read_kept
from data_prep.folder import Folder
from data_prep.mixing import read_repeats
from data_prep.plan import Plan, check_inputs, read_plan
from data_prep.rows import PartWriter
from data_prep.schema import piece_type
from tokenizer.corpus import Document
from tokenizer.errors import UserError
from tokenizer.input_records import record_input

ENCODER_COUNTS = ("num_guarded_words", "num_letters", "num_vanished")
"""Counts that an Encoder keeps, and that a task takes the difference of."""


def part_name(task: int) -> str:
    """Of the rows of a task; its other files have this name and an ending."""
    return f"{PARTS}/encode/{task:05d}"


@functools.lru_cache(maxsize=1)
def preparer_of(url: str, key: str) -> BatchPreparer:
    """One for all tasks of a process: loading a tokenizer takes a second.

    Raises:
        UserError: the tokenizer is not the one of the plan.
    """
    plan = read_plan(url, key)
    preparer = BatchPreparer(plan.options)
    check_tokenizer(plan, preparer.encoder.sha256)
    return preparer


def check_tokenizer(plan: Plan, sha256: str) -> None:
    """Raise a UserError unless the tokenizer is still the one of the plan."""
    if sha256 != plan.tokenizer_sha256:
        raise UserError(f"--tokenizer {plan.options.tokenizer}: was changed since the plan was made. Put it back, or begin anew.")


def encode_task(url: str, key: str, task: int) -> None:
    """Write the rows by bucket, their index, counts of pieces, hashes of texts, records of the inputs that begin in this task, and
    the counts (.json), which come last.

    url: of the data folder, which holds plan.json. key: from `plan_key`.
    """
    folder, plan, preparer = Folder(url), read_plan(url, key), preparer_of(url, key)
    check_inputs(plan, task)
    encoder = preparer.encoder
    reading = open_reading(plan)
    repeats = read_repeats(url, key).get(plan.label(task), 1.0)
    counts = {split: Counter() for split in plan.num_buckets}
    piece_counts = {split: np.zeros(plan.vocab_size, np.int64) for split in plan.num_buckets}
    texts = array("Q")
    before = {count: getattr(encoder, count) for count in ENCODER_COUNTS}
    name = part_name(task)

    def hashed(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            texts.append(xxhash.xxh3_64_intdigest(document.text.encode()))
            yield document

    with folder.write(name) as path:
        writer = PartWriter(path, piece_type(plan.vocab_size), plan.num_buckets)
        for batch in cut_batches(hashed(read_kept(plan, folder, task, reading)), plan.options.seed, plan.cutoff):
            encoded = preparer.encode(batch, repeats)
            counts[batch.split].update(encoded.counts)
            piece_counts[batch.split] += encoded.piece_counts
            for rows, row_counts in preparer.pair_up(encoded):
                writer.add(batch.split, rows)
                counts[batch.split].update(row_counts)
        index = writer.close()
    with folder.write(f"{name}.index") as path:
        path.write_bytes(index.tobytes())
    used = np.flatnonzero(sum(piece_counts.values()))
    folder.write_table(f"{name}.pieces.arrow", pa.table({"piece": used} | {split: of[used] for split, of in piece_counts.items()}))
    folder.write_table(f"{name}.texts.arrow", pa.table({"hash": np.sort(np.frombuffer(texts, np.uint64))}))
    # Here, because what was just read is still in memory, and every executor shares the tasks out.
    begun = [part.input_index for part in plan.tasks[task] if part.begin == 0]
    folder.write_json(f"{name}.inputs.json", [[number, record_input(plan.inputs[number])] for number in begun])
    check_inputs(plan, task)
    folder.write_json(
        f"{name}.json",
        {
            "counts": counts,
            "encoder": {count: getattr(encoder, count) - before[count] for count in ENCODER_COUNTS},
            "dropped": reading.dropped,
            "changed": reading.changed,
            "num_faults": reading.faults.num,
            "faults": reading.faults.listed,
        },
    )
