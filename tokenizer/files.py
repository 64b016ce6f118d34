"""Writing folders and files so that the final name appears only when its content is complete and on disk.

Everything is written under a temporary name in the same parent folder, flushed with fsync, and renamed.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizer.errors import UserError

NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY)
"""What writing and renaming meet that is the user's to mend."""


def check_output_folder(path: Path, marker: str, what: str, content: str = ".*", *, in_place: bool = False) -> None:
    """Refuse an output that holds something else than an earlier `what`, or is unwritable.

    An earlier one holds the file `marker`, and nothing but names that the regular expression `content` matches. in_place: it is
    written into, and not replaced as a whole, which a mount point cannot be.

    Raises:
        UserError: `path` is a file, a folder that holds something else, a mount point to be replaced, or cannot be created.
    """
    path = Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: the output must be a folder, but this is a file. Choose another --output.")
        if not in_place and os.path.ismount(path):
            raise UserError(
                f"{path}: is a mount point (such as docker -v makes), whose place no finished {what} can take. Give a folder "
                f"inside it as --output, such as {path / what.replace(' ', '_')}."
            )
        names = sorted(os.listdir(path)) if path.exists() else []
        others = [name for name in names if not re.fullmatch(content, name)]
        if names and (others or not (path / marker).is_file()):
            raise UserError(
                f"{path}: this folder holds something else ({', '.join(others[:5]) or f'no {marker} in it'}), so it is left alone. "
                f"Choose an empty or new folder for the {what}."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.parent / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(path, error) from error


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it is fsynced and takes the name `path`, replacing what was there.

    On any exception the temporary folder is removed and `path` stays as it was; only where nothing but the new name could not be
    given, the temporary folder stays. Where `path` is a link, its target is replaced.

    Raises:
        UserError: the disk is full, or the folder cannot be created or renamed.
    """
    path = Path(os.path.realpath(path))
    token = secrets.token_hex(4)
    temporary, old = (path.parent / f".{path.name}.{kind}-{token}" for kind in ("tmp", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        fsync_tree(temporary)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise _not_writable(path, error) from error
        raise
    _put_in_place(temporary, path, old)


def _put_in_place(temporary: Path, path: Path, old: Path) -> None:
    """Rename `path`, where it is there, to `old` until `temporary` has taken its name.

    Raises:
        UserError: it cannot be renamed; the temporary folder stays, for it may be the work of hours, and `path` is as it was.
    """
    try:
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException as error:
        if old.exists() and not path.exists():
            old.rename(path)
        if isinstance(error, OSError) and temporary.is_dir():
            raise UserError(
                f"{path}: what was made cannot take this name ({error.strerror or error}). It is whole and lies in {temporary}: "
                "move it to a place of your choice."
            ) from error
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def as_user_error(error: Exception) -> Exception:
    """A UserError for a file that the system does not let be written; any other error as it is."""
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE and error.filename:
        return _not_writable(Path(os.fsdecode(error.filename)), error)
    return error


def check_format_version(path: Path, version: object, current: int, remedy: str) -> None:
    """Raise a UserError unless `version`, read from `path`, is the current one or the one before."""
    oldest = max(1, current - 1)
    if version not in range(oldest, current + 1):
        raise UserError(
            f"{path}: format_version is {version!r}, but this release reads {oldest} to {current}. Format version N is read by the "
            f"releases that write N or N + 1 (`albert --version`); or: {remedy}"
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """An error of the system that safetensors met is raised as OSError again."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under a temporary name, fsync, rename to `path`."""
    temporary = path.parent / f".{path.name}.tmp-{secrets.token_hex(4)}"
    try:
        temporary.write_text(text, encoding="utf-8")
        fsync_path(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise
    fsync_path(path.parent)


def write_json(path: Path, content: object) -> None:
    """`write_text` of `content` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def nearest_folder(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def sha256_of_files(*paths: Path) -> str:
    """Hex SHA-256 over the bytes of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fsync_tree(folder: Path) -> None:
    """fsync every file and folder below `folder`, and itself."""
    for root, _, files in os.walk(folder):
        for name in files:
            fsync_path(Path(root) / name)
        fsync_path(Path(root))


def fsync_path(path: Path) -> None:
    """fsync one file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_writable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror or error}). Make room there, or choose another --output.")
