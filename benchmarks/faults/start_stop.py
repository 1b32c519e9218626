"""Starts and stops: the first query after a start, SIGTERM under load, and Ctrl-C while the server starts."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console
from benchmarks.faults.disk import toy_home
from benchmarks.serving import JSON, ONE_THREAD

STARTS, QUERIES = 4, 6
RATE, LANES, LOAD_S = 50, 16, 3.0
INTERRUPTS_S = (0.5, 2.0, 4.0, 6.0, 8.0)
"""Seconds from the start of the process to Ctrl-C."""
END_S = 60.0


def bars() -> list[Bar]:
    """All rows, on a home with the default embedder."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        toy_home(home)
        first_ms: list[float] = []
        stops: list[Stop] = []
        for _ in range(STARTS):
            process, port = _start(home)
            first_ms += _first_queries(port)
            stops.append(_stop_under_load(process, port))
        interrupts = [_interrupt(home, after) for after in INTERRUPTS_S]
    console.print("first queries, ms:", [round(ms, 1) for ms in first_ms])
    console.print("stops, s:", [round(stop.seconds, 2) for stop in stops], "interrupts, s:", np.round(interrupts, 2))
    requests, failed = sum(stop.answered for stop in stops), sum(stop.failed for stop in stops)
    what = f"SIGTERM at {RATE} feeds a second"
    return [
        Bar(f"/readyz to the first answered queries, {len(first_ms)} of {STARTS} starts: p99",
            float(np.percentile(first_ms, 99, method="higher")), "ms", 50, "lower"),
        Bar(f"{what}: longest time to the end, of {STARTS}", max(stop.seconds for stop in stops), "s", 2, "lower"),
        Bar(f"{what}: failed answers, of {requests + failed:,}", float(failed), "", 0, "lower"),
        Bar(f"Ctrl-C during the start: longest time to the end, of {len(interrupts)}", max(interrupts), "s", 1,
            "lower"),
    ]  # fmt: skip


def _command(home: Path) -> list[str]:
    return [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "serve", "--no-keys", "--port", "0"]


def _start(home: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a server; return it with its port once `/readyz` says that it is ready."""
    process = subprocess.Popen(
        _command(home), cwd=PROJECT, env=os.environ | ONE_THREAD | {"COLUMNS": "200"}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    port = int(process.stdout.readline().split("127.0.0.1:")[1].split()[0])
    while _ask(port, "GET", "/readyz") != 200:
        time.sleep(0.01)
    return process, port


def _ask(port: int, method: str, path: str, body: object = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=END_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _first_queries(port: int) -> list[float]:
    """Milliseconds of the first queries, each on a connection of its own, so that each process gets some."""
    words = ("rocket", "violin", "whale", "butter", "comet", "opera")
    found = []
    for number in range(QUERIES):
        started = time.perf_counter()
        status = _ask(port, "POST", "/v1/recommend", {"query": f"{words[number % len(words)]} {number}", "n": 5})
        found.append((time.perf_counter() - started) * 1000 if status == 200 else np.inf)
    return found


@dataclass(slots=True)
class Stop:
    """What became of requests around a stop: a connection that is refused is no failed answer."""

    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, is_answered: bool) -> None:
        """Count one request."""
        with self.lock:
            self.answered += is_answered
            self.failed += not is_answered


def _stop_under_load(process: subprocess.Popen[str], port: int) -> Stop:
    """Send SIGTERM while feeds come on kept connections, and two further connections are idle."""
    stop = Stop()
    lanes = [threading.Thread(target=_lane, args=(port, number, stop)) for number in range(LANES)]
    for lane in lanes:
        lane.start()
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # the other one never says anything
    time.sleep(LOAD_S)
    started = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
    stop.seconds = time.perf_counter() - started
    stop.is_over.set()
    for lane in lanes:
        lane.join()
    for connection in idle:
        connection.close()
    return stop


def _lane(port: int, number: int, stop: Stop) -> None:
    """Send feeds on one connection, and on a new one where the server has closed it, until none is accepted."""
    connection: socket.socket | None = None
    body = json.dumps({"user": f"p{number}", "n": 5}).encode()
    head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    due = time.perf_counter() + number / RATE
    while not stop.is_over.wait(max(0.0, due - time.perf_counter())):
        due += LANES / RATE
        try:
            if connection is None or select.select([connection], [], [], 0)[0]:  # it was closed
                connection = socket.create_connection(("127.0.0.1", port))
        except OSError:
            return
        try:
            connection.settimeout(END_S)
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            stop.count(answer.status == 200 and bool(answer.read()))
            connection = None if answer.will_close else connection
        except (OSError, http.client.HTTPException):
            stop.count(False)
            connection = None
    if connection is not None:
        connection.close()


def _interrupt(home: Path, after: float) -> float:
    """Seconds from Ctrl-C, which all processes of a terminal get, to the end of the last one."""
    # a benchmark that runs in the background of a shell ignores Ctrl-C, and what it starts would too
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        _command(home), cwd=PROJECT, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, earlier)
    assert process.stdout is not None
    time.sleep(after)
    started = time.perf_counter()
    os.killpg(process.pid, signal.SIGINT)
    descriptors: Sequence[int] = [process.stdout.fileno()]
    while time.perf_counter() - started < END_S:
        if select.select(descriptors, [], [], 1)[0] and not os.read(descriptors[0], 4096):
            break  # all have closed it
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return time.perf_counter() - started
