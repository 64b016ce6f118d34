"""One run at a time in a run folder: a lock that the operating system drops when its holder ends, however it ends."""

import fcntl
from pathlib import Path
from typing import TextIO

from tokenizer.errors import UserError


def hold_lock(path: Path) -> TextIO:
    """Lock `path` for as long as the returned file is open. Rank 0 holds RUN/.lock, `albert launch` RUN/.launch.lock.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    try:
        file = path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{path.parent}: another run is at work here. Wait for it, or give another --output.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Make it writable, or choose another --output.") from error
    return file
