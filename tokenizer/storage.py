"""Bytes of local files, and of everything fsspec reaches by URL (s3://, gs://, memory://, ...).

Local files are opened directly: faster, and the operating system's errors name the cause. A folder listed here gives what
`tokenizer.inputs` needs to number its files: paths relative to the folder or to the plain part of a glob.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from tokenizer.errors import UserError, first_line
from tokenizer.printable import printable

REMOTE_BLOCK = 4 << 20
"""Bytes fetched at a time from a URL; with its read-ahead, two blocks are in memory."""

CONTENT_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified")
"""Names that stores have for what changes with a file's content."""


def is_url(source: str) -> bool:
    return "://" in source


def open_file(source: str) -> BinaryIO:
    """The raw bytes of a file, to be read forward.

    Raises:
        OSError: it cannot be opened.
        UserError: its URL cannot be reached.
    """
    if not is_url(source):
        return open(source, "rb")
    filesystem, path = file_system(source)
    return filesystem.open(path, "rb", block_size=REMOTE_BLOCK, cache_type="readahead")


def read_bytes(source: str, begin: int, end: int) -> bytes:
    """Bytes [begin, end) of a file, fewer at its end; no more is fetched than these. Raises as `open_file`."""
    if is_url(source):
        filesystem, path = file_system(source)
        data = filesystem.cat_file(path, start=begin, end=end) if begin < end else b""
        if len(data) > end - begin:
            raise OSError("its server gives whole files only; fetch the file first")
        return data
    with open(source, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def file_size(source: str) -> int:
    """Bytes on disk.

    Raises:
        UserError: it cannot be told.
    """
    if not is_url(source):
        try:
            return os.stat(source).st_size
        except OSError as error:
            raise UserError(f"{printable(source)}: cannot be read ({error.strerror or error}). Check --input.") from error
    filesystem, path = file_system(source)
    try:
        size = filesystem.size(path)
    except Exception as error:
        raise unreachable(source, "read", error) from error
    if size is None:
        raise UserError(f"{printable(source)}: its server does not tell its size. Fetch the file first, and give its path.")
    return size


def size_and_mark(url: str) -> tuple[int | None, str]:
    """Bytes, and what the store changes with the content: its checksum, or a time; empty where it gives none.

    Raises:
        OSError: it is gone, or cannot be reached.
    """
    filesystem, path = file_system(url)
    info = filesystem.info(path)
    return info["size"], next((str(info[name]) for name in CONTENT_MARKS if info.get(name)), "")


def list_url(url: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(relative path, URL) of every file that a URL stands for: a file, a folder with all below it, or a glob.

    Hidden files are passed over, other types of files are not. Relative: to the folder, to the plain folders before a glob's
    first pattern, or the bare name of a file.

    Raises:
        UserError: there is nothing, the driver of the protocol is not installed, or the storage refuses.
    """
    filesystem, path = file_system(url)
    try:
        if filesystem.isfile(path):
            yield (PurePosixPath(path).name,), url
            return
        if glob.has_magic(path):
            parts = PurePosixPath(path).parts
            base = PurePosixPath(*parts[: next(number for number, part in enumerate(parts) if glob.has_magic(part))])
            matches = filesystem.glob(path, detail=True)
            files = [match for match, info in matches.items() if info["type"] == "file"]
            if "**" not in parts:  # with ** the files below are matches of their own
                folders = [match for match, info in matches.items() if info["type"] == "directory"]
                files += [file for folder in folders for file in filesystem.find(folder)]
        else:
            base, files = PurePosixPath(path), filesystem.find(path)
    except Exception as error:
        raise unreachable(url, "listed", error) from error
    for file in files:
        relative = PurePosixPath(file).relative_to(base).parts
        if not any(part.startswith(".") for part in relative):
            yield relative, filesystem.unstrip_protocol(file)


def unreachable(url: str, what: str, error: Exception, words: str | None = None) -> UserError:
    """error: of any type; each driver has its own, from wrong credentials to a lost network. words: to tell instead of its own."""
    return UserError(
        f"{printable(url)}: cannot be {what} ({type(error).__name__}: {words or first_line(error)}). "
        f"Check the URL, the credentials and the network, then start again."
    )


def file_system(url: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a URL.

    Raises:
        UserError: the protocol is unknown, or its driver is not installed.
    """
    import fsspec.core

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:  # fsspec's message names the package
        raise UserError(f"{url}: a package for such URLs is missing ({error}). Install it with pip, then start again.") from error
    except ValueError as error:
        raise UserError(f"{url}: cannot be used as a URL ({error}). Check its beginning.") from error
