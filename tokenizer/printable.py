"""Text made safe to show: what others wrote could move a terminal's cursor or turn a line around; a command may hold a secret."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: format characters that stand inside words of Arabic and Indic scripts."""

MOST_NAMES, MOST_CHARACTERS = 20, 200
"""Of a list of names in a message: a name may be as long as its file."""

SECRET_NAME = re.compile(
    r"key|token(?!iz)|secret|passw|passphrase|pwd|credential|bearer|auth(?!or)|signature|(?<![a-z])sig(?![a-z])", re.IGNORECASE
)
"""To be searched for in the name of a variable, an option or a parameter: its value may be a secret."""

_NAME = rf"(?=[\w.-]*?(?:{SECRET_NAME.pattern}))[\w.-]++"
_BEGIN = r"""(?:^|(?<=[\s,;="']))"""
_VALUE = r"""(?:"[^"]*"?|'[^']*'?|[^\s,;"'])+"""
_SECRET_OPTION = re.compile(rf"(?P<name>{_NAME})(?P<value>=.*)?", re.IGNORECASE | re.DOTALL)
_HEX_KEY = (re.compile(rf"{_BEGIN}[0-9a-f]{{40}}(?![^\s,;\"'])"), "***")
"""As wandb's are. In longer paths and revisions the same digits are no secret."""
_ASSIGNED = (
    (re.compile(rf"""((["']){_NAME}=)(?:(?!\2).)*""", re.IGNORECASE | re.DOTALL), r"\1***"),
    (re.compile(rf"""({_BEGIN}(?:{_NAME}=|(?=-){_NAME}\s+))(?!\*\*\*["']){_VALUE}""", re.IGNORECASE), r"\1***"),
    _HEX_KEY,
)
"""Inside an argument that is handed on: NAME=VALUE and --NAME VALUE, as in --sbatch export=ALL,NAME=VALUE."""
LABELLED = ("--input", "--weights")
"""Options whose values are LABEL=VALUE: the label is the user's word for a part of the corpus."""

_SECRETS = (
    # user:password@, whatever is in the password; HOST:PORT/ is none where URLs have ports
    (re.compile(r"\b((?:s3a?|gs|gcs)://)[^/\s@:]*:\S*@"), r"\1***@"),
    (re.compile(r"(?<=://)(?:[^/\s@:]*:(?!\d{1,5}(?:/|$))\S*@|[^/\s@]+@)"), "***@"),
    (re.compile(rf"([?&;]{_NAME}=)[^&#\s]+", re.IGNORECASE), r"\1***"),  # of a signed URL
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
    return _replaced(text, _SECRETS)


def _replaced(text: str, secrets: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, instead in secrets:
        text = pattern.sub(instead, text)
    return text


def masked_command(arguments: Sequence[str]) -> list[str]:
    """A command line, `masked`; so is each VALUE of NAME=VALUE and `--NAME VALUE` whose name says that it is secret, also inside
    an argument, and each word of 40 hex digits. What stands before = in --input and --weights is a label."""
    return list(_masked_arguments(arguments))


def _masked_arguments(arguments: Iterable[str]) -> Iterator[str]:
    is_value = has_labels = False
    for argument in arguments:
        if argument.startswith("--"):
            has_labels = argument.partition("=")[0] in LABELLED
        found = _SECRET_OPTION.fullmatch(argument)
        if is_value and not argument.startswith("--"):
            yield "***"
        elif has_labels:  # no NAME=VALUE
            yield _replaced(masked(argument), [_HEX_KEY])
        elif found and found["value"]:
            yield f"{found['name']}=***"
        else:
            yield _replaced(masked(argument), _ASSIGNED)
        is_value = found is not None and argument.startswith("-") and not found["value"]
