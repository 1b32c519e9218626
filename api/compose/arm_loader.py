"""Loads the bundles of running experiments next to the serving one, and keeps their items up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from feedrank.api.compose.cold_start_updater import NewItems
from feedrank.api.compose.serving import live
from feedrank.api.compose.text_signals import TextModels
from feedrank.api.config import Config
from feedrank.api.home import Home
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.models.bundles import bundle, snapshot

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seat:
    items: NewItems
    read: int
    """Journal offset of the last item event that was read."""


class Arms:
    """Adds the bundles of experiment arms to a recommender, and removes them. Not thread-safe."""

    def __init__(
        self, home: Home, config: Config, journal: Journal, recommender: Recommender, clock: Callable[[], float]
    ) -> None:
        self._home, self._config, self._journal = home, config, journal
        self._recommender, self._clock = recommender, clock
        self._seats: dict[str, _Seat] = {}
        self._refused: set[str] = set()

    def look(self) -> bool:
        """Load the bundles that running experiments need and remove the others; returns whether anything changed."""
        trials = self._recommender.trials
        wanted = [name for name in trials.roster.bundles if name != self._recommender.pipeline.bundle]
        self._refused &= set(wanted)
        gone = [name for name in self._seats if name not in wanted]
        for name in gone:
            self._recommender.unseat(name)
            del self._seats[name]
        new = [name for name in wanted if name not in self._seats and name not in self._refused]
        for name in new:
            self._seat(name)
        return bool(gone or new)

    def take_items(self) -> None:
        """Add the items of unread item events to every loaded bundle."""
        for name, seat in self._seats.items():
            new = list(self._journal.read(seat.read, "item"))
            if new:
                events = [event for _, event in new if isinstance(event, ItemEvent)]
                seat.items.take(events, new[-1][0], partial(self._reseat, name))
                seat.read = new[-1][0]

    def _reseat(self, name: str, make: Callable[[Live], Live]) -> None:
        self._recommender.reseat(name, make, self._clock())

    def _seat(self, name: str) -> None:
        try:
            opened = bundle.load(self._home.bundles / name)
            encoders = TextModels(self._home, opened)
            restored = snapshot.restore(
                self._home.snapshot, self._journal, opened.knowledge.catalogue, opened.builder.spec
            )
            serving = live(self._home, self._config, opened, restored, encoders)
            updater = NewItems(self._config, opened, encoders)
            updater.prepare()
        except Exception as problem:  # this process assigns no units to the experiment; serving continues
            self._refused.add(name)
            _log.error(
                "can't load the bundle %s of an experiment arm: %s", name, problem,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            return
        self._recommender.seat(serving, self._clock())
        self._seats[name] = _Seat(updater, bundle.read_for(opened))
        self.take_items()
        _log.info("loaded the bundle %s for its experiment", name)
