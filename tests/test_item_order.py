"""Items that come live: running services, a restart and replays agree on every count, whatever the refresher does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from conftest import feedrank

from feedrank.api import compose
from feedrank.api.compose import serving
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.replay import replay
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.config import load_config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.models.bundles import bundle, snapshot
from feedrank.models.bundles.item_cutoff import ItemCutoff

START = 1_700_000_000_000
ITEMS, USERS = 12, 5
CATEGORIES = ("a", "b", "c", "new 1", "new 2", "new 3")
CONFIG = """
[embedder]
model = "none"
[[state.counters]]
name = "brand"
entity = "brand"
types = ["click", "impression"]
[[state.counters]]
name = "mine"
entity = "user x category"
half_lives_h = [1.0, inf]
[[features.declared]]
name = "price"
kind = "number"
from = "item.price"
[[features.declared]]
name = "brand_ctr"
kind = "rate"
of = ["click"]
per = ["impression"]
key = ["item.brand"]
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only home with a bundle of a few items and no events of users after it."""
    home = tmp_path_factory.mktemp("shop")
    log = [
        {"event": "item", "id": f"item {n}", "item": f"i{n}", "timestamp": START, "fields": [
            {"name": "title", "value": f"thing {n}"}, {"name": "category", "value": [CATEGORIES[n % 3], "all"]},
            {"name": "brand", "value": f"brand {n % 2}"}]}
        for n in range(ITEMS)
    ]  # fmt: skip
    log += [
        {"event": "interaction", "id": f"old {n}", "timestamp": START + n, "item": f"i{n % ITEMS}",
         "user": f"u{n % USERS}", "type": "click"}
        for n in range(2 * ITEMS)
    ]  # fmt: skip
    (home / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    (home / "feedrank.toml").write_text(CONFIG)
    feedrank(home, "import", home / "log.jsonl")
    feedrank(home, "index")
    return home


@dataclass
class Process:
    """A serving process and its refresher, whose steps are made by hand."""

    recommender: Recommender
    refresher: Refresher


@dataclass
class Market:
    """A journal, the processes that serve it, and a random course of events."""

    paths: HomePaths
    random: np.random.Generator
    monkeypatch: pytest.MonkeyPatch
    now_ms: int = START + 3_600_000
    processes: list[Process] = field(default_factory=list)
    items: list[str] = field(default_factory=lambda: [f"i{n}" for n in range(ITEMS)])
    rankings: list[str] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.config, self.journal = load_config(self.paths.config), self.paths.journal()
        self.monkeypatch.setattr(serving, "clock_ms", lambda: self.now_ms)
        self.processes = [self.start(), self.start()]

    @property
    def now(self) -> float:
        return self.now_ms / 1000

    def start(self) -> Process:
        opened = bundle.load(self.paths.current_bundle)
        recommender = compose.build_recommender(self.paths, self.config)
        texts = TextEncoders(self.paths, opened)
        refresher = Refresher(self.paths, self.config, self.journal, recommender, opened, texts, clock=lambda: self.now)
        return Process(recommender, refresher)

    def process(self) -> Process:
        return self.processes[int(self.random.integers(len(self.processes)))]

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind} {self.count}"

    def some_item(self) -> str:
        """A known item, the latest ones more often."""
        back = int(self.random.integers(min(len(self.items), 6) if self.random.random() < 0.6 else len(self.items)))
        return self.items[-1 - back]

    def user(self) -> str:
        return f"u{self.random.integers(USERS + 2)}"

    def fields(self) -> dict[str, FieldValue]:
        chosen = [str(one) for one in self.random.permutation(CATEGORIES)[: self.random.integers(1, 3)]]
        some: dict[str, FieldValue] = {"title": f"thing {self.random.integers(9)}"}
        if self.random.random() < 0.8:
            some["category"] = chosen if self.random.random() < 0.7 else chosen[0]
        if self.random.random() < 0.6:
            some["brand"] = f"brand {self.random.integers(4)}"
        if self.random.random() < 0.6:
            some["price"] = float(self.random.integers(9))
        return some

    def record(self, *events: Event) -> None:
        self.process().recommender.record(events, self.now)

    # --- what can happen

    def add_item(self, name: str = "") -> None:
        item = name or self.name("new")
        self.items.append(item)
        self.record(ItemEvent(self.name("e"), self.now_ms, item, self.fields()))

    def change(self) -> None:
        late = int(self.random.choice([0, 0, 5_000, 400_000]))
        self.record(ItemEvent(self.name("e"), self.now_ms - late, self.some_item(), self.fields()))

    def click(self) -> None:
        item = self.some_item() if self.random.random() < 0.9 else f"new {self.count + self.random.integers(1, 4)}"
        kind = str(self.random.choice(["click", "click", "dislike", "view"]))
        late = int(self.random.choice([0, 0, 60_000]))
        self.record(InteractionEvent(self.name("e"), self.now_ms - late, item, kind, user=self.user()))

    def feed(self) -> None:
        listed = tuple({self.some_item() for _ in range(4)}) if self.random.random() < 0.4 else None
        request = RecommendationRequest(self.user(), n=30, items=listed)
        made = self.process().recommender.recommend(self.name("r"), self.now, request)
        if made.items:
            self.rankings.append(made.id)

    def refresh(self) -> None:
        self.process().refresher.check_items()

    def restart(self) -> None:
        self.processes[int(self.random.integers(len(self.processes)))] = self.start()

    def save_and_restart(self) -> None:
        compose.save_state_snapshot(self.paths, self.config)
        self.restart()

    def burst(self) -> None:
        """More items than there are spare rows, and more categories."""
        for _ in range(80):
            item = self.name("many")
            self.items.append(item)
            self.record(ItemEvent(self.name("e"), self.now_ms, item, {"category": item}))

    def postpone(self) -> None:
        """Events of a clock that was days ahead: a new item, a change, and a click on it."""
        ahead, item = self.now_ms + int(self.random.integers(2, 4)) * MAX_AHEAD_MS + 1_800_000, self.name("later")
        self.items.append(item)
        self.journal.append(
            [
                ItemEvent(self.name("e"), ahead, item, self.fields(), received=ahead),
                ItemEvent(self.name("e"), ahead + 1, self.some_item(), self.fields(), received=ahead + 1),
                InteractionEvent(self.name("e"), ahead + 2, item, "click", user=self.user(), received=ahead + 2),
            ]
        )

    def import_items(self) -> None:
        """An import of items with old timestamps, of new and of known items, after an event that says when that was."""
        self.click()
        item = self.name("imported")
        events = [
            ItemEvent(self.name("e"), START - int(self.random.integers(5)), one, self.fields())
            for one in (item, self.some_item(), item)
        ]
        self.items.append(item)
        self.journal.append(events)

    def wait(self) -> None:
        self.now_ms += int(self.random.choice([1, 1_000, 3_600_000, MAX_AHEAD_MS]))
        for process in self.processes:  # as its thread does within a second
            if process.refresher._items.has_due(self.now_ms):
                process.refresher.check_items()

    def run(self, steps: int) -> None:
        moves: list[tuple[Callable[[], None], float]] = [
            (self.add_item, 3), (self.change, 3), (self.click, 8), (self.feed, 6), (self.refresh, 3), (self.wait, 4),
            (self.import_items, 1), (self.restart, 0.7), (self.save_and_restart, 0.5), (self.postpone, 0.5),
            (self.burst, 0.3),
        ]  # fmt: skip
        weights = np.array([weight for _, weight in moves])
        for index in self.random.choice(len(moves), steps, p=weights / weights.sum()):
            moves[index][0]()

    def settle(self) -> list[ServingSnapshot]:
        """The snapshots of all processes, and of a restart, of a whole replay, with all events."""
        self.paths.snapshot.unlink(missing_ok=True)
        for process in self.processes:
            process.recommender.catch_up(self.now)
        return [process.recommender.snapshot for process in (*self.processes, self.start())]


def same(a: ServingSnapshot, b: ServingSnapshot) -> None:
    assert list(a.users) == list(b.users)
    assert list(a.state.items) == list(b.state.items)
    first, second = (one.state.arrays() for one in (a, b))  # type: ignore[attr-defined]  # the state that serves has it
    for name in ("counts", "dislikes", "first_at", "last_at", "landmarks", "now", "code_bounds", "codes",
                 "items.names", "items.valid_from", "custom_counters.totals"):  # fmt: skip
        np.testing.assert_array_equal(first[name], second[name], name)
    used = int(first["custom_counters.used"][0])
    for name in ("custom_counters.keys", "custom_counters.sums"):
        np.testing.assert_array_equal(first[name][:used], second[name][:used], name)
    for user in range(len(a.users)):
        for one, other in zip(a.state.history(user), b.state.history(user), strict=True):
            np.testing.assert_array_equal(one, other)
        assert a.state.disliked(user).tolist() == b.state.disliked(user).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_services_a_restart_and_replays_agree(
    seed: int, shop: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    market = Market(HomePaths(copy_of(shop)), np.random.default_rng(seed), monkeypatch)
    market.run(70)
    one, other, restarted = market.settle()
    same(one, restarted)
    same(other, restarted)
    assert len(restarted.state.items) > len(restarted.catalogue) == ITEMS
    chosen = market.random.permutation(market.rankings)[:6]
    for ranking in map(str, chosen):
        record = RankingRecord.find_own(market.journal.find(ranking))
        assert record is not None
        replayed, difference = replay(market.paths, market.config, market.journal, record)
        assert difference is None, (ranking, difference)
        assert replayed.items == record.items
        assert replayed.features == record.features


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a home, so that a test may change it."""
    import shutil

    return lambda home: Path(shutil.copytree(home, tmp_path / "copy", symlinks=True))


