"""A gunicorn worker whose threads never wait for a client.

One thread, the loop, reads all connections without blocking. A request is given to the thread pool when its head and
its body have arrived; the pool computes the response, and the loop sends what the socket does not take at once. So a
client that sends or reads slowly costs a connection and its bytes, never a thread. Requests that do not arrive in time,
connections beyond the limit and buffers beyond the limit are closed, the oldest first. Liveness routes are answered by
the loop itself, also while all threads are busy.
"""

from __future__ import annotations

import enum
import errno
import json
import logging
import os
import re
import resource
import selectors
import socket
import threading
import time
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any, ClassVar

from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from gunicorn.workers.base import Worker

from feedrank.api.request_frame import RequestFrame

IDLE_TIMEOUT_S = 75.0
"""Seconds that a connection without a request stays open."""
LINGER_S = 2.0
"""Seconds that a closed connection may still send; what arrives is dropped, so that the response is not lost."""
STOP_LINGER_S = 1.0
"""Seconds that a stopping worker still reads requests, which clients may be sending on connections kept open."""
MIN_BYTES_PER_S = 32 * 1024
"""A body or a response has a second more for each this many bytes."""
MAX_BUFFER_BYTES = 64 * 1024 * 1024
"""Most bytes of requests and responses that wait in one process."""
SMALL_BYTES = 64 * 1024
"""A connection that holds fewer bytes than this is never closed for its bytes."""
RECEIVE_BYTES = 256 * 1024
LOOP_S = 1.0
LOG_INTERVAL_S = 60.0
RESERVED_DESCRIPTORS = 128
"""File descriptors that are kept for files and database connections."""
_LIVENESS = re.compile(rb"(?:GET|HEAD) /healthz? HTTP/1\.[01]\r\n")
_log = logging.getLogger(__name__)


class State(enum.Enum):
    """Who works on a connection: the loop, a thread of the pool, or the loop again to end the response."""

    READING = enum.auto()
    BUSY = enum.auto()
    SENDING = enum.auto()
    LINGERING = enum.auto()


class ResponseBuffer:
    """Collects a response in memory; it stands for a socket where gunicorn writes one."""

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


class Connection:
    """One client connection. Only the loop changes it, but while a thread has it: then that thread does."""

    __slots__ = ("address", "deadline_from", "events", "frame", "has_ended", "held", "keeps_alive", "lock", "output",
                 "received", "server", "sock", "state", "timeout_s")  # fmt: skip

    def __init__(self, sock: socket.socket, address: Any, server: Any) -> None:
        self.sock, self.address, self.server = sock, address, server
        self.lock = threading.Lock()
        self.state = State.READING
        self.received = bytearray()
        self.frame: RequestFrame | None = None
        self.output: memoryview | bytes = b""
        self.keeps_alive = True
        self.has_ended = False
        """Whether the client sends no more."""
        self.events = 0
        """Events of the selector that are waited for."""
        self.held = 0
        """Bytes in both buffers, as counted in the loop's total."""
        self.deadline_from = time.monotonic()
        self.timeout_s = IDLE_TIMEOUT_S

    def start_timer(self, timeout_s: float) -> None:
        """Wait for what comes next at most this long, and longer by the bytes that arrive or leave meanwhile."""
        self.deadline_from, self.timeout_s = time.monotonic(), timeout_s

    @property
    def is_idle(self) -> bool:
        """Whether it has no request, and none was begun."""
        return self.state is State.READING and not self.received


