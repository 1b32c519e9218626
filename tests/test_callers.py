"""Callers that do not behave: half-sent requests, slow readers, bodies that cost or poison, and too many of them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import resource
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toyworld
from gunicorn.config import Config as GunicornConfig
from gunicorn.glogging import Logger
from gunicorn.http.parser import RequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from waitress import create_server, wasyncore
from werkzeug.exceptions import HTTPException

from feedrank.api import compose, config
from feedrank.api.client_connection import State
from feedrank.api.compose.rank_only_items import DAY_MS, unused_rank_only
from feedrank.api.config import ServeConfig
from feedrank.api.connection_limits import allowed_connections
from feedrank.api.connection_worker import ConnectionWorker
from feedrank.api.home_paths import HomePaths
from feedrank.api.http import gzip_body, json_limits
from feedrank.api.http.app import create_app
from feedrank.api.http.bodies import RankBody, RecommendBody
from feedrank.api.http.gzip_body import gunzip
from feedrank.api.http.json_limits import decode_json
from feedrank.api.http.middleware import counter_storage
from feedrank.api.http.service import Service
from feedrank.api.http.shared_counters import SharedCounters
from feedrank.api.request_frame import MAX_CHUNKS, MAX_HEAD_BYTES, RequestFrame
from feedrank.api.waitress_limits import CallerLimits
from feedrank.api.waitress_server import WaitressServer
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import ItemEvent, RankingEvent
from feedrank.engine.events.ids import MAX_DOCUMENT_CHARS, MAX_ID_CHARS, MAX_TEXT_CHARS
from feedrank.engine.journal.journal import Journal

LIMIT = 100_000
HOST = b"Host: feedrank\r\n"
PATIENCE_S = 20.0

# --- where a request ends


def chunked(parts: list[bytes], trailer: bytes = b"") -> bytes:
    """A chunked body with an extension in its first chunk."""
    chunks = [b"%x%s\r\n%s\r\n" % (len(part), b"; a=b" if n == 0 else b"", part) for n, part in enumerate(parts)]
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


bodies = st.one_of(
    st.binary(max_size=300).map(lambda body: (b"Content-Length: %d\r\n" % len(body), body, body)),
    st.tuples(st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.sampled_from([b"", b"X-Sum: 1\r\n"])).map(
        lambda drawn: (b"transfer-encoding:chunked \r\n", chunked(*drawn), b"".join(drawn[0]))
    ),
    st.just((b"", b"", b"")),
)


@settings(deadline=None, max_examples=150)
@given(bodies, st.lists(st.integers(1, 40), max_size=60), st.binary(max_size=30))
@example((b"Content-Length: 0\r\n", b"", b""), [], b"GET / HTTP/1.1\r\n\r\n")
def test_a_request_ends_where_the_parser_ends_it(
    drawn: tuple[bytes, bytes, bytes], steps: list[int], after: bytes
) -> None:
    framing, sent, content = drawn
    request = b"POST /x HTTP/1.1\r\n" + HOST + framing + b"\r\n" + sent
    wire, buffer, frame, position = request + after, bytearray(), RequestFrame(LIMIT), 0
    for step in [*steps, len(wire)]:
        buffer += wire[position : position + step]
        position += step
        is_complete = frame.update(buffer)
        assert is_complete == (len(buffer) >= len(request))
        if is_complete:
            break
    assert (frame.end, frame.is_closing, frame.refused_with) == (len(request), False, 0)
    parsed = next(RequestParser(GunicornConfig(), iter([bytes(buffer[: frame.end])]), ("127.0.0.1", 1)))
    assert parsed.body.read() == content


@settings(deadline=None, max_examples=150)
@given(st.lists(st.binary(max_size=50), max_size=12))
def test_any_bytes_are_measured_without_an_error(parts: list[bytes]) -> None:
    buffer, frame = bytearray(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), RequestFrame(LIMIT)
    for part in parts:
        buffer += part
        if frame.update(buffer):
            break


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", 0),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 0),
        (b"Transfer-Encoding: gzip, chunked\r\n", 0),
        (b"Content-Length: -1\r\n", 0),
        (b"Content-Length: 0x10\r\n", 0),
        (b"Content-Length: %d\r\n" % (LIMIT + 1), 0),
        (b"Content-Length: %s\r\n" % (b"9" * 4_000), 0),
        (b"X: %s" % (b"y" * MAX_HEAD_BYTES), 431),
    ],
)
def test_a_request_of_unclear_or_too_great_length_is_the_last_of_its_connection(head: bytes, status: int) -> None:
    frame, buffer = RequestFrame(LIMIT), bytearray(b"POST /x HTTP/1.1\r\n" + head + b"\r\n")
    assert frame.update(buffer)
    assert (frame.is_closing, frame.refused_with) == (True, status)


def test_chunks_cost_no_more_than_a_body_of_the_same_size() -> None:
    head = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in (b"1\r\na\r\n" * (MAX_CHUNKS + 2), b"%x\r\n" % (3 * LIMIT), b"0\r\n" + b"a: b\r\n" * 20_000):
        frame, buffer = RequestFrame(LIMIT), bytearray(head)
        for start in range(0, len(body), 1_000):
            buffer += body[start : start + 1_000]
            if frame.update(buffer):
                break
        assert frame.is_closing
        assert len(buffer) < len(head) + 6 * (MAX_CHUNKS + 200)


# --- the worker


class FakeApp:
    """An application whose routes block, send much, or repeat the body."""

    config = {"MAX_CONTENT_LENGTH": LIMIT}  # noqa: RUF012  # as Flask has it

    def __init__(self) -> None:
        self.release = threading.Event()
        self.running = threading.Semaphore(0)

    def wsgi(self) -> FakeApp:
        return self

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        content = path.encode()
        if path == "/block":
            self.running.release()
            assert self.release.wait(PATIENCE_S)
        elif path == "/large":
            content = b"x" * 20_000_000
        elif path == "/echo":
            content = environ["wsgi.input"].read()
        elif path == "/fail":
            raise RuntimeError("secret")
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]


class ThreadedWorker(ConnectionWorker):
    """A worker in a thread of the test: it sets no signal handlers."""

    request_timeout_s = 0.6
    max_connections = 24

    def init_signals(self) -> None:
        pass


@contextmanager
def running_worker(threads: int = 2) -> Iterator[tuple[int, FakeApp, ThreadedWorker]]:
    cfg, app = GunicornConfig(), FakeApp()
    for name, value in {"threads": threads, "graceful_timeout": 5, "loglevel": "critical"}.items():
        cfg.set(name, value)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    worker = ThreadedWorker(1, os.getppid(), [listener], app, 30, cfg, Logger(cfg))
    thread = threading.Thread(target=worker.init_process)
    thread.start()
    wait_for(lambda: bool(worker.booted))
    try:
        yield port, app, worker
    finally:
        app.release.set()
        worker.alive = False
        os.write(worker.PIPE[1], b"x")
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def connect(port: int, sent: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    sock.sendall(sent)
    return sock


def get(path: str, headers: bytes = b"") -> bytes:
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path.encode(), HOST, headers)


def answer(sock: socket.socket) -> tuple[int, bytes, bytes]:
    """Read one response: status, head and body."""
    file = sock.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            raise ConnectionResetError
        head += line
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None
    return int(head.split()[1]), head, file.read(int(length[1]))


def test_half_sent_requests_hold_up_nobody_and_are_closed_in_time() -> None:
    with running_worker() as (port, _, _):
        openings = [
            b"", b"GET /a HT", get("/a")[:-2], b"POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        ]  # fmt: skip
        hostile = [connect(port, openings[n % len(openings)]) for n in range(20)]
        started = time.monotonic()
        for _ in range(5):
            with connect(port, get("/a")) as sock:
                assert answer(sock)[::2] == (200, b"/a")
        assert time.monotonic() - started < 0.5
        trickled = 0
        while time.monotonic() - started < 0.5:  # a byte now and then wins no time
            hostile[1].sendall(b"x")
            trickled += 1
            time.sleep(0.05)
        for sock, opening in list(zip(hostile, openings * 4, strict=True))[:10]:
            if opening:
                status, head, body = answer(sock)
                assert status == 408
                assert b"application/problem+json" in head
                assert json.loads(body)["status"] == 408
        assert trickled
        for sock in hostile:
            sock.close()


def test_liveness_is_answered_while_all_threads_are_busy() -> None:
    with running_worker(threads=2) as (port, app, _):
        blocked = [connect(port, get("/block")) for _ in range(6)]
        assert all(app.running.acquire(timeout=PATIENCE_S) for _ in range(2))
        for path in ("/healthz", "/health"):
            with connect(port, get(path)) as sock:
                assert answer(sock)[0] == 200
        app.release.set()
        for sock in blocked:
            assert answer(sock)[0] == 200
            sock.close()


def test_slow_readers_hold_up_no_thread_and_get_all_if_they_read_on() -> None:
    with running_worker(threads=1) as (port, _, _):
        readers = [connect(port, get("/large")) for _ in range(3)]
        with connect(port, get("/a")) as sock:
            assert answer(sock)[0] == 200
        for sock in readers[:2]:
            assert len(answer(sock)[2]) == 20_000_000
        for sock in readers:
            sock.close()


def test_a_reader_that_never_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedrank.api.connection_worker.MIN_BYTES_PER_S", 10**12)
    with running_worker() as (port, _, worker), connect(port, get("/large")):
        wait_for(lambda: len(worker._open) == 1)
        wait_for(lambda: len(worker._open) == 0)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_requests_of_one_connection_are_answered_in_order() -> None:
    paths = ["/block", "/healthz", "/a", "/large", "/b"]
    with running_worker() as (port, app, _), connect(port, b"".join(map(get, paths))) as sock:
        app.running.acquire(timeout=PATIENCE_S)
        app.release.set()
        file = sock.makefile("rb")
        for path in paths:
            head = b"".join(iter(file.readline, b"\r\n"))
            length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]  # it is always there
            body = file.read(length)
            assert body == (path.encode() if path != "/large" else b"x" * 20_000_000)


def test_beyond_the_limit_the_oldest_connections_that_wait_are_closed() -> None:
    with running_worker() as (port, app, worker):
        busy = connect(port, get("/block"))
        assert app.running.acquire(timeout=PATIENCE_S)
        idle = [connect(port, get("/a")[:5]) for _ in range(3 * worker.max_connections)]
        with connect(port, get("/b")) as sock:
            assert answer(sock)[0] == 200
        wait_for(lambda: len(worker._open) <= worker.max_connections)
        app.release.set()
        assert answer(busy)[0] == 200  # a request that runs is never one of them
        for sock in [busy, *idle]:
            sock.close()


def test_requests_that_wait_hold_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedrank.api.open_connections.MAX_BUFFER_BYTES", 250_000)
    with running_worker() as (port, _, worker):
        head = b"POST /echo HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"
        hostile = [connect(port, head + b"x" * 90_000) for _ in range(8)]
        wait_for(lambda: worker._open._held <= 250_000)
        with connect(port, head + b"y" * 99_999) as sock:
            assert answer(sock)[0] == 200
        for sock in hostile:
            sock.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n", 431),
        (get("/", b"".join(b"X-%d: y\r\n" % n for n in range(200))), 431),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (get("/fail"), 500),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_served_are_problems(sent: bytes, status: int) -> None:
    with running_worker() as (port, _, _), connect(port, sent) as sock:
        found, head, body = answer(sock)
        assert found == status
        assert b"application/problem+json" in head
        assert b"secret" not in body
        assert json.loads(body)["status"] == status
        assert sock.recv(1) == b""


def test_expected_continues_and_closes_are_kept() -> None:
    with running_worker() as (port, _, _):
        expecting = b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        with connect(port, expecting) as sock:
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"abc")
            assert answer(sock)[::2] == (200, b"abc")
            sock.sendall(get("/again"))
            assert answer(sock)[2] == b"/again"
        for request in (get("/a", b"Connection: close\r\n"), b"GET /a HTTP/1.0\r\n\r\n"):
            with connect(port, request) as sock:
                assert answer(sock)[0] == 200
                assert sock.recv(1) == b""


def test_a_stopping_worker_answers_what_it_has_accepted() -> None:
    with running_worker() as (port, app, worker):
        kept = connect(port, get("/a"))
        assert answer(kept)[0] == 200
        blocked = connect(port, get("/block"))
        assert app.running.acquire(timeout=PATIENCE_S)
        worker.alive = False
        os.write(worker.PIPE[1], b"x")
        time.sleep(0.1)
        kept.sendall(get("/b"))
        status, head, _ = answer(kept)
        assert status == 200
        assert b"Connection: close" in head
        app.release.set()
        assert answer(blocked)[0] == 200


def test_a_connection_that_is_reset_stays_open_while_a_thread_has_its_request() -> None:
    with running_worker() as (port, app, worker):
        sock = connect(port, get("/block"))
        assert app.running.acquire(timeout=PATIENCE_S)
        (conn,) = worker._open.in_state(State.BUSY)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        wait_for(lambda: conn.has_ended)
        assert conn.sock.fileno() >= 0, "the thread could send to a new connection with the number of this one"
        app.release.set()
        wait_for(lambda: len(worker._open) == 0)
        assert conn.sock.fileno() == -1


@pytest.mark.parametrize(("soft", "allowed"), [(100, 10), (200, 72), (100_000, 1_000), (resource.RLIM_INFINITY, 1_000)])
def test_connections_leave_descriptors_for_files(monkeypatch: pytest.MonkeyPatch, soft: int, allowed: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert allowed_connections(1_000) == allowed


# --- the single process


def test_a_thread_that_outlasts_a_stop_wakes_a_loop_that_is_not_closed() -> None:
    app = FakeApp()
    server = WaitressServer(app, ("127.0.0.1", 0), 1, CallerLimits(10, 40, LIMIT))  # type: ignore[arg-type]
    trigger = server._server.trigger
    try:
        with connect(server.addresses[0][1], get("/block")):
            wait_for(lambda: server._turn(0.02) or app.running.acquire(blocking=False))  # type: ignore[func-returns-value]
            server._drain(0)
        os.fstat(trigger.trigger)  # waitress's thread writes to it at the end of the request
    finally:
        app.release.set()
        server._server.task_dispatcher.shutdown()
        trigger.close()


def test_waitress_keeps_threads_and_liveness_free_too() -> None:
    app, limits = FakeApp(), CallerLimits(0.5, 40, LIMIT)
    server = create_server(app, host="127.0.0.1", port=0, threads=1, **limits.options)
    limits.apply(server._map)
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            wasyncore.loop(timeout=0.1, map=server._map, use_poll=True, count=1)

    thread = threading.Thread(target=loop)
    thread.start()
    port = server.effective_port
    try:
        half = connect(port, get("/a")[:-2])
        blocked = connect(port, get("/block"))
        assert app.running.acquire(timeout=PATIENCE_S)
        with connect(port, get("/healthz")) as sock:
            assert answer(sock)[0] == 200
        app.release.set()
        assert answer(blocked)[0] == 200
        assert half.recv(1) == b""
        idle = [connect(port) for _ in range(100)]
        wait_for(lambda: len(server.active_channels) <= 41)
        with connect(port, b"NONSENSE\r\n\r\n") as sock:
            status, head, body = answer(sock)
            assert (status, json.loads(body)["status"]) == (400, 400)
            assert b"application/problem+json" in head
        for sock in [half, blocked, *idle]:
            sock.close()
    finally:
        app.release.set()
        stop.set()
        thread.join(PATIENCE_S)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)


# --- JSON


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(json_values, st.sampled_from(["utf-8", "utf-16", "utf-32-le"]))
def test_finite_bodies_are_read_as_they_are(value: Any, encoding: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert repr(decode_json(text.encode(encoding, "surrogatepass"))) == repr(json.loads(text))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(["key", "list"]), max_size=12),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1.5E+400", "9" * 320, "9" * 5_000, "1" * 250 + "e99"]),
    json_values,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be"]),
)
def test_a_number_that_is_not_finite_is_found_wherever_it_stands(
    path: list[str], number: str, beside: Any, encoding: str
) -> None:
    text, names = number, list[str]()
    for step in path:
        more = json.dumps(beside)
        text = f'{{"z": {more}, "a": {text}}}' if step == "key" else f"[{more}, {text}]"
        names.insert(0, "a" if step == "key" else "1")
    with pytest.raises(EventError, match="finite") as caught:
        decode_json(text.encode(encoding))
    assert caught.value.field == (".".join(names) or "body")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "raw",
    [
        b"{" + b",".join(b'"k%d": 1' % n for n in range(json_limits.MAX_KEYS + 1)) + b"}",
        b'{"a": [{' + b",".join(b'"k%d": 1' % n for n in range(json_limits.MAX_KEYS + 1)) + b"}]}",
        b'{"a": ' * 40 + b"1" + b"}" * 40,
        b"[" * 5_000 + b"]" * 5_000,
        b"[1, " * 40 + b'"]]]]' + b"]" * 40,
        b"[" + b"[]," * json_limits.MAX_CONTAINERS + b"[]]",
    ],
)
def test_keys_levels_and_containers_are_limited(raw: bytes) -> None:
    with pytest.raises((EventError, ValueError)):
        decode_json(raw)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (RecommendBody, {"history": [1] * 900}),
        (RecommendBody, {"filters": {"deny": [1] * 5_000}}),
        (RecommendBody, {"filters": {"allow": [None] * 5_000, "categories": [{}] * 900}}),
        (RecommendBody, {"context": {"a": [{}] * 100_000}}),
        (RankBody, {"items": [{"x": 1}] * 900}),
        (RankBody, {"items": [1] * 100_000}),
        (RankBody, {"items": [{"id": "a", "fields": {"a": [{}] * 100_000}}]}),
    ],
)
def test_validation_stops_at_the_first_wrong_entry_of_a_list(model: Any, body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    assert caught.value.error_count() < 12


# --- gzip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=10_000), min_size=1, max_size=6), st.integers(0, 5_000))
def test_all_members_of_a_gzip_body_are_read(parts: list[bytes], padding: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts)
    content = b"".join(parts)
    assert gunzip(packed + bytes(padding), LIMIT) == content
    for damaged, status in ((packed[:-1], 400), (packed + b"x", 400)):
        with pytest.raises(HTTPException) as caught:
            gunzip(damaged, LIMIT)
        assert caught.value.code == status
    if content:
        with pytest.raises(HTTPException) as caught:
            gunzip(packed, len(content) - 1)
        assert caught.value.code == 413


def test_gzip_bombs_are_refused_early() -> None:
    for packed, status in (
        (gzip.compress(bytes(10 * LIMIT)) * 3, 413), (gzip.compress(b"") * (gzip_body.MAX_MEMBERS + 1), 400),
        (b"", 400),
    ):  # fmt: skip
        with pytest.raises(HTTPException) as caught:
            gunzip(packed, LIMIT)
        assert caught.value.code == status


# --- the routes


NOW = toyworld.END / 1000 + 1_000


@pytest.fixture(scope="module")
def service_home(interactions_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A recommender that several tests share, with a journal and counters of its own."""
    paths, folder = HomePaths(interactions_home), tmp_path_factory.mktemp("callers")
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    recommender._journal = HomePaths(folder).journal()
    return recommender, folder


