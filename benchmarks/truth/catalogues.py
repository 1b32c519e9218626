"""Any catalogue: degenerate ones, Amazon's sequences without a text, 20,000 categories, and a ranking of 10,001 items.

All are used as a user would: files are imported by the command line, in a home of their own. Times are processor
seconds, so that other work on the machine does not count.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bars import DATA, Bar, console
from benchmarks.truth.degenerate import START, worlds
from benchmarks.truth.degenerate_runs import EXTRAS, run_extra, run_world
from feedrank.models.text.model_weights import DEFAULT_EMBEDDER

WORLDS, WITH_EMBEDDER = 300, 12
"""Degenerate worlds, and how many of them are run with the default embedder."""
EXTRA_EVERY = 3
"""Every third world is also served, tuned, tested in an experiment and so on, each in one of these ways."""
AMAZON_USERS = int(os.environ.get("FEEDRANK_AMAZON_USERS", "5000"))
"""People of each Amazon file, drawn at random; all of them take about ten minutes of a core."""
AMAZON_FILES = {"Beauty": "Beauty.txt.gz", "Toys": "Toys_and_Games.txt.gz"}
YEAR_MS, DAY_MS, MINUTE_MS = 365 * 86_400_000, 86_400_000, 60_000
ITEMS, FEW, MANY = 50_000, 20, 20_000
"""Items of the catalogue with categories, and its numbers of categories."""
LARGEST_GROUP = 10_001
NO_EMBEDDER = '[embedder]\nmodel = "none"\n'


def bars() -> list[Bar]:
    """Measure all of this page's bars."""
    with tempfile.TemporaryDirectory(prefix="feedrank-catalogues-") as folder:
        return [*_degenerate(Path(folder)), *_large_ranking(Path(folder)), *_categories(Path(folder)),
                *_amazon(Path(folder))]  # fmt: skip


