"""The recommender: answers requests with logged rankings, and applies incoming events to the state at once.

Processes share events through the journal: each request and each write first applies what other processes wrote. So a
click that one process records changes the next ranking of every other process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.events import (
    FORGOTTEN,
    Event,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
    known_from,
)
from feedrank.engine.events.logged_features import served_here
from feedrank.engine.experiments.arm_ranking import as_one, list_of
from feedrank.engine.experiments.arm_servers import Trials, serving
from feedrank.engine.experiments.bucketing import NOT_ENROLLED, Enrolled
from feedrank.engine.experiments.shadows import Shadows, Sight
from feedrank.engine.experiments.spec import Arm
from feedrank.engine.journal.journal import JournalError
from feedrank.engine.protocols import EventLog
from feedrank.engine.serving.background import Ahead
from feedrank.engine.serving.deadline import Watch, no_watch
from feedrank.engine.serving.fallback import Ladder
from feedrank.engine.serving.impression import ranking_event
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import Asked
from feedrank.engine.serving.serving_snapshot import Live, embed_query
from feedrank.engine.types import Candidates, Matrix, QueryVectors, Scores

REST_S = 1.0
"""Seconds after a journal error before a request uses the journal again."""
_log = logging.getLogger(__name__)


class IdTaken(ValueError):
    """Raised if the id of a new ranking already belongs to another event."""


class Recommender:
    """Answers requests from the serving snapshot; thread-safe, and safe next to other processes on the same journal."""

    def __init__(
        self, live: Live, journal: EventLog, ahead: int = 0,
        trials: Trials | None = None,
    ) -> None:  # fmt: skip
        """prefetch_queue_size: users who may wait for precomputed cross-encoder scores; 0: none are precomputed."""
        self._live = live
        self._journal = journal
        self._items_changed: Callable[[], None] = lambda: None
        self._ranked: Callable[[Matrix, Scores], None] = _nobody
        self._ahead_size = ahead
        self.ahead = self._new_ahead()
        self.trials = trials or Trials()
        """The experiments and their arms' snapshots; changed only under the lock."""
        self.shadows: Shadows | None = None
        """Runs shadow arms; None: shadow experiments are not run."""
        self._ladder = Ladder()
        self._lock = threading.RLock()
        self._rests_until = -np.inf
        self.lag = 0.0
        """Seconds: age of the newest event of other processes when their events were last read here."""

    def when_items_change(self, call: Callable[[], None]) -> None:
        """Register the callback for new item events, from this or another process; it must return quickly."""
        self._items_changed = call

    def when_ranked(self, call: Callable[[Matrix, Scores], None]) -> None:
        """Register the callback for the feature rows and scores of all ranked candidates; it must return quickly."""
        self._ranked = call

    @property
    def live(self) -> Live:
        """The current serving snapshot."""
        return self._live

    @property
    def pipeline(self) -> Pipeline:
        """The current pipeline."""
        return self._live.pipeline

    @property
    def catalogue(self) -> Catalogue:
        """The current catalogue."""
        return self._live.catalogue

    def recommend(
        self, ranking_id: str, at: float, asked: Asked | None = None,
        watch: Watch | None = None, keep: bool = True, arm: Arm | None = None,
    ) -> RankingEvent:  # fmt: skip
        """Recommend items for a user, or rank the given ones, and return the ranking event.

        at: unix seconds. The ranking is written to the journal before it is returned, unless `log` is false. If the
        journal already has a ranking with this id, that one is returned. If the journal can't be written, the ranking
        is returned with `kept: false` in `served`, and the state does not change. arm: use this arm and ignore all
        experiments. Raises DuplicateRankingIdError if another event has the id, RuntimeError if all fallbacks fail.
        """
        asked, watch = asked or Asked(), watch or no_watch()
        while True:
            snapshot, arm_servers = self._live, self.trials
            assignment = NOT_ENROLLED  # a ranking that is not logged is in no experiment
            if arm is not None:
                assignment = Enrolled(arm=arm)
            elif keep:
                assignment = arm_servers.enrol(snapshot, asked, ranking_id, round(at * 1000))
            vectors = {  # slow, so it runs before the lock is taken
                used.bundle: embed_query(arm_servers.peek(used.bundle, snapshot), asked, watch)
                for used in assignment.arms
            }
            with self._lock:
                if snapshot is not self._live:
                    continue
                self._catch_up(at)
                watch.mark("catch_up")
                timestamp = self._moment(at)
                at = timestamp / 1000  # the logged time, so that a replay reads the state at exactly the same time
                arm_requests = arm_servers.servings(snapshot, assignment, asked)
                if arm_requests is None:
                    continue
                lists = []
                for arm_request, used in zip(arm_requests, assignment.arms, strict=True):
                    resolved = arm_request.live.request(at, arm_request.asked, vectors[used.bundle])
                    notify = self._look_at(arm_request.live)
                    lists.append(list_of(arm_request, self._ladder, resolved, ranking_id, watch, notify))
                arm_names = [arm_request.name for arm_request in arm_requests]
                ranked = as_one(lists, arm_names, assignment, asked, ranking_id)
                main = arm_requests[0]
                event = ranking_event(ranking_id, timestamp, main.asked, main.live, ranked, watch.skipped)
                if keep and event.items:
                    event = self._keep(event, at)
                    watch.mark("journal")
            if keep and assignment.shadows and self.shadows is not None:
                self.shadows.ask(event, asked, assignment.shadows)
            return event

    def similar(self, at: float, item: str, n: int) -> Candidates | None:
        """Return the n items that recall finds for a history of only this item; None for an unknown item."""
        snapshot = self._live
        row = snapshot.catalogue.ids.row(item)
        if row < 0:
            return None
        resolved = snapshot.request(at, Asked(history=(item,)), QueryVectors())
        return snapshot.pipeline.retriever.retrieve(resolved, n)

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, whichever process wrote it, or None."""
        return self._journal.find(event_id)

    def record(self, events: Sequence[Event], at: float) -> list[bool]:
        """Write events received at `at` (unix seconds) to the journal, then apply the new ones to the state.

        Returns per event whether it was new. The events' `received` is replaced. Raises JournalError.
        """
        with self._lock:
            received = self._moment(at)
            is_new = self._write([replace(event, received=received) for event in events])
        if self.ahead is not None:
            new_events = (event for event, new in zip(events, is_new, strict=True) if new)
            users = (event.user for event in new_events if isinstance(event, InteractionEvent) and event.user)
            for user in dict.fromkeys(users):
                self.ahead.ask(user, user)
        return is_new

    def forget(self, user: str, note_id: str, at: float) -> int:
        """Erase a user from the journal and the state; return the number of deleted events.

        Only a tombstone event with this id stays; it makes other processes erase the user too. Raises JournalError.
        """
        with self._lock:
            timestamp = self._moment(at)
        tombstone = UserEvent(note_id, timestamp, user, {FORGOTTEN: True}, timestamp)
        n_deleted = self._journal.forget(user, tombstone)  # slow for a long journal, so it runs without the lock
        with self._lock:
            self._rests_until = -np.inf
            self._catch_up(at)
        return n_deleted

    def catch_up(self, at: float) -> None:
        """Apply what other processes wrote, without a request."""
        with self._lock:
            self._catch_up(at)
            self.trials.catch_up()

    def renew(self, make: Callable[[Live], Live], at: float) -> None:
        """Replace the serving snapshot. build: makes the new one from the current one; it must be quick.

        The new snapshot first applies the events that it has not seen, so no event is lost.
        """
        with self._lock:
            self._catch_up(at)
            snapshot = make(self._live)
            snapshot.catch_up(self._journal.read(snapshot.offset))
            snapshot.latest = max(snapshot.latest, self._live.latest)
            self._live = snapshot
            if self.ahead is None:
                self.ahead = self._new_ahead()

    def seat(self, live: Live, at: float) -> None:
        """Add the snapshot of another bundle that experiment arms may use."""
        with self._lock:
            self._catch_up(at)
            current_offset = self._live.offset  # later events are applied to both snapshots together
            live.catch_up(takewhile(lambda entry: entry[0] <= current_offset, self._journal.read(live.offset)))
            live.latest = max(live.latest, self._live.latest)
            self.trials.seat(live)

    def reseat(self, bundle: str, make: Callable[[Live], Live], at: float) -> None:
        """Replace the snapshot of an arm's bundle; otherwise like `swap_snapshot`."""
        with self._lock:
            self._catch_up(at)
            self.trials.reseat(bundle, make)

    def unseat(self, bundle: str) -> None:
        """Remove the snapshot of a bundle that no experiment uses any more."""
        with self._lock:
            self.trials.unseat(bundle)

    def look_on(self, one: Arm, event: RankingEvent, asked: Asked) -> Sight | None:
        """Read what a shadow arm needs to rank an answered request; None if the arm's bundle is not loaded."""
        at = event.timestamp / 1000
        vectors = embed_query(self.trials.peek(one.bundle, self._live), asked, no_watch())
        with self._lock:
            snapshot = self.trials.live_of(one.bundle, self._live, asked.user)
            if snapshot is None:
                return None
            return Sight.read(serving("", one, snapshot, asked), vectors, at, event.items)

    def prepare(self, user: str) -> int:
        """Precompute the cross-encoder scores of a user's next candidates; return how many pairs were scored."""
        with self._lock:
            snapshot = self._live
            if snapshot.pipeline.rescoring is None:
                return 0
            resolved = snapshot.request(snapshot.latest / 1000, Asked(user), QueryVectors())
            candidates = snapshot.pipeline.retriever.retrieve(resolved, snapshot.pipeline.candidates)
        return snapshot.pipeline.rescoring.prepare(resolved, candidates.rows)

    def _look_at(self, live: Live) -> Callable[[Matrix, Scores], None]:
        """Return the `on_ranked` callback for the main snapshot; a no-op for other bundles (other features)."""
        return self._ranked if live is self._live else _nobody

    def _keep(self, event: RankingEvent, at: float) -> RankingEvent:
        """Write a ranking to the journal; return it, or the ranking that already has its id."""
        if at >= self._rests_until:
            try:
                is_new = self._write([event])
                return event if is_new[0] else self._answered(event.id)
            except JournalError:
                _log.exception("the ranking could not be written to the journal; it is returned without being logged")
                self._rests_until = at + REST_S
        return replace(event, extra={**event.extra, "served": {**event.extra["served"], "kept": False}})

    def _answered(self, ranking_id: str) -> RankingEvent:
        """Return the ranking that was logged with this id."""
        logged = self._journal.find(ranking_id)
        if logged is None or not served_here(logged):
            raise IdTaken(f"another event has the id {ranking_id!r}; choose another ranking id")
        return logged

    def _write(self, events: Sequence[Event]) -> list[bool]:
        """Append events to the journal and apply the new ones and those of other writers to the state."""
        snapshot = self._live
        result = self._journal.exchange(events, snapshot.offset)
        new_events = [event for event, is_new in zip(events, result.fresh, strict=True) if is_new]
        snapshot.observe([*result.before, *new_events])
        snapshot.offset = result.offset
        self._note([*result.before, *new_events])
        return result.fresh

    def _catch_up(self, at: float) -> None:
        if at < self._rests_until:
            return
        try:
            missed = self._live.catch_up(self._journal.read(self._live.offset))
        except JournalError:
            _log.exception("the journal could not be read; rankings use the state as of the last read")
            self._rests_until = at + REST_S
            return
        if missed:
            self.lag = max(0.0, at - max(map(known_from, missed)) / 1000)
            self._note(missed)

    def _note(self, events: Sequence[Event]) -> None:
        """Pass new events to the experiments, and report new item events."""
        self.trials.observe(events, self._live.offset)
        if any(isinstance(event, ItemEvent) for event in events):
            self._items_changed()

    def _moment(self, at: float) -> int:
        """Return `at` in epoch milliseconds, never less than before: replays order events by these timestamps."""
        snapshot = self._live
        snapshot.latest = max(snapshot.latest, round(at * 1000))
        return snapshot.latest

    def _new_ahead(self) -> Ahead[str] | None:
        if not self._ahead_size or self._live.pipeline.rescoring is None:
            return None
        return Ahead(self.prepare, self._ahead_size)


def _nobody(features: Matrix, scores: Scores) -> None:
    """Do nothing (no-op callback)."""
