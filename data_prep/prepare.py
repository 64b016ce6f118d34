"""`albert prepare`: text and a tokenizer in, a data folder of shards out.

Documents -> sentences -> pieces -> pairs -> masks -> shards, by batches of documents. The main process reads and writes,
workers do the rest; results are written in the order of the text. The manifest comes last, and the folder takes its name
only when everything in it is on disk.
"""

import dataclasses
import functools
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from data_prep.batches import BatchPreparer, DocumentBatch, PreparedBatch, cut_batches
from data_prep.held_out import find_cutoff
from data_prep.options import PrepareOptions
from data_prep.schema import FORMAT_VERSION, MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, SplitCounts, write_manifest
from data_prep.shards import ShardWriter
from data_prep.summary import print_summary
from tokenizer.chain import FILE_NAMES
from tokenizer.corpus import read_documents
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder

FOLDER_CONTENT = rf"{MANIFEST_NAME}|{TOKENIZER_FOLDER}|.*\.arrow"

NOT_IN_THE_BYTES = ("input", "tokenizer", "output", "workers", "seed", "max_seq_length")
"""Options that the manifest's `options` leave out: paths and workers shape no byte, the others have fields of their own."""


def prepare(options: PrepareOptions) -> dict:
    """Write the data folder and return its manifest as a dict.

    Raises:
        UserError: options, input or output cannot be used, or a worker died; nothing is left under the output's name.
    """
    options.check()
    check_output_folder(options.output, MANIFEST_NAME, "data", FOLDER_CONTENT)
    preparer = BatchPreparer(options)
    read = functools.partial(read_documents, options.input, text_field=options.text_field)
    cutoff = find_cutoff(read(), options.seed, options.validation_fraction)
    shaping = {name: value for name, value in dataclasses.asdict(options).items() if name not in NOT_IN_THE_BYTES}
    with replace_folder(options.output) as folder:
        prepared = prepare_batches(preparer, cut_batches(read(), options.seed, cutoff), options.workers)
        splits, num_guarded_words = write_splits(folder, prepared, preparer, cutoff > 0)
        (folder / TOKENIZER_FOLDER).mkdir()
        for name in FILE_NAMES:
            if (options.tokenizer / name).is_file():  # a downloaded tokenizer may lack spiece.model and has no manifest
                shutil.copyfile(options.tokenizer / name, folder / TOKENIZER_FOLDER / name)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            tokenizer_sha256=preparer.encoder.sha256,
            vocab_size=preparer.encoder.vocab_size,
            max_seq_length=options.max_seq_length,
            seed=options.seed,
            options=shaping | {"max_predictions": options.num_predictions},
            num_guarded_words=num_guarded_words,
            splits=splits,
        )
        write_manifest(folder, manifest)
    print_summary(manifest, options.output)
    return dataclasses.asdict(manifest)


def write_splits(
    folder: Path, prepared: Iterable[PreparedBatch], preparer: BatchPreparer, with_validation: bool
) -> tuple[dict[str, SplitCounts], int]:
    """Write all batches into shards of their split; (what each split holds, number of guarded words)."""
    names = ["train", "validation"] if with_validation else ["train"]
    writers = {name: ShardWriter(folder, name, preparer.schema) for name in names}
    # Preparing nothing gives the names of the counts; it also compiles, so that workers find the result on disk.
    counts = {name: dict.fromkeys(preparer.prepare(DocumentBatch(name, [])).counts, 0) for name in names}
    piece_counts = {name: np.zeros(preparer.encoder.vocab_size, np.int64) for name in names}
    for batch in prepared:
        writers[batch.split].write(batch.table)
        piece_counts[batch.split] += batch.piece_counts
        for name, count in batch.counts.items():
            counts[batch.split][name] += count
    num_guarded_words = sum(count.pop("num_guarded_words") for count in counts.values())
    splits = {}
    for name, writer in writers.items():
        writer.close()
        if not writer.shards:
            raise UserError(
                f"--input: the {name} split holds {counts[name]['documents']} document(s) but no sentence that the tokenizer can "
                "encode. Expected text: look at the input, or choose another --seed or --validation_fraction."
            )
        splits[name] = SplitCounts(
            **counts[name],
            unigram_entropy=entropy(piece_counts[name]),
            shards=writer.shards,
            shard_rows=writer.shard_rows,
            shard_sha256=writer.shard_sha256,
        )
    return splits, num_guarded_words


def entropy(counts: np.ndarray) -> float:
    """Plug-in entropy in nats. Summed exactly, so that it does not depend on the machine's vector units."""
    total = int(counts.sum())
    return -math.fsum(int(count) / total * math.log(int(count) / total) for count in counts[counts > 0])


def prepare_batches(preparer: BatchPreparer, batches: Iterable[DocumentBatch], workers: int) -> Iterator[PreparedBatch]:
    """Prepared batches in the order of `batches`, at most two a worker in flight."""
    if workers == 1:
        yield from map(preparer.prepare, batches)
        return
    # Not fork: the tokenizer and Arrow have threads, which a forked child would find dead.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(preparer.options,)) as pool:
        in_flight = deque()
        try:
            for batch in batches:
                in_flight.append(submit(pool, batch))
                if len(in_flight) >= 2 * workers:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died, most often because the machine ran out of memory (see `dmesg`). Nothing was "
                f"written under the output's name. Run again with fewer than --workers {workers}."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def submit(pool: ProcessPoolExecutor, batch: DocumentBatch) -> Future:
    """Start the work. A process that this starts inherits the mask: Ctrl-C goes to all, but the main process alone answers."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(prepare_in_worker, batch)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_preparer: BatchPreparer | None = None
"""One per worker process, set as it starts."""


def start_worker(options: PrepareOptions) -> None:
    global _preparer
    threading.Thread(target=end_with_parent, daemon=True).start()
    _preparer = BatchPreparer(options)


def end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def prepare_in_worker(batch: DocumentBatch) -> PreparedBatch:
    assert _preparer is not None
    return _preparer.prepare(batch)
