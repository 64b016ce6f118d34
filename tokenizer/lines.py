"""A plain, .gz or .zst file in; its lines out, as checked UTF-8 text with line numbers and byte offsets.

Lines end at "\\n" and nowhere else: str.splitlines would also cut at U+2028 or U+0085, and offsets would drift.
"""

import gzip
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from tokenizer.errors import UserError

BLOCK_SIZE = 1 << 20
"""Bytes read at a time."""

BOM = b"\xef\xbb\xbf"

STARTS = [
    (b"\xff\xfe\x00\x00", "UTF-32", "Convert it: iconv -f UTF-32 -t UTF-8 FILE > utf8.txt"),
    (b"\x00\x00\xfe\xff", "UTF-32", "Convert it: iconv -f UTF-32 -t UTF-8 FILE > utf8.txt"),
    (b"\xff\xfe", "UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8 FILE > utf8.txt"),
    (b"\xfe\xff", "UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8 FILE > utf8.txt"),
    (b"\x1f\x8b", "gzip bytes", "Give the file the ending .gz."),
    (b"\x28\xb5\x2f\xfd", "zstd bytes", "Give the file the ending .zst."),
    (b"PAR1", "parquet bytes", "Give the file the ending .parquet."),
]
"""(first bytes, what they tell, what to do): marks of other encodings and formats, longer ones first."""


class Line(NamedTuple):
    """One line without its "\\n" or "\\r\\n"."""

    number: int
    """Counted from 1."""
    offset: int
    """Byte offset of its first byte in the decompressed stream (after a byte order mark)."""
    text: str


def read_lines(path: str) -> Iterator[Line]:
    """The lines of a UTF-8 file, one block in memory at a time.

    Raises:
        UserError: the file cannot be opened, is cut short or damaged, binary, or not UTF-8.
    """
    offset = 0
    for number, raw in enumerate(_split(_blocks(path)), start=1):
        start = offset
        offset += len(raw) + 1
        if number == 1:
            for first_bytes, what, remedy in STARTS:
                if raw.startswith(first_bytes):
                    raise UserError(f"{path}:1: expected UTF-8 text, but this begins like {what}. {remedy}")
            if raw.startswith(BOM):
                raw, start = raw[len(BOM) :], len(BOM)
        if b"\0" in raw:
            raise UserError(
                f"{path}:{number}: a zero byte at byte {start + raw.index(0)}: this is a binary file, or text that is not UTF-8. "
                f"Expected UTF-8 text; convert the file, or leave it out of --input."
            )
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}:{number}: not UTF-8 at byte {start + error.start} (0x{raw[error.start]:02x}). If you know the encoding, "
                f"convert the file: iconv -f WINDOWS-1252 -t UTF-8 FILE > utf8.txt"
            ) from error
        yield Line(number, start, text.removesuffix("\r"))


def _split(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without "\\n"; parts of a long line are joined once, so a line of any length costs linear time."""
    pending: list[bytes] = []
    for block in blocks:
        first, *rest = block.split(b"\n")
        pending.append(first)
        if rest:
            yield b"".join(pending)
            yield from rest[:-1]
            pending = [rest[-1]]
    last = b"".join(pending)
    if last:
        yield last


def _blocks(path: str) -> Iterator[bytes]:
    """The decompressed bytes of a file."""
    try:
        if path.lower().endswith(".zst"):
            yield from _zstd_blocks(path)
            return
        compressed = path.lower().endswith(".gz")
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            num_bytes = 0
            while block := file.read(BLOCK_SIZE):
                num_bytes += len(block)
                yield block
            if compressed and not num_bytes and not file.fileobj.tell():
                raise EOFError("empty file")
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"{path}: the compressed file is cut short or damaged ({error}). Fetch or compress it again; "
            f"`{'zstd' if path.lower().endswith('.zst') else 'gzip'} -t {path}` checks it."
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check the file and its permissions.") from error


def _zstd_blocks(path: str) -> Iterator[bytes]:
    """zstandard's own reader ends without a word when a file is cut short, so the frames are followed here."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = decompressor.decompressobj()
    inside = True  # an empty file is not a zstd file
    with open(path, "rb") as file:
        while data := file.read(BLOCK_SIZE // 4):
            while data:
                if not inside:
                    frame, inside = decompressor.decompressobj(), True
                block = frame.decompress(data)
                if block:
                    yield block
                if not frame.eof:
                    break
                data, inside = frame.unused_data, False
    if inside:
        raise EOFError("the last frame has no end")
