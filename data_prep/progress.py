"""Finished tasks in, a bar with rate and time left out; nothing where the output is no terminal."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar


class Progress:
    """One stage over all workers. total, done: bytes of input, or numbers of tasks."""

    def __init__(self, name: str, total: int, done: int, *, in_bytes: bool):
        amount = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
        columns = (TextColumn("{task.description:<10}"), BarColumn(), *amount, TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(name, total=total, completed=done)

    def advance(self, amount: int) -> None:
        self._bar.advance(self._task, amount)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
