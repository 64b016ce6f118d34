"""The one exception that users are meant to read."""

from pathlib import Path


class UserError(Exception):
    """Something the user can mend: bad input, a wrong option, an output that is taken.

    The message names the file or field, what was expected, what came, and what to do next.
    The `albert` command prints it without a traceback and ends with exit code 2.
    """


def first_line(error: Exception) -> str:
    """Of what a library says, for a message of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def check_all(options: object, wanted: dict[str, tuple[bool, str]]) -> None:
    """Raise one UserError with a line for each option at fault. wanted: by name, whether the value is right, and what is right."""
    faults = []
    for name, (is_right, expected) in wanted.items():
        value = getattr(options, name)
        if not is_right:
            faults.append(f"  --{name} is {str(value) if isinstance(value, Path) else value!r}, but must be {expected}.")
    if faults:
        raise UserError("\n".join(["these options cannot be used:", *faults]))
