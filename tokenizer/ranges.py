"""Inputs in, ranges of them out: the pieces of work that a corpus is cut into, from its sizes alone."""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizer.inputs import Input
from tokenizer.lines import compression
from tokenizer.storage import file_size
from tokenizer.tables import hf_size, parquet_groups

COMPRESSED_RATIO = 3
"""Bytes of text taken for one byte of .gz or .zst, for num_bytes."""


class Range(NamedTuple):
    """A piece of one input. It owns the documents whose first byte or row lies in [begin, end)."""

    input_index: int
    begin: int
    end: int
    """Bytes of a plain .txt or .jsonl file, rows of .parquet and `hf:`; a compressed file is one range, 0 to its size."""
    num_bytes: int
    """Estimated bytes of text."""


def split_inputs(inputs: Sequence[Input], range_bytes: int, *, text_field: str = "text") -> list[Range]:
    """Ranges in the order of the inputs that tile each of them; every input has one at least, be it empty or unreadable.

    Args:
        inputs: from `resolve_inputs`.
        range_bytes: at least 1. Plain .txt and .jsonl are cut at its multiples; row groups of .parquet are gathered up to it.
        text_field: the column whose size counts in .parquet.

    Raises:
        UserError: the size of a file cannot be told.
    """
    return [part for index, item in enumerate(inputs) for part in _split(index, item, range_bytes, text_field)]


def _split(index: int, item: Input, range_bytes: int, text_field: str) -> list[Range]:
    if item.kind == "parquet":
        return _gather(index, parquet_groups(item, text_field), range_bytes)
    if item.kind == "hf":
        num_rows, num_bytes = hf_size(item)
        step = max(1, range_bytes * num_rows // max(1, num_bytes))
        begins = range(0, num_rows, step) or [0]
        sizes = [min(step, num_rows - begin) for begin in begins]
        return [
            Range(index, begin, begin + size, num_bytes * size // max(1, num_rows))
            for begin, size in zip(begins, sizes, strict=True)
        ]
    size = file_size(item.source)
    if compression(item.source):
        return [Range(index, 0, size, size * COMPRESSED_RATIO)]
    begins = range(0, size, range_bytes) or [0]
    return [Range(index, begin, min(begin + range_bytes, size), min(range_bytes, size - begin)) for begin in begins]


def _gather(index: int, groups: list[tuple[int, int]], range_bytes: int) -> list[Range]:
    """Row groups (rows, bytes) put together while they stay within range_bytes."""
    ranges: list[Range] = []
    begin = row = gathered = 0
    for num_rows, num_bytes in groups:
        if row > begin and gathered + num_bytes > range_bytes:
            ranges.append(Range(index, begin, row, gathered))
            begin, gathered = row, 0
        row += num_rows
        gathered += num_bytes
    return [*ranges, Range(index, begin, row, gathered)]
