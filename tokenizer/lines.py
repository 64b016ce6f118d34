"""A plain, .gz or .zst file in; its lines out as raw bytes, in pieces of about a megabyte, with byte offsets and line numbers.

Lines end at "\\n" and nowhere else: str.splitlines would also cut at U+2028 or U+0085, and offsets would drift.
A line of any length is bounded in memory: over LONG_LINE bytes it comes in fragments.
"""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from backports import zstd

from tokenizer.faults import Faults, Named
from tokenizer.storage import open_file, read_bytes

LONG_LINE = 1 << 20
"""Bytes; a longer line comes in fragments, and counts as text even where it holds only white space."""

BLOCK_SIZE = 1 << 20
"""Bytes read at a time. Not over LONG_LINE: `_pieces` relies on it."""

DAMAGE_STEP = 1 << 12
"""Bytes decompressed at a time: before the damage in a file, at most so many good ones are lost (.zst: a block of 128 KiB)."""

HEAD_SIZE = 1 << 12
"""Bytes at the start of a file that tell its encoding."""

BOM = b"\xef\xbb\xbf"

MAGIC = {".gz": (b"\x1f\x8b",), ".zst": (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60)))}
"""How compressed files begin (.zst: a frame, or a skippable frame)."""

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


class BadFileError(Exception):
    """The file is not what its name says, or cannot be read from here on; the message is the reason."""


class Piece(NamedTuple):
    """Whole lines of at most LONG_LINE bytes each, or one fragment of a longer line."""

    offset: int
    """Of its first byte in the decompressed stream."""
    line: int
    """How many newlines lie between where reading began and its first byte."""
    data: bytes
    """Ends with "\\n" if ends_line (also where the file's last line has none). Fragments are cut between characters."""
    begins_line: bool
    ends_line: bool


