"""What happens to bad input: stop at the first fault, or leave it out, count it and go on (`--on_error fail|skip`).

Messages quote the corpus through `Faults.quote` alone, which keeps to `--private`.
"""

from typing import Literal, Protocol

from tokenizer.errors import UserError
from tokenizer.printable import printable

MAX_LISTED = 100
"""Faults that are kept with their place and reason; all are counted."""

WITHHELD = "[not shown: the corpus is private]"


class Named(Protocol):
    """What of an `Input` is needed to say where a fault is."""

    @property
    def source(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...


class Faults:
    """Faults of the input, in the order they were found.

    Each fault is reported once, by the range that owns its document, so the sums over all ranges do not depend on the cut.
    """

    def __init__(self, mode: Literal["fail", "skip"] = "fail", *, private: bool = False):
        self.mode, self.private = mode, private
        self.num = 0
        """How many were reported."""
        self.listed: list[dict[str, str]] = []
        """The first MAX_LISTED: `location` (LABEL=, name of the input, byte or row: no path of this machine) and `reason`."""

    def quote(self, text: object) -> str:
        """Text of the corpus, or words of a library that may hold some, for a reason; if it is private, what stands for it."""
        return WITHHELD if self.private else str(text)

    def report(self, location: str, error: UserError, reason: str | None = None) -> None:
        """Raise `error` in mode "fail"; otherwise count it, with `reason` (None: the error's message) for the list."""
        if self.mode == "fail":
            raise error
        self.num += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append({"location": location, "reason": reason or str(error)})

    def report_in(self, item: Named, place: str, reason: str) -> None:
        """Report a fault inside an input. place: "" (all of it), ":12" (a line), " byte 120" or " row 7"."""
        error = UserError(f"{printable(item.source)}{place}: {reason}")
        self.report(f"{with_label(item.label, item.name)}{place}", error, reason)


def with_label(label: str, name: str) -> str:
    """What tells two inputs of one name apart."""
    return f"{label}={name}" if label else name
