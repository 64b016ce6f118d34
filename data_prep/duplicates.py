"""Documents in, the numbers of those that repeat an earlier one out: equal texts (exact) or nearly equal ones (minhash).

Three stages, each leaving files for the next:

1. signatures: every document of a task becomes 64-bit keys, one of its text or one for each of its 14 MinHash bands.
2. matches: of all tasks, the keys of one part of their range; documents that share a key are paired.
3. duplicates: pairs are joined to groups, and all but the first document of a group, in the order of the corpus, are listed.

The signatures are datatrove's (shingles.py). Its later stages find the same groups, but keep whichever document of a group came out
on top, open the files of all tasks at once, and hold Python objects for each pair. Here memory grows with the corpus in stage 3
alone, by 4 bytes a document in one process; and in stage 2 with the number of documents of one text, by 28 bytes each.
"""

import hashlib
import itertools
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.compiled import compiled
from data_prep.engine import Stage
from data_prep.folder import Folder
from data_prep.shingles import minima
from tokenizer.corpus import Document

Method = Literal["exact", "minhash"]

BYTES_PER_PART = {"exact": 14_000_000_000, "minhash": 1_000_000_000}
"""Text whose keys are looked at together in stage 2: 7 million keys at 2 KB a document, 28 bytes each."""

DOCUMENTS_AT_ONCE = 100_000
"""Documents whose signatures are in memory together in stage 1, 168 bytes each and as much again to sort them."""

RECORD = np.dtype([("key", "<u8"), ("number", "<u4")])
"""A key and the number of its document in the task, counted from 0."""


def dedup_stages(
    method: Method, open_documents: Callable[[int], Iterator[Document]], num_tasks: int, num_bytes: int, folder: str | Path
) -> list[Stage]:
    """What must run, one stage after the other, before `read_removed`.

    open_documents: the documents of a task; picklable, and the same each time. Tasks are in the order of the corpus.
    num_bytes: of all their text, about. folder: path or URL for the files in between, which lie in its subfolder METHOD.
    """
    url = f"{folder}/{method}"
    num_parts = 1 + num_bytes // BYTES_PER_PART[method]
    return [
        Stage("signatures", num_tasks, partial(write_signatures, method, open_documents, num_parts, url)),
        Stage("matches", num_parts, partial(write_matches, url)),
        Stage("duplicates", 1, partial(write_removed, num_tasks, num_parts, url)),
    ]


def read_removed(method: Method, folder: str | Path, task: int) -> np.ndarray:
    """uint32, rising: which documents of the task to leave out, counted from 0 in the order of `open_documents`."""
    files = Folder(f"{folder}/{method}")
    begin, end = _read(files, "removed", 8 * task, 8 * (task + 2), "<i8")
    return _read(files, "removed", begin, end, "<u4")


