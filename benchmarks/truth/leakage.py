"""Nothing sees its own answer: clicks by chance score as chance, whatever the clocks and the order of the files say."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.bars import Bar, console
from feedrank.api import compose
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, effective_time
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.training.ranker import LambdaRankSettings

RANKINGS, LENGTH, ITEMS, USERS, CATEGORIES = 900, 10, 120, 150, 6
START_MS, GAP_MS, DAY_MS = 1_750_000_000_000, 20 * 60_000, 86_400_000
FUTURE_MS = 253_402_300_799_000
"""The last second of the year 9999."""
SIGNAL, SEEDS = 1.0, (12, 13, 14, 15)
"""Weight of attraction and taste, and the worlds that an AUC is the mean of: one is too noisy for the bar."""
LOGS = {
    "clock 2 s behind": "behind",
    "same millisecond, clicks imported first": "clicks first",
    "same millisecond, rankings imported first": "rankings first",
    "rankings logged 15 minutes later": "batched",
    "whole seconds": "seconds",
    "a day's resolution": "days",
}


@dataclass(frozen=True, slots=True)
class World:
    """Rankings of random items, with one click each."""

    items: list[ItemEvent]
    rankings: list[RankingEvent]
    clicks: list[InteractionEvent]
    """The click of each ranking, at its time."""

    def as_logged(self, log: str) -> list[Event]:
        """Return the events in the order of writing, as a log of this kind has them; `clean`: clicks 5 s later."""
        rankings, clicks = self.rankings, [_at(click, click.timestamp + 5_000) for click in self.clicks]
        if log == "behind":
            clicks = [_at(click, click.timestamp - 2_000) for click in self.clicks]
        elif log in ("clicks first", "rankings first"):
            clicks = self.clicks
        elif log == "seconds":
            rankings = [_at(one, one.timestamp // 1000 * 1000) for one in rankings]
            clicks = [_at(one, (one.timestamp + 300) // 1000 * 1000) for one in self.clicks]
        elif log == "days":
            rankings = [_at(one, one.timestamp // DAY_MS * DAY_MS) for one in rankings]
            clicks = [_at(one, one.timestamp // DAY_MS * DAY_MS) for one in clicks]
        if log == "batched":
            batch = 15 * 60_000
            rankings = [replace(one, received=(one.timestamp // batch + 1) * batch) for one in rankings]
            clicks = [replace(one, received=one.timestamp) for one in clicks]
            return [*self.items, *sorted([*rankings, *clicks], key=effective_time)]
        first, second = (rankings, clicks) if log == "rankings first" else (clicks, rankings)
        return [*self.items, *first, *second]


def make_world(seed: int, signal: float) -> World:
    """Make 900 rankings of 10 of 120 items. signal: 0: clicks by chance; else the weight of attraction and taste."""
    random = np.random.default_rng(seed)
    attraction = random.normal(size=ITEMS)
    taste = random.normal(size=(USERS, CATEGORIES))
    items = [
        ItemEvent(f"item-{n}", START_MS - DAY_MS, f"i{n}", {"title": f"Title {n}", "category": f"c{n % CATEGORIES}"})
        for n in range(ITEMS)
    ]
    rankings, clicks = [], []
    for n in range(RANKINGS):
        at = START_MS + n * GAP_MS + int(random.integers(0, GAP_MS // 2))
        user, shown = int(random.integers(0, USERS)), random.permutation(ITEMS)[:LENGTH]
        utility = signal * (attraction[shown] + taste[user, shown % CATEGORIES])
        clicked = int(random.choice(shown, p=np.exp(utility) / np.exp(utility).sum()))
        rankings.append(RankingEvent(f"r{n}", at, tuple(f"i{item}" for item in shown), f"u{user}"))
        clicks.append(InteractionEvent(f"c{n}", at, f"i{clicked}", "click", f"r{n}", f"u{user}"))
    return World(items, rankings, clicks)


def bars() -> list[Bar]:
    """Return the bars: six logs by chance, six with a signal, and one click of the year 9999."""
    results: list[Bar] = []
    chance = make_world(11, 0.0)
    for name, log in LOGS.items():
        value, low, high = measured_auc(chance.as_logged(log))
        console.print(f"by chance, {name}: AUC {value:.4f} [{low:.4f}, {high:.4f}]")
        beyond = max(0.0, low - 0.5, 0.5 - high)
        results.append(Bar(f"pure chance, {name}: AUC beyond 0.5 and its 95 % interval", beyond, "", 0, "lower"))
    worlds = [make_world(seed, SIGNAL) for seed in SEEDS]
    clean = [measured_auc(world.as_logged("clean"))[0] for world in worlds]
    console.print(f"signal, clean log: AUC {np.mean(clean):.4f}, of {len(worlds)} worlds")
    for name, log in LOGS.items():
        values = [measured_auc(world.as_logged(log))[0] for world in worlds]
        console.print(f"signal, {name}: AUC {np.mean(values):.4f}, {np.round(np.subtract(values, clean), 4).tolist()}")
        distance = float(abs(np.mean(values) - np.mean(clean)))
        results.append(Bar(f"real signal, {name}: AUC against the clean log", distance, "", 0.01, "lower"))
    return [*results, *_future_bars(worlds[0])]


def measured_auc(events: list[Event]) -> tuple[float, float, float]:
    """Return the AUC that `feedrank evaluate` reports for these events, with its 95 % interval."""
    with _home(events) as home:
        inputs = compose.load_training_inputs(home, CONFIG)
        compared = compose.compare(inputs, CONFIG, "rankings", "journal", lambda *_: None).comparison
    row = next(row for row in compared.rows if (row.method, row.metric) == ("lambdarank", "auc"))
    return row.value, row.low, row.high


def _future_bars(world: World) -> list[Bar]:
    """Compare feeds with and without one click of the year 9999: trained with it, restarted, and as it arrives."""
    events = world.as_logged("clean")
    future = InteractionEvent("future", FUTURE_MS, "i3", "click", user="u5")
    now = events[-1].timestamp / 1000 + 3_600
    feeds: list[list[tuple[str, ...]]] = []
    ahead_ms = 0.0
    for written in (events, [*events, future], events):
        with _home(written) as home:
            compose.train_bundle(home, CONFIG, "first", False, lambda *_: None)
            recommender = compose.build_recommender(home, CONFIG)
            if len(feeds) == 2:  # as it arrives: another process writes it
                home.journal().append([future])
            recommender.record([replace(world.clicks[0], id="live")], now)
            records = [
                recommender.recommend(f"feed-{n}", now + n, RecommendationRequest(f"u{n}")) for n in range(USERS)
            ]
            feeds.append([record.items for record in records])
            ahead_ms = max(ahead_ms, *(record.timestamp - 1000 * (now + n) for n, record in enumerate(records)))
    changed = float(np.mean([items != feeds[0][n] for other in feeds[1:] for n, items in enumerate(other)]))
    return [
        Bar("one click of the year 9999: share of feeds that change", changed, "", 0, "lower"),
        Bar("one click of the year 9999: later rankings ahead of the clock by", round(ahead_ms), "ms", 0, "lower"),
    ]


CONFIG = Config(ranker=LambdaRankSettings(threads=1))
CONFIG = replace(CONFIG, embedder=replace(CONFIG.embedder, model="none"))


@contextmanager
def _home(events: list[Event]) -> Iterator[HomePaths]:
    with tempfile.TemporaryDirectory() as folder:
        home = HomePaths(Path(folder))
        journal = Journal.open_sqlite(home.journal_path)
        journal.append(events)
        journal.close()
        yield home


E = TypeVar("E", RankingEvent, InteractionEvent)


def _at(event: E, time_ms: int) -> E:
    return replace(event, timestamp=time_ms)
