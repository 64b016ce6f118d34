"""One run at a time in a run folder: a lock that the operating system drops when its holder ends, however it ends."""

import fcntl
import sys
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
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Make it writable, or choose another --output.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"{path.parent}: another run is at work here. Wait for it, or give another --output.") from error
    except OSError as error:  # a cluster's file system may lack flock
        print(f"{path}: cannot be locked ({error.strerror}); see to it that one run at a time works here", file=sys.stderr)
    return file
