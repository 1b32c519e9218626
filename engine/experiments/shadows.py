"""Runs shadow arms: they rank served requests again in the background, and are compared with what was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feedrank.engine.events.events import Event, ExperimentEvent
from feedrank.engine.experiments.arm_servers import ArmRequest
from feedrank.engine.experiments.spec import Arm
from feedrank.engine.serving.background import LatestFirstQueue
from feedrank.engine.serving.pipeline import Reading, explicit_candidates
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import StateReading
from feedrank.engine.types import Batch, Candidates, QueryVectors, ResolvedRequest

REPORT_INTERVAL_S = 30.0
"""Seconds between two reports."""
LATENCY_EDGES_MS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0)
"""Upper edges of the latency histogram, in milliseconds; one more bucket counts slower rankings."""
Shadow = tuple[str, str, Arm]
"""(experiment name, arm name, arm)."""


@dataclass(frozen=True, eq=False, slots=True)
class ShadowInputs:
    """The state that a shadow arm needs for one request, read at once so that ranking needs no lock."""

    arm_request: ArmRequest
    resolved: ResolvedRequest
    candidates: Candidates
    """Candidates of the arm's own recall, or the items of the request."""
    batch: Batch
    """State of these candidates."""
    shown_candidates: Candidates
    """The items that were shown, if they are in the arm's catalogue."""
    shown_batch: Batch
    """State of the shown items."""

    @classmethod
    def read(
        cls, arm_request: ArmRequest, vectors: QueryVectors, at: float, items: Sequence[str], lock: Reading
    ) -> ShadowInputs:
        """Read the inputs from the current state; recall runs without the lock. Raises StateChangedError.

        at: unix seconds. items: ids of the items shown. lock: that of the state.
        """
        snapshot, state = arm_request.snapshot, arm_request.pipeline.state
        with lock:
            resolved = snapshot.resolve(at, arm_request.request, vectors)
            reading = StateReading(snapshot, arm_request.request, lock)
        rows = snapshot.catalogue.ids.rows(items)
        shown_candidates = explicit_candidates(rows[rows >= 0])
        if arm_request.request.items is None:
            candidates = arm_request.pipeline.recall(resolved, reading=reading)
        else:
            candidates = explicit_candidates(snapshot.catalogue.ids.rows(arm_request.request.items))
        with reading:
            batch = state.read([resolved], [candidates.rows])
            shown_batch = state.read([resolved], [shown_candidates.rows])
        return cls(arm_request, resolved, candidates, batch, shown_candidates, shown_batch)


