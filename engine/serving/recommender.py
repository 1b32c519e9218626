"""The recommender: answers requests with logged rankings, and applies incoming events to the state at once.

Processes share events through the journal: each request and each write first applies what other processes wrote. So a
click that one process records changes the next ranking of every other process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any, TypeVar

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.events import Event, ExperimentEvent, InteractionEvent, ItemEvent
from feedrank.engine.experiments.arm_ranking import AssignedRequest
from feedrank.engine.experiments.arm_servers import ArmServers, build_arm_request
from feedrank.engine.experiments.bucketing import Assignment
from feedrank.engine.experiments.shadows import ShadowInputs, ShadowRunner
from feedrank.engine.experiments.spec import Arm
from feedrank.engine.journal.journal import JournalError
from feedrank.engine.protocols import EventLog
from feedrank.engine.serving.background import LatestFirstQueue
from feedrank.engine.serving.batch_ranking import rank_batch
from feedrank.engine.serving.deadline import LatencyBudget, unlimited_budget
from feedrank.engine.serving.pipeline import FallbackChain, Pipeline, StateChangedError
from feedrank.engine.serving.prefetching import precompute_scores
from feedrank.engine.serving.ranking_record import RankingRecord, UnloggableRankingError
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import PlainRequest, ServingSnapshot, embed_query
from feedrank.engine.types import Candidates, Matrix, QueryVectors, Scores

JOURNAL_RETRY_S = 1.0
"""Seconds after a journal error before a request uses the journal again."""
MAX_ATTEMPTS = 4
"""How often a request is ranked again because its user's history changed meanwhile; the last time nothing can."""
MAX_SKEW_MS = 1_000
"""Milliseconds that the time of a ranking may be ahead of the process's clock, as those of other processes may be."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Recommender:
    """Answers requests from the serving snapshot; thread-safe, and safe next to other processes on the same journal."""

    def __init__(
        self, snapshot: ServingSnapshot, journal: EventLog, prefetch_queue_size: int = 0,
        arm_servers: ArmServers | None = None,
    ) -> None:  # fmt: skip
        """prefetch_queue_size: users who may wait for precomputed cross-encoder scores; 0: none are precomputed."""
        self._snapshot = snapshot
        self._journal = journal
        self._items_changed_callback: Callable[[], None] = lambda: None
        self._ranked_callback: Callable[[Matrix, Scores], None] = lambda features, scores: None
        self._prefetch_queue_size = prefetch_queue_size
        self.prefetch_queue = self._new_prefetch_queue()
        self.arm_servers = arm_servers or ArmServers()
        """The experiments and their arms' snapshots; changed only under the lock."""
        self.shadows: ShadowRunner | None = None
        """Runs shadow arms; None: shadow experiments are not run."""
        self._fallback_chain = FallbackChain()
        self.state_lock = threading.RLock()
        """Held while the state of the serving snapshot is read or changed."""
        self._journal_retry_at = -np.inf
        self.lag_s = 0.0
        """Seconds: age of the newest event when new events were last read here."""
        self.has_caught_up = True
        """Whether the last read of the journal succeeded; otherwise rankings use an older state."""

    def on_items_changed(self, callback: Callable[[], None]) -> None:
        """Register the callback for new item events, from this or another process; it must return quickly."""
        self._items_changed_callback = callback

    def on_ranked(self, callback: Callable[[Matrix, Scores], None]) -> None:
        """Register the callback for the feature rows and scores of all candidates; it must return quickly."""
        self._ranked_callback = callback

    @property
    def snapshot(self) -> ServingSnapshot:
        """The current serving snapshot."""
        return self._snapshot

    @property
    def pipeline(self) -> Pipeline:
        """The current pipeline."""
        return self._snapshot.pipeline

    @property
    def catalogue(self) -> Catalogue:
        """The current catalogue."""
        return self._snapshot.catalogue

    def recommend(
        self, ranking_id: str, at: float, request: RecommendationRequest | None = None,
        budget: LatencyBudget | None = None, log: bool = True, arm: Arm | None = None,
    ) -> RankingRecord:  # fmt: skip
        """Recommend items for a user, or rank the given ones, and return the record of the ranking.

        at: unix seconds. The ranking is written to the journal before it is returned, unless `log` is false. If the
        journal already has a ranking of this request with this id, that one is returned. If the journal can't be
        written, the ranking is returned with `logged` false, and the state does not change. arm: use this arm and
        ignore all experiments. Raises EventError for a request that can't be logged, DuplicateRankingIdError if another
        event or request has the id, RuntimeError if all fallbacks fail.
        """
        request, budget = request or RecommendationRequest(), budget or unlimited_budget()
        request.check(ranking_id)
        for attempt in range(MAX_ATTEMPTS):
            snapshot, servers = self._snapshot, self.arm_servers
            job: PlainRequest | AssignedRequest = PlainRequest(ranking_id, request, snapshot)
            if arm is not None:
                job = AssignedRequest(ranking_id, request, snapshot, servers, Assignment(arm=arm))
            elif log and servers.active:  # a ranking that is not logged is in no experiment
                assignment = servers.assign(snapshot, request, ranking_id, round(at * 1000))
                job = AssignedRequest(ranking_id, request, snapshot, servers, assignment)
            try:
                # the last attempt keeps others out, so that it can't fail
                with self.state_lock if attempt == MAX_ATTEMPTS - 1 else nullcontext():
                    record = self._rank(job, at, budget)
            except StateChangedError:
                continue
            if budget.skipped:
                record = replace(record, degraded=tuple(budget.skipped))
            if log and record.items:
                record = self._log_ranking(record, at)
                budget.record("journal")
            if log and isinstance(job, AssignedRequest) and job.assignment.shadows and self.shadows is not None:
                self.shadows.submit(record, request, job.assignment.shadows)
            return record
        raise RuntimeError(f"an arm of the experiments {self.arm_servers.registry.bundles} is not loaded; try again")

    def _rank(self, job: PlainRequest | AssignedRequest, at: float, budget: LatencyBudget) -> RankingRecord:
        """Rank a request: read the state under the lock, and do all that is slow without it.

        Raises StateChangedError if the snapshot or the user's history changed meanwhile.
        """
        vectors = job.embed_queries(budget)
        with self.state_lock:
            self._catch_up(at)
            budget.record("catch_up")
            timestamp = self._next_timestamp(at)  # also the logged time: a replay reads the state as of it
            jobs: Sequence[Any] = job.resolve(timestamp, vectors, self.state_lock)
            if not jobs or jobs[0].snapshot.is_replaced:
                raise StateChangedError("another snapshot serves now")
        return job.rank(jobs, self._fallback_chain, budget, self._ranked_callback)

    def recommend_batch(self, at: float, requests: Sequence[RecommendationRequest]) -> list[RankingRecord]:
        """Recommend for many users at one moment, without a query, an experiment or a log entry; see `rank_batch`."""
        with self.state_lock:
            self._catch_up(at)
            return rank_batch(self._snapshot, self._next_timestamp(at), requests, self._fallback_chain)

    def similar(self, at: float, item: str, n: int) -> Candidates | None:
        """Return the n items that recall finds for a history of only this item; None for an unknown item."""
        snapshot = self._snapshot
        row = snapshot.catalogue.ids.row(item)
        if row < 0:
            return None
        with self.state_lock:
            resolved = snapshot.resolve(at, RecommendationRequest(history=(item,)), QueryVectors())
        return snapshot.pipeline.recall(resolved, n, self.state_lock)

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, whichever process wrote it, or None."""
        return self._journal.find(event_id)

    def record(self, events: Sequence[Event], at: float) -> list[bool]:
        """Write events received at `at` (unix seconds) to the journal, then apply the new ones to the state.

        Returns per event whether it was new. The moment of the write is their `received`. Raises JournalError.
        """
        is_new = self._journal.record(events, round(at * 1000))
        with self.state_lock:
            self._catch_up(at)
        if self.prefetch_queue is not None:
            meanings = self._snapshot.meanings
            for event, new in zip(events, is_new, strict=True):
                if new and isinstance(event, InteractionEvent) and event.user and meanings.of(event.type).changes_feeds:
                    self.prefetch_queue.submit(event.user, event.user)
        return is_new

    def erase_user(self, user: str, tombstone_id: str, at: float) -> int:
        """Erase a user from the journal and the state of all processes; return the number of deleted events.

        Only a tombstone event with this id stays, and it names nobody. Raises JournalError.
        """
        n_deleted = self._journal.erase_user(user, tombstone_id, round(at * 1000))  # slow, so it runs without the lock
        self._journal_retry_at = -np.inf
        self.catch_up(at)
        return n_deleted

    def catch_up(self, at: float) -> None:
        """Apply what other processes wrote, without a request."""
        with self.state_lock:
            self._catch_up(at)
            self.arm_servers.catch_up()

    def read_snapshot(self, at: float, read: Callable[[ServingSnapshot], T], bundle: str = "") -> T:
        """Return what `read` quickly makes of a snapshot, which does not change meanwhile. bundle: that of an arm."""
        with self.state_lock:
            self._catch_up(at)
            if bundle:
                self.arm_servers.catch_up()
            return read(self.arm_servers.snapshots[bundle] if bundle else self._snapshot)

    def swap_snapshot(self, build: Callable[[ServingSnapshot], ServingSnapshot], at: float) -> None:
        """Replace the serving snapshot. build: makes the new one from the current one; it must be quick.

        The new snapshot first applies the events that it has not seen, so no event is lost.
        """
        with self.state_lock:
            self._catch_up(at)
            snapshot = build(self._snapshot)
            snapshot.catch_up(self._journal.read(snapshot.offset))
            snapshot.high_watermark_ms = max(snapshot.high_watermark_ms, self._next_timestamp(at))
            before, self._snapshot = self._snapshot, snapshot
            before.is_replaced = before is not snapshot
            if self.prefetch_queue is None:
                self.prefetch_queue = self._new_prefetch_queue()

    def add_arm_snapshot(self, snapshot: ServingSnapshot, at: float) -> None:
        """Add the snapshot of another bundle that experiment arms may use."""
        with self.state_lock:
            self._catch_up(at)
            current_offset = self._snapshot.offset  # later events are applied to both snapshots together
            missed = takewhile(lambda entry: entry[0] <= current_offset, self._journal.read(snapshot.offset))
            snapshot.catch_up(missed, round(at * 1000))
            snapshot.high_watermark_ms = max(snapshot.high_watermark_ms, self._next_timestamp(at))
            self.arm_servers.add_snapshot(snapshot)

    def replace_arm_snapshot(self, bundle: str, build: Callable[[ServingSnapshot], ServingSnapshot], at: float) -> None:
        """Replace the snapshot of an arm's bundle; otherwise like `swap_snapshot`."""
        with self.state_lock:
            self._catch_up(at)
            self.arm_servers.replace_snapshot(bundle, build)

    def remove_arm_snapshot(self, bundle: str) -> None:
        """Remove the snapshot of a bundle that no experiment uses any more."""
        with self.state_lock:
            self.arm_servers.remove_snapshot(bundle)

    def read_shadow_inputs(
        self, arm: Arm, record: RankingRecord, request: RecommendationRequest
    ) -> ShadowInputs | None:
        """Read what a shadow arm needs to rank an answered request; None if the arm's bundle is not loaded."""
        at = record.timestamp / 1000
        vectors = embed_query(self.arm_servers.snapshot_of(arm.bundle, self._snapshot), request, unlimited_budget())
        for attempt in range(MAX_ATTEMPTS):
            with self.state_lock:
                snapshot = self.arm_servers.snapshot_for_user(arm.bundle, self._snapshot, request.user)
            if snapshot is None:
                return None
            served = build_arm_request("", arm, snapshot, request)
            with suppress(StateChangedError), self.state_lock if attempt == MAX_ATTEMPTS - 1 else nullcontext():
                return ShadowInputs.read(served, vectors, at, record.items, self.state_lock)
        return None

    def _log_ranking(self, record: RankingRecord, at: float) -> RankingRecord:
        """Write a ranking to the journal; return it, or the ranking that already has its id."""
        if at >= self._journal_retry_at:
            try:
                is_new = self._journal.record([record.to_event()], round(at * 1000), checked=True)[0]
                return record if is_new else self._logged_ranking(record)
            except UnloggableRankingError:
                _log.exception("the ranking is returned without being logged, as it could not be read back")
            except JournalError:
                _log.exception("the ranking could not be written to the journal; it is returned without being logged")
                self._journal_retry_at = at + JOURNAL_RETRY_S
        return replace(record, logged=False)

    def _logged_ranking(self, record: RankingRecord) -> RankingRecord:
        """Return the ranking that was logged with the id of this one, if it answers the same request."""
        return record.check_same_request(self._journal.find(record.id))

    def _catch_up(self, at: float) -> None:
        if at < self._journal_retry_at:
            return
        now_ms = round(at * 1000)
        try:
            missed = self._snapshot.catch_up(self._journal.read(self._snapshot.offset), now_ms)
        except Exception:  # a ranking of an older state is better than none
            _log.exception("the journal could not be read; rankings use the state as of the last read")
            self._journal_retry_at, self.has_caught_up = at + JOURNAL_RETRY_S, False
            return
        self.has_caught_up = True
        if missed:
            self.lag_s = max(0.0, at - self._snapshot.high_watermark_ms / 1000)
            self._notify(missed)
        if self.arm_servers.snapshots:
            self.arm_servers.set_clock(now_ms)

    def _notify(self, events: Sequence[Event]) -> None:
        """Pass new events to the experiments, and report new item events."""
        if self.arm_servers.snapshots or any(isinstance(event, ExperimentEvent) for event in events):
            self.arm_servers.observe(events, self._snapshot.offset)
        if any(isinstance(event, ItemEvent) for event in events):
            self._items_changed_callback()

    def _next_timestamp(self, at: float) -> int:
        """Return the clock in epoch milliseconds, or the latest time of an event if that is up to `MAX_SKEW_MS` ahead.

        Replays go by these times. No stored event moves them further.
        """
        snapshot, now_ms = self._snapshot, round(at * 1000)
        snapshot.high_watermark_ms = max(now_ms, min(snapshot.high_watermark_ms, now_ms + MAX_SKEW_MS))
        return snapshot.high_watermark_ms

    def _new_prefetch_queue(self) -> LatestFirstQueue[str] | None:
        if not self._prefetch_queue_size or self._snapshot.pipeline.reranker is None:
            return None
        return LatestFirstQueue(
            lambda user: precompute_scores(self._snapshot, user, self.state_lock), self._prefetch_queue_size
        )