def client_of(service_home: tuple[Any, Path], **serve: Any) -> Any:
    recommender, folder = service_home
    path = folder / "counters.db" if serve else None
    return create_app(Service(recommender, lambda: NOW, config=ServeConfig(**serve), counters_path=path)).test_client()


def problem(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    body: dict[str, Any] = response.json
    return body


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 400])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/recommend", '{"context": {"x": %s}}', "context.x"),
        ("/v1/recommend", '{"diversity": {"weight": %s}}', "diversity.weight"),
        ("/v1/rank", '{"items": ["a", {"id": "b", "fields": {"x": [1, %s]}}]}', "items.1.fields.x.1"),
        ("/v1/events", '{"events": [{"event": "ranking", "items": [{"id": "a", "label": %s}]}]}',
         "events.0.items.0.label"),
        ("/v1/experiments", '{"name": "e", "arms": {"a": {"x": %s}}}', "arms.a.x"),
        ("/feedback", '[{"event": "user", "user": "u", "fields": [{"name": "n", "value": %s}]}]',
         "0.fields.0.value"),
        ("/rank/m", '{"items": [{"id": "a"}], "unknown": {"deep": [%s]}}', "unknown.deep.0"),
        ("/recommend/m", '{"count": %s}', "count"),
    ],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_refused_everywhere(
    service_home: tuple[Any, Path], path: str, body: str, field: str, number: str
) -> None:
    client = client_of(service_home)
    found = problem(client.post(path, data=body % number, content_type="application/json"))
    assert found["field"] == field
    assert client.post("/v1/recommend", json={"user": "somebody else"}).json["logged"]


