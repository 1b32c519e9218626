"""Serves the arms of experiments: the experiment registry, and a serving snapshot for each arm's bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from feedrank.engine.events.events import Event, ExperimentEvent, ItemEvent
from feedrank.engine.experiments.bucketing import NOT_ENROLLED, Enrolled, enrol
from feedrank.engine.experiments.registry import Roster, roster_of
from feedrank.engine.experiments.spec import Arm, Explore
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import Asked
from feedrank.engine.serving.serving_snapshot import Live

MOST_LATE = 500
"""Maximum number of pending events of other users before a snapshot must apply them."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A request as one arm serves it."""

    name: str
    """Name of the arm; empty if rankings are not interleaved."""
    live: Live
    pipeline: Pipeline
    asked: Asked
    explore: Explore | None = None
    told: tuple[tuple[str, Any], ...] = ()
    """Settings that the arm overrides besides the bundle and the request; logged for replay."""


class Trials:
    """Assigns requests to arms and holds the arms' snapshots. Not thread-safe: callers hold the recommender's lock."""

    def __init__(self, roster: Roster | None = None) -> None:
        self.roster = roster or Roster()
        self._seats: dict[str, Live] = {}
        self._late: dict[str, list[Event]] = {}
        """Bundle -> events that its snapshot has not applied yet."""
        self._concerned: dict[str, set[str]] = {}
        """Bundle -> users of these events."""
        self._offset = 0
        """Journal offset of the last observed event."""

    @property
    def seated(self) -> list[str]:
        """Bundles that have a snapshot here, besides the current one."""
        return list(self._seats)

    def observe(self, events: Sequence[Event], offset: int) -> None:
        """Queue journal events up to an offset; experiment events apply at once, snapshots apply the others lazily."""
        self._offset = offset
        if any(isinstance(event, ExperimentEvent) for event in events):
            self.roster = roster_of(events, self.roster)
        if self._seats:
            users = {
                event.user for event in events if not isinstance(event, ItemEvent | ExperimentEvent) and event.user
            }
            for bundle, pending in self._late.items():
                pending += events
                self._concerned[bundle] |= users

    def catch_up(self) -> None:
        """Apply all pending events to every snapshot."""
        for bundle in self._seats:
            self._learn(bundle)

    def seat(self, live: Live) -> None:
        """Add the snapshot of another bundle; its state must include all events observed so far."""
        name = live.pipeline.bundle
        self._late[name], self._concerned[name] = [], set()
        self._seats = {**self._seats, name: live}  # a new dict: requests read it without the lock

    def unseat(self, bundle: str) -> None:
        """Remove the snapshot of a bundle that no experiment needs any more."""
        self._seats = {name: snapshot for name, snapshot in self._seats.items() if name != bundle}
        self._late.pop(bundle, None)
        self._concerned.pop(bundle, None)

    def reseat(self, bundle: str, make: Callable[[Live], Live]) -> None:
        """Replace the snapshot of a bundle, for example by one with new items. make: old snapshot -> new snapshot."""
        if bundle in self._seats:
            self._learn(bundle)
            self.seat(make(self._seats[bundle]))

    def live_of(self, bundle: str, main: Live, user: str | None) -> Live | None:
        """Return a bundle's snapshot for a user's request; `main` if the bundle is empty or current; None if missing.

        Its state includes all observed events of this user. It may lack up to `MAX_LAG_EVENTS` events of other users;
        its offset says which.
        """
        if bundle in ("", main.pipeline.bundle):
            return main
        snapshot = self._seats.get(bundle)
        if snapshot is not None and (user in self._concerned[bundle] or len(self._late[bundle]) > MOST_LATE):
            self._learn(bundle)
        return snapshot

    def _learn(self, bundle: str) -> None:
        snapshot, pending = self._seats[bundle], self._late[bundle]
        if pending:
            self._late[bundle], self._concerned[bundle] = [], set()
            snapshot.observe(pending)
            snapshot.offset = self._offset

    def enrol(self, main: Live, asked: Asked, ranking_id: str, at: int) -> Enrolled:
        """Assign a request to the running experiments. at_ms: epoch milliseconds."""
        if not self.roster.running:
            return NOT_ENROLLED
        return enrol(self.roster, asked, ranking_id, at, {"", main.pipeline.bundle, *self._seats})

    def peek(self, bundle: str, main: Live) -> Live:
        """Return the snapshot of a bundle, or `main` if it has none; pending events are not applied.

        For uses that do not depend on the state.
        """
        return self._seats.get(bundle, main)

    def servings(self, main: Live, enrolled: Enrolled, asked: Asked) -> list[Serving] | None:
        """Return the request as its arm, or each interleaved arm, serves it; None if a snapshot is missing."""
        arms = enrolled.mixed or (("", enrolled.arm),)
        snapshots = [self.live_of(arm.bundle, main, asked.user) for _, arm in arms]
        loaded = [snapshot for snapshot in snapshots if snapshot is not None]
        if len(loaded) < len(arms):
            return None
        return [serving(name, arm, snapshot, asked) for (name, arm), snapshot in zip(arms, loaded, strict=True)]


def serving(name: str, arm: Arm, live: Live, asked: Asked) -> Serving:
    """Apply an arm's settings to a request and to the pipeline of its snapshot."""
    pipeline = live.pipeline
    overrides: dict[str, Any] = {}
    if arm.candidates:
        pipeline = replace(pipeline, candidates=arm.candidates)
        overrides["candidates"] = arm.candidates
    if arm.rescored >= 0 and pipeline.rescoring is not None:
        pipeline = replace(pipeline, rescoring=replace(pipeline.rescoring, best=arm.rescored))
        overrides["rescored"] = arm.rescored
    if arm.diversity is not None and not asked.diversity:
        asked = replace(asked, diversity=arm.diversity)
    explore = None if asked.diversity else arm.explore
    if explore is not None:
        overrides["explore"] = asdict(explore)
    return Serving(name, live, pipeline, asked, explore, tuple(overrides.items()))
