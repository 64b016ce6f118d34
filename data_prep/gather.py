"""Between the stages, one task: what all parts hold together, and whether it can be used. Files of `encode` in, totals.json out.

After it no task reads the counts of all others, whose number grows with the corpus.
"""

import functools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data_prep.documents import PARTS
from data_prep.encode import ENCODER_COUNTS, part_name
from data_prep.folder import Folder
from data_prep.plan import Plan, read_plan
from data_prep.rows import INDEX
from tokenizer.errors import UserError
from tokenizer.faults import MAX_LISTED

TOTALS = f"{PARTS}/totals.json"

LARGEST_VANISHED_SHARE = 0.01
"""Of the letters and marks of the text, that normalisation may take away."""

HASHES_AT_ONCE = 8_000_000
"""Documents whose hashes are looked at together for duplicates, about 64 MB."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What totals.json holds."""

    bucket_rows: dict[str, list[int]]
    """By split: rows of each bucket."""
    counts: dict[str, dict[str, int]]
    """By split: fields of schema.SplitCounts that are sums over the parts, and `documents_taken`."""
    unigram_entropy: dict[str, float]
    """By split, in nats; of the text as often as training takes it."""
    sources: dict[str, dict[str, int]]
    """By label: documents, text_pieces, documents_taken."""
    encoder: dict[str, int]
    dropped: dict[str, int]
    changed: dict[str, int]
    duplicate_documents: int
    num_faults: int
    faults: list[dict[str, str]]


def gather_task(url: str, key: str, _: int) -> None:
    """Write totals.json.

    Raises:
        UserError: a split holds no sentence, or normalisation destroys the text.
    """
    folder, plan = Folder(url), read_plan(url, key)
    counts = {split: Counter() for split in plan.num_buckets}
    piece_counts = {split: np.zeros(plan.vocab_size, np.int64) for split in plan.num_buckets}
    sources = {item.label: Counter() for item in plan.inputs}
    encoder, dropped, changed = (Counter() for _ in range(3))
    num_faults, faults = plan.num_faults, list(plan.faults)
    bucket_rows = np.zeros(sum(plan.num_buckets.values()), np.int64)
    for task in range(len(plan.tasks)):
        part = folder.read_json(f"{part_name(task)}.json")
        for split, of_split in part["counts"].items():
            counts[split].update(of_split)
            sources[plan.label(task)].update({name: of_split.get(name, 0) for name in SOURCE_COUNTS})
        encoder.update(part["encoder"])
        dropped.update(part["dropped"])
        changed.update(part["changed"])
        num_faults += part["num_faults"]
        faults = (faults + part["faults"])[:MAX_LISTED]
        bucket_rows += np.frombuffer(folder.read(f"{part_name(task)}.index"), INDEX)["rows"]
        table = folder.read_table(f"{part_name(task)}.pieces.arrow")
        for split, of_split in piece_counts.items():
            of_split[table["piece"].to_numpy()] += table[split].to_numpy()
    check(plan, counts, encoder)
    rows = np.split(bucket_rows, np.cumsum(list(plan.num_buckets.values()))[:-1])
    totals = Totals(
        bucket_rows={split: of_split.tolist() for split, of_split in zip(plan.num_buckets, rows, strict=True)},
        counts=counts,
        unigram_entropy={split: entropy(of_split) for split, of_split in piece_counts.items()},
        sources=dict(sorted(sources.items())),
        encoder={name: encoder[name] for name in ENCODER_COUNTS},
        dropped=dict(sorted(dropped.items())),
        changed=dict(sorted(changed.items())),
        duplicate_documents=count_duplicates(folder, len(plan.tasks)),
        num_faults=num_faults,
        faults=faults,
    )
    folder.write_json(TOTALS, vars(totals))


SOURCE_COUNTS = ("documents", "text_pieces", "documents_taken")


@functools.lru_cache(maxsize=1)
def read_totals(url: str, key: str) -> Totals:
    """Read once in a process; key: from `plan_key`."""
    return Totals(**Folder(url).read_json(TOTALS))


def check(plan: Plan, counts: dict[str, Counter[str]], encoder: Counter[str]) -> None:
    """What can only be said when all text has been read.

    Raises:
        UserError: a split holds no sentence, or normalisation destroys the text.
    """
    letters, vanished = encoder["num_letters"], encoder["num_vanished"]
    if vanished > LARGEST_VANISHED_SHARE * letters:
        raise UserError(
            f"--tokenizer: its normalisation takes away {vanished / letters:.1%} of the letters and marks of this text (at most "
            f"{LARGEST_VANISHED_SHARE:.0%} is let through). Train the tokenizer on this text, with --keep_accents true."
        )
    for split in ("train", "validation") if plan.options.validation_fraction else ("train",):
        if not counts[split]["instances"]:
            raise UserError(
                f"--input: the {split} split holds {counts[split]['documents']} document(s) but no sentence that the tokenizer can "
                "encode. Look at the input, the filters and --dedup, or choose another --seed or --validation_fraction."
            )


def count_duplicates(folder: Folder, num_tasks: int) -> int:
    """Documents whose text occurred before. Hashes are looked at in intervals, so that memory stays bounded."""
    names = [f"{part_name(task)}.texts.arrow" for task in range(num_tasks)]
    num_intervals = 1 + sum(folder.read_table(name).num_rows for name in names) // HASHES_AT_ONCE
    borders = [(1 << 64) * interval // num_intervals for interval in range(num_intervals)]
    num_duplicates = 0
    for first, last in zip(borders, [*borders[1:], None], strict=True):
        found = []
        for name in names:
            hashes = folder.read_table(name)["hash"].combine_chunks().to_numpy()
            begin = np.searchsorted(hashes, np.uint64(first))
            found.append(hashes[begin : len(hashes) if last is None else np.searchsorted(hashes, np.uint64(last))])
        hashes = np.concatenate(found)
        num_duplicates += len(hashes) - len(np.unique(hashes))
    return num_duplicates


def entropy(counts: np.ndarray) -> float:
    """Plug-in entropy in nats. Summed exactly, so that it does not depend on the machine's vector units."""
    total = int(counts.sum())
    return -math.fsum(int(count) / total * math.log(int(count) / total) for count in counts[counts > 0])
