"""Read the numbered text lines of a plain, .gz or .zst file; lines that are not text are rejected, not raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.streams import DamagedStreamError, decompressed

MAX_LINE_BYTES = 1 << 24
"""In bytes; a longer line is rejected without being held in memory."""
REPORTED_BYTES = 8192
"""Bytes of a line that is too long that are kept for the report."""
_BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, rejects: Rejects, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end) for each line of a file; see `decode_lines`."""
    with path.open("rb") as stream:
        yield from decode_lines(stream, str(path), rejects, encoding)


def decode_lines(stream: BinaryIO, source: str, rejects: Rejects, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end) for each line of a seekable, possibly compressed stream.

    Blank lines are included. Rejected under `source` are bytes that are invalid in the encoding, NUL bytes, lines of
    more than `MAX_LINE_BYTES` and damage of a compressed stream. The encoding must be a superset of ASCII, such as
    UTF-8 or Latin-1.
    """
    number, rest, too_long = 0, b"", False
    try:
        for chunk in decompressed(stream):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                number += 1
                if too_long or len(raw) > MAX_LINE_BYTES:
                    rejects.reject(source, number, f"longer than {MAX_LINE_BYTES:,} bytes", raw)
                    too_long = False
                elif (text := _decode_line(raw, source, number, rejects, encoding)) is not None:
                    yield number, text
            if len(rest) > MAX_LINE_BYTES:
                too_long, rest = True, rest[:REPORTED_BYTES]
            elif too_long:
                rest = rest[:REPORTED_BYTES]
    except DamagedStreamError as problem:
        rejects.reject(source, number + 1, str(problem), rest)
        return
    if too_long:
        rejects.reject(source, number + 1, f"longer than {MAX_LINE_BYTES:,} bytes", rest)
    elif rest and (text := _decode_line(rest, source, number + 1, rejects, encoding)) is not None:
        yield number + 1, text


def _decode_line(raw: bytes, source: str, number: int, rejects: Rejects, encoding: str) -> str | None:
    raw = raw.removesuffix(b"\r")
    if number == 1:
        raw = raw.removeprefix(_BOM)
    if b"\0" in raw:
        rejects.reject(source, number, "holds a NUL byte: expected text (is it UTF-16, or was the disk full?)", raw)
        return None
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as problem:
        position, byte = problem.start + 1, raw[problem.start]
        rejects.reject(source, number, f"not {encoding}: byte 0x{byte:02x} at position {position}", raw)
        return None
