"""A gunicorn worker whose threads never wait for a client.

One thread, the loop, reads all connections without blocking. A request is given to the thread pool when its head and
its body have arrived; the pool computes the response, and the loop sends what the socket does not take at once. So a
client that sends or reads slowly costs a connection and its bytes, never a thread. Liveness routes are answered by the
loop itself, also while all threads are busy.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import selectors
import threading
import time
from queue import SimpleQueue
from typing import Any, ClassVar

from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from gunicorn.workers.base import Worker

from feedrank.api.client_connection import Connection, ResponseBuffer, State, problem_response
from feedrank.api.connection_limits import IDLE_TIMEOUT_S, MIN_BYTES_PER_S
from feedrank.api.open_connections import SMALL_BYTES, TOO_FEW_DESCRIPTORS, OpenConnections
from feedrank.api.request_frame import RequestFrame

STOP_LINGER_S = 1.0
"""Seconds that a stopping worker still reads requests, which clients may be sending on connections kept open."""
LOOP_S = 1.0
"""Seconds between two looks at the time that connections take, and at most between two signs of life."""
RECEIVE_BYTES = 256 * 1024
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_LIVENESS = re.compile(rb"(?:GET|HEAD) /healthz? HTTP/1\.[01]\r\n")
_log = logging.getLogger(__name__)


class ConnectionWorker(Worker):  # type: ignore[misc]  # the library has no types
    """Reads requests in a loop, runs them in threads, and sends responses without waiting for a client."""

    request_timeout_s: ClassVar[float] = 10.0
    """Seconds for a request to arrive, or for a response to be taken; see MIN_BYTES_PER_S."""
    max_connections: ClassVar[int] = 1_000

    def init_process(self) -> None:
        """Create what does not survive a fork, and run the loop."""
        self._selector = selectors.DefaultSelector()
        self._open = OpenConnections(self._selector, self.max_connections, self.request_timeout_s)
        self._requests: SimpleQueue[Connection | None] = SimpleQueue()
        self._done: SimpleQueue[Connection] = SimpleQueue()
        self._next_sweep = 0.0
        super().init_process()

    def run(self) -> None:
        """Serve until a signal stops the worker; then end what was begun."""
        self._max_body_bytes = int(self.wsgi.config["MAX_CONTENT_LENGTH"])
        for number in range(self.cfg.threads):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()
        self._selector.register(self.PIPE[0], READ)  # signals and threads write to the pipe
        for listener in self.sockets:
            listener.setblocking(False)
            self._selector.register(listener, READ, listener)
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
        while len(self._open) and (now := time.monotonic()) < stop_at:
            if now >= linger_until:
                for conn in self._open.in_state(State.READING, State.LINGERING):
                    self._open.close(conn)
            self._turn(0.05)
        for _ in range(self.cfg.threads):
            self._requests.put(None)

    def _turn(self, timeout: float) -> None:
        """Wait for events and handle them."""
        for key, events in self._selector.select(timeout):
            if key.fileobj == self.PIPE[0]:
                self._handle_done()
            elif isinstance(key.data, Connection):
                self._handle(key.data, events)
            else:
                self._accept(key.data)
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + LOOP_S
            self.notify()
            self._open.close_late(now)

    def _accept(self, listener: Any) -> bool:
        """Accept one connection; returns whether there was one."""
        try:
            sock, address = listener.accept()
        except OSError as problem:
            if problem.errno in (errno.EMFILE, errno.ENFILE):
                self._open.make_room(TOO_FEW_DESCRIPTORS)
            return False
        sock.setblocking(False)
        conn = Connection(sock, address, listener.getsockname())
        self._open.add(conn)
        self._handle(conn, READ)  # the request has usually arrived by now
        self._open.limit_number()
        return True

    def _handle(self, conn: Connection, events: int) -> None:
        """Handle the events of a connection; whatever fails ends this connection only."""
        try:
            if events & WRITE and conn in self._open:
                self._send(conn)
            if events & READ and conn in self._open:
                self._read(conn)
        except OSError:
            self._open.close(conn)
        except Exception:
            _log.exception("a connection failed")
            self._open.close(conn)

    def _handle_done(self) -> None:
        """Go on with connections whose thread handed them back."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.PIPE[0], 4096)) == 4096:
                pass
        while not self._done.empty():
            self._handle(self._done.get(), WRITE)

    # --- reading, in the loop

    def _read(self, conn: Connection) -> None:
        """Take what has arrived, and go on with the request."""
        try:
            data = conn.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self._open.watch(conn, READ)
            return
        except OSError:  # reset by the client; a thread that has its request may be using the socket, so it stays open
            data = b""
        if conn.state is State.LINGERING:
            if not data:
                self._open.close(conn)
            return
        with conn.lock:
            is_first = not conn.received
            conn.received += data
            conn.has_ended = not data
            if conn.state is not State.READING:  # a request ahead of its time waits for the end of the one before
                if conn.has_ended or len(conn.received) > SMALL_BYTES:
                    self._open.watch(conn, conn.events & ~READ)
                self._open.count(conn)
                return
        if conn.has_ended:
            self._open.close(conn)
            return
        if is_first:
            conn.start_timer(self.request_timeout_s)
        self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """Give a request that has arrived whole to a thread, or wait for the rest of it."""
        if conn.frame is None:
            while conn.received.startswith(b"\r\n"):  # RFC 9112 section 2.2: empty lines before a request
                del conn.received[:2]
            conn.frame = RequestFrame(self._max_body_bytes)
        frame = conn.frame
        if not conn.received or not frame.update(conn.received):
            if frame.expects_continue and len(conn.received) == frame.head_end:
                frame.expects_continue = False
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._open.count(conn)
            self._open.limit_bytes()
            if conn in self._open:
                self._open.watch(conn, READ)
            return
        if frame.refused_with:
            self._open.refuse(conn, frame.refused_with, "the request is too large")
            return
        conn.state = State.BUSY
        self._open.count(conn)
        self._open.watch(conn, READ)
        if _LIVENESS.match(conn.received):
            self._serve(conn)  # here and now, whatever the threads do
        else:
            self._requests.put(conn)

    # --- computing, in the threads of the pool

    def _work(self) -> None:
        """Serve one request after the other."""
        while (conn := self._requests.get()) is not None:
            self._serve(conn)

    def _serve(self, conn: Connection) -> None:
        """Compute the response, send what the socket takes at once, and leave the rest to the loop."""
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
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the loop as well
            os.write(self.PIPE[1], b"\0")

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
            return problem_response(400, "the request is incomplete"), False
        except Exception as problem:
            refusal = ResponseBuffer()
            self.handle_error(parsed, refusal, conn.address, problem)
            status = re.match(rb"HTTP/1\.1 (\d{3})", refusal.content())
            code = int(status[1]) if status else 500
            detail = str(problem) if code < 500 else "the request failed; see the server's log"
            return problem_response(code, detail), False

    # --- sending, in the loop

    def _send(self, conn: Connection) -> None:
        """Send what is left of a response; then close the connection, or go on with the next request."""
        if conn.output:
            with contextlib.suppress(BlockingIOError):
                conn.output = memoryview(conn.output)[conn.sock.send(conn.output) :]
            self._open.count(conn)
        if conn.output:
            if not conn.events & WRITE:
                conn.start_timer(self.request_timeout_s + len(conn.output) / MIN_BYTES_PER_S)
                self._open.watch(conn, WRITE)
                self._open.limit_bytes()
            return
        conn.output = b""
        if not conn.keeps_alive:
            self._open.linger(conn)
        elif conn.has_ended and not conn.received:
            self._open.close(conn)
        else:
            conn.state = State.READING
            conn.start_timer(self.request_timeout_s if conn.received else IDLE_TIMEOUT_S)
            self._open.watch(conn, 0 if conn.has_ended else READ)
            if conn.received:
                self._advance(conn)
