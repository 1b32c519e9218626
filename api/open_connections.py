"""The open connections of a process, with limits on their number, their bytes and the time they wait for a client."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
from collections import Counter

from feedrank.api.client_connection import Connection, State, problem_response
from feedrank.api.connection_limits import MIN_BYTES_PER_S, allowed_connections

LINGER_S = 2.0
"""Seconds that a closed connection may still send; what arrives is dropped, so that the response is not lost."""
MAX_BUFFER_BYTES = 64 * 1024 * 1024
"""Most bytes of requests and responses that wait in one process."""
SMALL_BYTES = 64 * 1024
"""A connection that holds fewer bytes than this is never closed for its bytes."""
LOG_INTERVAL_S = 60.0
TOO_MANY_BYTES = "too many bytes in requests that wait"
TOO_MANY_CONNECTIONS = "too many connections"
TOO_FEW_DESCRIPTORS = "too few file descriptors"
_log = logging.getLogger(__name__)


class OpenConnections:
    """Watches, counts and closes connections. Only the loop uses it."""

    def __init__(self, selector: selectors.BaseSelector, max_connections: int, request_timeout_s: float) -> None:
        self._selector, self._timeout_s = selector, request_timeout_s
        self._limit = allowed_connections(max_connections)
        self._by_socket: dict[socket.socket, Connection] = {}
        self._held = 0
        self._closed: Counter[str] = Counter()
        self._next_log = 0.0

    def __len__(self) -> int:
        return len(self._by_socket)

    def __contains__(self, conn: Connection) -> bool:
        return conn.sock in self._by_socket

    def in_state(self, *states: State) -> list[Connection]:
        """Return the connections in one of these states, oldest first."""
        return [conn for conn in self._by_socket.values() if conn.state in states]

    def add(self, conn: Connection) -> None:
        """Add a new connection."""
        self._by_socket[conn.sock] = conn

    def watch(self, conn: Connection, events: int) -> None:
        """Wait for these events of a connection; 0: for none."""
        if events == conn.events:
            return
        if not conn.events:
            self._selector.register(conn.sock, events, conn)
        elif not events:
            self._selector.unregister(conn.sock)
        else:
            self._selector.modify(conn.sock, events, conn)
        conn.events = events

    def count(self, conn: Connection) -> None:
        """Count the bytes of a connection in the total."""
        held = len(conn.received) + len(conn.output)
        self._held += held - conn.held
        conn.held = held

    def close(self, conn: Connection) -> None:
        """Close a connection now; one that is closed stays so."""
        if self._by_socket.pop(conn.sock, None) is None:
            return
        self.watch(conn, 0)
        self._held -= conn.held
        conn.held = 0
        conn.sock.close()

    def linger(self, conn: Connection) -> None:
        """End the response, and drop what still arrives: closing at once could reset it on its way to the client."""
        conn.state = State.LINGERING
        conn.received.clear()
        self.count(conn)
        if conn.has_ended:
            self.close(conn)
            return
        conn.sock.shutdown(socket.SHUT_WR)
        conn.start_timer(LINGER_S)
        self.watch(conn, selectors.EVENT_READ)

    def refuse(self, conn: Connection, status: int, detail: str) -> None:
        """Answer a request that did not arrive whole, and close its connection."""
        try:
            conn.sock.send(problem_response(status, detail))
            self.linger(conn)
        except OSError:
            self.close(conn)

    def close_late(self, now: float) -> None:
        """Close connections whose time is over; one with a half-sent request gets a 408. now: the monotonic clock."""
        for conn in self.in_state(State.READING, State.SENDING, State.LINGERING):
            if now - conn.since <= conn.timeout_s + len(conn.received) / MIN_BYTES_PER_S:
                continue
            if conn.is_idle or conn.state is State.LINGERING:
                self.close(conn)
                continue
            self._closed["late"] += 1
            if conn.state is State.READING:
                self.refuse(conn, 408, f"the request did not arrive within {self._timeout_s:g} s")
            else:
                self.close(conn)
        if self._closed and now >= self._next_log:
            self._next_log = now + LOG_INTERVAL_S
            counts = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(self._closed.items()))
            _log.warning("closed connections of clients that did not finish in time, or beyond a limit (%s)", counts)
            self._closed.clear()

    def limit_number(self) -> None:
        """Close the oldest that wait for their client if there are too many."""
        if len(self) > self._limit:
            self.make_room(TOO_MANY_CONNECTIONS)

    def limit_bytes(self) -> None:
        """Close the oldest of those that hold many bytes if all hold too many."""
        if self._held <= MAX_BUFFER_BYTES:
            return
        for conn in self.in_state(State.READING, State.SENDING):  # threads have taken requests meanwhile
            self.count(conn)
        if self._held > MAX_BUFFER_BYTES:
            self.make_room(TOO_MANY_BYTES, SMALL_BYTES)

    def make_room(self, reason: str, min_bytes: int = -1) -> None:
        """Close the oldest twentieth of the connections that wait for their client and hold more than `min_bytes`."""
        waiting = self.in_state(State.READING, State.SENDING, State.LINGERING)
        waiting = [conn for conn in waiting if conn.held > min_bytes]
        # idle ones may be kept open by clients that behave, so half-sent requests go first
        waiting.sort(key=lambda conn: (conn.is_idle, conn.since))
        for conn in waiting[: max(1, len(waiting) // 20)]:
            self._closed[reason] += 1
            if conn.state is State.READING and conn.received:
                with contextlib.suppress(OSError):
                    conn.sock.send(problem_response(503, f"the server has {reason}; try again"))
            self.close(conn)
