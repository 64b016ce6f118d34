"""`--remask DATA`: new masks over the pairs of a data folder, without corpus or tokenizer. Each shard becomes a shard.

The labels give the original pieces back, and the masks of a row are a function of (seed, split, its number), as in the first
preparation: with its options and seed its bytes come out again.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.documents import PARTS
from data_prep.engine import Stage, run_stage
from data_prep.finish import copy_tokenizer, shard_counts
from data_prep.folder import Folder
from data_prep.options import MASKING, PrepareOptions
from data_prep.plan import PLAN_NAME
from data_prep.rows import Rows
from data_prep.schema import FORMAT_VERSION, MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, manifest_sha256, read_manifest
from data_prep.shuffle import Masker, Slot, write_shard
from tokenizer.chain import load_chain
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files

BATCHES_AT_ONCE = 8
"""Record batches that are masked together."""


def begin_remask(options: PrepareOptions, folder: Folder) -> dict[str, Any]:
    """Write plan.json, unless it is there already; its content.

    Raises:
        UserError: DATA is no data folder of this machine, or the output holds something else.
    """
    source = Folder(options.remask)
    if not source.is_local:
        raise UserError(f"--remask {options.remask}: expected a data folder of this machine. Fetch it first.")
    manifest = read_manifest(source.root)
    if manifest.format_version < FORMAT_VERSION:
        raise UserError(f"--remask {source}: prepared by an earlier release, and not shuffled. Prepare the corpus again.")
    if options.private and not manifest.private:
        raise UserError(
            f"--private: {source} was prepared without it, and its manifest may quote the corpus. Prepare the corpus again."
        )
    plan = {
        "remask": source.url,
        "manifest_sha256": manifest_sha256(source.root),
        "options": {name: getattr(options, name) for name in MASKING},
    }
    folder.remove_temporary()
    names = folder.names()
    if names and PLAN_NAME not in names:
        raise UserError(f"{folder}: holds something else. Choose an empty or new folder for --output.")
    try:
        old = folder.read_json(PLAN_NAME) if names else plan
    except ValueError:
        old = {}
    if old != plan:
        there, now = old.get("options", {}), plan["options"]
        differing = [name for name in now if name in there and there[name] != now[name]]
        differ = [f"--{name} is {now[name]!r}, there it is {there[name]!r}" for name in differing]
        raise UserError(
            f"{folder}: holds other data or other masks ({'; '.join(differ) or 'not of this --remask'}). "
            "Choose an empty or new folder for --output."
        )
    folder.write_json(PLAN_NAME, plan)
    return plan


def remask(options: PrepareOptions, folder: Folder) -> Manifest:
    """Write the shards with new masks, and the manifest."""
    source = Folder(options.remask)
    manifest = read_manifest(source.root)
    slots = slots_of(manifest)
    job = functools.partial(remask_task, folder.url, source.root, options)
    stage = Stage("remask", len(slots), job)
    run_stage(stage, f"{folder.url}/{PARTS}", executor=options.executor, workers=options.workers or 1)
    shaping = {name: getattr(options, name) for name in MASKING if name != "seed"}
    num_predictions = predictions(options, manifest)
    remade = dataclasses.replace(
        manifest,
        options=manifest.options | shaping | {"max_predictions": num_predictions, "mask_seed": options.seed},
        splits={
            split: dataclasses.replace(counts, **shard_counts(folder, [slot for slot in slots if slot.split == split]))
            for split, counts in manifest.splits.items()
        },
    )
    copy_tokenizer(Path(source.root) / TOKENIZER_FOLDER, folder)
    folder.write_json(MANIFEST_NAME, dataclasses.asdict(remade))
    folder.remove(PARTS)
    return remade


def slots_of(manifest: Manifest) -> list[Slot]:
    slots = []
    for split, counts in manifest.splits.items():
        ends = np.cumsum(counts.shard_rows)
        slots += [
            Slot(split, name, int(end) - rows, int(end))
            for name, rows, end in zip(counts.shards, counts.shard_rows, ends, strict=True)
        ]
    return slots


def predictions(options: PrepareOptions, manifest: Manifest) -> int:
    return dataclasses.replace(options, max_seq_length=manifest.max_seq_length).num_predictions


def remask_task(url: str, source: str, options: PrepareOptions, task: int) -> None:
    """Write one shard with new masks, and its counts."""
    manifest, pieces = source_of(source, manifest_sha256(source))
    slot = slots_of(manifest)[task]
    digests = {
        name: digest for counts in manifest.splits.values() for name, digest in zip(counts.shards, counts.shard_sha256, strict=True)
    }
    if sha256_of_files(Path(source) / slot.name) != digests[slot.name]:
        raise UserError(
            f"{Path(source) / slot.name}: is not what its manifest says, or damaged. Bring it back, or prepare the data again."
        )
    masker = Masker(options, manifest.max_seq_length, predictions(options, manifest), pieces)
    write_shard(Folder(url), slot, masker, options.compression, restored_rows(Path(source) / slot.name))


@functools.lru_cache(maxsize=1)
def source_of(source: str, sha256: str) -> tuple[Manifest, list[str]]:
    """Manifest and pieces, read once in a process."""
    return read_manifest(source), [piece for piece, _ in load_chain(Path(source) / TOKENIZER_FOLDER).pieces]


def restored_rows(path: Path) -> Iterator[Rows]:
    """The rows of a shard with their original pieces; their keys are left out (zero)."""
    batches = iter(pa.ipc.open_stream(path))
    while some := list(itertools.islice(batches, BATCHES_AT_ONCE)):
        table = pa.Table.from_batches(some)
        ids, starts = flat(table["input_ids"])
        positions, position_starts = flat(table["mlm_positions"])
        ids = ids.copy()
        ids[np.repeat(starts[:-1], np.diff(position_starts)) + positions] = flat(table["mlm_labels"])[0]
        others = (table[name].combine_chunks().to_numpy() for name in ("segment_b_start", "sentence_order_label"))
        yield Rows(np.zeros(table.num_rows, np.uint64), ids, starts, *others)


def flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values of a list column end to end, and int64 starts of its rows."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy()
    return lists.flatten().to_numpy(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
