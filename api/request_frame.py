"""Finds where an HTTP/1.1 request ends, in bytes as they arrive from a connection, without waiting for more.

It only measures. What a request says is for the server's parser, which gets exactly these bytes and nothing after
them: where both disagree about the end of a request, the connection is closed, never read on from a wrong place.
"""

from __future__ import annotations

import re

MAX_HEAD_BYTES = 64 * 1024
"""Largest request line with its headers."""
MAX_CHUNKS = 20_000
"""Largest number of chunks of a chunked body: what a body of 8 MiB in pieces of 420 bytes needs."""
MAX_CHUNK_LINE_BYTES = 256
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect[ \t]*:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}(?=[ \t]*[;\r])")


class RequestFrame:
    """Measures one request at the start of a buffer that grows; each byte is looked at a constant number of times."""

    __slots__ = ("_chunks", "_is_chunked", "_limit", "_scanned", "_trailers", "end", "expects_continue", "head_end",
                 "is_closing", "refused_with")  # fmt: skip

    def __init__(self, max_body_bytes: int) -> None:
        """max_body_bytes: a request with a larger body ends with what has arrived of it, to be refused."""
        self._limit = max_body_bytes
        self._scanned = 0
        self._chunks = 0
        self._is_chunked = False
        self._trailers = 0  # where they start; 0 before the last chunk
        self.head_end = 0
        """Number of bytes of the head with its empty line; 0 while it is incomplete."""
        self.end = 0
        """Number of bytes of the request; 0 while it is incomplete."""
        self.is_closing = False
        """Whether no request can follow on this connection, because where this one ends is not known."""
        self.refused_with = 0
        """HTTP status where the request is too large to be read: 431 for its head, 413 for its chunks; else 0."""
        self.expects_continue = False
        """Whether the client waits for `100 Continue` before it sends the body."""

    def update(self, buffer: bytearray) -> bool:
        """Measure what has arrived; returns whether the request is complete, or can't become so."""
        if not self.head_end and not self._find_head(buffer):
            return self.end > 0
        if self._is_chunked and not self.end:
            self._scan_chunks(buffer)
        return 0 < self.end <= len(buffer)

    def _find_head(self, buffer: bytearray) -> bool:
        """Find the end of the head, and what it says about the body; returns whether the request goes on behind it."""
        found = buffer.find(b"\r\n\r\n", max(self._scanned - 3, 0), MAX_HEAD_BYTES)
        if found < 0:
            # a head whose lines end in bare line feeds never ends: it goes to the parser, which refuses it
            if len(buffer) >= MAX_HEAD_BYTES or buffer.find(b"\n\n", max(self._scanned - 1, 0)) >= 0:
                self._give_up(buffer, 431 if len(buffer) >= MAX_HEAD_BYTES else 0)
            self._scanned = len(buffer)
            return False
        self.head_end = self._scanned = found + 4
        head = bytes(buffer[: self.head_end])
        framing = [(name.lower(), value) for name, value in _FRAMING.findall(head)]
        if not framing:
            self.end = self.head_end
            return True
        (name, value), *others = framing
        self.expects_continue = _EXPECT.search(head) is not None
        if not others and name == b"content-length" and value.isdigit() and len(value) <= 15:
            if int(value) <= self._limit:
                self.end = self.head_end + int(value)
            else:
                self.end, self.is_closing = self.head_end, True  # refused by its length alone
        elif not others and name == b"transfer-encoding" and value.lower() == b"chunked":
            self._is_chunked = True
        else:
            self.end, self.is_closing = self.head_end, True
        return True

    def _scan_chunks(self, buffer: bytearray) -> None:
        """Step from chunk to chunk, and through the trailers, as far as they have arrived."""
        while not self._trailers and self._scanned < len(buffer):
            line_end = buffer.find(b"\r\n", self._scanned, self._scanned + MAX_CHUNK_LINE_BYTES)
            if line_end < 0:
                if len(buffer) - self._scanned >= MAX_CHUNK_LINE_BYTES:
                    self._give_up(buffer)
                return
            size = _CHUNK_SIZE.match(buffer, self._scanned, line_end + 1)
            self._chunks += 1
            if size is None or self._chunks > MAX_CHUNKS:
                self._give_up(buffer, 0 if size is None else 413)
                return
            length = int(size[0], 16)
            if length == 0:
                self._trailers = self._scanned = line_end  # an empty line may follow at once
                break
            self._scanned = line_end + 2 + length + 2
            if self._scanned - self.head_end > 2 * self._limit:
                self._give_up(buffer, 413)
                return
        if self._trailers:
            found = buffer.find(b"\r\n\r\n", self._scanned)
            if found >= 0:
                self.end = found + 4
            elif len(buffer) - self._trailers > MAX_HEAD_BYTES:
                self._give_up(buffer, 431)
            else:
                self._scanned = max(self._scanned, len(buffer) - 3)

    def _give_up(self, buffer: bytearray, status: int = 0) -> None:
        """End the request with what has arrived, to be refused: with this status, or by the parser."""
        self.end, self.is_closing, self.refused_with = len(buffer), True, status
