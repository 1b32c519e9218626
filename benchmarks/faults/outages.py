"""The feed service without its disk or its database, and for long. Part of `benchmarks.service`.

FEEDRANK_SOAK_MINUTES says how long the soak is, 10 by default.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bars import Bar, console
from benchmarks.load import Outcome
from benchmarks.serving import feeds, memory, send
from feedrank.engine.journal.journal import Journal

FULL = 4_096
"""Bytes that a file may have where there is no room."""
DRIFT_PERCENT, FLAT = 2.0, 1.2


def disk_full(port: int, workers: Sequence[int], journal: Path) -> list[Bar]:
    """No file may grow for ten seconds, as where the disk is full, under 50 feeds a second and events between."""

    def no_room() -> None:
        for most in (FULL, resource.RLIM_INFINITY):
            for pid in workers:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            if most == FULL:
                time.sleep(10)

    return _through(port, 50, 30, "no room for the journal for 10 s", no_room, lambda: Journal.open_sqlite(journal))


def database_gone(port: int, server: Any) -> list[Bar]:
    """PostgreSQL is stopped for 30 seconds under 20 feeds a second, and started again."""

    def gone() -> None:
        server.stop()
        time.sleep(30)
        server.start()

    return _through(port, 20, 55, "PostgreSQL gone for 30 s", gone, lambda: Journal(server.url))


def _through(
    port: int, rate: float, seconds: float, what: str, trouble: Callable[[], None], journal: Callable[[], Journal]
) -> list[Bar]:
    """Feeds and events before, during and after a trouble."""
    writer = Writer(port)
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(feeds(port, rate, seconds)))
    with writer.running():
        thread.start()
        time.sleep(8)
        trouble()
        thread.join()
    return writer.bars(what, outcome[0], journal())


class Writer:
    """Sends an event ten times a second, and remembers which were acknowledged."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[int] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block it sends."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(0.1):
            count += 1
            name = f"w{id(self)}-{count}"
            event = {"event": "interaction", "id": name, "type": "click", "user": "w", "item": str(count % 1_682 + 1)}
            try:
                status, _ = send(self._port, "POST", "/v1/events", event)
            except OSError:
                status = 0
            if status == 202:
                self.acknowledged.append(name)
            else:
                self.refused.append(status)

    def bars(self, what: str, outcome: Outcome, journal: Journal) -> list[Bar]:
        """What feeds, writes and the journal made of it."""
        kept = {event.id for event in journal.events("interaction")}
        lost = sum(name not in kept for name in self.acknowledged)
        others = sum(status != 503 for status in self.refused)
        console.print(f"{what}: {len(self.acknowledged)} events acknowledged, {len(self.refused)} refused")
        if not self.refused:
            raise RuntimeError(f"{what}: found no event refused, expected some")
        return [
            Bar(f"{what}: failed feeds, of {len(outcome.status):,}", float(outcome.errors), "", 0, "lower"),
            Bar(f"{what}: events refused with anything but 503, of {len(self.refused):,}", float(others), "", 0,
                "lower"),
            Bar(f"{what}: acknowledged events lost, of {len(self.acknowledged):,}", float(lost), "", 0, "lower"),
        ]  # fmt: skip


def soak(port: int, pids: Sequence[int], rate: float) -> list[Bar]:
    """Half of what it holds, for minutes: memory after a fifth of it and at the end; p99 of both halves."""
    minutes = float(os.environ.get("FEEDRANK_SOAK_MINUTES", "10"))
    sizes: list[float] = []
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(feeds(port, rate, 60 * minutes)))
    thread.start()
    time.sleep(12 * minutes)
    sizes.append(memory(pids))
    thread.join()
    sizes.append(memory(pids))
    found = outcome[0]
    late = found.scheduled > 30 * minutes
    ms = found.since(found.scheduled)
    first, second = float(np.percentile(ms[~late], 99)), float(np.percentile(ms[late], 99))
    console.print(f"memory {sizes[0]:.0f} MB, then {sizes[1]:.0f} MB; p99 {first:.1f} ms, then {second:.1f} ms")
    what = f"soak, {rate:g} feeds a second for {minutes:g} minutes"
    return [
        Bar(f"{what}: growth of memory from a fifth of it to the end", 100 * (sizes[1] / sizes[0] - 1), "%",
            DRIFT_PERCENT, "lower"),
        Bar(f"{what}: p99 of the second half over that of the first", second / first, "x", FLAT, "lower"),
        Bar(f"{what}: errors", float(found.errors), "", 0, "lower"),
    ]  # fmt: skip
