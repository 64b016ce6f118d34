"""`albert prepare`: text and a tokenizer in, a data folder of shards out.

Documents -> sentences -> pieces -> pairs -> masks -> shards, by batches of documents. The main process reads and writes,
workers do the rest; results are written in the order of the text. The manifest comes last, and the folder takes its name
only when everything in it is on disk.
"""

import dataclasses
import math
import multiprocessing
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from data_prep.batches import BatchPreparer, DocumentBatch, PreparedBatch, Recipe, cut_batches
from data_prep.held_out import find_cutoff
from data_prep.options import PrepareOptions
from data_prep.schema import FORMAT_VERSION, MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, SplitCounts, write_manifest
from data_prep.shards import ShardWriter
from data_prep.summary import print_summary
from tokenizer.corpus import read_documents
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder

NOT_IN_THE_BYTES = ("input", "tokenizer", "output", "workers", "seed", "max_seq_length")
"""Options that the manifest's `options` leave out: paths and workers shape no byte, the others have fields of their own."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "manifest.json")
"""The last two are left out where the tokenizer has none, such as a downloaded one."""


def prepare(options: PrepareOptions) -> dict:
    """Write the data folder and return its manifest as a dict.

    Raises:
        UserError: options, input or output cannot be used, or a worker died; nothing is left under the output's name.
    """
    options.check()
    check_data_folder(options.output)
    preparer = BatchPreparer(make_recipe(options))
    cutoff = find_cutoff(read_documents(options.input, text_field=options.text_field), options.seed, options.validation_fraction)
    with replace_folder(options.output) as folder:
        batches = cut_batches(read_documents(options.input, text_field=options.text_field), options.seed, cutoff)
        splits, num_guarded_words = write_splits(folder, prepare_batches(preparer, batches, options.workers), preparer, cutoff > 0)
        (folder / TOKENIZER_FOLDER).mkdir()
        for name in TOKENIZER_FILES:
            if (options.tokenizer / name).is_file():
                shutil.copyfile(options.tokenizer / name, folder / TOKENIZER_FOLDER / name)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            tokenizer_sha256=preparer.encoder.sha256,
            vocab_size=preparer.encoder.vocab_size,
            max_seq_length=options.max_seq_length,
            seed=options.seed,
            options=shaping_options(options),
            num_guarded_words=num_guarded_words,
            splits=splits,
        )
        write_manifest(folder, manifest)
    print_summary(manifest, options.output)
    return dataclasses.asdict(manifest)


def check_data_folder(output: Path) -> None:
    """Refuse an output that is anything but a new or empty folder or an earlier data folder with nothing else in it."""
    check_output_folder(output, MANIFEST_NAME, "data")
    ours = {MANIFEST_NAME, TOKENIZER_FOLDER}
    others = sorted(p.name for p in output.iterdir() if p.name not in ours and p.suffix != ".arrow") if output.is_dir() else []
    if others:
        raise UserError(
            f"{output}: expected a new folder or an earlier data folder, but it also holds {', '.join(others[:3])}, "
            "which would be lost. Choose another --output."
        )


def make_recipe(options: PrepareOptions) -> Recipe:
    names = {field.name for field in dataclasses.fields(Recipe)} - {"num_copies"}
    shared = {name: getattr(options, name) for name in names}
    return Recipe(**shared, num_copies={"train": options.dupe_factor, "validation": 1})


def shaping_options(options: PrepareOptions) -> dict[str, object]:
    """The options that shape the bytes, defaults resolved."""
    chosen = {name: value for name, value in dataclasses.asdict(options).items() if name not in NOT_IN_THE_BYTES}
    return chosen | {"max_predictions": options.num_predictions}


def write_splits(
    folder: Path, prepared: Iterable[PreparedBatch], preparer: BatchPreparer, with_validation: bool
) -> tuple[dict[str, SplitCounts], int]:
    """Write all batches into shards of their split and add up what they hold."""
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
                f"The {name} split holds {counts[name]['documents']} document(s) but no sentence that the tokenizer can "
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
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(preparer.recipe,)) as pool:
        in_flight = deque()
        try:
            for batch in batches:
                in_flight.append(pool.submit(prepare_in_worker, batch))
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


_preparer: BatchPreparer | None = None
"""One per worker process, set as it starts."""


def start_worker(recipe: Recipe) -> None:
    global _preparer
    _preparer = BatchPreparer(recipe)


def prepare_in_worker(batch: DocumentBatch) -> PreparedBatch:
    assert _preparer is not None
    return _preparer.prepare(batch)
