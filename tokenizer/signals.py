"""Signals handled otherwise for a while."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def handled(numbers: Iterable[int], handler: Callable | signal.Handlers) -> Iterator[None]:
    """Inside, these signals go to `handler`; afterwards to what they went to before. In the main thread alone."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
