"""Finds the encoding and the line ends of a text file from its bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from feedrank.api.readers.streams import DamagedStreamError, decompressed

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order mark -> encoding; the longer marks first."""
WESTERN = "cp1252"
_WESTERN_TEXT = re.compile(
    r"[\x00-\x7f€‚„…‰Š‹ŒŽ‘’“”•–—™š›œžŸ£§«»°´·¿¡©®\xa0ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûü]*"
)
_LONG_RUN = re.compile(rb"[\x80-\xff]{3}")
"""Western text has single letters beyond ASCII; other scripts have long runs of them."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """How the bytes of a file become lines of text."""

    encoding: str = "utf-8"
    line_end: bytes = b"\n"
    """Line feed, or carriage return as old Macs wrote."""
    note: str = ""
    """What was decided and is not certain, as a sentence; empty if nothing."""

    @property
    def is_ascii_superset(self) -> bool:
        """Whether lines can be split before they are decoded, as in UTF-8 and Latin-1, but not UTF-16."""
        return "\n,a".encode(self.encoding, "replace") == b"\n,a"


def find_form(stream: BinaryIO, encoding: str | None, may_be_western: bool) -> TextForm:
    """Find the form of a seekable stream, possibly compressed, and rewind it.

    encoding: as the user gave it; None: by its mark, else UTF-8. may_be_western: if it is not UTF-8 anywhere and
    can be Western text, it is read as cp1252. This reads the whole stream.
    """
    head = next(_chunks(stream), b"")
    stream.seek(0)
    found = encoding or _by_mark(head)
    line_end = b"\n"
    if found is None or TextForm(found).is_ascii_superset:
        lone = head.count(b"\r") - head.count(b"\r\n")
        line_end = b"\r" if lone > head.count(b"\n") and lone > head.count(b"\r\n") else b"\n"
    if found is None and may_be_western:
        is_western = _is_western(stream)
        stream.seek(0)
        if is_western:
            note = f"the file is not UTF-8 and was read as {WESTERN} (Western Europe); give --encoding if that is wrong"
            return TextForm(WESTERN, line_end, note)
    return TextForm(found or "utf-8", line_end)


def transcoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the chunks of an encoding such as UTF-16 in UTF-8; bytes that are invalid become U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _by_mark(head: bytes) -> str | None:
    """Return the encoding by the byte order mark, or by the pattern of NUL bytes that UTF-16 has; else None."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    even, odd = head[0:2000:2], head[1:2000:2]
    if len(odd) >= 4:
        for encoding, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
            if high.count(0) > 0.4 * len(high) and low.count(0) < 0.05 * len(low):
                return encoding
    return None


def _is_western(stream: BinaryIO) -> bool:
    """Return whether a stream is nowhere UTF-8 beyond ASCII, and is text of Western Europe in cp1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(stream):
            if not chunk.isascii() or decoder.getstate()[0]:
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        pass
    else:
        return False
    stream.seek(0)
    rest, seen = b"", False
    for chunk in chain(_chunks(stream), (b"\n",)):
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.isascii():
                continue
            seen = True
            if _is_utf8(line) or _LONG_RUN.search(line) or not _is_western_line(line):
                return False
    return seen


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_western_line(line: bytes) -> bool:
    try:
        return _WESTERN_TEXT.fullmatch(line.decode(WESTERN)) is not None
    except UnicodeDecodeError:
        return False


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the decompressed bytes up to the first damage, which is reported when the lines are read."""
    try:
        yield from decompressed(stream)
    except DamagedStreamError:
        return
