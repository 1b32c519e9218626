"""What a ranking was served from, put together once more: its bundle, its items, and the state as it was then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from api.compose.newcomers import NewItems
from api.compose.serving import live
from api.compose.signals import TextModels
from api.config import Config
from api.home import Home
from engine.asked import Asked
from engine.events import Event, ItemEvent, RankingEvent
from engine.experiments.declared import arm_of
from engine.journal import Journal
from engine.protocols import Exchange
from engine.recommender import Recommender
from engine.retold import Difference, Hindsight, difference, recorded_pairs, with_pairs
from models import bundle, snapshot


class ReplayError(ValueError):
    """A ranking that can't be made again; the message says why."""


def replay(
    home: Home, config: Config, journal: Journal, served: RankingEvent
) -> tuple[RankingEvent, Difference | None]:
    """A ranking that was served, made again by the same bundle from the same state, and where it first differs.

    The state is read from the journal up to the event that had been read then, beside what serves: for a long journal
    that takes its time. Pair scores of a second phase are those that are on record. Raises ReplayError.
    """
    told = served.extra.get("served", {})
    if "offset" not in told:
        raise ReplayError(f"the ranking {served.id!r} does not say how far the journal had been read for it")
    if "step" in told:
        raise ReplayError(f"the ranking {served.id!r} is a plainer list ({told['step']}) that stood in for a feed")
    if "team" in served.extra:
        raise ReplayError(f"the ranking {served.id!r} is made of the lists of several arms, which are not on record")
    try:
        arm = arm_of(told.get("arm", {}))
        name, offset, asked = str(served.extra["bundle"]), int(told["offset"]), Asked.of(served)
        items = int(told.get("items", offset))
        past = Hindsight([str(what) for what in told.get("skipped", ())])
        pairs = recorded_pairs(served)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise ReplayError(f"what the ranking {served.id!r} says it came of can't be read: {problem}") from None
    if Path(name).name != name:
        raise ReplayError(f"the ranking {served.id!r} names the bundle {name!r}, expected a bundle of this home")
    try:
        opened = bundle.load(home.bundles / name)
    except bundle.BundleError as problem:
        raise ReplayError(f"the bundle that made the ranking {served.id!r} can't be opened: {problem}") from None
    texts = TextModels(home, opened)
    living = snapshot.restore(home.snapshot, journal, opened.knowledge.catalogue, opened.builder.spec, offset)
    recommender = Recommender(live(home, config, opened, living, texts), _Closed())
    at = served.timestamp / 1000
    items_of = NewItems(config, opened, texts)
    items_of.take(_items(journal, opened, items), items, lambda make: recommender.renew(make, at))
    now = recommender.live
    recommender.renew(lambda _: replace(now, pipeline=with_pairs(now.pipeline, pairs)), at)
    again = recommender.recommend(served.id, at, asked, past, keep=False, arm=arm)
    return again, difference(served, again, opened.builder.names)


def _items(journal: Journal, opened: bundle.Bundle, until: int) -> Iterator[ItemEvent]:
    """The item events that came after a bundle was made, up to an offset."""
    for offset, event in journal.read(bundle.read_for(opened), "item"):
        if offset > until:
            return
        if isinstance(event, ItemEvent):
            yield event


class _Closed:
    """A journal in which nothing more is written: a ranking that is made again is not kept."""

    def append(self, events: Iterable[Event]) -> list[bool]:
        raise NotImplementedError

    def exchange(self, events: Sequence[Event], since: int) -> Exchange:
        raise NotImplementedError

    def read(self, since: int = 0) -> Iterator[tuple[int, Event]]:
        return iter(())

    def find(self, event_id: str) -> Event | None:
        return None

    def forget(self, user: str, note: Event) -> int:
        raise NotImplementedError
