"""Text made safe to show: what others wrote could move a terminal's cursor or turn a line around; a command may hold a secret."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: format characters that stand inside words of Arabic and Indic scripts."""

MOST_NAMES, MOST_CHARACTERS = 20, 200
"""Of a list of names in a message: a name may be as long as its file."""

_SECRET_NAME = r"(?:[\w.-]*[._-])?(?:api_?key|key|token|secret|passw(?:or)?d|pwd|credentials?|signature|sig)"
_SECRET_OPTION = re.compile(rf"(?P<name>-*{_SECRET_NAME})(?P<value>=.*)?", re.IGNORECASE | re.DOTALL)
_SECRETS = (
    (re.compile(r"(?<=://)(?:[^/\s@:]*:(?!\d+(?:/|$))\S*@|[^/\s@]+@)"), "***@"),  # user:password@, whatever is in the password
    (re.compile(rf"([?&;]{_SECRET_NAME}=)[^&#\s]+", re.IGNORECASE), r"\1***"),  # of a signed URL
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{30,}|gh[a-z]_\w{30,}|github_pat_\w{30,}|sk-[\w-]{30,}|AKIA[0-9A-Z]{16}|wandb_v\d_\w{30,})"
        ),
        "***",
    ),
)
"""What looks like a secret inside a text, and what stands for it."""


def printable(text: object) -> str:
    """`str(text)` on one line of valid text: controls, terminal escapes, newlines, direction marks and half surrogates (bytes of a
    path that are not UTF-8) are spelt out, such as `\\x1b`."""
    return "".join(
        char if char.isprintable() or char in JOINERS else char.encode("unicode_escape").decode("ascii") for char in str(text)
    )


def names_of(names: Iterable[str]) -> str:
    """Names of fields for a message, as far as there is room."""
    shown = printable(", ".join(islice(names, MOST_NAMES)))
    return shown if len(shown) <= MOST_CHARACTERS else shown[:MOST_CHARACTERS] + "..."


def masked(text: str) -> str:
    """The text with `***` for passwords and signatures in URLs, and for what has the form of a well-known service's token."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def masked_command(arguments: Sequence[str]) -> list[str]:
    """A command line, `masked`; so are the values of options whose name says that they are secret, and keys of 40 hex digits."""
    return list(_masked_arguments(arguments))


def _masked_arguments(arguments: Iterable[str]) -> Iterator[str]:
    is_value = False
    for argument in arguments:
        found = _SECRET_OPTION.fullmatch(argument)
        if (is_value and not argument.startswith("--")) or re.fullmatch("[0-9a-f]{40}", argument):
            yield "***"
        elif found and found["value"]:
            yield f"{found['name']}=***"
        else:
            yield masked(argument)
        is_value = found is not None and argument.startswith("-") and not found["value"]