class ConnectionWorker(Worker):  # type: ignore[misc]  # the library has no types
    """Reads requests in a loop, runs them in threads, and sends responses without waiting for a client."""

    request_timeout_s: ClassVar[float] = 10.0
    """Seconds for a request to arrive, or for a response to be taken; see MIN_BYTES_PER_S."""
    max_connections: ClassVar[int] = 1_000

    def init_process(self) -> None:
        """Create what does not survive a fork, and run the loop."""
        self._selector = selectors.DefaultSelector()
        self._requests: SimpleQueue[Connection | None] = SimpleQueue()
        self._done: SimpleQueue[Connection] = SimpleQueue()
        self._connections: dict[socket.socket, Connection] = {}
        self._held = 0
        self._limit = min(self.max_connections, _max_descriptors() - RESERVED_DESCRIPTORS)
        self._closed: dict[str, int] = {}
        self._next_sweep = self._next_log = 0.0
        super().init_process()

    # --- the loop

    def run(self) -> None:
        """Serve until a signal stops the worker; then end what was begun."""
        self._max_body_bytes = int(self.wsgi.config["MAX_CONTENT_LENGTH"])
        for number in range(self.cfg.threads):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()
        self._selector.register(self.PIPE[0], selectors.EVENT_READ)  # signals and threads write to the pipe
        for listener in self.sockets:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, listener)
        while self.alive and self.ppid == os.getppid():
            self._turn(LOOP_S)
        self._stop()

    def _stop(self) -> None:
        """Accept what waits, end what was begun, and close connections that bring nothing."""
        for listener in self.sockets:
            self._selector.unregister(listener)
            while self._accept(listener):
                pass
            listener.close()
        now = time.monotonic()
        linger_until, stop_at = now + STOP_LINGER_S, now + self.cfg.graceful_timeout
        while self._connections and (now := time.monotonic()) < stop_at:
            if now >= linger_until:
                ended = (State.READING, State.LINGERING)
                for conn in [conn for conn in self._connections.values() if conn.state in ended]:
                    self._close(conn)
            self._turn(0.05)
        for _ in range(self.cfg.threads):
            self._requests.put(None)

    def _turn(self, timeout: float) -> None:
        """Wait for events and handle them."""
        for key, events in self._selector.select(timeout):
            if key.fileobj == self.PIPE[0]:
                self._handle_done()
            elif isinstance(key.data, Connection):
                self._guard(key.data, events)
            else:
                self._accept(key.data)
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + LOOP_S
            self.notify()
            self._close_late(now)

    def _guard(self, conn: Connection, events: int) -> None:
        """Handle the events of a connection; whatever fails ends this connection only."""
        if conn.sock not in self._connections:
            return  # closed by an earlier event of this turn
        try:
            if events & selectors.EVENT_WRITE:
                self._send(conn)
            if events & selectors.EVENT_READ and conn.sock in self._connections:
                self._read(conn)
        except OSError:
            self._close(conn)
        except Exception:
            _log.exception("a connection failed")
            self._close(conn)

    def _handle_done(self) -> None:
        """Go on with connections whose thread handed them back."""
        try:
            while len(os.read(self.PIPE[0], 4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        while not self._done.empty():
            conn = self._done.get()
            if conn.sock in self._connections:
                self._guard(conn, selectors.EVENT_WRITE)

    def _accept(self, listener: Any) -> bool:
        """Accept one connection; returns whether there was one."""
        try:
            sock, address = listener.accept()
        except OSError as problem:
            if problem.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room("too few file descriptors")
            return False
        sock.setblocking(False)
        conn = self._connections[sock] = Connection(sock, address, listener.getsockname())
        self._guard(conn, selectors.EVENT_READ)  # the request has usually arrived by now
        if len(self._connections) > self._limit:
            self._make_room("too many connections")
        return True

    # --- reading

    def _read(self, conn: Connection) -> None:
        """Take what has arrived, and give a complete request to a thread."""
        try:
            data = conn.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self._watch(conn, selectors.EVENT_READ)
            return
        if conn.state is State.LINGERING:
            if not data:
                self._close(conn)
            return
        with conn.lock:
            was_idle = not conn.received
            conn.received += data
            conn.has_ended = not data
            if conn.state is not State.READING:  # a request ahead of its time: it waits until the thread has ended
                is_full = conn.has_ended or len(conn.received) > SMALL_BYTES
                self._watch(conn, conn.events & ~selectors.EVENT_READ if is_full else conn.events)
                self._count(conn)
                return
        if conn.has_ended:
            self._close(conn)
            return
        if was_idle:
            conn.start_timer(self.request_timeout_s)
        self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """Start the request that has arrived whole, or wait for the rest."""
        if conn.frame is None:
            while conn.received.startswith(b"\r\n"):  # RFC 9112 section 2.2: empty lines before a request
                del conn.received[:2]
            conn.frame = RequestFrame(self._max_body_bytes)
        frame = conn.frame
        if not conn.received or not frame.update(conn.received):
            if frame.expects_continue and len(conn.received) == frame.head_end and not frame.is_closing:
                frame.expects_continue = False
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._count(conn)
            if self._held > MAX_BUFFER_BYTES:
                self._make_room("too many bytes")
            if conn.sock in self._connections:
                self._watch(conn, selectors.EVENT_READ)
            return
        if frame.refused_with:
            self._refuse(conn, frame.refused_with, "the request is too large")
            return
        conn.state = State.BUSY
        self._count(conn)
        self._watch(conn, selectors.EVENT_READ)
        if _LIVENESS.match(conn.received):
            self._serve(conn)  # here and now, whatever the threads do
        else:
            self._requests.put(conn)

    # --- threads of the pool

    def _work(self) -> None:
        """Serve one request after the other, in a thread of the pool."""
        while (conn := self._requests.get()) is not None:
            self._serve(conn)

    def _serve(self, conn: Connection) -> None:
        """Compute the response, send what the socket takes at once, and hand back the rest to the loop."""
        assert conn.frame is not None
        with conn.lock:
            frame, request = conn.frame, bytes(memoryview(conn.received)[: conn.frame.end])
            del conn.received[: frame.end]
            conn.frame = None
        response, keeps_alive = self._respond(conn, request, frame.is_closing)
        try:
            sent = conn.sock.send(response) if response else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            sent, keeps_alive = len(response), False
        with conn.lock:
            conn.keeps_alive = keeps_alive
            conn.output = memoryview(response)[sent:] if sent < len(response) else b""
            conn.start_timer(IDLE_TIMEOUT_S)
            if keeps_alive and not conn.output and not conn.received and not conn.has_ended:
                conn.state = State.READING  # the usual end: the loop waits for the next request already
                return
            conn.state = State.SENDING
        self._done.put(conn)
        try:
            os.write(self.PIPE[1], b"\0")
        except BlockingIOError:
            pass  # the loop has not read what is in the pipe, so it wakes up

    def _respond(self, conn: Connection, request: bytes, is_closing: bool) -> tuple[bytes, bool]:
        """Run the application on a request; returns the response, and whether another request may follow."""
        output, parsed = ResponseBuffer(), None
        try:
            parsed = next(RequestParser(self.cfg, iter((request,)), conn.address))
            response, environ = create(parsed, output, conn.address, conn.server, self.cfg)
            environ["wsgi.multithread"] = True
            if is_closing or not self.alive:
                response.force_close()
            parts = self.wsgi(environ, response.start_response)
            try:
                for part in parts:
                    response.write(part)
                response.close()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
            return output.content(), not response.should_close()
        except (StopIteration, NoMoreData):
            return _problem(400, "the request is incomplete"), False
        except Exception as problem:
            refusal = ResponseBuffer()
            self.handle_error(parsed, refusal, conn.address, problem)
            status = re.match(rb"HTTP/1\.1 (\d{3})", refusal.content())
            code = int(status[1]) if status else 500
            return _problem(code, str(problem) if code < 500 else "the request failed; see the server's log"), False

    # --- sending

    def _send(self, conn: Connection) -> None:
        """Send what is left of a response, in the loop; then close the connection or go on with the next request."""
        if conn.output:
            try:
                sent = conn.sock.send(conn.output)
            except BlockingIOError:
                sent = 0
            conn.output = memoryview(conn.output)[sent:]
            self._count(conn)
        if conn.output:
            if not conn.events & selectors.EVENT_WRITE:
                conn.start_timer(self.request_timeout_s + len(conn.output) / MIN_BYTES_PER_S)
                self._watch(conn, selectors.EVENT_WRITE)
                if self._held > MAX_BUFFER_BYTES:
                    self._make_room("too many bytes")
            return
        conn.output = b""
        if not conn.keeps_alive:
            self._linger(conn)
        elif conn.has_ended and not conn.received:
            self._close(conn)
        else:
            conn.state = State.READING
            conn.start_timer(self.request_timeout_s if conn.received else IDLE_TIMEOUT_S)
            self._watch(conn, 0 if conn.has_ended else selectors.EVENT_READ)
            if conn.received:
                self._advance(conn)

    def _linger(self, conn: Connection) -> None:
        """End the response, and drop what still arrives: closing at once could reset it on its way to the client."""
        conn.state = State.LINGERING
        conn.received.clear()
        self._count(conn)
        if conn.has_ended:
            self._close(conn)
            return
        conn.sock.shutdown(socket.SHUT_WR)
        conn.start_timer(LINGER_S)
        self._watch(conn, selectors.EVENT_READ)

    def _refuse(self, conn: Connection, status: int, detail: str) -> None:
        """Answer a request that did not arrive whole, and close its connection."""
        try:
            conn.sock.send(_problem(status, detail))
            self._linger(conn)
        except OSError:
            self._close(conn)

    # --- limits

    def _watch(self, conn: Connection, events: int) -> None:
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

    def _count(self, conn: Connection) -> None:
        """Count the bytes of a connection in the total."""
        held = len(conn.received) + len(conn.output)
        self._held += held - conn.held
        conn.held = held

    def _close(self, conn: Connection) -> None:
        """Close a connection now."""
        if self._connections.pop(conn.sock, None) is None:
            return
        self._watch(conn, 0)
        self._held -= conn.held
        conn.held = 0
        conn.sock.close()

    def _close_late(self, now: float) -> None:
        """Close connections whose time is over; one with a half-sent request is told so."""
        for conn in list(self._connections.values()):
            if conn.state is State.BUSY:
                continue
            if now - conn.deadline_from <= conn.timeout_s + len(conn.received) / MIN_BYTES_PER_S:
                continue
            if conn.is_idle or conn.state is State.LINGERING:
                self._close(conn)
                continue
            self._note("late")
            if conn.state is State.READING:
                self._refuse(conn, 408, f"the request did not arrive within {self.request_timeout_s:g} s")
            else:
                self._close(conn)
        if self._closed and now >= self._next_log:
            self._next_log = now + LOG_INTERVAL_S
            counts = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(self._closed.items()))
            _log.warning("closed connections of clients that did not finish in time, or beyond a limit (%s)", counts)
            self._closed.clear()

    def _make_room(self, reason: str) -> None:
        """Close the oldest connections beyond a limit: for bytes, of those that hold many of them."""
        waiting = [conn for conn in self._connections.values() if conn.state is not State.BUSY]
        if reason == "too many bytes":
            for conn in waiting:  # threads have taken requests meanwhile
                self._count(conn)
            if self._held <= MAX_BUFFER_BYTES:
                return
            waiting = [conn for conn in waiting if conn.held > SMALL_BYTES]
        # idle ones may be kept open by clients that behave, so half-sent requests go first
        waiting.sort(key=lambda conn: (conn.is_idle, conn.deadline_from))
        for conn in waiting[: max(1, len(waiting) // 20)]:
            self._note(reason)
            if conn.state is State.READING and conn.received:
                try:
                    conn.sock.send(_problem(503, f"the server has {reason}; try again"))
                except OSError:
                    pass
            self._close(conn)

    def _note(self, reason: str) -> None:
        self._closed[reason] = self._closed.get(reason, 0) + 1


def _problem(status: int, detail: str) -> bytes:
    """Build a whole problem+json response that ends its connection."""
    title = HTTPStatus(status).phrase
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    head = (
        f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _max_descriptors() -> int:
    """Return how many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft
