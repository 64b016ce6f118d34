"""A folder on this machine or on any store that fsspec reaches (s3://, gs://, ...), whose files appear whole or not at all.

On a disk a file is written under a temporary name beside its own, flushed, and renamed. A store has no rename, but gives a
finished upload its name at once: there a file is written to a local temporary file and uploaded.
"""

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from tokenizer.errors import UserError
from tokenizer.files import NOT_WRITABLE, fsync_path
from tokenizer.storage import file_system, unreachable

TEMPORARY = ".tmp-"
"""In the name of every file that is not finished."""


class Folder:
    """Paths are relative to the folder, with `/`.

    Raises:
        UserError: the protocol is unknown or its package is not installed.
    """

    def __init__(self, url: str | Path):
        self.url = str(url)
        if "::" in self.url:  # fsspec would take it for a chain of stores
            raise UserError(f"{url}: `::` cannot be part of a path here. Choose another --output.")
        self.fs, self.root = file_system(self.url)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        if self.is_local:
            self.root = self.url = os.path.realpath(self.root)

    def __str__(self) -> str:
        return self.url

    def path(self, name: str = "") -> str:
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        return self.fs.exists(self.path(name))

    def names(self, subfolder: str = "") -> list[str]:
        """Names directly below the subfolder, sorted, without half-written files; none where it does not exist."""
        try:
            if not self.exists(subfolder):
                return []
            self.fs.invalidate_cache()
            paths = self.fs.ls(self.path(subfolder), detail=False)
        except Exception as error:
            if self.is_local:
                raise
            raise unreachable(self.url, "listed", error) from error
        names = (path.rstrip("/").rsplit("/", 1)[-1] for path in paths)
        return sorted(name for name in names if TEMPORARY not in name)

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def read_json(self, name: str) -> dict:
        return json.loads(self.read(name))

    def read_slice(self, name: str, begin: int, end: int) -> pa.Buffer:
        """Bytes [begin, end). Read, not memory-mapped: mapped pages would count as the memory of a worker."""
        # A store would be asked for the whole file if begin were end.
        return pa.py_buffer(self.fs.cat_file(self.path(name), start=begin, end=end) if begin < end else b"")

    def read_table(self, name: str) -> pa.Table:
        """A whole Arrow IPC stream."""
        return pa.ipc.open_stream(pa.py_buffer(self.read(name))).read_all()

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield the path of a new local file; when the block ends well it becomes the file `name`, replacing an earlier one.

        Raises:
            UserError: the disk is full, or the folder or store cannot be written.
        """
        target = self.path(name)
        try:
            if self.is_local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                temporary = Path(f"{target}{TEMPORARY}{secrets.token_hex(4)}")
            else:
                temporary = Path(tempfile.mkdtemp(prefix="albert-")) / "file"
            try:
                yield temporary
                if self.is_local:
                    fsync_path(temporary)
                    temporary.replace(target)
                    fsync_path(Path(target).parent)
                else:
                    self.fs.put_file(str(temporary), target)
            finally:
                temporary.unlink(missing_ok=True)
                if not self.is_local:
                    temporary.parent.rmdir()
        except PermissionError as error:
            raise UserError(f"{target}: cannot be written ({error}). Check its permissions, or choose another --output.") from error
        except OSError as error:
            if error.errno not in (*NOT_WRITABLE, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
                raise
            raise UserError(
                f"{target}: cannot be written ({error.strerror or error}). Make room there, or choose another --output."
            ) from error

    def write_json(self, name: str, content: object) -> None:
        with self.write(name) as path:
            # ASCII: names of files need not be valid text.
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")

    def write_table(self, name: str, table: pa.Table) -> None:
        """As an Arrow IPC stream."""
        with self.write(name) as path, pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)

    def copy_in(self, source: Path, name: str) -> None:
        with self.write(name) as path:
            shutil.copyfile(source, path)

    def remove(self, name: str) -> None:
        """A file, or a folder with all in it; nothing if it does not exist."""
        if self.exists(name):
            self.fs.rm(self.path(name), recursive=True)

    def remove_temporary(self) -> None:
        """Files that a killed process left half-written, in this folder and below."""
        if self.is_local:
            for found in Path(self.root).rglob(f"*{TEMPORARY}*"):
                found.unlink(missing_ok=True)
