"""The feed service: latency by Metarank's protocol and of feeds, the most it holds, and change while it runs.

Servers and load are on the same machine, on loopback. The MovieLens home is made as the demo makes it. Nothing else
should run on the machine meanwhile.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import concurrency, hardship
from benchmarks.bars import PROJECT, Bar, console, measure
from benchmarks.faults import outages
from benchmarks.load import Outcome
from benchmarks.serving import JSON, PEOPLE, children, feeds, post, serving
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.journal.journal import Journal
from feedrank.models.bundles import bundle, registry

sys.path.insert(0, str(PROJECT / "tests"))
import postgres

SIZES = (25, 50, 100, 150, 200, 250, 300)
REQUESTS = 5_000
ITEMS = 1_682
HALF = 100
"""Feeds a second of the soak."""
RATES = (150, 200, 250, 300, 350, 400, 450, 500, 550)


def service() -> list[Bar]:
    """All bars, in the order they were set."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "movielens"
        for command in (["import", "movielens-100k"], ["train", "--name", "one"]):
            _run(home, *command)
        with serving(home) as (port, _):
            bars = [*_metarank(port), *_feeds(port)]
            small = feeds(port, hardship.CALM, 20).latency_ms["p50"]
        with serving(home) as (port, parent):
            bars += [*_change(home, port), *_fresh(port), *_killed(port, parent)]
        bars += concurrency.on_home(home)
        bars += [*_hardship(Path(folder), home, small), *_faults(Path(folder), home)]
    return bars


def _hardship(folder: Path, home: Path, small: float) -> list[Bar]:
    """small: milliseconds of the median feed on MovieLens's catalogue."""
    hardship.large_home(folder / "large")
    with serving(folder / "large") as (port, _):
        bars = [hardship.slower(feeds(port, hardship.CALM, 20).latency_ms["p50"], small)]
    neural = folder / "neural"
    shutil.copytree(home, neural, symlinks=True)
    model = hardship.student_shaped(folder / "student")
    late = '[late_interaction]\nmodel = "sentence-transformers/all-MiniLM-L6-v2"\n'
    (neural / "feedrank.toml").write_text(f'{late}[cross_encoder]\nmodel = "{model}"\n')
    _run(neural, "train", "--name", "neural")
    with serving(neural) as (port, _):
        return [*bars, *hardship.hurried(port), *hardship.nonsense(port)]


def _faults(folder: Path, home: Path) -> list[Bar]:
    with serving(home) as (port, parent):
        workers = children(parent)
        bars = outages.disk_full(port, workers, home / "journal.db")
        bars += outages.soak(port, [parent, *workers], HALF)
    programs = postgres.programs()
    if programs is None:
        console.print("no PostgreSQL server on this machine: what happens without it is not measured")
        return bars
    other = folder / "other"
    left = shutil.ignore_patterns("journal.db*", "imports.json", "state.npz")
    shutil.copytree(home, other, symlinks=True, ignore=left)
    with postgres.server(programs) as server:
        (other / "feedrank.toml").write_text(f'[journal]\nurl = "{server.url}"\n')
        _run(other, "import", "movielens-100k")
        with serving(other) as (port, _):
            return bars + outages.database_gone(port, server)


def _metarank(port: int) -> list[Bar]:
    """Sequential requests, each for another person and another list."""
    random = np.random.default_rng(0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found: dict[int, Any] = {}
    for size in SIZES:
        times = np.empty(REQUESTS)
        for place in range(-100, REQUESTS):
            items = [{"id": str(one)} for one in (random.permutation(ITEMS)[:size] + 1).tolist()]
            person = str(random.integers(1, PEOPLE + 1))
            event = {"event": "ranking", "id": f"m{place}", "timestamp": round(time.time() * 1000), "user": person}
            body = json.dumps({**event, "session": person, "items": items})
            started = time.perf_counter()
            connection.request("POST", "/rank/lambdarank", body, JSON)
            answer = connection.getresponse()
            raw = answer.read()
            if place >= 0:
                times[place] = time.perf_counter() - started
            if answer.status != 200 or len(json.loads(raw)["items"]) != size:
                raise RuntimeError(f"found {answer.status}: {raw[:200]!r}, expected {size} items")
        found[size] = np.percentile(times * 1000, (50, 99))
        console.print(f"{size} items: p50 {found[size][0]:.2f} ms, p99 {found[size][1]:.2f} ms")
    return [
        Bar(f"Metarank's protocol, {size} items: {name}", float(found[size][place]), "ms", bar, "lower")
        for size, bars in ((100, (4, 8)), (300, (8, 14)))
        for place, (name, bar) in enumerate(zip(("p50", "p99"), bars, strict=True))
    ]


def _feeds(port: int) -> list[Bar]:
    usual = feeds(port, 100, 30)
    most = 0
    for rate in RATES:
        found = feeds(port, rate, 10)
        if found.errors or found.latency_ms["p99"] > 50:
            break
        most = rate
    return [
        Bar("feeds at 100 a second: p50", usual.latency_ms["p50"], "ms", 6, "lower"),
        Bar("feeds at 100 a second: p99", usual.latency_ms["p99"], "ms", 20, "lower"),
        Bar("most that it holds with p99 <= 50 ms and no errors", most, "/s", 500, "higher"),
    ]


def _change(home: Path, port: int) -> list[Bar]:
    """Another bundle and back, under load. An answer is mixed where its scores are not those that the ranker of the
    bundle that it names gives to the feature rows that it was served with."""
    (home / "two.toml").write_text("[ranker]\nrounds = 40\n")  # or both would be much the same
    _run(home, "--config", str(home / "two.toml"), "train", "--name", "two")
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(feeds(port, 100, 100, keep=True)))
    thread.start()
    for turn in range(50):
        registry.promote(home / "bundles", ("one", "two")[turn % 2])
        time.sleep(1.9)
    thread.join()
    (found,) = outcome
    answers = {one["ranking"]: one for one in (json.loads(body) for body in found.bodies if body) if "ranking" in one}
    mixed = sum(_mixed(home, name, answers) for name in ("one", "two"))
    return [
        Bar("50 promotions under 100 feeds a second: failed answers", float(found.errors), "", 0, "lower"),
        Bar(f"the same: mixed answers, of {len(answers):,}", float(mixed), "", 0, "lower"),
    ]


