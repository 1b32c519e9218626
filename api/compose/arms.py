"""The bundles of running experiments: each made ready beside the one that serves, and told of new items."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from api.compose.newcomers import NewItems
from api.compose.serving import live
from api.compose.signals import TextModels
from api.config import Config
from api.home import Home
from engine.events import ItemEvent
from engine.journal import Journal
from engine.live import Live
from engine.recommender import Recommender
from models import bundle, snapshot

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seat:
    items: NewItems
    read: int
    """Offset of the last item event that was looked at."""


class Arms:
    """Seats bundles at a recommender, and lets them go. One thread uses it."""

    def __init__(
        self, home: Home, config: Config, journal: Journal, recommender: Recommender, clock: Callable[[], float]
    ) -> None:
        self._home, self._config, self._journal = home, config, journal
        self._recommender, self._clock = recommender, clock
        self._seats: dict[str, _Seat] = {}
        self._refused: set[str] = set()

    def look(self) -> bool:
        """Seat what running experiments want, and let go of what none wants; whether anything changed."""
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
        """Make the items of events that were not looked at known to every arm's bundle."""
        for name, seat in self._seats.items():
            found = list(self._journal.read(seat.read, "item"))
            if found:
                events = [event for _, event in found if isinstance(event, ItemEvent)]
                seat.items.take(events, found[-1][0], partial(self._reseat, name))
                seat.read = found[-1][0]

    def _reseat(self, name: str, make: Callable[[Live], Live]) -> None:
        self._recommender.reseat(name, make, self._clock())

    def _seat(self, name: str) -> None:
        try:
            opened = bundle.load(self._home.bundles / name)
            texts = TextModels(self._home, opened)
            living = snapshot.restore(
                self._home.snapshot, self._journal, opened.knowledge.catalogue, opened.builder.spec
            )
            made = live(self._home, self._config, opened, living, texts)
            items = NewItems(self._config, opened, texts)
            items.prepare()
        except Exception as problem:  # the experiment has nobody in it here, and all else goes on
            self._refused.add(name)
            _log.error(
                "the bundle %s, which an experiment asks for, can't be used: %s", name, problem,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            return
        self._recommender.seat(made, self._clock())
        self._seats[name] = _Seat(items, bundle.read_for(opened))
        self.take_items()
        _log.info("bundle %s is ready for its experiment", name)
