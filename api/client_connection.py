"""One connection of a client, and the response that a thread writes for it."""

from __future__ import annotations

import enum
import json
import socket
import threading
import time
from http import HTTPStatus
from typing import Any

from feedrank.api.connection_limits import IDLE_TIMEOUT_S
from feedrank.api.request_frame import RequestFrame


class State(enum.Enum):
    """Who works on a connection: the loop reads it, a thread of the pool has its request, or the loop ends it."""

    READING = enum.auto()
    BUSY = enum.auto()
    SENDING = enum.auto()
    LINGERING = enum.auto()


class Connection:
    """The buffers and the state of a connection.

    Only the loop changes it; while a thread has its request, that thread does, under the lock.
    """

    __slots__ = ("address", "events", "frame", "has_ended", "held", "keeps_alive", "lock", "output", "received",
                 "server", "since", "sock", "state", "timeout_s")  # fmt: skip

    def __init__(self, sock: socket.socket, address: Any, server: Any) -> None:
        """address, server: the addresses of both sides."""
        self.sock, self.address, self.server = sock, address, server
        self.lock = threading.Lock()
        self.state = State.READING
        self.received = bytearray()
        self.frame: RequestFrame | None = None
        self.output: memoryview | bytes = b""
        """What is left of the response."""
        self.keeps_alive = True
        """Whether another request may follow the response."""
        self.has_ended = False
        """Whether the client sends no more."""
        self.events = 0
        """Events of the selector that are waited for."""
        self.held = 0
        """Bytes in both buffers, as counted in the total of all connections."""
        self.since = time.monotonic()
        """Since when the connection waits for the client."""
        self.timeout_s = IDLE_TIMEOUT_S

    def start_timer(self, timeout_s: float) -> None:
        """Wait for the client at most this long from now."""
        self.since, self.timeout_s = time.monotonic(), timeout_s

    @property
    def is_idle(self) -> bool:
        """Whether it has no request, and none was begun."""
        return self.state is State.READING and not self.received


class ResponseBuffer:
    """Collects a response in memory; it stands for a socket where gunicorn writes to one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Add bytes of the response."""
        self._parts.append(data)

    def send(self, data: bytes) -> int:
        """Drop an interim response: the loop sent `100 Continue` before the body arrived."""
        return len(data)

    def setblocking(self, _: object) -> None:
        """Do nothing: memory never blocks."""

    def gettimeout(self) -> float:
        """Return the timeout of a socket that does not block."""
        return 0.0

    def content(self) -> bytes:
        """Return all that was written."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


def problem_response(status: int, detail: str) -> bytes:
    """Build a whole problem+json response that ends its connection."""
    title = HTTPStatus(status).phrase
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    head = (
        f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
