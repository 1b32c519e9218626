"""Read the numbered text lines of a plain or compressed file; lines that are not text are rejected, not raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from feedrank.api.readers.encodings import TextForm, find_form, transcoded
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.streams import DamagedStreamError, decompressed

MAX_LINE_BYTES = 1 << 24
"""In bytes; a longer line is rejected without being held in memory."""
REPORTED_BYTES = 8192
"""Bytes of a line that is too long that are kept for the report."""
_ADVICE = "if the file has another encoding, give it with --encoding, such as --encoding cp1252"
_BOM = b"\xef\xbb\xbf"


def read_lines(
    path: Path, rejects: Rejects, encoding: str | None = None, may_be_western: bool = False
) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end) for each line of a file; see `decode_lines`.

    encoding: None: by the byte order mark, else UTF-8. may_be_western: see `find_form`.
    """
    with path.open("rb") as stream:
        form = find_form(stream, encoding, may_be_western)
        if form.note:
            rejects.note(form.note)
        yield from decode_lines(stream, str(path), rejects, form)


def decode_lines(
    stream: BinaryIO, source: str, rejects: Rejects, form: TextForm | str = "utf-8"
) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end) for each line of a seekable, possibly compressed stream.

    Blank lines are included. Rejected under `source` are bytes that are invalid in the encoding, NUL bytes, lines of
    more than `MAX_LINE_BYTES` and damage of a compressed stream. form: an encoding with line feeds, or a `TextForm`.
    """
    form = TextForm(form) if isinstance(form, str) else form
    encoding, chunks = form.encoding, decompressed(stream)
    is_transcoded = not form.is_ascii_superset
    if is_transcoded:
        encoding, chunks = "utf-8", transcoded(chunks, form.encoding)
    number, rest, too_long = 0, b"", False
    try:
        for chunk in chunks:
            *whole, rest = (rest + chunk).split(form.line_end)
            for raw in whole:
                number += 1
                if too_long or len(raw) > MAX_LINE_BYTES:
                    rejects.reject(source, number, f"longer than {MAX_LINE_BYTES:,} bytes", raw)
                    too_long = False
                elif (text := _decode_line(raw, source, number, rejects, encoding, is_transcoded)) is not None:
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
    elif rest and (text := _decode_line(rest, source, number + 1, rejects, encoding, is_transcoded)) is not None:
        yield number + 1, text


def _decode_line(
    raw: bytes, source: str, number: int, rejects: Rejects, encoding: str, is_transcoded: bool
) -> str | None:
    raw = raw.removesuffix(b"\r")
    if number == 1:
        raw = raw.removeprefix(_BOM)
    if b"\0" in raw:
        rejects.reject(source, number, "holds a NUL byte: expected text (is it UTF-16, or was the disk full?)", raw)
        return None
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as problem:
        position, byte = problem.start + 1, raw[problem.start]
        rejects.reject(source, number, f"not {encoding}: byte 0x{byte:02x} at position {position}; {_ADVICE}", raw)
        return None
    if is_transcoded and "\ufffd" in text:
        rejects.reject(source, number, f"holds bytes that are invalid in its encoding; {_ADVICE}", raw)
        return None
    return text
