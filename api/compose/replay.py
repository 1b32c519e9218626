"""Replays a served ranking from its bundle, its items, and the state at that time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from feedrank.api.compose.cold_start_updater import ColdStartUpdater
from feedrank.api.compose.item_updates import ItemUpdates, NewItems
from feedrank.api.compose.serving import build_snapshot
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.compose.vector_index import with_custom_index
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import Event
from feedrank.engine.experiments.spec import arm_from_dict
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.pipeline import FULL
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.replay_check import (
    RankingDifference,
    ReplayBudget,
    first_difference,
    with_recorded_scores,
)
from feedrank.models.bundles import bundle, snapshot
from feedrank.models.bundles.item_cutoff import ItemCutoff


class ReplayError(ValueError):
    """Raised when a ranking can't be replayed; the message says why."""


def replay(
    home: HomePaths, config: Config, journal: Journal, served: RankingRecord
) -> tuple[RankingRecord, RankingDifference | None]:
    """Replay a served ranking with the same bundle and state; returns it with the first difference, if any.

    The state is rebuilt from the journal up to the logged offset, which is slow for a long journal. Cross-encoder
    scores are the recorded ones. Raises ReplayError.
    """
    if served.malformed:
        parts = ", ".join(served.malformed)
        raise ReplayError(f"the logged request of the ranking {served.id!r} can't be read: {parts} has another shape")
    if served.offset is None:
        raise ReplayError(f"the ranking {served.id!r} has no journal offset, expected one in `served`")
    if served.fallback != FULL:
        raise ReplayError(f"the ranking {served.id!r} is a fallback ({served.fallback}), which can't be replayed")
    if served.team is not None:
        raise ReplayError(f"the ranking {served.id!r} combines the lists of several arms, which are not logged")
    try:
        arm, scores = arm_from_dict(served.arm_overrides), served.decoded_cross_encoder_scores()
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise ReplayError(f"the logged request of the ranking {served.id!r} can't be read: {problem}") from None
    name, offset, budget = served.bundle, served.offset, ReplayBudget(served.degraded)
    items = offset if served.items_offset is None else served.items_offset
    if Path(name).name != name:
        raise ReplayError(f"the ranking {served.id!r} names the bundle {name!r}, expected a bundle of this home")
    try:
        opened = with_custom_index(bundle.load(bundle.path_of(home.bundles, name)), config.index)
    except bundle.BundleError as problem:
        raise ReplayError(f"can't load the bundle of the ranking {served.id!r}: {problem}") from None
    encoders = TextEncoders(home, opened)
    catalogue, spec = opened.item_model.catalogue, opened.builder.spec
    cutoff = ItemCutoff.of(opened)
    restored = snapshot.restore(home.snapshot, journal, catalogue, spec, offset, served.timestamp, cutoff)
    recommender = Recommender(build_snapshot(home, config, opened, restored, encoders), ReadOnlyJournal())
    at = served.timestamp / 1000
    updater = ColdStartUpdater(config, opened, encoders)
    new = ItemUpdates(journal, opened).read(served.timestamp, until=items)
    known = NewItems.of(recommender.snapshot)
    updater.apply(
        new.events, known.ids, items, recommender.pipeline.reranker, lambda make: recommender.swap_snapshot(make, at)
    )
    current = recommender.snapshot
    recommender.swap_snapshot(lambda _: replace(current, pipeline=with_recorded_scores(current.pipeline, scores)), at)
    # events that came between this moment and the reading of the state must not move the time of the replay
    recommender.snapshot.high_watermark_ms = served.timestamp
    replayed = recommender.recommend(served.id, at, served.request, budget, log=False, arm=arm)
    return replayed, first_difference(served, replayed, opened.builder.names)


class ReadOnlyJournal:
    """A journal that refuses writes: a replayed ranking is not logged."""

    def append(self, events: Iterable[Event]) -> list[bool]:
        raise NotImplementedError

    def record(self, events: Sequence[Event], now_ms: int, checked: bool = False) -> list[bool]:
        raise NotImplementedError

    def read(self, since: int = 0) -> Iterator[tuple[int, Event]]:
        return iter(())

    def find(self, event_id: str) -> Event | None:
        return None

    def erase_user(self, user: str, tombstone_id: str, at_ms: int) -> int:
        raise NotImplementedError
