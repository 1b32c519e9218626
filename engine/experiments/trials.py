"""The experiments of a serving process: the roster, and another generation of what serves for each arm's bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.asked import Asked
from engine.events import Event, ExperimentEvent, ItemEvent
from engine.experiments.declared import Arm, Explore
from engine.experiments.enrolment import NOT_ENROLLED, Enrolled, enrol
from engine.experiments.roster import Roster, roster_of
from engine.live import Live
from engine.pipeline import Pipeline

MOST_LATE = 500
"""Events of other people that a state may not have seen, where nobody has it catch up before."""


@dataclass(frozen=True, slots=True)
class Serving:
    """One arm at work on a request."""

    name: str
    live: Live
    pipeline: Pipeline
    asked: Asked
    explore: Explore | None = None
    told: tuple[tuple[str, Any], ...] = ()
    """What it changes but the bundle and what was asked, for the record."""


class Trials:
    """Which arms a request gets, and what makes their lists. Not safe for threads: its owner's lock is held."""

    def __init__(self, roster: Roster | None = None) -> None:
        self.roster = roster or Roster()
        self._seats: dict[str, Live] = {}
        self._late: dict[str, list[Event]] = {}
        """Of each seat, what its state has not seen yet."""
        self._concerned: dict[str, set[str]] = {}
        """Of each seat, whom that is about."""
        self._offset = 0
        """Of the last event that was observed."""

    @property
    def seated(self) -> list[str]:
        """The bundles that can make lists beside the one that serves."""
        return list(self._seats)

    def observe(self, events: Sequence[Event], offset: int) -> None:
        """Take note of what was written, up to an offset of the journal; states learn of it when it is time to."""
        self._offset = offset
        if any(isinstance(one, ExperimentEvent) for one in events):
            self.roster = roster_of(events, self.roster)
        if self._seats:
            users = {one.user for one in events if not isinstance(one, ItemEvent | ExperimentEvent) and one.user}
            for bundle, late in self._late.items():
                late += events
                self._concerned[bundle] |= users

    def catch_up(self) -> None:
        """Let every state learn of all that was noted."""
        for bundle in self._seats:
            self._learn(bundle)

    def seat(self, live: Live) -> None:
        """Have another bundle's generation at hand; its state must have seen all that was observed so far."""
        name = live.pipeline.bundle
        self._late[name], self._concerned[name] = [], set()
        self._seats = {**self._seats, name: live}  # another one: requests look at it without the lock

    def unseat(self, bundle: str) -> None:
        """Let go of a generation that nobody needs any more."""
        self._seats = {name: live for name, live in self._seats.items() if name != bundle}
        self._late.pop(bundle, None)
        self._concerned.pop(bundle, None)

    def reseat(self, bundle: str, make: Callable[[Live], Live]) -> None:
        """Put a generation in the place of one of the same bundle, as with items that came since."""
        if bundle in self._seats:
            self._learn(bundle)
            self.seat(make(self._seats[bundle]))

    def live_of(self, bundle: str, main: Live, user: str | None) -> Live | None:
        """The generation of a bundle, for a request of a person; `main` where no other is meant; None: not at hand.

        Its state knows all that was noted of that person; of others it may be up to `MOST_LATE` events behind. Its
        offset says how far it came.
        """
        if bundle in ("", main.pipeline.bundle):
            return main
        live = self._seats.get(bundle)
        if live is not None and (user in self._concerned[bundle] or len(self._late[bundle]) > MOST_LATE):
            self._learn(bundle)
        return live

    def _learn(self, bundle: str) -> None:
        live, late = self._seats[bundle], self._late[bundle]
        if late:
            self._late[bundle], self._concerned[bundle] = [], set()
            live.observe(late)
            live.offset = self._offset

    def enrol(self, main: Live, asked: Asked, ranking_id: str, at: int) -> Enrolled:
        """What a request at a moment, in epoch milliseconds, is in."""
        if not self.roster.running:
            return NOT_ENROLLED
        return enrol(self.roster, asked, ranking_id, at, {"", main.pipeline.bundle, *self._seats})

    def peek(self, bundle: str, main: Live) -> Live:
        """The generation of a bundle as it is, for what does not depend on the state; `main` where there is none."""
        return self._seats.get(bundle, main)

    def servings(self, main: Live, enrolled: Enrolled, asked: Asked) -> list[Serving] | None:
        """Who makes a list for a request: one arm, or all that are interleaved. None: one is not there any more."""
        arms = enrolled.mixed or (("", enrolled.arm),)
        lives = [self.live_of(arm.bundle, main, asked.user) for _, arm in arms]
        found = [live for live in lives if live is not None]
        if len(found) < len(arms):
            return None
        return [serving(name, arm, live, asked) for (name, arm), live in zip(arms, found, strict=True)]


def serving(name: str, arm: Arm, live: Live, asked: Asked) -> Serving:
    """An arm at work on a request, with a generation of its bundle."""
    pipeline = live.pipeline
    told: dict[str, Any] = {}
    if arm.candidates:
        pipeline = replace(pipeline, candidates=arm.candidates)
        told["candidates"] = arm.candidates
    if arm.rescored >= 0 and pipeline.rescoring is not None:
        pipeline = replace(pipeline, rescoring=replace(pipeline.rescoring, best=arm.rescored))
        told["rescored"] = arm.rescored
    if arm.diversity is not None and not asked.diversity:
        asked = replace(asked, diversity=arm.diversity)
    explore = None if asked.diversity else arm.explore
    if explore is not None:
        told["explore"] = asdict(explore)
    return Serving(name, live, pipeline, asked, explore, tuple(told.items()))