@pytest.mark.parametrize("large", [MAX_ID_CHARS + 1, MAX_TEXT_CHARS + 1, MAX_DOCUMENT_CHARS + 1])
def test_ids_and_texts_have_one_limit_in_events_requests_and_state(service_home: tuple[Any, Path], large: int) -> None:
    client, text = client_of(service_home), "x" * large
    shown = {"event": "ranking", "user": "u", "items": [{"id": "a"}]}
    click = {"event": "interaction", "user": "u", "item": "a", "type": "click"}

    def fields(name: str, value: Any) -> list[dict[str, Any]]:
        return [{"name": name, "value": value}]

    names = [
        ("/v1/events", {**shown, "user": text}), ("/v1/events", {**shown, "surface": text}),
        ("/v1/events", {**shown, "session": text}), ("/v1/events", {**click, "type": text}),
        ("/v1/events", {**click, "ranking": text}), ("/v1/events", {**click, "fields": fields(text, 1)}),
        ("/v1/recommend", {"user": text}), ("/v1/recommend", {"surface": text}), ("/v1/recommend", {"history": [text]}),
        ("/v1/recommend", {"context": {text: 1}}), ("/v1/rank", {"items": [{"id": text}]}),
        ("/recommend/m", {"items": [text]}), ("/recommend/m", {"user": text}),
        ("/rank/m", {"user": text, "items": [{"id": "a"}]}),
    ]  # fmt: skip
    texts = [
        ("/v1/events", {**shown, "fields": fields("query", text)}), ("/v1/recommend", {"query": text}),
        ("/v1/events", {**click, "fields": fields("x", ["a", text])}), ("/v1/recommend", {"context": {"x": [text]}}),
        ("/rank/m", {"items": [{"id": "a"}], "fields": fields("query", text)}),
    ]  # fmt: skip
    documents = [
        ("/v1/events", {"event": "item", "item": "a", "fields": fields("text", text)}),
        ("/v1/events", {"event": "user", "user": "a", "fields": fields("about", text)}),
        ("/v1/rank", {"items": [{"id": "a", "fields": {"text": text}}]}),
    ]  # fmt: skip
    too_long = [*names, *(texts if large > MAX_TEXT_CHARS else ()), *(documents if large > MAX_DOCUMENT_CHARS else ())]
    for path, body in too_long:
        problem(client.post(path, json=body))
    if large == MAX_ID_CHARS + 1:
        for path, body in texts:
            assert client.post(path, json=body).status_code in (200, 202), body
        for path in ("/v1/state/user/{}", "/v1/state/item/{}", "/v1/items/{}/similar", "/v1/rankings/{}/explain"):
            problem(client.get(path.format(text)))
            problem(client.get(path.format("%00")))