def write_signatures(
    method: Method, open_documents: Callable[[int], Iterator[Document]], num_parts: int, url: str, task: int
) -> None:
    """Stage 1. A file for each DOCUMENTS_AT_ONCE documents: int64 [3 + parts], their number, the number of the first, where each
    part starts, in bytes (with the end); then the records by key."""
    keys_of = {"exact": exact_keys, "minhash": minhash_keys}[method]
    documents = open_documents(task)
    first = run = 0
    while True:
        keys, numbers, num_documents = array("Q"), array("I"), 0
        for document in itertools.islice(documents, DOCUMENTS_AT_ONCE):
            found = keys_of(document.text)
            keys.extend(found)
            numbers.extend(itertools.repeat(first + num_documents, len(found)))
            num_documents += 1
        if run and not num_documents:
            return
        records = np.empty(len(keys), RECORD)
        records["key"], records["number"] = np.frombuffer(keys, np.uint64), np.frombuffer(numbers, np.uint32)
        records = records[np.argsort(records["key"], kind="stable")]
        first_keys = np.array([(part << 64) // num_parts for part in range(num_parts)], np.uint64)
        bounds = np.append(np.searchsorted(records["key"], first_keys), len(records))
        with Folder(url).write(f"signatures/{task:05d}-{run:05d}") as path, path.open("wb") as file:
            file.write(np.array([num_documents, first, *(8 * (num_parts + 3) + RECORD.itemsize * bounds)], "<i8").tobytes())
            file.write(records.tobytes())
        first, run = first + num_documents, run + 1


def write_matches(url: str, part: int) -> None:
    """Stage 2. Writes uint64 [pairs, 2], a document being `task << 32 | number`. n documents that share a key make n - 1 pairs."""
    files = Folder(url)
    names = files.names("signatures")
    bounds = [_read(files, f"signatures/{name}", 8 * (2 + part), 8 * (4 + part), "<i8") for name in names]
    ends = np.cumsum([(end - begin) // RECORD.itemsize for begin, end in bounds])
    keys, documents = np.empty(ends[-1], np.uint64), np.empty(ends[-1], np.uint64)
    for name, end, where in zip(names, ends, bounds, strict=True):
        records = _read(files, f"signatures/{name}", *where, RECORD)
        keys[end - len(records) : end] = records["key"]
        documents[end - len(records) : end] = (_task_of(name) << 32) + records["number"].astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    second = 1 + np.flatnonzero(keys[1:] == keys[:-1])
    pairs = np.stack([documents[order[second - 1]], documents[order[second]]], axis=1)
    with files.write(f"matches/{part:05d}") as path, path.open("wb") as file:
        file.write(pairs.astype("<u8").tobytes())


def write_removed(num_tasks: int, num_parts: int, url: str, _: int) -> None:
    """Stage 3. Writes int64 [tasks + 1]: in bytes, where in this file the numbers of each task begin; uint32 numbers."""
    files = Folder(url)
    counts = np.zeros(num_tasks, np.int64)
    for name in files.names("signatures"):
        counts[_task_of(name)] += _read(files, f"signatures/{name}", 0, 8, "<i8")[0]
    starts = np.cumsum([0, *counts]).astype(np.uint64)
    earlier = np.arange(starts[-1], dtype=np.uint32 if starts[-1] < 1 << 32 else np.uint64)
    for part in range(num_parts):
        pairs = np.frombuffer(files.read(f"matches/{part:05d}"), "<u8").reshape(-1, 2)
        join(earlier, starts[pairs >> np.uint64(32)] + (pairs & np.uint64(0xFFFFFFFF)))
    begins = [8 * (num_tasks + 1)]
    with files.write("removed") as path, path.open("wb") as file:
        file.seek(begins[0])
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            removed = np.flatnonzero(earlier[start:end] != np.arange(start, end, dtype=earlier.dtype))
            begins.append(begins[-1] + file.write(removed.astype("<u4").tobytes()))
        file.seek(0)
        file.write(np.array(begins, "<i8").tobytes())


def _task_of(name: str) -> int:
    """Of a file of signatures."""
    return int(name.partition("-")[0])


@compiled
def join(earlier, pairs):
    """Union-find, in place. earlier [documents]: one of the same group, no later; the first of a group has itself."""
    for index in range(len(pairs)):
        first, second = pairs[index, 0], pairs[index, 1]
        while earlier[first] != first:
            earlier[first] = earlier[earlier[first]]  # halves the way for those who come next
            first = earlier[first]
        while earlier[second] != second:
            earlier[second] = earlier[earlier[second]]
            second = earlier[second]
        if first < second:
            earlier[second] = first
        else:
            earlier[first] = second


def exact_keys(text: str) -> list[int]:
    """One key. Texts count as equal if their keys are: a billion documents lose one wrongly with a probability of 3 %."""
    return [_key(text.encode())]


def minhash_keys(text: str) -> list[int]:
    """14 keys, at least one of which documents that are nearly equal share; none for a document without words."""
    return [_key(bytes([number]) + band.tobytes()) for number, band in enumerate(minima(text))]


def _key(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _read(files: Folder, name: str, begin: int, end: int, dtype: np.dtype | str) -> np.ndarray:
    """Bytes [begin, end) of a file as an array."""
    return np.frombuffer(files.read_slice(name, int(begin), int(end)), dtype)
