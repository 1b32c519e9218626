"""The load generator: its schedule never waits, every request counts once, and responses are read completely."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.load import Call, Outcome, main, plot, run, schedule

HOST = "127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Server:
    """The requests that a test server received."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    """Head and body of each."""


Answer = Callable[[int, bytes], bytes | Awaitable[bytes]]
"""Of the n-th request over all connections and its text; empty: the connection is cut instead.

An answer that ends in "cut" is sent without that, and then the connection is closed.
"""


@contextmanager
def served(answer: Answer) -> Iterator[Server]:
    """Run a server on loopback in its own thread."""
    server, loop, ready = Server(), asyncio.new_event_loop(), threading.Event()
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writers.append(writer)
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                _, found, length = request.partition(b"Content-Length: ")
                request += await reader.readexactly(int(length.split(b"\r\n")[0]) if found else 0)
                server.requests.append(request)
                text = answer(len(server.requests) - 1, request)
                text = text if isinstance(text, bytes) else await text
                if not text:
                    writer.transport.abort()
                    return
                writer.write(text.removesuffix(b"cut"))
                if text.endswith(b"cut"):
                    writer.close()
                    return
        except (EOFError, OSError):
            writer.close()

    async def serve() -> None:
        listener = await asyncio.start_server(connected, HOST, 0)
        server.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listener.close()
        for writer in writers:
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(5)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.close()


def get(n: int) -> Call:
    return Call("GET", f"/{n}")


def post(n: int) -> Call:
    return Call("POST", "/feed", f'{{"user": "{n}"}}'.encode(), {"Content-Type": "application/json"})


def outcome_of(latency_ms: np.ndarray, status: np.ndarray | int = 200) -> Outcome:
    """An outcome of requests 1 ms apart, sent half way through their latency."""
    scheduled = np.arange(len(latency_ms)) / 1000
    sent, done = scheduled + latency_ms / 2000, scheduled + latency_ms / 1000
    codes = np.broadcast_to(status, scheduled.shape).astype(np.int16)
    return Outcome(1000, len(scheduled) / 1000, scheduled, sent, done, codes)


# --- the schedule


def test_even_arrivals_are_evenly_apart() -> None:
    assert schedule(4, 1, "even").tolist() == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_are_random_but_for_their_count_and_their_seed() -> None:
    found = schedule(1000, 5, seed=1)
    assert len(found) == 5000
    assert found[0] >= 0
    assert found[-1] <= 5
    gaps = np.diff(found)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as exponential gaps have it
    assert (schedule(1000, 5, seed=1) == found).all()
    assert (schedule(1000, 5, seed=2) != found).any()


def test_a_short_run_has_one_request() -> None:
    assert len(schedule(1, 0.1)) == 1


# --- what is counted


def test_every_request_is_sent_once_and_answered_with_its_own_answer() -> None:
    def echo(_: int, request: bytes) -> bytes:
        body = request.partition(b"\r\n\r\n")[2]
        return b"HTTP/1.1 200 OK\r\ncontent-length:%d\r\n\r\n%s" % (len(body), body)

    with served(echo) as server:
        outcome = run(HOST, server.port, post, 600, 0.5, connections=8, keep_bodies=True)
    assert outcome.statuses == {200: 300}
    assert outcome.bodies == [post(n).body for n in range(300)]
    assert len(server.requests) == 300
    assert server.connections <= 8
    assert (outcome.scheduled <= outcome.sent).all()
    assert (outcome.sent < outcome.done).all()
    assert outcome.errors == 0
    assert 300 < outcome.achieved <= 600
    assert 0 < outcome.busy < 1
    head = server.requests[0].split(b"\r\n")
    assert head[0] == b"POST /feed HTTP/1.1"
    assert f"Host: {HOST}:{server.port}".encode() in head
    assert b"Content-Type: application/json" in head


def test_bodies_are_kept_only_where_wanted() -> None:
    with served(lambda n, _: OK) as server:
        assert run(HOST, server.port, get, 10, 0.1).bodies is None


def test_a_server_that_refuses_is_an_error_and_a_caller_that_is_wrong_is_not() -> None:
    codes = (200, 404, 500, 503)

    def answer(n: int, _: bytes) -> bytes:
        return b"HTTP/1.1 %d So\r\nContent-Length: 0\r\n\r\n" % codes[n % 4]

    with served(answer) as server:
        outcome = run(HOST, server.port, get, 200, 0.2, arrivals="even")
    assert outcome.statuses == dict.fromkeys(codes, 10)
    assert outcome.errors == 20
    assert max(outcome.latency_ms.values()) < math.inf


def test_a_stall_delays_every_request_due_meanwhile() -> None:
    async def answer(n: int, _: bytes) -> bytes:
        await asyncio.sleep(0.3 if n == 50 else 0)
        return OK

    with served(answer) as server:
        outcome = run(HOST, server.port, get, 200, 1, connections=1, arrivals="even")
    assert outcome.statuses == {200: 200}
    assert outcome.latency_ms["p99"] > 250
    assert outcome.above(100) >= 40 / 200  # all that were due in the first 200 ms of the stall
    waits = outcome.since(outcome.scheduled)[50:90]
    assert (waits >= 290 - 5 * np.arange(40)).all()  # one has as much of the stall left as it came before its end
    # the same run as a client sees it that starts its clock at the send: one slow request
    assert outcome.since(outcome.sent)[50] > 290
    assert (outcome.since(outcome.sent) > 100).mean() < 0.05
    assert outcome.service_ms["p90"] < 100


# --- connections that break


def test_a_connection_that_the_server_cuts_fails_its_request_and_no_other() -> None:
    with served(lambda n, _: b"" if n % 10 == 3 else OK) as server:
        outcome = run(HOST, server.port, get, 200, 0.3, connections=1, arrivals="even")
    assert (outcome.status == np.where(np.arange(60) % 10 == 3, 0, 200)).all()
    assert outcome.errors == 6
    assert len(server.requests) == 60  # none was sent twice
    assert server.connections == 7


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nokcut",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nokcut",
    ],
)
def test_a_connection_that_ends_with_its_response_is_reopened(answer: bytes) -> None:
    with served(lambda n, _: answer) as server:
        outcome = run(HOST, server.port, get, 100, 0.1, connections=1, arrivals="even", keep_bodies=True)
    assert outcome.statuses == {200: 10}
    assert outcome.bodies == [b"ok"] * 10
    assert server.connections == 10


def test_a_connection_that_was_closed_while_idle_is_reopened() -> None:
    with served(lambda n, _: OK + b"cut") as server:
        outcome = run(HOST, server.port, get, 20, 0.5, connections=1, arrivals="even")
    assert outcome.statuses == {200: 10}
    assert server.connections == 10


def test_an_answer_cut_short_fails() -> None:
    with served(lambda n, _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nokcut") as server:
        outcome = run(HOST, server.port, get, 50, 0.1, keep_bodies=True)
    assert outcome.statuses == {0: 5}
    assert outcome.bodies == [b""] * 5


def test_without_a_server_every_request_fails_and_none_is_fast() -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    outcome = run(HOST, port, get, 100, 0.2)
    assert outcome.statuses == {0: 20}
    assert outcome.errors == 20
    assert outcome.achieved == 0
    assert outcome.above(1e9) == 1
    assert outcome.latency_ms["p50"] == math.inf
    assert outcome.as_dict()["latency_ms"]["p50"] is None


def test_a_request_is_given_up_at_its_timeout_with_its_connection() -> None:
    async def answer(n: int, _: bytes) -> bytes:
        await asyncio.sleep(0.5 if n == 0 else 0)
        return OK

    with served(answer) as server:
        outcome = run(HOST, server.port, get, 20, 0.5, connections=1, arrivals="even", timeout=0.2)
    assert outcome.status[0] == 0
    assert outcome.done[0] == pytest.approx(0.2, abs=0.1)
    assert (outcome.status[5:] == 200).all()
    assert server.connections == 2  # a late answer on the first would have been taken for that of another


def test_a_server_that_hangs_does_not_hold_the_run() -> None:
    async def answer(n: int, _: bytes) -> bytes:
        await asyncio.sleep(60)
        return OK

    with served(answer) as server:
        outcome = run(HOST, server.port, get, 100, 0.3, connections=2, timeout=0.2)
    assert outcome.statuses == {0: 30}
    assert (outcome.done - outcome.scheduled).max() < 0.4


# --- answers


@pytest.mark.parametrize(
    ("answer", "method", "status", "body"),
    [
        (CHUNKED + b"4\r\nfeed\r\n4;x=y\r\nrank\r\n0\r\n\r\n", "GET", 200, b"feedrank"),
        (CHUNKED.replace(b"-E", b"-e") + b"A\r\n0123\r\n6789\r\n0\r\nT: 1\r\n\r\n", "GET", 200, b"0123\r\n6789"),
        (CHUNKED + b"0\r\n\r\n", "GET", 200, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, "GET", 200, b"x" * 100_000),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", 200, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "HEAD", 200, b""),
        (CHUNKED, "HEAD", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "GET", 304, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\n.", "POST", 201, b"."),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", "GET", 200, b"ok"),
    ],
)  # fmt: skip
def test_an_answer_is_read_whole_and_no_further(answer: bytes, method: str, status: int, body: bytes) -> None:
    with served(lambda n, _: answer) as server:
        outcome = run(HOST, server.port, lambda n: Call(method, "/"), 100, 0.05, connections=1, keep_bodies=True)
    assert outcome.statuses == {status: 5}
    assert outcome.bodies == [body] * 5
    assert server.connections == 1  # so that what was left of one answer would have spoilt the next


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        CHUNKED + b"none\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["another protocol", "no status", "length", "chunk", "long head"],
)
def test_an_answer_that_is_not_http_fails(answer: bytes) -> None:
    with served(lambda n, _: answer) as server:
        outcome = run(HOST, server.port, get, 50, 0.1)
    assert outcome.statuses == {0: 5}


# --- bounds


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "0.0.0.0", "127.0.0.1.example.org", ""])
def test_only_loopback_is_loaded(host: str) -> None:
    with pytest.raises(ValueError, match="one's own machine"):
        run(host, 80, get, 1, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 0), ("rate", -1), ("rate", 20_001), ("rate", math.nan), ("seconds", 0), ("seconds", 3_601),
        ("connections", 0), ("connections", 513), ("timeout", 0),
    ],
)  # fmt: skip
def test_a_number_out_of_bounds_is_refused(name: str, value: float) -> None:
    given: dict[str, Any] = {"rate": 1, "seconds": 1, "connections": 1, "timeout": 1} | {name: value}
    with pytest.raises(ValueError, match=f"found {name} .* at most"):
        run(HOST, 9, get, **given)


# --- the summary


def test_percentiles_are_those_of_the_requests() -> None:
    outcome = outcome_of(np.random.default_rng(0).permutation(np.arange(1, 1001)).astype(float))
    expected = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
    assert outcome.latency_ms == pytest.approx(expected)
    assert outcome.service_ms == pytest.approx({name: ms / 2 for name, ms in expected.items()})
    assert outcome.above(900.5) == 0.1


def test_failed_requests_count_as_slowest() -> None:
    outcome = outcome_of(np.full(1000, 2.0), np.where(np.arange(1000) % 200 == 0, 0, 200))
    assert outcome.latency_ms["p99"] == pytest.approx(2)
    assert outcome.latency_ms["p99.9"] == math.inf
    assert outcome.above(3) == 0.005
    summary = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    assert summary["statuses"] == {"0": 5, "200": 995}
    assert summary["latency_ms"]["max"] is None
    console = Console(width=120)
    with console.capture() as capture:
        console.print(outcome.table())
    assert "failed: 5" in capture.get()
    assert "errors: 5" in capture.get()


def test_a_plot_is_drawn_despite_failures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcomes = {
        "calm": outcome_of(np.full(300, 2.0)),
        "all failed": outcome_of(np.full(3, 2.0), 0),
        "one": outcome_of(np.full(1, 1.0)),
    }
    plot(tmp_path / "load.png", outcomes)
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


# --- the command


def test_the_command_requests_feeds_of_random_users_and_writes_its_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "load.json"
    with served(lambda n, _: OK) as server:
        url = f"http://{HOST}:{server.port}/v1/recommend?k=3"
        main(["--url", url, "--rate", "200", "--seconds", "0.2", "--users", "9", "--key", "k", "--json", str(summary)])
    assert "latency, from the schedule" in capsys.readouterr().out
    as_json = json.loads(summary.read_text())
    assert (as_json["url"], as_json["requests"], as_json["errors"]) == (url, 40, 0)
    assert all(request.startswith(b"POST /v1/recommend?k=3 HTTP/1.1\r\n") for request in server.requests)
    assert all(b"Authorization: Bearer k\r\n" in request for request in server.requests)
    users = {json.loads(request.partition(b"\r\n\r\n")[2])["user"] for request in server.requests}
    assert users <= set("123456789")
    assert len(users) > 3


def test_the_command_gets_or_posts_a_body() -> None:
    with served(lambda n, _: OK) as server:
        url = f"http://{HOST}:{server.port}"
        main(["--url", url, "--rate", "10", "--seconds", "0.1"])
        main(["--url", url, "--rate", "10", "--seconds", "0.1", "--body", '{"user": "1"}'])
    assert server.requests[0].startswith(b"GET / HTTP/1.1\r\n")
    assert server.requests[1].startswith(b"POST / HTTP/1.1\r\n")
    assert server.requests[1].endswith(b'\r\n\r\n{"user": "1"}')


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--url", "http://example.org/"], "own machine"),
        (["--url", "https://127.0.0.1/"], "expected http://"),
        (["--url", "http://127.0.0.1:no/"], "no"),
        (["--url", "http://127.0.0.1/", "--rate", "0"], "found rate 0"),
        (["--url", "http://127.0.0.1/", "--users", "0"], "high"),
    ],
)
def test_the_command_names_what_it_refuses(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert text in capsys.readouterr().err