@dataclass(slots=True)
class ShadowStats:
    """Statistics of a shadow arm; all are sums, so that reports of several processes can be added."""

    rankings: int = 0
    """Number of rankings."""
    overlap: float = 0.0
    """Share of the items shown that the arm would show too, summed over rankings."""
    same_top_item: int = 0
    """Number of rankings with the same first item."""
    kendall_tau: float = 0.0
    """Kendall's tau of the arm's scores with the order shown, summed over rankings."""
    arm_scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Count, sum and sum of squares of the arm's scores of the items shown."""
    served_scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Count, sum and sum of squares of the scores with which they were shown."""
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_MS) + 1))
    """Histogram of the arm's latency, with the edges `LATENCY_EDGES_MS`."""
    failed: int = 0
    """Number of rankings on which the arm failed."""

    def add(self, record: RankingRecord, arm_items: Sequence[str], scores: dict[str, float], seconds: float) -> None:
        """Add one ranking.

        arm_items: ids that the arm would show, in order. scores: item id -> the arm's score, of the items shown.
        """
        self.rankings += 1
        self.overlap += len(set(arm_items) & set(record.items)) / len(record.items)
        self.same_top_item += bool(arm_items) and arm_items[0] == record.items[0]
        shown = np.array([scores[item] for item in record.items if item in scores])
        self.kendall_tau += kendall_tau(shown)
        _add_moments(self.arm_scores, shown)
        _add_moments(self.served_scores, np.array([score for score in record.scores if score is not None]))
        self.latency_counts[int(np.searchsorted(LATENCY_EDGES_MS, 1000 * seconds))] += 1

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-ready dict."""
        return {name: getattr(self, name) for name in self.__slots__}


class ShadowRunner:
    """Runs shadow arms in one thread, latest request first; requests beyond the queue size are dropped and counted."""

    def __init__(
        self, read_inputs: Callable[[Arm, RankingRecord, RecommendationRequest], ShadowInputs | None],
        write_events: Callable[[Sequence[Event], float], object], clock: Callable[[], float], new_id: Callable[[], str],
        queue_size: int = 100,
    ) -> None:  # fmt: skip
        """Start the thread.

        read_inputs: reads the state for an arm and a served ranking; None: skip it. write_events: writes report events
        at a time in unix seconds. clock: monotonic clock in seconds. new_id: makes event ids.
        """
        self._read_inputs, self._write_events, self._clock, self._new_id = read_inputs, write_events, clock, new_id
        self._stats: dict[tuple[str, str], ShadowStats] = {}
        self._reported_at: float | None = None
        self._dropped = 0
        self._queue: LatestFirstQueue[tuple[RankingRecord, RecommendationRequest, tuple[Shadow, ...]]] = (
            LatestFirstQueue(self._process, queue_size, "feedrank-shadows")
        )

    def submit(self, record: RankingRecord, request: RecommendationRequest, shadows: tuple[Shadow, ...]) -> None:
        """Queue a served ranking for these shadow arms."""
        if record.items:
            self._queue.submit(record.id, (record, request, shadows))

    def wait(self, seconds: float) -> bool:
        """Wait until the queue is empty, at most so many seconds; return whether it is empty."""
        return self._queue.wait(seconds)

    def stop(self, at: float) -> None:
        """Stop the thread, and write a last report. at: unix seconds."""
        self._queue.stop()
        self.report(at)

    def report(self, at: float) -> None:
        """Write the statistics since the last report. at: unix seconds."""
        self._reported_at = at
        total_dropped = self._queue.dropped
        dropped = total_dropped - self._dropped
        events = [
            ExperimentEvent(
                self._new_id(),
                round(at * 1000),
                experiment,
                "shadow",
                {"arm": arm, "dropped": dropped, **stats.to_dict()},
            )
            for (experiment, arm), stats in self._stats.items()
            if stats.rankings or stats.failed
        ]
        if events:
            self._write_events(events, at)  # if this fails, the statistics stay for the next report
        self._stats.clear()
        self._dropped = total_dropped

    def _process(self, task: tuple[RankingRecord, RecommendationRequest, tuple[Shadow, ...]]) -> None:
        record, request, shadows = task
        at = record.timestamp / 1000
        self._reported_at = at if self._reported_at is None else self._reported_at
        for experiment, name, arm in shadows:
            stats = self._stats.setdefault((experiment, name), ShadowStats())
            try:
                self._score_ranking(arm, record, request, stats)
            except Exception:
                stats.failed += 1
                raise
        if at - self._reported_at >= REPORT_INTERVAL_S:
            self.report(at)

    def _score_ranking(
        self, arm: Arm, record: RankingRecord, request: RecommendationRequest, stats: ShadowStats
    ) -> None:
        started = self._clock()
        inputs = self._read_inputs(arm, record, request)
        if inputs is None:
            return
        pipeline, ids = inputs.arm_request.pipeline, inputs.arm_request.snapshot.catalogue.ids
        ranking = pipeline.rank(inputs.resolved, inputs.batch, inputs.candidates)
        seconds = self._clock() - started
        shown = pipeline.rank(inputs.resolved, inputs.shown_batch, inputs.shown_candidates)
        if request.items is None:
            arm_items = ids.names(ranking.rows[: len(record.items)])
        else:
            arm_items = [request.items[index] for index in ranking.order[: len(record.items)].tolist()]
        scores = dict(zip(ids.names(shown.rows), shown.scores.tolist(), strict=True))
        stats.add(record, arm_items, scores, seconds)


def kendall_tau(scores: Any) -> float:
    """Return Kendall's tau-a of scores (n,) with descending order; tied pairs count as 0; 0 if n < 2.

    Kendall, A New Measure of Rank Correlation, 1938.
    """
    n = len(scores)
    if n < 2:
        return 0.0
    signs = np.sign(scores[:, None] - scores[None, :])
    return float(signs[np.triu_indices(n, 1)].sum() / (n * (n - 1) / 2))


def _add_moments(moments: list[float], values: Any) -> None:
    moments[0] += len(values)
    moments[1] += float(np.sum(values))
    moments[2] += float(np.sum(np.square(values)))
