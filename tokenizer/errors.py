"""The one exception that users are meant to read."""


class UserError(Exception):
    """Something the user can mend: bad input, a wrong option, an output that is taken.

    The message names the file or field, what was expected, what came, and what to do next.
    The `albert` command prints it without a traceback and ends with exit code 2.
    """
