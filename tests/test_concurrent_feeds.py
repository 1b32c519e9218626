"""Feeds of one process at the same time: none waits for another's recall or ranker, and each replays to the bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld

from feedrank.api import compose, config
from feedrank.api.compose.replay import replay
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import InteractionEvent
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.deadline import unlimited_budget
from feedrank.engine.serving.pipeline import FallbackChain, StateChangedError
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import MAX_ATTEMPTS, Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.types import Candidates, ResolvedRequest

NOW = toyworld.END / 1000 + 1_000
PATIENCE_S = 30


class HookedRetriever:
    """Calls a hook before each recall."""

    def __init__(self, retriever: Any, hook: Callable[[], None]) -> None:
        self._retriever, self._hook = retriever, hook

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        self._hook()
        found: Candidates = self._retriever.retrieve(request, k)
        return found


class Service:
    """A recommender whose recall is disturbed, as by other threads."""

    def __init__(self, home: Path) -> None:
        self.paths = HomePaths(home)
        self.config = config.load_config(self.paths.config)
        self.journal: Journal = self.paths.journal()
        self.recommender: Recommender = compose.build_recommender(self.paths, self.config)
        self.recalls = 0
        self.disturb: Callable[[int], None] = lambda recall: None
        pipeline = self.recommender.pipeline
        hooked = replace(pipeline, retriever=HookedRetriever(pipeline.retriever, self._on_recall))
        self.recommender.swap_snapshot(lambda old: replace(old, pipeline=hooked), NOW)

    def _on_recall(self) -> None:
        self.recalls += 1
        self.disturb(self.recalls)

    def recommend(self, name: str, user: str | None) -> RankingRecord:
        return self.recommender.recommend(name, NOW, RecommendationRequest(user))

    def click(self, name: str, user: str, item: str) -> None:
        event = InteractionEvent(name, round(NOW * 1000), item, "click", user=user)
        assert self.recommender.record([event], NOW) == [True]

    def is_exact(self, ranking_id: str) -> bool:
        record = RankingRecord.find_own(self.journal.find(ranking_id))
        assert record is not None
        replayed, difference = replay(self.paths, self.config, self.journal, record)
        return difference is None and replayed.features == record.features  # the toy ranker uses few of them


@pytest.fixture
def service(home: Path) -> Service:
    return Service(home)


def test_a_feed_whose_user_clicks_meanwhile_is_resolved_again(service: Service) -> None:
    def disturb(recall: int) -> None:
        if recall == 1:
            service.click("meanwhile", "p0", "kitchen-3")

    service.disturb = disturb
    record = service.recommend("r", "p0")
    assert service.recalls == 2
    assert "kitchen-3" not in record.items
    assert service.is_exact("r")


def test_a_user_whose_every_recall_is_disturbed_gets_an_exact_feed(service: Service) -> None:
    def disturb(recall: int) -> None:
        waiting = threading.Thread(target=service.click, args=(f"c{recall}", "p0", f"kitchen-{recall}"))
        waiting.start()
        waiting.join(1)  # the last attempt keeps it waiting

    service.disturb = disturb
    service.recommend("r", "p0")
    assert service.recalls == MAX_ATTEMPTS
    assert service.is_exact("r")


@pytest.mark.parametrize("user", ["p0", "new here", None])
def test_feeds_and_clicks_of_other_moments_leave_a_feed_exact(service: Service, user: str | None) -> None:
    """While the first feed of a user is recalled, others get feeds, and so does the same user."""

    def disturb(recall: int) -> None:
        if recall == 1:
            service.recommend("same user", user)
            service.recommend("other", "p1")
            service.click("of another", "p2", "space-3")

    service.disturb = disturb
    service.recommend("r", user)
    for name in ("r", "same user", "other"):
        assert service.is_exact(name), name


def test_new_items_meanwhile_leave_a_feed_exact(service: Service) -> None:
    def disturb(recall: int) -> None:
        if recall == 1:
            service.recommender.swap_snapshot(replace, NOW)

    service.disturb = disturb
    service.recommend("r", "p0")
    assert service.recalls == 2, "the snapshot that was resolved against serves no longer"
    assert service.is_exact("r")


def test_a_slow_recall_holds_up_no_other_feed(service: Service) -> None:
    first, go_on = threading.Event(), threading.Event()

    def disturb(recall: int) -> None:
        if recall == 1:
            first.set()
            assert go_on.wait(PATIENCE_S)

    service.disturb = disturb
    slow = threading.Thread(target=service.recommend, args=("slow", "p0"))
    slow.start()
    assert first.wait(PATIENCE_S)
    done: list[RankingRecord] = []
    other = threading.Thread(target=lambda: done.append(service.recommend("fast", "p1")))
    other.start()
    other.join(PATIENCE_S)
    assert done, "it waited for the slow one"
    service.click("meanwhile", "p1", "space-3")
    go_on.set()
    slow.join(PATIENCE_S)
    assert service.is_exact("slow")
    assert service.is_exact("fast")


def test_many_threads_leave_the_state_of_a_restart(service: Service) -> None:
    def work(number: int) -> None:
        random = np.random.default_rng(number)
        for step in range(15):
            user = f"p{random.integers(3)}"
            record = service.recommend(f"r{number}-{step}", user)
            service.click(f"c{number}-{step}", user, str(random.choice(record.items)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.recommender.catch_up(NOW)
    restarted = compose.build_recommender(service.paths, service.config)
    states = [recommender.snapshot.state for recommender in (service.recommender, restarted)]
    for user in range(3):
        histories = [
            state.history(recommender.snapshot.users.row(f"p{user}"))
            for state, recommender in zip(states, (service.recommender, restarted), strict=True)
        ]
        for one, other in zip(*histories, strict=True):
            np.testing.assert_array_equal(one, other)
    for name in ("counts", "first_at", "last_at"):
        np.testing.assert_array_equal(*(state.arrays()[name] for state in states))  # type: ignore[attr-defined]
    assert all(service.is_exact(f"r{number}-{step}") for number, step in ((0, 14), (1, 7), (2, 3), (3, 14)))


def test_a_change_of_the_state_is_no_failure_of_a_level(service: Service) -> None:
    class Changed:
        def __enter__(self) -> None:
            raise StateChangedError("changed")

        def __exit__(self, *_: object) -> None:
            raise AssertionError

    snapshot = service.recommender.snapshot
    resolved = ResolvedRequest(NOW)
    with pytest.raises(StateChangedError):
        FallbackChain().run(snapshot.pipeline, snapshot.catalogue, resolved, unlimited_budget(), reading=Changed())
