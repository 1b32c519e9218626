"""Feeds do not queue: threads of one process, new items and promotions under load, and ratios that hold on any machine.

Servers and load are on the same machine, on loopback. Part of `benchmarks.service`.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console, measure
from benchmarks.load import Outcome
from benchmarks.serving import JSON, PEOPLE, feeds, post, serving

ROUNDS = 3
"""How often two settings take turns; each counts with its median."""
CLIENTS = 4
"""Clients that each wait for an answer before they ask again, whatever the number of threads."""
RATE = 50


def concurrency() -> list[Bar]:
    """All bars, on a home of MovieLens-100K."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "movielens"
        for command in (["import", "movielens-100k"], ["train", "--name", "one"]):
            run(home, *command)
        return on_home(home)


def on_home(home: Path) -> list[Bar]:
    """All bars, on a home whose current bundle is named one."""
    return [*threads(home), *usual(home), *fresh_items(home), *promotions(home)]


def run(home: Path, *command: str) -> None:
    """Run one command on a home."""
    console.print(f"[dim]$ feedrank {' '.join(command)}[/]")
    arguments = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command]
    subprocess.run(arguments, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)


def threads(home: Path) -> list[Bar]:
    """One process with four threads and with one, in turn, under the load of the same four clients."""
    rates: dict[int, list[float]] = {1: [], 4: []}
    slowest: dict[int, list[float]] = {1: [], 4: []}
    for turn in range(ROUNDS):
        for count in (1, 4) if turn % 2 else (4, 1):
            with _configured(home, f"[serve]\nworkers = 1\nthreads = {count}\n"), serving(home) as (port, _):
                found = _closed_loop(port, CLIENTS, 10)
            rates[count].append(len(found) / 10)
            slowest[count].append(float(np.percentile(found, 99)))
            console.print(f"{count} threads: {rates[count][-1]:.0f} feeds/s, p99 {1000 * slowest[count][-1]:.1f} ms")
    gain = float(np.median(rates[4]) / np.median(rates[1]))
    tail = float(np.median(slowest[4]) / np.median(slowest[1]))
    return [
        Bar("one process, 4 threads over 1: feeds a second", gain, "x", 1.5, "higher"),
        Bar("one process, 4 threads over 1: p99", tail, "x", 2, "lower"),
    ]


def usual(home: Path) -> list[Bar]:
    """Feeds at 100 a second under the default settings, over the same request back to back."""
    alone, p50, p99 = [], [], []
    for _ in range(ROUNDS):
        with serving(home) as (port, _):
            alone.append(1000 * float(np.median(_closed_loop(port, 1, 10))))
            found = feeds(port, 100, 20)
        p50.append(found.latency_ms["p50"])
        p99.append(found.latency_ms["p99"])
    base = float(np.median(alone))
    console.print(f"back to back: p50 {base:.2f} ms")
    return [
        Bar("feeds at 100 a second: p50 over that of requests back to back", float(np.median(p50)) / base, "x", 2,
            "lower"),
        Bar("feeds at 100 a second: p99 over the p50 of requests back to back", float(np.median(p99)) / base, "x", 6,
            "lower"),
    ]  # fmt: skip


def fresh_items(home: Path) -> list[Bar]:
    """p99 while 20 new items a second come, with an index of the user's own, over without."""
    own = home.with_name("own-index")
    shutil.copytree(home, own, symlinks=True)
    with _configured(own, '[index]\nkind = "benchmarks.application_index:SlowToBuild"\n'):
        run(own, "train", "--name", "own")
        ratios = []
        for turn in range(ROUNDS):
            with serving(own) as (port, _):
                before = feeds(port, RATE, 15)
                with _meanwhile(lambda stop, turn=turn, port=port: _new_items(port, turn, stop)):  # type: ignore[misc]
                    during = feeds(port, RATE, 15)
            ratios.append(during.latency_ms["p99"] / before.latency_ms["p99"])
    return [Bar("20 new items a second, an own index: p99 over without", float(np.median(ratios)), "x", 1.5, "lower")]


def promotions(home: Path) -> list[Bar]:
    """One promotion, and fifty in 100 s, under 50 feeds a second: p99 over before."""
    run(home, "train", "--name", "again", "--promote")
    one, fifty = [], 0.0
    with serving(home) as (port, _), _promoter(home) as promote:
        before = feeds(port, RATE, 20)
        for turn in range(ROUNDS):
            quiet = feeds(port, RATE, 10)
            timer = threading.Timer(5, promote, [("one", "again")[turn % 2]])
            timer.start()
            one.append(feeds(port, RATE, 10).latency_ms["p99"] / quiet.latency_ms["p99"])
            timer.join()
        outcome: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcome.append(feeds(port, RATE, 100)))
        thread.start()
        for turn in range(50):
            promote(("one", "again")[turn % 2])
            time.sleep(1.95)
        thread.join()
        fifty = outcome[0].latency_ms["p99"] / before.latency_ms["p99"]
    return [
        Bar("one promotion under 50 feeds a second: p99 of the ten seconds around it, over before",
            float(np.median(one)), "x", 1.5, "lower"),
        Bar("fifty promotions in 100 s: p99 over before", fifty, "x", 6, "lower"),
    ]  # fmt: skip


def _closed_loop(port: int, clients: int, seconds: float) -> list[float]:
    """Seconds of each feed, of clients that ask one after the other."""
    found: list[float] = []
    until = time.perf_counter() + seconds

    def ask(number: int) -> None:
        random = np.random.default_rng(number)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while (started := time.perf_counter()) < until:
            body = json.dumps({"user": str(random.integers(1, PEOPLE + 1))})
            connection.request("POST", "/v1/recommend", body, JSON)
            answer = connection.getresponse()
            if answer.status != 200 or not answer.read():
                raise RuntimeError(f"found {answer.status}, expected a feed")
            found.append(time.perf_counter() - started)
        connection.close()

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def _new_items(port: int, turn: int, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.05):
        number += 1
        fields = [{"name": "title", "value": f"A film of {turn} and {number}"}, {"name": "category", "value": "Drama"}]
        post(port, "/v1/events", {"event": "item", "item": f"new {turn} {number}", "fields": fields})


@contextmanager
def _promoter(home: Path) -> Iterator[Callable[[str], None]]:
    """Promote bundles in a process of its own, as `feedrank bundles promote` does: it must not slow down the load's."""
    script = (
        "import sys; from pathlib import Path; from feedrank.models.bundles import registry\n"
        "for line in sys.stdin: registry.promote(Path(sys.argv[1]), line.strip())"
    )
    arguments = [sys.executable, "-c", script, str(home / "bundles")]
    with subprocess.Popen(arguments, cwd=PROJECT, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        lines = process.stdin
        yield lambda name: print(name, file=lines, flush=True)
        lines.close()


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _configured(home: Path, toml: str) -> Iterator[None]:
    """Write the home's config for as long as a measurement takes."""
    path = home / "feedrank.toml"
    path.write_text(toml)
    try:
        yield
    finally:
        path.unlink()


if __name__ == "__main__":
    measure("concurrency", concurrency)
