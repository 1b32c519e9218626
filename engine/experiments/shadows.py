"""Runs shadow arms: they rank served requests again in the background, and are compared with what was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feedrank.engine.events.events import Event, ExperimentEvent, RankingEvent
from feedrank.engine.experiments.arm_servers import Serving
from feedrank.engine.experiments.spec import Arm
from feedrank.engine.serving.background import Ahead
from feedrank.engine.serving.pipeline import given_candidates
from feedrank.engine.serving.request import Asked
from feedrank.engine.types import Batch, Candidates, QueryVectors, Request

REPORT_S = 30.0
"""Seconds between two reports."""
EDGES_MS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0)
"""Upper edges of the latency histogram, in milliseconds; one more bucket counts slower rankings."""
Shadow = tuple[str, str, Arm]
"""(experiment name, arm name, arm)."""


@dataclass(frozen=True, eq=False, slots=True)
class Sight:
    """The state that a shadow arm needs for one request, read at once so that ranking needs no lock."""

    serving: Serving
    request: Request
    found: Candidates
    """Candidates of the arm's own recall, or the items of the request."""
    own: Batch
    """State of these candidates."""
    shown: Candidates
    """The items that were shown, if they are in the arm's catalogue."""
    theirs: Batch
    """State of the shown items."""

    @classmethod
    def read(cls, one: Serving, vectors: QueryVectors, at: float, items: Sequence[str]) -> Sight:
        """Read the inputs from the current state. at: unix seconds. items: ids of the items shown."""
        snapshot, state = one.live, one.pipeline.state
        resolved = snapshot.request(at, one.asked, vectors)
        rows = snapshot.catalogue.ids.rows(items)
        shown_candidates = given_candidates(rows[rows >= 0])
        if one.asked.items is None:
            candidates = one.pipeline.retriever.retrieve(resolved, one.pipeline.candidates)
        else:
            candidates = given_candidates(snapshot.catalogue.ids.rows(one.asked.items))
        batch, shown_batch = state.read([resolved], [candidates.rows]), state.read([resolved], [shown_candidates.rows])
        return cls(one, resolved, candidates, batch, shown_candidates, shown_batch)


@dataclass(slots=True)
class Tally:
    """Statistics of a shadow arm; all are sums, so that reports of several processes can be added."""

    feeds: int = 0
    """Number of rankings."""
    overlap: float = 0.0
    """Share of the items shown that the arm would show too, summed over rankings."""
    first: int = 0
    """Number of rankings with the same first item."""
    tau: float = 0.0
    """Kendall's tau of the arm's scores with the order shown, summed over rankings."""
    scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Count, sum and sum of squares of the arm's scores of the items shown."""
    shown_scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Count, sum and sum of squares of the scores with which they were shown."""
    ms: list[int] = field(default_factory=lambda: [0] * (len(EDGES_MS) + 1))
    """Histogram of the arm's latency, with the edges `LATENCY_EDGES_MS`."""
    failed: int = 0
    """Number of rankings on which the arm failed."""

    def add(self, event: RankingEvent, own: Sequence[str], scores: dict[str, float], seconds: float) -> None:
        """Add one ranking.

        arm_items: ids that the arm would show, in order. scores: item id -> the arm's score, of the items shown.
        """
        self.feeds += 1
        self.overlap += len(set(own) & set(event.items)) / len(event.items)
        self.first += bool(own) and own[0] == event.items[0]
        shown = np.array([scores[item] for item in event.items if item in scores])
        self.tau += kendall(shown)
        _sum(self.scores, shown)
        _sum(self.shown_scores, np.array([score for score in event.extra["scores"] if score is not None]))
        self.ms[int(np.searchsorted(EDGES_MS, 1000 * seconds))] += 1

    def body(self) -> dict[str, Any]:
        """Convert to a JSON-ready dict."""
        return {name: getattr(self, name) for name in self.__slots__}


