"""One range of rows of a .parquet file or a `datasets` dataset in; (row, text) of its documents out. Null is an empty document."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tokenizer.errors import first_line
from tokenizer.faults import Faults
from tokenizer.inputs import Input
from tokenizer.printable import names_of
from tokenizer.storage import is_url, open_file

if TYPE_CHECKING:  # slow imports, made where they are needed
    import datasets
    import pyarrow
    import pyarrow.parquet

BATCH_BYTES = 1 << 20
"""Text of a parquet file held at a time, if its rows are of even length."""

BATCH_ROWS = 256
"""Rows of a dataset held at a time, and the most of a parquet file."""

ALL_ROWS = 1 << 62
"""The end of the one range of a table that could not be opened when the work was shared out, but perhaps can when it is read."""


class TableError(Exception):
    """The table cannot be opened. reason: with {} for the words of a library, which may quote the table: `told` alone has them."""

    def __init__(self, reason: str, words: str):
        super().__init__(reason.replace("{}", "..."))
        self.reason, self.words = reason, words

    def told(self, faults: Faults) -> str:
        return self.reason.replace("{}", faults.quote(self.words))


def read_parquet(item: Input, begin: int, end: int, text_field: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Texts of the row groups whose first row lies in [begin, end). A damaged row group is left off where the damage begins.

    A column that is missing or wrong is reported by the range that begins at 0; a file that cannot be opened by every range, since
    later ones exist only if it could be once.

    Raises:
        OSError, or what else the driver of a URL raises: the bytes cannot be read.
    """
    from pyarrow import ArrowException

    try:
        with open_parquet(item.source) as file:
            if wrong := _wrong_column(file.schema_arrow, text_field, faults):
                if begin == 0:
                    faults.report_in(item, "", wrong)
                return
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
                        if is_url(item.source) and not _is_damage(error):
                            raise
                        place = f" rows {row}-{row + size.num_rows - 1}"
                        faults.report_in(item, place, f"damaged ({faults.quote(first_line(error))}). Fetch or write it again.")
                row += size.num_rows
    except TableError as error:
        faults.report_in(item, "", error.told(faults))


def read_hf(item: Input, begin: int, end: int, text_field: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Texts of the rows [begin, end) of a dataset. Faults as of `read_parquet`."""
    try:
        dataset = load_hf(item.source, quietly=faults.private)
    except TableError as error:
        faults.report_in(item, "", error.told(faults))
        return
    if wrong := _wrong_column(dataset.features.arrow_schema, text_field, faults):
        if begin == 0:
            faults.report_in(item, "", wrong)
        return
    rows = dataset.select(range(begin, min(end, dataset.num_rows)))
    tables = rows.select_columns([text_field]).with_format("arrow").iter(BATCH_ROWS)
    yield from _texts((table.column(0) for table in tables), begin, item, faults)


def parquet_groups(item: Input, text_field: str) -> list[tuple[int, int]]:
    """(rows, bytes of text before compression) of each row group; (ALL_ROWS, 0) where the file cannot be opened."""
    try:
        with open_parquet(item.source) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    except Exception:  # each driver of a URL has its own types; reading it says what is wrong
        return [(ALL_ROWS, 0)]
    sizes = []
    for group in groups:
        columns = [group.column(number) for number in range(group.num_columns)]
        texts = [column.total_uncompressed_size for column in columns if column.path_in_schema == text_field]
        sizes.append((group.num_rows, sum(texts) or group.total_byte_size))
    return sizes


def hf_size(item: Input) -> tuple[int, int]:
    """(rows, bytes) of a dataset; (ALL_ROWS, 0) where it cannot be loaded: reading it says why."""
    try:
        dataset = load_hf(item.source, quietly=True)
    except TableError:
        return ALL_ROWS, 0
    return dataset.num_rows, dataset.data.nbytes


@contextmanager
def open_parquet(source: str) -> "Iterator[pyarrow.parquet.ParquetFile]":
    import pyarrow.parquet

    with ExitStack() as stack:
        try:
            raw = stack.enter_context(open_file(source))
            # A buffer makes the column stream page by page; without one a whole row group is read at once.
            file = stack.enter_context(pyarrow.parquet.ParquetFile(raw, buffer_size=BATCH_BYTES, pre_buffer=False))
        except Exception as error:
            if not _is_damage(error):
                raise
            raise TableError("cannot be read as parquet ({}). Fetch or write it again.", first_line(error)) from error
        yield file


def load_hf(source: str, *, quietly: bool) -> "datasets.Dataset":
    """quietly: without the errors that `datasets` logs, with the row at fault, before it raises one."""
    import datasets

    before = datasets.logging.get_verbosity()
    if quietly:
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        return _load_hf(source)
    finally:
        datasets.logging.set_verbosity(before)


@functools.lru_cache(maxsize=4)
def _load_hf(source: str) -> "datasets.Dataset":
    import datasets

    name, config, split = (source[len("hf:") :].split(":") + ["", ""])[:3]
    try:
        return datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # datasets raises a dozen types, from the network to the parser
        raise TableError(
            f"`datasets` could not load it ({type(error).__name__}: {{}}). "
            f"Check the name, the configuration, the split, and the network.",
            first_line(error),
        ) from error


def _is_damage(error: Exception) -> bool:
    """Whether it is the bytes that are wrong. Arrow's errors on them are its own or a bare OSError; a disk's have a number."""
    from pyarrow import ArrowException

    return isinstance(error, ArrowException) or (type(error) is OSError and error.errno is None)


def _wrong_column(schema: "pyarrow.Schema", text_field: str, faults: Faults) -> str | None:
    """Why the texts cannot be taken from a table of this schema."""
    import pyarrow

    there = f"There are: {faults.quote(names_of(schema.names))}. Give the right one with --text_field."
    if text_field not in schema.names:
        return f"no column `{text_field}`. {there}"
    if schema.names.count(text_field) > 1:
        return f"{schema.names.count(text_field)} columns are named `{text_field}`, one is needed. Write the table again."
    kind = schema.field(text_field).type
    value = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value) or pyarrow.types.is_string_view(value)):
        return f"column `{text_field}` must hold strings, found {faults.quote(names_of([str(kind)]))}. {there}"
    return None


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
