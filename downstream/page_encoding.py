"""The bytes of a web page in, its text out, in the encoding that browsers take (WHATWG, "Encoding Standard").

The name that a page gives is often that of an older and smaller one: browsers read gb2312 as gb18030, iso-8859-1 as windows-1252.
"""

import codecs
import re
from contextlib import suppress
from pathlib import Path

from tokenizer.errors import UserError

CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
CHARSET_BYTES = 1024
"""Where a page must say its encoding (HTML, "Specifying the document's character encoding")."""

TAKEN = {
    "utf-8", "cp866", "koi8-r", "koi8-u", "mac-roman", "cp874", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949",
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)), *(f"cp125{page}" for page in range(9)),
    "mac-cyrillic",
}  # fmt: skip
"""Codecs of Python for the encodings of the standard. Others, such as unicode_escape, are for no page."""

OTHER_NAMES = {
    "cp1252": "ascii iso8859-1 x-user-defined",
    "cp1254": "iso8859-9",
    "cp874": "iso8859-11 tis-620 windows-874 dos-874",
    "gb18030": "gb2312 gbk x-gbk gb_2312-80 iso-ir-58",
    "big5hkscs": "big5 x-x-big5 cn-big5",
    "cp932": "shift_jis x-sjis windows-31j",
    "euc_jp": "x-euc-jp",
    "cp949": "euc_kr ksc_5601 ks_c_5601-1989 windows-949",
    "iso8859-8": "iso-8859-8-i logical visual",
    "koi8-r": "koi koi8",
    "koi8-u": "koi8-ru",
    "mac-roman": "x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "utf-8": "unicode-1-1-utf-8",
}
"""Of a codec that browsers take: names of encodings that they read with it, Python's own and those that it does not know."""
CODEC_OF = {name: codec for codec, names in OTHER_NAMES.items() for name in names.split()}


def decode_page(source: str) -> str:
    """By its byte-order mark or the encoding that it names, otherwise as UTF-8. What is wrong in it becomes U+FFFD, and is told.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}).") from error
    codec = codec_for(content)
    try:
        return content.decode(codec)
    except UnicodeError:
        print(f"{source}: is not all text in the encoding {codec}; some letters are lost. Save it as UTF-8, and say so in it.")
        return content.decode(codec, errors="replace")


def codec_for(content: bytes) -> str:
    """Of Python."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    named = CHARSET.search(content[:CHARSET_BYTES])
    codec = None if named is None or content.startswith(codecs.BOM_UTF8) else codec_named(named[1].decode().lower())
    return codec or "utf-8-sig"


def codec_named(label: str) -> str | None:
    """That of an encoding as a page names it; None where browsers know no such name, or it cannot be true: UTF-16 would hide it."""
    label = re.sub(r"^x-(?=cp125\d$)", "", label)
    with suppress(LookupError):
        label = codecs.lookup(label).name
    codec = CODEC_OF.get(label, label)
    return codec if codec in TAKEN else None
