"""Wrong clocks: a service whose clock jumps ahead and back logs rankings and events at the time of its clock again.

The application runs in this process, with a clock that the benchmark sets. Another application on the same home, whose
clock is right throughout, answers at the same time: neither may move the other's time.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flask.testing import FlaskClient

from benchmarks.bars import PROJECT, Bar, console
from benchmarks.request_files import toy_home

DAY_S = 86_400.0
TOLERANCE_S = 1.001
"""Seconds by which a logged time, in whole milliseconds, may differ from the clock, as processes' clocks differ."""
FEEDS = 20
"""Feeds of each process before, during and after each jump."""
JUMPS: dict[str, tuple[float, ...]] = {
    "+400 days and back": (400 * DAY_S, -400 * DAY_S),
    "-1 day": (-DAY_S,),
    "-1 day and back": (-DAY_S, DAY_S),
    "+1 hour and back": (3_600.0, -3_600.0),
    "+30 hours and back": (30 * 3_600.0, -30 * 3_600.0),
}
"""Name -> steps of the clock, in seconds."""


@dataclass(slots=True)
class Clock:
    """A clock that runs on by 50 ms with each reading, and that can be set."""

    now: float
    """Unix seconds."""

    def __call__(self) -> float:
        self.now += 0.05
        return self.now


@dataclass(slots=True)
class Process:
    """One application on a home, with a clock of its own."""

    client: FlaskClient
    clock: Clock
    offsets: list[float] = field(default_factory=list)
    """Seconds between the logged time and the clock, of each ranking."""
    failed: int = 0

    def feed(self, user: str) -> None:
        """Ask for a feed, click on it, and note how far the logged time is from the clock."""
        before = self.clock.now
        answer = self.client.post("/v1/recommend", json={"user": user})
        if answer.status_code != 200 or not answer.json["logged"]:
            self.failed += 1
            return
        logged = self.client.get(f"/v1/rankings/{answer.json['ranking']}").json["timestamp"] / 1000
        self.offsets.append(logged - min(max(logged, before), self.clock.now))
        event = {"event": "interaction", "type": "click", "user": user, "item": answer.json["items"][0]["id"]}
        if self.client.post("/v1/events", json={**event, "ranking": answer.json["ranking"]}).status_code != 202:
            self.failed += 1


def bars() -> list[Bar]:
    """Return the bars of clocks that jump."""
    logging.getLogger("feedrank").setLevel(logging.ERROR)  # it warns of each event that is ahead of the clock
    wrong, restarted = 0, 0
    for name, steps in JUMPS.items():
        with _home() as home:
            found = _jump(home, steps)
            console.print(
                f"clock {name}: {found.wrong} wrong times after it, {found.wrong_other} in the other process, "
                f"{found.wrong_restarted} after a restart; largest difference {found.largest_s:,.0f} s; "
                f"{found.failed} requests failed"
            )
            wrong += found.wrong + found.wrong_other + found.failed
            restarted += found.wrong_restarted
    return [
        Bar("clock jumps of +400 days and back, -1 day: rankings with a wrong time afterwards", wrong, "rankings", 0,
            "lower"),
        Bar("the same, after a restart", restarted, "rankings", 0, "lower"),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    wrong: int
    wrong_other: int
    wrong_restarted: int
    largest_s: float
    failed: int


def _jump(home: Path, steps: tuple[float, ...]) -> _Found:
    """Serve feeds while the clock of one of two processes takes these steps."""
    start = _after_everything()
    jumping, steady = _process(home, start), _process(home, start)
    for step in (0.0, *steps):
        jumping.clock.now += step
        for number in range(FEEDS):
            jumping.feed(f"p{number}")
            steady.feed(f"p{number}")
        last = jumping.offsets[-FEEDS:]
    restarted = _process(home, jumping.clock.now)
    for number in range(FEEDS):
        restarted.feed(f"p{number}")
    differences = [abs(value) for value in (*last, *steady.offsets, *restarted.offsets)]
    return _Found(
        _count_wrong(last), _count_wrong(steady.offsets), _count_wrong(restarted.offsets), max(differences),
        jumping.failed + steady.failed + restarted.failed,
    )  # fmt: skip


def _count_wrong(offsets: list[float]) -> int:
    return sum(abs(offset) > TOLERANCE_S for offset in offsets)


def _process(home: Path, now: float) -> Process:
    """Open the home in an application whose clock shows a time, in unix seconds."""
    from feedrank.api import config
    from feedrank.api.compose.serving import build_snapshot, restore_state
    from feedrank.api.home_paths import HomePaths
    from feedrank.api.http.app import create_app
    from feedrank.api.http.service import Service
    from feedrank.engine.serving.recommender import Recommender
    from feedrank.models.bundles import bundle

    paths, clock = HomePaths(home), Clock(now)
    settings, opened = config.load_config(paths.config), bundle.load(paths.current_bundle)
    journal = paths.journal()
    restored = restore_state(paths, journal, opened, round(now * 1000))
    recommender = Recommender(build_snapshot(paths, settings, opened, restored), journal)
    return Process(create_app(Service(recommender, clock)).test_client(), clock)


@contextmanager
def _home() -> Iterator[Path]:
    """A home of the tests' toy world, with a bundle."""
    with tempfile.TemporaryDirectory() as folder:
        yield toy_home(Path(folder))


def _after_everything() -> float:
    """Unix seconds after the last event of the toy world."""
    tests = str(PROJECT / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    import toyworld

    return float(toyworld.END) / 1000 + 1_000
