"""Decompress a stream that may be gzip, zstd, bzip2, xz or zip; damage is distinguished from the end of the stream."""

from __future__ import annotations

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, cast

CHUNK_BYTES = 1 << 16
"""Bytes read from the file at a time."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zX"
_ZIP = b"PK\x03\x04"


class DamagedStreamError(Exception):
    """Raised where a stream is damaged; the bytes yielded before are correct."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def decompressed(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a seekable stream, decompressed if its first bytes are those of gzip, zstd, bzip2, xz or zip.

    Of a zip, the one file in it. Raises DamagedStreamError after the last correct bytes, and ValueError for a zip of
    several files.
    """
    head = next(_chunks(stream), b"")[:4]
    stream.seek(0)
    if head[:2] == _GZIP:
        yield from _decompress(stream, partial(zlib.decompressobj, wbits=31), (zlib.error,), "gzip")
    elif head == _ZSTD or head[1:] == _ZSTD_SKIPPABLE:
        import zstandard

        decompressor = zstandard.ZstdDecompressor()
        yield from _decompress(stream, decompressor.decompressobj, (zstandard.ZstdError,), "zstd")
    elif head[:3] == _BZIP2:
        yield from _decompress(stream, bz2.BZ2Decompressor, (OSError, ValueError), "bzip2")
    elif head == _XZ:
        yield from _decompress(stream, lzma.LZMADecompressor, (lzma.LZMAError,), "xz")
    elif head == _ZIP:
        yield from _unzipped(stream)
    else:
        yield from _chunks(stream)


def begins_as_json(path: Path) -> bool:
    """Return whether a file, plain or compressed, begins with a brace or a bracket, as JSON in any encoding does."""
    try:
        with path.open("rb") as stream:
            head = next(decompressed(stream), b"")
    except (DamagedStreamError, ValueError):
        return False
    return head.lstrip(_BEFORE_TEXT)[:1] in (b"{", b"[")


_BEFORE_TEXT = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
"""Bytes of byte order marks, of UTF-16 and of blanks."""


def data_files(names: Iterable[str]) -> list[str]:
    """Return the files among the names of an archive or a folder, without hidden files and the notes of macOS."""
    return [name for name in names if not name.startswith("__MACOSX/") and name.rpartition("/")[2][:1] not in ("", ".")]


def only_member(names: Iterable[str]) -> str | None:
    """Return the one file of data in a zip; None if it has none or several."""
    files = data_files(names)
    return files[0] if len(files) == 1 else None


def _unzipped(stream: BinaryIO) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
            member = only_member(names)
            if member is None:
                raise ValueError(
                    f"the zip holds {', '.join(names[:5]) or 'nothing'}, expected one file; unzip it first"
                )
            with archive.open(member) as file:
                yield from _chunks(cast(BinaryIO, file))
    except (*_ZIP_ERRORS, RuntimeError, NotImplementedError) as problem:
        raise DamagedStreamError(f"the zip archive can't be unzipped: {problem}") from None


_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the stored bytes of a stream; it may be a member of a zip archive, which raises its own errors."""
    yielded = 0
    try:
        while chunk := stream.read(CHUNK_BYTES):
            yielded += len(chunk)
            yield chunk
    except _ZIP_ERRORS as problem:
        try:
            stream.seek(yielded)
            while byte := stream.read(1):  # The failed chunk again, up to at most 4 kB before the damage.
                yield byte
        except _ZIP_ERRORS:
            pass
        raise DamagedStreamError(f"the zip archive is damaged here: {problem}") from None


def _decompress(
    stream: BinaryIO, new_decoder: Callable[[], _Decoder], errors: tuple[type[Exception], ...], name: str
) -> Iterator[bytes]:
    """Decompress member after member (a gzip or zstd file may have several)."""
    decoder, start, fed = (
        new_decoder(),
        0,
        0,
    )  # start: offset of the current member; fed: bytes of it given to the decoder.
    for piece in _chunks(stream):
        chunk = piece
        while chunk:
            if fed == 0 and name == "gzip":
                rest = chunk.lstrip(b"\0")  # gzip allows zero padding between members and after the last.
                start += len(chunk) - len(rest)
                chunk = rest
                if not chunk:
                    break
            try:
                data = decoder.decompress(chunk)
            except errors as problem:
                yield from _decode_until_damage(stream, new_decoder(), errors, start, fed)
                raise DamagedStreamError(f"the {name} stream is damaged here: {problem}") from None
            if data:
                yield data
            left = decoder.unused_data if decoder.eof else b""
            fed += len(chunk) - len(left)
            if decoder.eof:
                decoder, start, fed = new_decoder(), start + fed, 0
            chunk = left
    if fed:
        raise DamagedStreamError(f"the {name} stream ends before its end mark: the file was cut short")


def _decode_until_damage(
    stream: BinaryIO, decoder: _Decoder, errors: tuple[type[Exception], ...], start: int, fed: int
) -> Iterator[bytes]:
    """Yield what a failed chunk held before the damage, fed byte by byte, because a failing decoder returns nothing."""
    stream.seek(start)
    while fed:
        part = stream.read(min(CHUNK_BYTES, fed))
        decoder.decompress(part)
        fed -= len(part)
    try:
        for byte in stream.read(CHUNK_BYTES):
            if data := decoder.decompress(bytes([byte])):
                yield data
    except errors:
        return
