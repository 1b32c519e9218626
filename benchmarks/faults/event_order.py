"""One order of events: processes that write and read the same users at once, a restart, and replays."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console

SECONDS = float(os.environ.get("FEEDRANK_ORDER_SECONDS", "120"))
PROCESSES, THREADS = 4, 2
USERS = 50
NEW_SHARE = 0.2
"""Share of the requests that come from users who are new."""
REPLAYED = 1_000
"""How many rankings are replayed from the state as it grows."""
WHOLE = 10
"""How many of them are also replayed as the command does it, each from the whole journal."""
TYPES = ("click", "purchase", "hide", "view", "cart")
_PROCESS = "from benchmarks.faults.event_order import live; import sys; live(sys.argv[1], int(sys.argv[2]))"


def bars() -> list[Bar]:
    """Write with all processes, then compare their states with each other and with that of a restart."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        for command in (["import", "movielens-100k"], ["train", "--name", "one"]):
            arguments = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command]
            subprocess.run(arguments, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        console.print(f"{PROCESSES} processes of {THREADS} threads write and read {USERS} users for {SECONDS:g} s")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROCESS, str(home), str(number)], cwd=PROJECT, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
            )
            for number in range(PROCESSES)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has written its last event
        digests = []
        for process in processes:
            out, _ = process.communicate("catch up\n")
            digests.append(out.strip())
        restarted = _restarted(home)
        differing = sum(digest != restarted for digest in digests)
        console.print(f"states of the processes: {digests}; after a restart: {restarted}")
        replayed, wrong = _replay(home)
    return [
        Bar(f"states of {PROCESSES} processes that differ from that of a restart", differing, "", 0, "lower"),
        Bar(f"rankings that replay differently, of {replayed}", wrong, "", 0, "lower"),
    ]


def live(home: str, number: int) -> None:
    """Write and read with two threads until the time is over; after a line on stdin, print a digest of the state."""
    import threading

    from feedrank.api import compose
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.journal.journal import JournalError

    place = HomePaths(Path(home))
    recommender = compose.build_recommender(place, load_config(place.config))
    until = time.time() + SECONDS

    def work(thread: int) -> None:
        from feedrank.engine.events.events import InteractionEvent
        from feedrank.engine.serving.request import RecommendationRequest

        random = np.random.default_rng([number, thread])
        step = 0
        while time.time() < until:
            step += 1
            name, user = f"{number}-{thread}-{step}", str(random.integers(1, USERS + 1))
            if random.random() < NEW_SHARE:
                user = f"new {random.integers(USERS)} of {step // 20}"  # of several processes at once
            record = recommender.recommend(name, time.time(), RecommendationRequest(user, n=20))
            for n in range(random.integers(0, 4)):
                now = time.time()
                item, kind = str(random.choice(record.items)), str(random.choice(TYPES))
                at = round(1000 * (now - random.choice([0, 0, 0.5, 30])))
                event = InteractionEvent(f"{name}-{n}", at, item, kind, ranking=name, user=user)
                while True:
                    try:
                        recommender.record([event], now)
                        break
                    except JournalError:  # a client sends it again, as the answer says
                        time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)
    sys.stdin.readline()
    recommender.catch_up(time.time())
    print(_digest(recommender.snapshot), flush=True)


def _digest(snapshot: object) -> str:
    """A digest of what the state says of every user and item at one moment."""
    from feedrank.engine.serving.serving_snapshot import ServingSnapshot
    from feedrank.engine.types import ResolvedRequest

    assert isinstance(snapshot, ServingSnapshot)
    rows = np.arange(len(snapshot.catalogue), dtype=np.int32)
    at, sha256 = 4e9, hashlib.sha256()
    sha256.update(snapshot.state.read([ResolvedRequest(at)], [rows]).counters.tobytes())
    for user in sorted(snapshot.users):
        row = snapshot.users.row(user)
        items, times = snapshot.state.history(row)
        batch = snapshot.state.read([ResolvedRequest(at, row)], [rows])
        for array in (items, times, snapshot.state.disliked(row), batch.impressions, batch.dislikes):
            sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()[:16]


def _restarted(home: Path) -> str:
    from feedrank.api import compose
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths

    place = HomePaths(home)
    return _digest(compose.build_recommender(place, load_config(place.config)).snapshot)


def _replay(home: Path) -> tuple[int, int]:
    """Replay rankings in the order of their states, from one state that grows; return how many, and how many differ."""
    from feedrank.api.compose.replay import ReadOnlyJournal, replay
    from feedrank.api.compose.serving import build_snapshot
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.events.events import RankingEvent
    from feedrank.engine.serving.ranking_record import RankingRecord
    from feedrank.engine.serving.recommender import Recommender
    from feedrank.engine.serving.replay_check import ReplayBudget, first_difference
    from feedrank.models.bundles import registry, snapshot

    place = HomePaths(home)
    config, journal = load_config(place.config), place.journal()
    records = [
        record for _, event in journal.read(kind="ranking")
        if isinstance(event, RankingEvent) and (record := RankingRecord.find_own(event)) is not None
    ]  # fmt: skip
    chosen = sorted(np.random.default_rng(0).permutation(len(records))[:REPLAYED].tolist())
    records = sorted((records[index] for index in chosen), key=lambda record: record.offset or 0)
    console.print(f"replaying {len(records):,} rankings")
    opened = registry.load_current(place.bundles, console.print)
    first = records[0].offset or 0
    restored = snapshot.restore(
        home / "none", journal, opened.item_model.catalogue, opened.builder.spec, first, records[0].timestamp
    )
    serving = build_snapshot(place, config, opened, restored)
    recommender = Recommender(serving, ReadOnlyJournal())
    entries: Iterator[tuple[int, object]] = iter(list(journal.read(first)))
    entry, wrong = next(entries, None), 0
    for record in records:
        due = []
        while entry is not None and entry[0] <= (record.offset or 0):
            due.append(entry)
            entry = next(entries, None)
        serving.set_clock(record.timestamp)
        serving.high_watermark_ms = record.timestamp
        serving.catch_up(due)  # type: ignore[arg-type]  # they are events
        replayed = recommender.recommend(
            record.id, record.timestamp / 1000, record.request, ReplayBudget(record.degraded), log=False
        )
        wrong += first_difference(record, replayed, opened.builder.names) is not None
    for record in records[:: max(1, len(records) // WHOLE)]:
        wrong += replay(place, config, journal, record)[1] is not None
    return len(records), wrong
