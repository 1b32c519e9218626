"""Callers that do not behave: half-sent requests, readers that do not read, and bodies that cost or poison."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.bars import Bar, console
from benchmarks.load import Call, run
from benchmarks.request_files import toy_home
from benchmarks.serving import JSON, children, send, serving

CONNECTIONS = 100
LATE_MS = 100.0
SECONDS = 14.0
"""Longer than a request may take to arrive, so that what happens then is measured too."""
FEEDS_PER_S, CHECKS_PER_S = 20.0, 10.0
FEED = Call("POST", "/v1/recommend", json.dumps({"user": "p1"}).encode(), JSON)
CHECK = Call("GET", "/healthz")
HALF_HEAD = b"POST /v1/recommend HTTP/1.1\r\nHost: feedrank\r\nContent-Type: application/json\r\n"
HALF_BODY = HALF_HEAD + b'Content-Length: 1000\r\n\r\n{"user": "'
HALF_CHUNK = HALF_HEAD + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"user": "'
UNREAD = b"GET /docs/swagger/js/swagger-ui-bundle.js HTTP/1.1\r\nHost: feedrank\r\n\r\n"
NOT_FINITE = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 400)
UNKNOWN_KEYS = 550_000
"""About as many short keys as the largest body holds."""


def bars() -> list[Bar]:
    """Measure on the toy home, with two processes of four threads each."""
    with tempfile.TemporaryDirectory() as folder, serving(toy_home(Path(folder)), settle=False) as (port, parent):
        for _ in range(40):
            send(port, "POST", "/v1/recommend", {"user": "p1"})
        _late(port, "no other caller")
        return [*_costly(port, parent), *_not_finite(port), *_unfinished(port), *_busy(port)]


def _unfinished(port: int) -> list[Bar]:
    """Half-sent heads and bodies, silent and a byte at a time; then responses that are not read."""
    with _hostile(port, (HALF_HEAD, HALF_BODY, HALF_CHUNK, b""), trickle=True):
        unfinished = _late(port, "connections that never finish")
    with _hostile(port, (UNREAD,), trickle=False):
        time.sleep(2)  # to read and build these 150 MB takes the time of any large responses
        unread = _late(port, "responses that are not read")
    what = f"late by more than {LATE_MS:g} ms"
    return [
        Bar(f"{CONNECTIONS} connections that never finish, heads and bodies: /healthz and feeds {what}",
            float(unfinished), "", 0, "lower"),
        Bar(f"{CONNECTIONS} connections that never read their response: /healthz and feeds {what}",
            float(unread), "", 0, "lower"),
    ]  # fmt: skip


@contextmanager
def _hostile(port: int, openings: Sequence[bytes], trickle: bool) -> Iterator[None]:
    """Keep connections open that have sent an opening; each that is closed is opened again.

    trickle: every second one sends a byte every half second.
    """
    stop = threading.Event()

    def connect(number: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(openings[number % len(openings)])
        sock.setblocking(False)
        return sock

    def attack() -> None:
        sockets = [connect(number) for number in range(CONNECTIONS)]
        ready.set()
        while not stop.wait(0.5):
            for number, sock in enumerate(sockets):
                try:
                    if trickle and number % 8 < 4:
                        sock.send(b"x")
                    if trickle and sock.recv(65_536) == b"":
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    sock.close()
                    sockets[number] = connect(number)
        for sock in sockets:
            sock.close()

    ready = threading.Event()
    thread = threading.Thread(target=attack)
    thread.start()
    try:
        if not ready.wait(10):
            raise RuntimeError("found fewer connections than were to be opened")
        yield
    finally:
        stop.set()
        thread.join()


def _late(port: int, beside: str) -> int:
    """Feeds and liveness checks that failed or were late, of those sent for some seconds."""
    late: list[int] = []

    def measure(name: str, call: Call, rate: float) -> None:
        outcome = run("127.0.0.1", port, lambda _: call, rate, SECONDS)
        ms = outcome.since(outcome.scheduled)
        late.append(int(((ms > LATE_MS) | (outcome.status != 200)).sum()))
        console.print(f"{name} beside {beside}: {late[-1]} of {len(ms)} late, p50 {np.median(ms):.1f} ms, "
                      f"max {ms.max():.1f} ms, {outcome.errors} failed")  # fmt: skip

    checks = threading.Thread(target=measure, args=("/healthz", CHECK, CHECKS_PER_S))
    checks.start()
    measure("feeds", FEED, FEEDS_PER_S)
    checks.join()
    return sum(late)


def _busy(port: int) -> list[Bar]:
    """Liveness while all threads are busy with feeds of all items, explained, and more of them wait."""
    body = json.dumps({"user": "p1", "n": 1_000, "explain": True}).encode()
    slow = Call("POST", "/v1/recommend", body, JSON)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(run("127.0.0.1", port, lambda _: slow, 100, 5)))
    thread.start()
    time.sleep(1)
    checks = run("127.0.0.1", port, lambda _: CHECK, CHECKS_PER_S, 4)
    thread.join()
    ms = checks.since(checks.scheduled)
    waited = float(np.median(outcome[0].since(outcome[0].scheduled)))
    console.print(f"/healthz beside feeds that wait {waited:.0f} ms: p50 {np.median(ms):.1f} ms, max {ms.max():.1f} ms")
    late = int(((ms > LATE_MS) | (checks.status != 200)).sum())
    return [Bar(f"all threads busy: /healthz late by more than {LATE_MS:g} ms, of {len(ms)}", late, "", 0, "lower")]


def _costly(port: int, parent: int) -> list[Bar]:
    """One body with as many unknown keys as fit."""
    pids = children(parent)
    before = max(map(_peak_mb, pids))
    body = json.dumps({f"k{number}": 1 for number in range(UNKNOWN_KEYS)}).encode()
    outcome = run("127.0.0.1", port, lambda _: Call("POST", "/v1/recommend", body, JSON), 100, 0.01, arrivals="even")
    seconds = float(outcome.service_ms["max"]) / 1000
    if outcome.status[0] != 400:
        raise RuntimeError(f"found {outcome.status[0]}, expected 400")
    grown = max(map(_peak_mb, pids)) - before
    what = f"a body of {UNKNOWN_KEYS:,} unknown keys"
    return [Bar(f"{what}: seconds to its refusal", seconds, "s", 3, "lower"),
            Bar(f"{what}: memory", grown, "MB", 250, "lower")]  # fmt: skip


def _not_finite(port: int) -> list[Bar]:
    """Numbers that are not finite, wherever a body may hold one; and the feeds of others afterwards."""
    accepted = unlogged = 0
    places = {
        "/v1/recommend": ('{"user": "p1", "context": {"x": %s}}', '{"n": %s}', '{"diversity": {"weight": %s}}'),
        "/v1/rank": ('{"items": [{"id": "new", "fields": {"x": [1, %s]}}]}',),
        "/v1/events": (
            '{"event": "item", "item": "i", "fields": [{"name": "x", "value": %s}]}',
            '{"events": [{"event": "ranking", "user": "u", "items": [{"id": "i", "label": %s}]}]}',
            '{"event": "ranking", "user": "u", "items": [{"id": "i"}], "unknown": {"deep": [%s]}}',
        ),
        "/v1/experiments": ('{"name": "e", "arms": {"a": {}, "b": {"recall_share": %s}}}',),
        "/feedback": ('[{"event": "interaction", "user": "u", "item": "i", "type": "x", "value": %s}]',),
        "/rank/model": ('{"user": "u", "items": [{"id": "i", "label": %s}]}',),
        "/recommend/model": ('{"user": "u", "count": 3, "x": %s}',),
    }
    count = 0
    for path, bodies in places.items():
        for body in bodies:
            for number in NOT_FINITE:
                count += 1
                status = _post(port, path, (body % number).encode())
                accepted += status != 400
                if status != 400:
                    console.print(f"{path} {body % number:.100}: {status}")
                answer = json.loads(send(port, "POST", "/v1/recommend", {"user": "p1"})[1])
                unlogged += not answer["logged"]
    return [
        Bar(f"bodies with a number that is not finite, answered with anything but 400, of {count}",
            float(accepted), "", 0, "lower"),
        Bar(f"feeds of others after them that were not logged, of {count}", float(unlogged), "", 0, "lower"),
    ]  # fmt: skip


def _post(port: int, path: str, body: bytes) -> int:
    outcome = run("127.0.0.1", port, lambda _: Call("POST", path, body, JSON), 100, 0.01, arrivals="even")
    return int(outcome.status[0])


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000