def test_a_new_item_counts_from_its_event_on(
    shop: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clicks before the refresher's step count, those before the item event do not, and all of it after a restart."""
    market = Market(HomePaths(copy_of(shop)), np.random.default_rng(0), monkeypatch)
    process = market.processes[0]
    click = InteractionEvent("before", market.now_ms, "fresh", "click", user="u0")
    process.recommender.record([click], market.now)
    market.record(ItemEvent("fresh", market.now_ms, "fresh", {"category": ["new", "a"]}))
    for n in range(3):
        process.recommender.record([InteractionEvent(f"c{n}", market.now_ms, "fresh", "click", user="u0")], market.now)
    market.record(ItemEvent("moved", market.now_ms, "fresh", {"category": "b"}))
    process.recommender.record([InteractionEvent("c3", market.now_ms, "fresh", "click", user="u0")], market.now)
    assert "fresh" not in process.recommender.recommend("r", market.now, RecommendationRequest("u0", n=50)).items
    for live in (process, market.start()):
        state = live.recommender.snapshot.state
        row = state.items.row("fresh")
        assert state.popularity(0.0)[row] == 4  # type: ignore[attr-defined]
        assert state.history(live.recommender.snapshot.users.row("u0"))[0][:4].tolist() == [row] * 4
        live.refresher.check_items()
        made = live.recommender.recommend(market.name("r"), market.now, RecommendationRequest("u1", items=("fresh",)))
        assert made.items == ("fresh",)
        counters = live.recommender.snapshot.state.read(
            [live.recommender.snapshot.resolve(market.now, RecommendationRequest("u0"), query())],
            [np.array([row, 1], np.int32)],
        )
        spec = state.spec  # type: ignore[attr-defined]
        column = spec.counter_column("category", "interactions", float("inf"))
        # of b since the change: the old clicks of four items, twice each, and the last one
        assert counters.counters[0, column] == 8 + 1


def query() -> object:
    from feedrank.engine.types import QueryVectors

    return QueryVectors()


def test_a_snapshot_of_another_bundle_is_used_only_if_no_item_changed(
    shop: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    market = Market(HomePaths(copy_of(shop)), np.random.default_rng(0), monkeypatch)
    opened = bundle.load(market.paths.current_bundle)
    catalogue, spec, path = opened.item_model.catalogue, opened.builder.spec, market.paths.snapshot
    cutoff = ItemCutoff.of(opened)
    later = snapshot.ItemCutoff(10_000, cutoff.built_ms)

    def events_read(with_cutoff: snapshot.ItemCutoff) -> int:
        return snapshot.restore(path, market.journal, catalogue, spec, cutoff=with_cutoff).events_read

    def save() -> None:
        restored = snapshot.restore(path, market.journal, catalogue, spec, cutoff=cutoff)
        snapshot.save(path, restored, catalogue, cutoff)

    market.record(ItemEvent("same", market.now_ms, "i0", {"category": ["a", "all"], "price": 2.0}))
    save()
    assert events_read(cutoff) == events_read(later) == 0
    market.record(ItemEvent("other", market.now_ms, "i0", {"category": "b"}))
    save()
    assert events_read(cutoff) == 0
    assert events_read(later) == market.journal.last_offset
