"""A process that shows no sign of life for too long is ended, by itself: a cut network, a peer that hangs, a disk that never
answers leave a collective waiting for half an hour otherwise (docs/decisions.md)."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

SLOW = 10
"""Patience, in multiples of `supervision.watchdog_seconds`, for what is rare and can be slow: starting, compiling, saving."""
LONGER_THAN_EVER = 3
"""Nothing is taken for hung that has not taken so many times the longest beat before."""
EXIT_HUNG = 1
SECONDS_TO_TELL = 10


class Watchdog:
    """Counts the seconds since the last `beat` in a thread; when there are too many, calls `on_hang`, shows where every thread
    stands, and ends the process."""

    def __init__(self, seconds: float, on_hang: Callable[[str], None]):
        """on_hang: is told what hung, in words."""
        self.seconds, self.on_hang = seconds, on_hang
        self.longest = 0.0
        self.last, self.doing, self.patience, self.is_regular = time.monotonic(), "starting", SLOW, False
        self.closed = threading.Event()
        threading.Thread(target=self.watch, name="watchdog", daemon=True).start()

    def beat(self, doing: str, patience: float = 1, *, is_regular: bool = True) -> None:
        """A sign of life. doing: what comes now; it may take `patience` times `seconds`. is_regular: whether it tells how long
        others can take."""
        now = time.monotonic()
        if self.is_regular:
            self.longest = max(self.longest, now - self.last)
        self.last, self.doing, self.patience, self.is_regular = now, doing, patience, is_regular

    def allowed(self) -> float:
        """Seconds that what is being done may take."""
        return max(self.patience * self.seconds, LONGER_THAN_EVER * self.longest)

    def watch(self) -> None:
        nap, before = min(1.0, self.seconds / 4), time.monotonic()
        while not self.closed.wait(nap):
            now = time.monotonic()
            self.last += max(0.0, now - before - 2 * nap)  # the whole process was suspended
            before = now
            if (waited := now - self.last) > self.allowed():
                self.end(f"no sign of life for {waited:.0f} s while {self.doing}")

    def end(self, what: str) -> None:
        last_resort = threading.Timer(SECONDS_TO_TELL, os._exit, (EXIT_HUNG,))
        last_resort.daemon = True
        last_resort.start()  # a disk that never answers takes no report either
        try:
            print(f"{what}; every thread stands as follows", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(sys.stderr)
            self.on_hang(what)
        finally:
            os._exit(EXIT_HUNG)

    def close(self) -> None:
        self.closed.set()