def test_a_quota_on_events_is_shared_and_refuses_a_batch_as_a_whole(service_home: tuple[Any, Path]) -> None:
    recommender, _ = service_home
    first, second = (client_of(service_home, event_quota="10/day") for _ in range(2))
    events = [{"event": "interaction", "user": "q", "item": "ocean-3", "type": "click"} for _ in range(6)]
    assert first.post("/v1/events", json={"events": events}).json["accepted"] == 6
    before = recommender._journal.count_by_kind()
    refused = second.post("/v1/events", json={"events": events})
    assert "event_quota" in problem(refused, 429)["detail"]
    assert int(refused.headers["Retry-After"]) > 0
    assert recommender._journal.count_by_kind() == before
    assert second.post("/feedback", json=events[:4]).json["accepted"] == 4
    assert first.post("/feedback", json=events[:1]).status_code == 429
    assert first.post("/v1/recommend", json={}).status_code == 200


def test_items_beyond_the_quota_are_ranked_without_their_fields(service_home: tuple[Any, Path]) -> None:
    client = client_of(service_home, item_quota="3/day")

    def rank(*names: str) -> Any:
        return client.post("/v1/rank", json={"items": [{"id": name, "fields": {"title": name}} for name in names]}).json

    assert rank("new 1", "new 2")["items"]
    before = service_home[0]._journal.count_by_kind()["item"]
    ranked = rank("new 3", "new 4")
    assert ranked["degraded"] == ["items"]
    assert len(ranked["items"]) == 2
    assert service_home[0]._journal.count_by_kind()["item"] == before
    assert rank("new 5")["items"]
    assert service_home[0]._journal.count_by_kind()["item"] == before + 1


