"""An input in, what tells its content from any other out: for provenance.json."""

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tokenizer.errors import first_line
from tokenizer.files import sha256_of_files
from tokenizer.inputs import Input
from tokenizer.storage import is_url, size_and_mark
from tokenizer.tables import TableError, load_hf

NUM_THREADS = 4
"""Files hashed at the same time: the interpreter is not needed for it."""


Stamp = tuple[int, int] | None


def file_stamps(inputs: Iterable[Input]) -> list[Stamp]:
    """Size and time of change (ns) of each input that is a file of this machine and can be reached."""
    return [_stamp(item) for item in inputs]


def record_inputs(inputs: Iterable[Input], before: Iterable[Stamp]) -> list[dict[str, Any]]:
    """`record_input` of each, in their order. before: `file_stamps` when they were about to be read: what was changed since has
    no hash, because it is not what was read."""
    inputs = list(inputs)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        records = list(pool.map(record_input, inputs))
    changed = {"size": None, "sha256": None, "reason": "was changed while it was read"}
    return [
        record if stamp == now or record["sha256"] is None else record | changed
        for record, stamp, now in zip(records, before, file_stamps(inputs), strict=True)
    ]


def _stamp(item: Input) -> Stamp:
    if item.kind == "hf" or is_url(item.source):
        return None
    try:
        status = os.stat(item.source)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def record_input(item: Input) -> dict[str, Any]:
    """`path`, `size` and `sha256` of the file as it lies there, compressed or not; where there is none, null and the `reason`."""
    if item.kind == "hf":
        return record_dataset(item.source)
    return record_url(item.source) if is_url(item.source) else record_file(item.source)


def record_file(path: str | Path) -> dict[str, Any]:
    entry = record_size(path)
    try:
        return entry | {"sha256": sha256_of_files(Path(entry["path"]))}
    except OSError as error:
        return entry | {"size": None, "sha256": None, "reason": f"cannot be read ({error.strerror})"}


def record_size(path: str | Path) -> dict[str, Any]:
    """Path and size of a file whose hash is known or still to be taken."""
    path = os.path.abspath(path)
    try:
        return {"path": path, "size": os.stat(path).st_size}
    except OSError as error:
        return {"path": path, "size": None, "reason": f"cannot be read ({error.strerror})"}


def record_url(url: str) -> dict[str, Any]:
    """Size and the store's own mark of the content: a hash would take a second download."""
    try:
        size, mark = size_and_mark(url)
    except Exception as error:  # each driver has types of its own
        return {"path": url, "size": None, "sha256": None, "reason": f"cannot be reached ({first_line(error)})"}
    return {
        "path": url,
        "size": size,
        "sha256": None,
        "store_mark": mark,
        "reason": "in a store; not downloaded again to be hashed",
    }


def record_dataset(source: str) -> dict[str, Any]:
    """Of `hf:NAME[:CONFIG[:SPLIT]]`: configuration, split, revision, and the files of its cache here, which are what was read."""
    try:
        dataset = load_hf(source, quietly=True)
    except TableError as error:  # reading it has said why, as far as a private corpus lets it
        return {"path": source, "size": None, "sha256": None, "reason": f"cannot be loaded ({type(error.__cause__).__name__})"}
    fetched = dataset.info.download_checksums or {}
    revisions = {found[1] for url in fetched if (found := re.search(r"@([0-9a-f]{40})/", url))}
    files = [record_file(entry["filename"]) for entry in dataset.cache_files]
    return {
        "path": source,
        "size": sum(entry["size"] or 0 for entry in files),
        "sha256": None,
        "reason": "a data set of several files",
        "config": dataset.config_name,
        "split": str(dataset.split),
        "revision": ", ".join(sorted(revisions)) or None,
        "files": files,
    }
