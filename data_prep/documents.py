"""A plan and the number of a task in, the documents of that task out: read, filtered, without duplicates."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_prep.duplicates import read_removed
from data_prep.folder import Folder
from data_prep.plan import Plan
from data_prep.quality import filter_documents
from tokenizer.corpus import Document, Faults, read_range

PARTS = "parts"
"""Folder in the data folder for everything that is gone when it is finished."""


@dataclass(kw_only=True)
class Reading:
    """What reading one part of the corpus met, filled in while its documents are read."""

    faults: Faults
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents that a quality step left out, by step; each section of a long one counts."""
    changed: Counter[str] = field(default_factory=Counter)
    """Documents that a quality step changed, by step."""


def open_reading(plan: Plan) -> Reading:
    """For one task."""
    return Reading(faults=Faults(plan.options.on_error, private=plan.options.private))


def read_filtered(plan: Plan, task: int, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of one task that pass the filters; those that only de-duplication will leave out are among them."""
    reading = reading or open_reading(plan)
    field, faults = plan.options.text_field, reading.faults
    ranges = (read_range(plan.inputs, part, text_field=field, faults=faults) for part in plan.tasks[task])
    yield from filter_documents(itertools.chain.from_iterable(ranges), plan.options, reading.dropped, reading.changed)


def read_kept(plan: Plan, folder: Folder, task: int, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of one task that are prepared. De-duplication must have run."""
    reading = reading or open_reading(plan)
    removed = read_removed(plan.options.dedup, f"{folder.url}/{PARTS}", task) if plan.options.dedup != "none" else ()
    removed = set(map(int, removed))
    for number, document in enumerate(read_filtered(plan, task, reading)):
        if number in removed:
            reading.dropped[f"dedup_{plan.options.dedup}"] += 1
        else:
            yield document