@pytest.mark.parametrize("uri", ["redsi://127.0.0.1", "unknown://"])
def test_a_storage_of_counters_that_can_not_be_used_is_named(uri: str) -> None:
    with pytest.raises(ValueError, match=f"rate_limit_storage = '{uri}': .*; expected process, home or the URI"):
        counter_storage(uri, None)


def test_a_rate_limit_can_be_shared(service_home: tuple[Any, Path]) -> None:
    clients = [client_of(service_home, rate_limit="6/hour", rate_limit_storage="home") for _ in range(3)]
    statuses = [client.post("/v1/recommend", json={}).status_code for _ in range(3) for client in clients]
    assert statuses == [200] * 6 + [429] * 3
    assert clients[0].get("/healthz").status_code == 200


# --- counters


COUNT = """
import sys
from feedrank.api.http.shared_counters import SharedCounters
counters = SharedCounters(path=sys.argv[1])
for _ in range(300):
    counters.incr("a", 3600)
"""


def test_counters_of_processes_and_threads_add_up(tmp_path: Path) -> None:
    path = tmp_path / "counters.db"
    counters = SharedCounters(path=str(path))
    process = subprocess.Popen([sys.executable, "-c", COUNT, str(path)])
    threads = [threading.Thread(target=lambda: [counters.incr("a", 3600) for _ in range(100)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(60) == 0
    assert counters.get("a") == 600
    assert counters.get("b") == 0
    assert counters.get_expiry("a") > time.time()
    assert path.stat().st_mode & 0o777 == 0o600
    assert {entry.name for entry in tmp_path.iterdir()} == {"counters.db"}
    counters.incr("short", 0, 5)
    assert counters.incr("short", 100) == 1


def test_counters_go_on_without_their_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = SharedCounters(path=str(tmp_path / "no folder" / "counters.db"))
    assert [alone.incr("a", 100) for _ in range(3)] == [1, 2, 3]
    assert (alone.get("a"), alone.check()) == (3, False)
    assert caplog.text.count("counts alone") == 1
    path = tmp_path / "counters.db"
    path.write_bytes(b"not a database, certainly not one" * 100)
    damaged = SharedCounters(path=str(path))
    damaged.incr("a", 100)
    assert [damaged.incr("a", 100) for _ in range(2)] == [1, 2]
    with sqlite3.connect(path) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        damaged.incr("a", 100)
        assert time.monotonic() - started < 2
    assert damaged.incr("a", 100) == 3


# --- items that only ranking requests describe


def test_rank_only_items_are_left_out_after_some_time_without_use(tmp_path: Path) -> None:
    journal, now = Journal.open_sqlite(tmp_path / "journal.db"), 1_750_000_000_000
    old, recent = now - 100 * DAY_MS, now - 5 * DAY_MS

    def item(name: str, at: int, **fields: Any) -> ItemEvent:
        return ItemEvent(f"{name} {at} {fields}", at, name, fields)

    events = [
        item("unused", old, rank_only=True), item("again", old, rank_only=True), item("again", recent, rank_only=True),
        item("shown", old, rank_only=True), item("catalogue", old), item("later", old, rank_only=True),
        item("later", old + 1, title="x"), item("before", old), item("before", old + 1, rank_only=True),
    ]  # fmt: skip
    journal.append([*events, RankingEvent("r1", recent, ("shown", "catalogue")), RankingEvent("r2", old, ("unused",))])
    assert unused_rank_only(events, journal, 90, now) == {"unused"}
    assert unused_rank_only(events, journal, 0, now) == set()
    assert unused_rank_only(events, journal, 90, now + 200 * DAY_MS) == {"unused", "again", "shown"}
    journal.close()


# --- the pages


def test_every_response_has_a_content_policy_and_the_pages_keep_to_theirs(service_home: tuple[Any, Path]) -> None:
    client = client_of(service_home)
    for response in (client.get("/healthz"), client.post("/v1/recommend", json={}), client.get("/nothing")):
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "script-src" not in response.headers["Content-Security-Policy"]
    for path in ("/docs/", "/docs/swagger", "/docs/oauth2-redirect.html"):
        response = client.get(path)
        assert response.status_code == 200
        policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
        assert "unsafe" not in policy["script-src"]
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", response.text, re.DOTALL)
        for attributes, script in scripts:
            if source := re.search(r'src="([^"]*)"', attributes):
                assert not source[1].startswith(("http", "//"))
            else:
                digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
                assert f"'sha256-{digest}'" in policy["script-src"]
        assert not re.search(r"<[^>]*\son[a-z]+=", response.text)  # no handlers in attributes
