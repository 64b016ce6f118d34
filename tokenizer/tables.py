"""One range of rows of a .parquet file or a `datasets` dataset in; (row, text) of its documents out. Null is an empty document."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tokenizer.faults import Faults
from tokenizer.inputs import Input
from tokenizer.storage import open_file

if TYPE_CHECKING:  # slow imports, made where they are needed
    import datasets
    import pyarrow
    import pyarrow.parquet

BATCH_BYTES = 1 << 20
"""Text of a parquet file held at a time, if its rows are of even length."""

BATCH_ROWS = 256
"""Rows of a dataset held at a time, and the most of a parquet file."""


class _WrongTableError(Exception):
    """The table cannot be used; the message is the reason."""


def read_parquet(item: Input, begin: int, end: int, text_field: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Texts of the row groups whose first row lies in [begin, end). A damaged row group is left off where the damage begins.

    What is wrong with the whole file (not parquet, no such column) is reported by the range that begins at 0.
    """
    from pyarrow import ArrowException

    try:
        with open_parquet(item.source) as file:
            _check_column(file.schema_arrow, text_field)
            row = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group)
                if begin <= row < end:
                    bytes_per_row = size.total_byte_size / max(1, size.num_rows)
                    rows = int(min(BATCH_ROWS, max(1, BATCH_BYTES / max(1, bytes_per_row))))
                    batches = file.iter_batches(rows, row_groups=[group], columns=[text_field], use_threads=False)
                    try:
                        yield from _texts((batch.column(0) for batch in batches), row, item, faults)
                    except (ArrowException, OSError) as error:
                        place = f" rows {row}-{row + size.num_rows - 1}"
                        faults.report_in(item, place, f"damaged ({_first_line(error)}). Fetch or write it again.")
                row += size.num_rows
    except _WrongTableError as error:
        if begin == 0:
            faults.report_in(item, "", str(error))


def read_hf(item: Input, begin: int, end: int, text_field: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Texts of the rows [begin, end) of a dataset. That it cannot be loaded is reported by the range that begins at 0."""
    try:
        dataset = load_hf(item.source)
        _check_column(dataset.features.arrow_schema, text_field)
    except _WrongTableError as error:
        if begin == 0:
            faults.report_in(item, "", str(error))
        return
    tables = dataset.select(range(begin, end)).select_columns([text_field]).with_format("arrow").iter(BATCH_ROWS)
    yield from _texts((table.column(0) for table in tables), begin, item, faults)


def parquet_groups(item: Input, text_field: str) -> list[tuple[int, int]]:
    """(rows, bytes of text before compression) of each row group; none where the file cannot be read: reading it says why."""
    try:
        with open_parquet(item.source) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    except _WrongTableError:
        return []
    sizes = []
    for group in groups:
        columns = [group.column(number) for number in range(group.num_columns)]
        texts = [column.total_uncompressed_size for column in columns if column.path_in_schema == text_field]
        sizes.append((group.num_rows, sum(texts) or group.total_byte_size))
    return sizes


def hf_size(item: Input) -> tuple[int, int]:
    """(rows, bytes) of a dataset; (0, 0) where it cannot be loaded: reading it says why."""
    try:
        dataset = load_hf(item.source)
    except _WrongTableError:
        return 0, 0
    return dataset.num_rows, dataset.data.nbytes


@contextmanager
def open_parquet(source: str) -> "Iterator[pyarrow.parquet.ParquetFile]":
    import pyarrow.parquet
    from pyarrow import ArrowException

    with ExitStack() as stack:
        try:
            raw = stack.enter_context(open_file(source))
            # A buffer makes the column stream page by page; without one a whole row group is read at once.
            file = stack.enter_context(pyarrow.parquet.ParquetFile(raw, buffer_size=BATCH_BYTES, pre_buffer=False))
        except (ArrowException, OSError) as error:
            raise _WrongTableError(f"cannot be read as parquet ({_first_line(error)}). Fetch or write it again.") from error
        yield file


@functools.lru_cache(maxsize=4)
def load_hf(source: str) -> "datasets.Dataset":
    import datasets

    name, config, split = (source[len("hf:") :].split(":") + ["", ""])[:3]
    try:
        return datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # datasets raises a dozen types, from the network to the parser
        raise _WrongTableError(
            f"`datasets` could not load it ({type(error).__name__}: {_first_line(error)}). "
            f"Check the name, the configuration, the split, and the network."
        ) from error


def _check_column(schema: "pyarrow.Schema", text_field: str) -> None:
    import pyarrow

    there = f"There are: {', '.join(schema.names[:20])}. Give the right one with --text_field."
    if text_field not in schema.names:
        raise _WrongTableError(f"no column `{text_field}`. {there}")
    kind = schema.field(text_field).type
    value = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value) or pyarrow.types.is_string_view(value)):
        raise _WrongTableError(f"column `{text_field}` must hold strings, found {kind}. {there}")


def _texts(columns: "Iterable[pyarrow.Array]", row: int, item: Input, faults: Faults) -> Iterator[tuple[int, str]]:
    """(row, text) of string columns, one batch after the other, from `row` on."""
    for column in columns:
        for value in column:
            try:
                text = value.as_py() or ""
            except UnicodeDecodeError as error:
                reason = f"not UTF-8 at byte {error.start} of the text. Write it again."
                faults.report_in(item, f" row {row}", reason)
            else:
                yield row, text
            row += 1


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
