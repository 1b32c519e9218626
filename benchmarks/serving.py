"""A server on a home for as long as a measurement takes: requests to it, its processes, and their memory."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bars import PROJECT, console
from benchmarks.load import Call, Outcome, run

PEOPLE = 943
JSON = {"Content-Type": "application/json"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@contextmanager
def serving(home: Path, *arguments: str, settle: bool = True, prefix: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """A server of two processes on a home: its port, and the id of the process that the others are children of.

    settle: wait until every process has loaded what it loads behind its first answers. prefix: of the command, which
    it replaces itself by.
    """
    process = subprocess.Popen(
        [
            *prefix,
            sys.executable,
            "-m",
            "feedrank.api.cli",
            "--home",
            str(home),
            "serve",
            "--no-keys",
            "--port",
            "0",
            *arguments,
        ],
        cwd=PROJECT,
        env=os.environ | ONE_THREAD | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("127.0.0.1:")[1].split()[0])
        if settle:
            _settle(port)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _settle(port: int) -> None:
    """Wait until every process has answered, and loaded what it loads behind its first answers."""
    for _ in range(40):
        post(port, "/v1/recommend", {"user": "1"})
    time.sleep(15)


def feeds(port: int, rate: float, seconds: float, keep: bool = False, **asked: Any) -> Outcome:
    """Feeds for many people, by the schedule of an open loop. keep: the answers' bodies too."""

    def call(place: int) -> Call:
        body = json.dumps({"user": str(place * 7919 % PEOPLE + 1), **asked}).encode()
        return Call("POST", "/v1/recommend", body, JSON)

    found = run("127.0.0.1", port, call, rate, seconds, keep_bodies=keep)
    console.print(found.table(", ".join(f"{name} {value}" for name, value in asked.items()) or "feeds"))
    return found


def send(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(port: int, path: str, body: Mapping[str, Any]) -> Any:
    """The decoded answer; raises RuntimeError where it is no success."""
    status, raw = send(port, "POST", path, body)
    if status >= 300:
        raise RuntimeError(f"found {status}: {raw[:200]!r}, expected success")
    return json.loads(raw)


def children(parent: int) -> list[int]:
    """The processes that a server has started."""
    return [int(one) for one in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def memory(pids: Sequence[int]) -> float:
    """Megabytes of all, what they share counted once."""
    kilobytes = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kilobytes += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return kilobytes / 1000