def _degenerate(folder: Path) -> list[Bar]:
    started, faults = time.process_time(), 0
    for number, world in enumerate(worlds(WORLDS)):
        home = folder / f"world-{number}"
        embedder = DEFAULT_EMBEDDER if number % (WORLDS // WITH_EMBEDDER) == 0 else "none"
        found = run_world(world, home, embedder=embedder)
        if number % EXTRA_EVERY == 0:
            found += run_extra(world, home, number // EXTRA_EVERY % len(EXTRAS))
        faults += len(found)
        for fault in found[:3]:
            console.print(f"  {fault}", markup=False, highlight=False)
    console.print(f"  {WORLDS} degenerate worlds in {time.process_time() - started:.0f} s of a core")
    return [Bar(f"{WORLDS} degenerate catalogues and logs: tracebacks or numpy errors", faults, "", 0, "lower")]


def _large_ranking(folder: Path) -> list[Bar]:
    """One ranking of 10,001 items among 701: trained, cut and said, with all clicked items kept."""
    dice, home = random.Random(3), folder / "large"
    events = [_item(f"i{row}") for row in range(LARGEST_GROUP)]
    for number in range(701):
        shown = dice.sample(range(LARGEST_GROUP), LARGEST_GROUP if number == 300 else 8)
        at = START + number * MINUTE_MS
        ids = [f"i{row}" for row in shown]
        events.append(
            {"event": "ranking", "id": f"r{number}", "timestamp": at, "user": f"u{number % 50}",
             "items": [{"id": item} for item in ids]}
        )  # fmt: skip
        events += [
            {"event": "interaction", "id": f"c{number}-{item}", "timestamp": at + 1_000, "item": item, "type": "click",
             "user": f"u{number % 50}", "ranking": f"r{number}"}
            for item in ids[-2:]
        ]  # fmt: skip
    _write_home(home, events, NO_EMBEDDER + "[ranker]\nrounds = 10\n")
    done = [_run(home, *command) for command in (("import", str(home / "log.jsonl")), ("train",))]
    said = "10,001" in done[-1].stdout and "left out of training" in done[-1].stdout
    console.print("  " + next((line for line in done[-1].stdout.splitlines() if line.startswith("note")), "no note"))
    worked = float(said and all(one.returncode == 0 for one in done))
    return [Bar("ranking of 10,001 items: trained, cut, said", worked, "", 1, "higher")]


def _categories(folder: Path) -> list[Bar]:
    """`index` on 50,000 items with 20 and with 20,000 categories."""
    measured: dict[int, tuple[float, float]] = {}
    for n_categories in (FEW, MANY):
        random_ = np.random.default_rng(0)
        extra = (n_categories * random_.random(ITEMS - n_categories) ** 3).astype(int)
        codes = random_.permutation(np.concatenate([np.arange(n_categories), extra]))
        events = [
            _item(f"i{row}", title=f"word{row % 5_000} x{row % 777}", category=f"brand {code}")
            for row, code in enumerate(codes.tolist())
        ]
        for user, favourite in enumerate(random_.integers(0, ITEMS, 5_000).tolist()):
            near = (favourite + random_.integers(0, 60, 10)) % ITEMS
            popular = (random_.pareto(1.2, 10) * ITEMS / 50).astype(int) % ITEMS
            events += [
                _interaction(f"u{user}-{step}", f"u{user}", f"i{row}", START + step * DAY_MS)
                for step, row in enumerate([*near.tolist(), *popular.tolist()])
            ]
        home = folder / f"categories-{n_categories}"
        _write_home(home, events, NO_EMBEDDER)
        _run(home, "import", str(home / "log.jsonl"), check=True)
        seconds, kilobytes = _measured(home, "index")
        measured[n_categories] = seconds, kilobytes
        console.print(f"  index with {n_categories:,} categories: {seconds:.0f} s, {kilobytes / 1e6:.2f} GB")
    few, many = measured[FEW], measured[MANY]
    what = f"{MANY:,} categories on {ITEMS:,} items: `index`,"
    return [
        Bar(f"{what} peak memory against {FEW} categories", many[1] / few[1], "x", 4, "lower"),
        Bar(f"{what} time against {FEW} categories", many[0] / few[0], "x", 4, "lower"),
        Bar(f"{what} peak memory", many[1] / 1e6, "GB", 2, "lower"),
    ]


def _amazon(folder: Path) -> list[Bar]:
    return [
        Bar(f"Amazon {name}: import to feed", float(_amazon_works(folder / name, DATA / "amazon_sequences" / file)), "",
            1, "higher")
        for name, file in AMAZON_FILES.items()
    ]  # fmt: skip


def _amazon_works(home: Path, path: Path) -> bool:
    """Import, index, train, evaluate and recommend; print the hits of each user's last item beside popularity."""
    dice = random.Random(7)
    with gzip.open(path, "rt") as lines:
        users = [line.split() for line in lines]
    users = dice.sample(users, min(AMAZON_USERS, len(users)))
    events = []
    for user, *items in users:
        at = START + dice.randrange(YEAR_MS)  # a random place in time, which says nothing
        for step, item in enumerate(items[:-1]):
            events.append(_interaction(f"{user}-{step}", user, item, at))
            at += dice.randrange(MINUTE_MS, DAY_MS)
    _write_home(home, events, NO_EMBEDDER + "[training]\ntargets_per_user = 2\n")
    for command in (
        ("import", str(home / "log.jsonl"), "--format", "jsonl"), ("index",), ("train",),
        ("evaluate", "--protocol", "last-item"), ("recommend", "--user", users[0][0]),
    ):  # fmt: skip
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = _run(home, *command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        console.print(f"  {path.name} {command[0]}: {busy:.0f} s of a core, {time.perf_counter() - started:.0f} s")
        if done.returncode:
            console.print(done.stderr[-500:], markup=False)
            return False
    hits = _last_item_hits(home, users)
    for method, values in hits.items():
        console.print(f"  {path.name}, {len(users):,} users: {method} HR@10 {values[0]:.4f}, NDCG@10 {values[1]:.4f}")
    return hits["lambdarank"][0] > hits["popularity"][0]


def _last_item_hits(home: Path, users: Sequence[Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Return method -> hit rate and NDCG among the first ten, for the last item of each user."""
    from feedrank import Home

    last = {user: items[-1] for user, *items in users}
    with Home(home, progress=False).recommender(log=False) as recommender:
        table = recommender.recommend_many(list(last), 10).to_pyarrow()
    feeds: dict[str, list[str]] = {user: [] for user in last}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        feeds[user].append(item)
    counts: dict[str, int] = {}
    for _, *items in users:
        for item in items[:-1]:
            counts[item] = counts.get(item, 0) + 1
    popular = sorted(counts, key=lambda item: -counts[item])[:200]
    popular_feeds = {
        user: [item for item in popular if item not in set(items[:-1])][:10] for user, *items in users
    }  # fmt: skip
    return {name: _hits(of, last) for name, of in (("lambdarank", feeds), ("popularity", popular_feeds))}


def _hits(feeds: dict[str, list[str]], last: dict[str, str]) -> tuple[float, float]:
    ranks = [feeds[user].index(item) for user, item in last.items() if item in feeds[user]]
    return len(ranks) / len(last), float(np.sum(1 / np.log2(2 + np.array(ranks)))) / len(last)


def _item(item: str, **fields: str) -> dict[str, Any]:
    listed = [{"name": name, "value": value} for name, value in fields.items()]
    return {"event": "item", "id": f"item {item}", "timestamp": START, "item": item, "fields": listed}


def _interaction(event_id: str, user: str, item: str, at: int) -> dict[str, Any]:
    return {"event": "interaction", "id": event_id, "timestamp": at, "item": item, "type": "click", "user": user}


def _write_home(home: Path, events: Iterable[dict[str, Any]], config: str) -> None:
    home.mkdir(parents=True)
    (home / "feedrank.toml").write_text(config)
    with (home / "log.jsonl").open("w") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def _run(home: Path, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check)


_MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""Run by a small process of its own: a child's peak memory starts with that of the process that forks it."""


def _measured(home: Path, *arguments: str) -> tuple[float, float]:
    """Run a command; return its processor seconds and its peak memory in kB."""
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *arguments]
    done = subprocess.run([sys.executable, "-c", _MEASURE, *command], capture_output=True, text=True, check=True)
    code, seconds, kilobytes = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{' '.join(arguments)} failed with the exit code {code}: {done.stderr[-500:]}")
    return float(seconds), float(kilobytes)
