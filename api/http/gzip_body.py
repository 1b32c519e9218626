"""Decompresses gzip bodies: one or more members, as `cat a.gz b.gz` or a client that flushes writes them."""

from __future__ import annotations

import io
import zlib

from flask import current_app, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

GZIP_WBITS = 16 + zlib.MAX_WBITS
"""zlib `wbits` for a gzip stream with header and checksum."""
MAX_MEMBERS = 1_000
_STEP_BYTES = 4_096
"""Bytes that are decompressed at once; what follows the end of a member is copied, so it must be little."""


def decompress(encoding: str) -> None:
    """Replace the compressed body of the current request by its content, up to the usual size limit."""
    if encoding != "gzip":
        raise UnsupportedMediaType(f"found content encoding {encoding!r}, expected gzip or none")
    raw = gunzip(request.get_data(cache=False), current_app.config["MAX_CONTENT_LENGTH"])
    request.environ["CONTENT_LENGTH"] = str(len(raw))
    request.__dict__.pop("content_length", None)
    request.stream = io.BytesIO(raw)


def gunzip(data: bytes, limit: int) -> bytes:
    """Return the content of all members of a gzip stream; zeros behind a member are padding.

    Raises HTTP 400 for a stream that is damaged or truncated, HTTP 413 for more than `limit` bytes.
    """
    content, members, position, rest = bytearray(), 0, 0, b""
    while rest or position < len(data):
        if members and not (rest := rest.lstrip(b"\0")):
            while position < len(data) and data[position] == 0:
                position += 1
            if position == len(data):
                break
        members += 1
        if members > MAX_MEMBERS:
            raise BadRequest(f"found more than {MAX_MEMBERS:,} gzip members, expected fewer and larger ones")
        reader = zlib.decompressobj(GZIP_WBITS)
        while not reader.eof:
            if not rest:
                rest = data[position : position + _STEP_BYTES]
                position += len(rest)
            if not rest:
                raise BadRequest("the gzip stream is truncated")
            try:
                content += reader.decompress(rest, limit + 1 - len(content))
            except zlib.error as error:
                raise BadRequest(f"the body is not a gzip stream: {error}") from None
            if len(content) > limit:
                raise RequestEntityTooLarge(f"the decompressed body is too large, expected at most {limit:,} bytes")
            rest = reader.unused_data if reader.eof else reader.unconsumed_tail
    if not members:
        raise BadRequest("the gzip stream is truncated")
    return bytes(content)
