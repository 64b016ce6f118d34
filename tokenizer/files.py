"""Writing folders and files so that the final name appears only when its content is complete and on disk.

Everything is written under a temporary name in the same parent folder, flushed with fsync, and renamed.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizer.errors import UserError


def check_output_folder(path: Path, marker: str, what: str) -> None:
    """Refuse an output that holds something else than an earlier `what` (recognised by the file `marker`), or is unwritable.

    Raises:
        UserError: `path` is a file, a non-empty folder without `marker`, or cannot be created.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: the output must be a folder, but this is a file. Choose another --output.")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise UserError(
            f"{path}: this folder holds something else (no {marker} in it), so it is left alone. "
            f"Choose an empty or new folder for the {what}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.parent / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}). Choose a writable --output.") from error


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it is fsynced and takes the name `path`, replacing what was there.

    On any exception the temporary folder is removed and `path` stays as it was.
    """
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    temporary = path.parent / f".{path.name}.tmp-{token}"
    temporary.mkdir()
    try:
        yield temporary
        fsync_tree(temporary)
        if path.exists():
            old = path.parent / f".{path.name}.old-{token}"
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        fsync_path(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under a temporary name, fsync, rename to `path`."""
    temporary = path.parent / f".{path.name}.tmp-{secrets.token_hex(4)}"
    try:
        temporary.write_text(text, encoding="utf-8")
        fsync_path(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def write_json(path: Path, content: object) -> None:
    """`write_text` of `content` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
