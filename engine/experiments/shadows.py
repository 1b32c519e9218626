"""Shadows: arms that make their list of a request that was answered by another one, off its path, and are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.ahead import Ahead
from engine.asked import Asked
from engine.events import Event, ExperimentEvent, RankingEvent
from engine.experiments.declared import Arm
from engine.experiments.trials import Serving
from engine.pipeline import given_candidates
from engine.types import Batch, Candidates, QueryVectors, Request

REPORT_S = 30.0
"""A report is written after so long."""
EDGES_MS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0)
"""Upper edges of the counts of milliseconds; one more count is of what took longer."""
Shadow = tuple[str, str, Arm]
"""Experiment, name of the arm, arm."""


@dataclass(frozen=True, eq=False, slots=True)
class Sight:
    """All that an arm needs of the state for one request, so that no lock is held while it makes its list."""

    serving: Serving
    request: Request
    found: Candidates
    own: Batch
    """Of what its recall finds."""
    shown: Candidates
    """What was shown, and is in its catalogue."""
    theirs: Batch

    @classmethod
    def read(cls, one: Serving, vectors: QueryVectors, at: float, items: Sequence[str]) -> Sight:
        """From the state as it is now."""
        live, state = one.live, one.pipeline.state
        request = live.request(at, one.asked, vectors)
        rows = live.catalogue.ids.rows(items)
        shown = given_candidates(rows[rows >= 0])
        if one.asked.items is None:
            found = one.pipeline.retriever.retrieve(request, one.pipeline.candidates)
        else:
            found = given_candidates(live.catalogue.ids.rows(one.asked.items))
        return cls(one, request, found, state.read([request], [found.rows]), shown, state.read([request], [shown.rows]))


@dataclass(slots=True)
class Tally:
    """What a shadow showed so far; sums, so that those of several processes add up."""

    feeds: int = 0
    overlap: float = 0.0
    """Of the items shown, the share that the arm would show too, summed over feeds."""
    first: int = 0
    """Feeds with the same first item."""
    tau: float = 0.0
    """Kendall's rank correlation of the arm's scores with the order shown, summed."""
    scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Of the arm's scores of what was shown: how many, their sum, the sum of their squares."""
    shown_scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """The same of the scores that it was shown with."""
    ms: list[int] = field(default_factory=lambda: [0] * (len(EDGES_MS) + 1))
    """Feeds by how long the arm took, by EDGES_MS."""
    failed: int = 0

    def add(self, event: RankingEvent, own: Sequence[str], scores: dict[str, float], seconds: float) -> None:
        """One feed. own: what the arm would show, in order; scores: its scores of what was shown."""
        self.feeds += 1
        self.overlap += len(set(own) & set(event.items)) / len(event.items)
        self.first += bool(own) and own[0] == event.items[0]
        theirs = np.array([scores[item] for item in event.items if item in scores])
        self.tau += kendall(theirs)
        _sum(self.scores, theirs)
        _sum(self.shown_scores, np.array([one for one in event.extra["scores"] if one is not None]))
        self.ms[int(np.searchsorted(EDGES_MS, 1000 * seconds))] += 1

    def body(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


class Shadows:
    """One thread that lets arms look on, newest requests first; what can't be done in time is dropped and counted."""

    def __init__(
        self, look: Callable[[Arm, RankingEvent, Asked], Sight | None],
        write: Callable[[Sequence[Event], float], object], clock: Callable[[], float], new_id: Callable[[], str],
        size: int = 100,
    ) -> None:  # fmt: skip
        """look: reads the state. write: takes report events, and the moment in unix seconds. clock: counts seconds."""
        self._look, self._write, self._clock, self._new_id = look, write, clock, new_id
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._reported: float | None = None
        self._dropped = 0
        self._ahead: Ahead[tuple[RankingEvent, Asked, tuple[Shadow, ...]]] = Ahead(self._work, size, "feedrank-shadows")

    def ask(self, event: RankingEvent, asked: Asked, shadows: tuple[Shadow, ...]) -> None:
        """Have these arms look on at a feed."""
        if event.items:
            self._ahead.ask(event.id, (event, asked, shadows))

    def wait(self, seconds: float) -> bool:
        """Until nothing waits, or so long; whether nothing does."""
        return self._ahead.wait(seconds)

    def stop(self, at: float) -> None:
        """End the thread, and write what was not reported yet."""
        self._ahead.stop()
        self.report(at)

    def report(self, at: float) -> None:
        """Write what was found since the last report."""
        self._reported = at
        now = self._ahead.dropped
        dropped = now - self._dropped
        events = [
            ExperimentEvent(
                self._new_id(), round(at * 1000), experiment, "shadow", {"arm": arm, "dropped": dropped, **tally.body()}
            )
            for (experiment, arm), tally in self._tallies.items()
            if tally.feeds or tally.failed
        ]
        if events:
            self._write(events, at)  # where that fails, it is all told the next time
        self._tallies.clear()
        self._dropped = now

    def _work(self, task: tuple[RankingEvent, Asked, tuple[Shadow, ...]]) -> None:
        event, asked, shadows = task
        at = event.timestamp / 1000
        self._reported = at if self._reported is None else self._reported
        for experiment, name, arm in shadows:
            tally = self._tallies.setdefault((experiment, name), Tally())
            try:
                self._one(arm, event, asked, tally)
            except Exception:
                tally.failed += 1
                raise
        if at - self._reported >= REPORT_S:
            self.report(at)

    def _one(self, arm: Arm, event: RankingEvent, asked: Asked, tally: Tally) -> None:
        started = self._clock()
        sight = self._look(arm, event, asked)
        if sight is None:
            return
        pipeline, ids = sight.serving.pipeline, sight.serving.live.catalogue.ids
        own = pipeline.ranked(sight.request, sight.own, sight.found)
        took = self._clock() - started
        shown = pipeline.ranked(sight.request, sight.theirs, sight.shown)
        if asked.items is None:
            names = ids.names(own.rows[: len(event.items)])
        else:
            names = [asked.items[place] for place in own.order[: len(event.items)].tolist()]
        tally.add(event, names, dict(zip(ids.names(shown.rows), shown.scores.tolist(), strict=True)), took)


def kendall(scores: Any) -> float:
    """Rank correlation of scores with the order they come in, the highest first; ties count half, 0 for fewer than 2.

    Source: Kendall, A New Measure of Rank Correlation, 1938.
    """
    n = len(scores)
    if n < 2:
        return 0.0
    apart = np.sign(scores[:, None] - scores[None, :])
    return float(apart[np.triu_indices(n, 1)].sum() / (n * (n - 1) / 2))


def _sum(sums: list[float], values: Any) -> None:
    sums[0] += len(values)
    sums[1] += float(np.sum(values))
    sums[2] += float(np.sum(np.square(values)))