class LineFaults:
    """Reports faults: one that ends the work with its line, those that are left out with their byte.

    A line number takes counting the newlines before the part that is read, which for one fault in each part would be the whole file
    again and again.
    """

    def __init__(self, item: Named, begin: int, faults: Faults):
        self.item, self.begin, self.faults = item, begin, faults

    def report(self, offset: int, line: int, reason: str) -> None:
        """offset: of what is left out. line: newlines between where reading began and this line."""
        place = f" byte {offset}"
        if self.faults.mode == "fail":
            steps = range(0, self.begin, BLOCK_SIZE)
            blocks = (read_bytes(self.item.source, start, min(start + BLOCK_SIZE, self.begin)) for start in steps)
            num_before = sum(block.count(b"\n") for block in blocks)
            place = f":{1 + num_before + line}"
        self.faults.report_in(self.item, place, reason)

    def until_damage(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces as far as the file can be read; what stops them short is reported."""
        try:
            yield from pieces
        except BadFileError as error:
            self.faults.report_in(self.item, "", str(error))


def read_pieces(source: str, begin: int, *, look_back: bool) -> tuple[int, Iterator[Piece]]:
    """(where reading begins, pieces from there to the end of the file). A byte order mark is passed over.

    begin: 0, or a byte of a plain file; then the first piece may be the rest of a line. Reading begins at begin - 1, or with
    look_back at the start of the line that holds that byte, as far as it could be blank; what lies before is not read.

    Raises:
        BadFileError: it is not text, at once and for any `begin`; or damaged, after the last whole line that could be read.
        OSError: it cannot be read.
    """
    if begin == 0:
        blocks = _blocks(source, 0)
        first = next(blocks, b"")
        _check_head(first[:HEAD_SIZE])
        start = len(BOM) if first.startswith(BOM) else 0
        return start, _pieces(chain([first[start:]], blocks), start, inside=False)
    head = read_bytes(source, 0, HEAD_SIZE)
    _check_head(head)
    first_byte = len(BOM) if head.startswith(BOM) else 0
    if begin <= first_byte:
        start, inside = first_byte, False
    else:
        start, inside = _line_start(source, begin - 1, first_byte) if look_back else (begin - 1, True)
    return start, _pieces(_blocks(source, start), start, inside)


def compression(source: str) -> str | None:
    """The ending of a compressed file: .gz or .zst."""
    return next((ending for ending in MAGIC if source.lower().endswith(ending)), None)


def _pieces(blocks: Iterator[bytes], offset: int, inside: bool) -> Iterator[Piece]:
    """inside: the first bytes belong to a line that began before."""
    line = 0
    pending = b""  # no newline in it when a block is added, so only its first line can be long
    for block in chain(blocks, [None]):
        pending += b"\n" if block is None and pending else block or b""
        while pending:
            newline = pending.find(b"\n", 0, LONG_LINE + 1)
            if newline >= 0:
                cut = (newline if inside else pending.rfind(b"\n")) + 1
            elif len(pending) > LONG_LINE:
                cut = _character_border(pending)
            else:
                break
            yield Piece(offset, line, pending[:cut], not inside, newline >= 0)
            inside = newline < 0
            line += pending.count(b"\n", 0, cut)
            offset += cut
            pending = pending[cut:]


def _character_border(data: bytes) -> int:
    """Where to cut a long line, by its own bytes: not inside a character, nor between "\\r" and what may be its "\\n"."""
    cut = LONG_LINE
    while cut > LONG_LINE - 3 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut - 1 if data[cut - 1 : cut] == b"\r" else cut


def _line_start(source: str, at: int, first_byte: int) -> tuple[int, bool]:
    """(start of the line that holds byte `at`, False), or (at, True) once a character before `at` shows that it is not blank."""
    size = HEAD_SIZE
    while True:
        start = max(first_byte, at - size)
        data = read_bytes(source, start, at)
        newline = data.rfind(b"\n")
        if newline >= 0 or start == first_byte:
            return start + newline + 1, False
        if size > LONG_LINE or data.decode("utf-8", "ignore").strip():  # halves of characters at both ends are ignored
            return at, True
        size *= 4


def _blocks(source: str, begin: int) -> Iterator[bytes]:
    """The decompressed bytes of a file; begin must be 0 where it is compressed."""
    ending = compression(source)
    with open_file(source) as file:
        if ending:
            magic = file.read(4)
            if not magic.startswith(MAGIC[ending]):
                is_what = "begins otherwise" if magic else "is empty"
                raise BadFileError(
                    f"expected compressed bytes behind the ending {ending}, but the file {is_what}. If it is plain text, "
                    f"take the ending off; otherwise fetch it again."
                )
            file.seek(0)
            # Windows up to those of `zstd --long=31`.
            long = {zstd.DecompressionParameter.window_log_max: 31}
            yield from _decompressed(gzip.GzipFile(fileobj=file) if ending == ".gz" else zstd.ZstdFile(file, options=long), ending)
            return
        file.seek(begin)
        while block := file.read(BLOCK_SIZE):
            yield block


def _decompressed(stream: gzip.GzipFile | zstd.ZstdFile, ending: str) -> Iterator[bytes]:
    block = bytearray()
    damage = None
    while True:
        try:
            part = stream.read1(min(DAMAGE_STEP, BLOCK_SIZE - len(block)))
        except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
            part, damage = b"", str(error).partition(" (b")[0]  # "Not a gzipped file (b'Se')" quotes the file
        block += part
        if block and (not part or len(block) == BLOCK_SIZE):
            yield bytes(block)
            block.clear()
        if damage:
            raise BadFileError(
                f"the compressed file is cut short or damaged ({damage}). Fetch or compress it again; "
                f"`{'gzip' if ending == '.gz' else 'zstd'} -t FILE` checks it."
            )
        if not part:
            return


def _check_head(head: bytes) -> None:
    for first_bytes, what, remedy in STARTS:
        if head.startswith(first_bytes):
            raise BadFileError(f"expected UTF-8 text, but this begins like {what}. {remedy}")
    # UTF-16 without a mark: each ASCII character has a zero byte, always on the same side; in other scripts these are few.
    try:
        codecs.utf_8_decode(head, "strict", False)  # False: the last character may be cut
        enough = max(8, len(head) // 20)
    except UnicodeDecodeError:
        enough = max(2, len(head) // 200)
    for zeros, others, name in ((head[1::2], head[::2], "UTF-16LE"), (head[::2], head[1::2], "UTF-16BE")):
        if zeros.count(0) >= enough and not others.count(0):
            raise BadFileError(
                f"expected UTF-8 text, but zero bytes lie as in UTF-16 without a byte order mark. "
                f"Convert it: iconv -f {name} -t UTF-8 FILE > utf8.txt"
            )