def _mixed(home: Path, name: str, answers: Mapping[str, Any]) -> int:
    """How many answers that name this bundle were not made by its ranker."""
    ranker = bundle.load(home / "bundles" / name).ranker
    assert ranker is not None
    events = [
        event for event in Journal.open_sqlite(home / "journal.db").events("ranking")
        if isinstance(event, RankingEvent) and event.id in answers and event.bundle == name
    ]  # fmt: skip
    console.print(f"{len(events):,} answers by bundle {name}")
    if not events:
        raise RuntimeError(f"found no answer by bundle {name}, expected some of both")
    rows = [np.frombuffer(b64decode(event.features["data"]), "<f4") for event in events]
    scores = ranker.score(np.concatenate(rows).reshape(-1, len(ranker.names)))
    stops = np.cumsum([len(event.items) for event in events])
    wrong = 0
    for event, own in zip(events, np.split(scores, stops[:-1]), strict=True):
        answer = answers[event.id]
        told = [(one["id"], one["score"]) for one in answer["items"]]
        made = list(zip(event.items, own.tolist(), strict=True))
        wrong += answer["bundle"] != name or [one for one, _ in told] != [one for one, _ in made]
        wrong += not np.allclose([score for _, score in told], own, atol=1e-6)
    return wrong


def _fresh(port: int) -> list[Bar]:
    """From an item event to the first feed that contains it, and from a click to the next feed."""
    waits = []
    for place in range(20):
        item = f"new {place}"
        fields = [
            {"name": "title", "value": f"Star Wars Returns {place} (1998)"},
            {"name": "category", "value": "Sci-Fi"},
        ]
        post(port, "/v1/events", {"event": "item", "item": item, "fields": fields})
        started = time.perf_counter()
        asked = {"user": "1", "n": 1, "filters": {"allow": [item]}}
        while not post(port, "/v1/recommend", asked)["items"] and time.perf_counter() - started < 10:
            time.sleep(0.01)
        waits.append(time.perf_counter() - started)
    stale = 0
    for person in range(1, 101):
        first = post(port, "/v1/recommend", {"user": str(person), "n": 1})["items"][0]["id"]
        click = {"event": "interaction", "type": "click", "user": str(person), "item": first}
        post(port, "/v1/events", click)
        stale += first in [one["id"] for one in post(port, "/v1/recommend", {"user": str(person), "n": 100})["items"]]
    return [
        Bar("item event to the first feed that contains it, longest of 20", max(waits), "s", 1, "lower"),
        Bar("clicks that did not change the next feed, of 100", float(stale), "", 0, "lower"),
    ]


def _killed(port: int, parent: int) -> list[Bar]:
    """A process is killed under load: what it was about to answer fails, and all else goes on."""
    outcome: list[Outcome] = []
    started = time.perf_counter()
    thread = threading.Thread(target=lambda: outcome.append(feeds(port, 50, 10)))
    thread.start()
    time.sleep(3)
    killed = time.perf_counter() - started
    os.kill(children(parent)[0], signal.SIGKILL)
    thread.join()
    failed = outcome[0].status != 200
    console.print(f"failed in all: {int(np.count_nonzero(failed))}")
    later = failed & (outcome[0].scheduled > killed + 1)
    return [
        Bar("a process killed under 50 feeds a second: failed answers a second later and on",
            float(np.count_nonzero(later)), "", 0, "lower")
    ]  # fmt: skip


def _run(home: Path, *command: str) -> None:
    console.print(f"[dim]$ feedrank {' '.join(command)}[/]")
    subprocess.run([sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command], cwd=PROJECT, check=True)


if __name__ == "__main__":
    measure("service", service)