class Shadows:
    """Runs shadow arms in one thread, latest request first; requests beyond the queue size are dropped and counted."""

    def __init__(
        self, look: Callable[[Arm, RankingEvent, Asked], Sight | None],
        write: Callable[[Sequence[Event], float], object], clock: Callable[[], float], new_id: Callable[[], str],
        size: int = 100,
    ) -> None:  # fmt: skip
        """Start the thread.

        read_inputs: reads the state for an arm and a served ranking; None: skip it. write_events: writes report events
        at a time in unix seconds. clock: monotonic clock in seconds. new_id: makes event ids.
        """
        self._look, self._write, self._clock, self._new_id = look, write, clock, new_id
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._reported: float | None = None
        self._dropped = 0
        self._ahead: Ahead[tuple[RankingEvent, Asked, tuple[Shadow, ...]]] = Ahead(self._work, size, "feedrank-shadows")

    def ask(self, event: RankingEvent, asked: Asked, shadows: tuple[Shadow, ...]) -> None:
        """Queue a served ranking for these shadow arms."""
        if event.items:
            self._ahead.ask(event.id, (event, asked, shadows))

    def wait(self, seconds: float) -> bool:
        """Wait until the queue is empty, at most so many seconds; return whether it is empty."""
        return self._ahead.wait(seconds)

    def stop(self, at: float) -> None:
        """Stop the thread, and write a last report. at: unix seconds."""
        self._ahead.stop()
        self.report(at)

    def report(self, at: float) -> None:
        """Write the statistics since the last report. at: unix seconds."""
        self._reported = at
        total_dropped = self._ahead.dropped
        dropped = total_dropped - self._dropped
        events = [
            ExperimentEvent(
                self._new_id(), round(at * 1000), experiment, "shadow", {"arm": arm, "dropped": dropped, **stats.body()}
            )
            for (experiment, arm), stats in self._tallies.items()
            if stats.feeds or stats.failed
        ]
        if events:
            self._write(events, at)  # if this fails, the statistics stay for the next report
        self._tallies.clear()
        self._dropped = total_dropped

    def _work(self, task: tuple[RankingEvent, Asked, tuple[Shadow, ...]]) -> None:
        event, request, shadows = task
        at = event.timestamp / 1000
        self._reported = at if self._reported is None else self._reported
        for experiment, name, arm in shadows:
            stats = self._tallies.setdefault((experiment, name), Tally())
            try:
                self._one(arm, event, request, stats)
            except Exception:
                stats.failed += 1
                raise
        if at - self._reported >= REPORT_S:
            self.report(at)

    def _one(self, arm: Arm, event: RankingEvent, asked: Asked, tally: Tally) -> None:
        started = self._clock()
        inputs = self._look(arm, event, asked)
        if inputs is None:
            return
        pipeline, ids = inputs.serving.pipeline, inputs.serving.live.catalogue.ids
        ranking = pipeline.ranked(inputs.request, inputs.own, inputs.found)
        seconds = self._clock() - started
        shown = pipeline.ranked(inputs.request, inputs.theirs, inputs.shown)
        if asked.items is None:
            arm_items = ids.names(ranking.rows[: len(event.items)])
        else:
            arm_items = [asked.items[index] for index in ranking.order[: len(event.items)].tolist()]
        scores = dict(zip(ids.names(shown.rows), shown.scores.tolist(), strict=True))
        tally.add(event, arm_items, scores, seconds)


def kendall(scores: Any) -> float:
    """Return Kendall's tau-a of scores (n,) with descending order; tied pairs count as 0; 0 if n < 2.

    Kendall, A New Measure of Rank Correlation, 1938.
    """
    n = len(scores)
    if n < 2:
        return 0.0
    signs = np.sign(scores[:, None] - scores[None, :])
    return float(signs[np.triu_indices(n, 1)].sum() / (n * (n - 1) / 2))


def _sum(sums: list[float], values: Any) -> None:
    sums[0] += len(values)
    sums[1] += float(np.sum(values))
    sums[2] += float(np.sum(np.square(values)))
