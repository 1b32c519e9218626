"""The serving snapshot, and the requests that it ranks.

A snapshot is one pipeline with its catalogue, user ids and behavioural state up to a journal offset.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.arrived_events import arrived_events_to_table
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.erasure import Erasure
from feedrank.engine.events.event_time import MAX_AHEAD_MS, NO_CLOCK, FutureEvents
from feedrank.engine.events.events import Event, RankingEvent, UserEvent, effective_time
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.interaction_types import InteractionTypes
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.vocabulary import Vocabulary, joined_session, visitor_name
from feedrank.engine.protocols import State
from feedrank.engine.retrieval.diversity import diversify
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.pipeline import FallbackChain, Pipeline, Reading, StateChangedError
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest, declared_fields
from feedrank.engine.types import (
    UNKNOWN_ROW,
    Filters,
    Matrix,
    QueryVectors,
    Ranking,
    ResolvedRequest,
    Scores,
    Times,
    empty_rows,
)

OnRanked = Callable[[Matrix, Scores], None]
"""Called with the (N, F) features and (N,) scores of all candidates of a ranking."""
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class ServingSnapshot:
    """All that answers are computed from; it is replaced as a whole, for example for a new bundle."""

    catalogue: Catalogue
    users: Vocabulary
    """User ids, in the order of the state's user rows."""
    state: State
    pipeline: Pipeline
    item_vectors: Matrix
    """(n, d) item vectors for the similarity of two items."""
    encode_query: Callable[[str], QueryVectors] | None = None
    """Encodes a query to vectors; None: queries are matched by BM25 only."""
    offset: int = 0
    """Journal offset of the last event applied to the state."""
    items_offset: int = 0
    """Journal offset of the last item event applied to the catalogue."""
    latest_ms: int = 0
    """Epoch milliseconds: the latest effective time of any event applied to the state."""
    high_watermark_ms: int = 0
    """Epoch milliseconds: the latest time of any event applied to the state, or of any ranking made."""
    meanings: InteractionTypes = field(default_factory=InteractionTypes)
    """What the interaction types mean to the state."""
    future: FutureEvents = field(default_factory=lambda: FutureEvents(NO_CLOCK))
    """The process's clock, and events that are ahead of it, which take effect when their time has come."""
    is_replaced: bool = False
    """Whether another snapshot serves now; events are not applied to this one any more."""
    is_as_replayed: bool = True
    """Whether a replay surely gives this state: no user was erased, and services wrote all new events, in order."""

    def set_clock(self, now_ms: int) -> None:
        """Set the clock, and apply the postponed events whose time has come."""
        self.observe((), now_ms)

    def observe(self, events: Sequence[Event], now_ms: int | None = None) -> None:
        """Apply new events in the order of the journal, with postponed ones; a tombstone erases its user.

        Events that are more than a day ahead of the clock are postponed: no event takes effect before its time.
        now_ms: sets the clock, in epoch milliseconds; None: it stays.
        """
        self.future.now_ms = self.future.now_ms if now_ms is None else now_ms
        due = self.future.release(self.future.now_ms) if self.future.postponed else []
        self.is_as_replayed &= not due
        first, limit_ms = 0, self.future.now_ms + MAX_AHEAD_MS
        # `effective_time` of each, written out: each request passes here
        if any((event.timestamp if event.received is None else event.received) > limit_ms for event in events):
            _log.warning("new events: %s", *FutureEvents.of(self.future.now_ms, events).notes)
            events = [event for event in events if not self.future.is_ahead(event)]
            self.is_as_replayed = False
        for index, event in enumerate(events):
            if isinstance(event, UserEvent) and (erasure := Erasure.from_event(event)) is not None:
                due = [event for event in due if not erasure.concerns(event)]
                self._advance(events[first:index])
                self._erase(erasure)
                first = index + 1
        self._advance(events[first:], due)

    def catch_up(self, events: Iterable[tuple[int, Event]], now_ms: int | None = None) -> list[Event]:
        """Apply the (offset, event) pairs that are newer than `offset`; return these events. now_ms: see `observe`."""
        missed = [(offset, event) for offset, event in events if offset > self.offset]
        new_events = [event for _, event in missed]
        self.observe(new_events, now_ms)
        self.offset = missed[-1][0] if missed else self.offset
        return new_events

    def taking_over(self, serving: ServingSnapshot) -> ServingSnapshot:
        """Return this snapshot as of the one that serves, if both have one state: no other one applies events then."""
        names = ("offset", "latest_ms", "high_watermark_ms", "future", "is_as_replayed")
        is_shared = self.state is serving.state
        return replace(self, **{name: getattr(serving, name) for name in names}) if is_shared else self

    def resolve(self, at: float, request: RecommendationRequest, vectors: QueryVectors) -> ResolvedRequest:
        """Resolve a request to rows and add the user's history. at: unix seconds."""
        user = self.users.row(visitor_name(request.user, request.session))
        session = joined_session(self.users, request.user, request.session)
        interacted, times = self.state.history(user)
        if session != UNKNOWN_ROW:
            before, before_at = self.state.history(session)
            interacted, times = np.concatenate([before, interacted]), np.concatenate([before_at, times])
        disliked = self.state.disliked(user, session)
        if len(self.state.items) > (n := len(self.catalogue.ids)):  # items that recall and features do not know yet
            interacted, times, disliked = interacted[interacted < n], times[interacted < n], disliked[disliked < n]
        declared = {} if self.state.forms is None else declared_fields(request, self.catalogue)
        history = interacted
        if request.history is not None:
            rows = self.catalogue.ids.rows(request.history)
            history = rows[rows >= 0]
            unknown_times: Times = np.full(len(history), np.nan)
            interacted, times = np.concatenate([history, interacted]).astype(np.int32), unknown_times
        return ResolvedRequest(
            at=at,
            user=user,
            session=session,
            session_id=request.session,
            history=history,
            history_at=times,
            interacted=interacted,
            disliked=disliked,
            query=request.query,
            query_vector=vectors.text,
            query_tokens=vectors.tokens,
            filters=self._resolve_filters(request.filters),
            **declared,
        )

    def is_ahead(self, now_ms: int) -> bool:
        """Return whether the state has events that are more than a day ahead of the clock, which was wrong before."""
        return self.latest_ms > now_ms + MAX_AHEAD_MS

    def _erase(self, erasure: Erasure) -> None:
        """Drop a user from the state, from the postponed events and from the cached cross-encoder scores."""
        self.is_as_replayed = False
        for row in (*erasure.rows(self.users), *erasure.session_rows(self.users)):
            self.state.erase_user(row)
        self.future.erase(erasure)
        if self.pipeline.reranker is not None:
            self.pipeline.reranker.cache.forget()

    def visitor_version(self, user: str | None, session: str | None) -> Hashable:
        """Return a value that changes whenever the row, the history or the dislikes of a visitor change."""
        rows = self.users.row(visitor_name(user, session)), joined_session(self.users, user, session)
        return rows, *map(self.state.user_version, rows)

    def _advance(self, events: Sequence[Event], due: Sequence[Event] = ()) -> None:
        if len(events) == 1 and isinstance(events[0], RankingEvent) and not due and self.state.forms is None:
            self._advance_by_ranking(events[0])
        elif events or due:
            arrivals = ItemArrivals(self.state.items, self.state.item_fields)
            fields = None if self.state.forms is None else FieldCollector(self.state.forms)
            self.state.advance(arrived_events_to_table(events, arrivals, self.users, fields, due))
            for event in (*events, *due):
                self._raise_times(effective_time(event), event.received is not None)

    def _advance_by_ranking(self, event: RankingEvent) -> None:
        """Apply a single ranking, as each request logs one: with the bits of an event table, without making one."""
        known_ms = event.timestamp if event.received is None else event.received
        name = visitor_name(event.user, event.session)
        user = UNKNOWN_ROW if name is None else self.users.add(name)
        session = joined_session(self.users, event.user, event.session)
        rows = self.state.items.rows(event.items)
        self.state.observe_ranking(min(event.timestamp, known_ms) / 1000, user, session, rows)
        self._raise_times(known_ms, event.received is not None)

    def _raise_times(self, time_ms: int, is_received: bool) -> None:
        """Note the effective time of an event that was applied. is_received: by a service; False: it was imported."""
        if not is_received or time_ms < self.latest_ms:
            self.is_as_replayed = False
        self.high_watermark_ms, self.latest_ms = max(self.high_watermark_ms, time_ms), max(self.latest_ms, time_ms)

    def _resolve_filters(self, filters: FilterSpec) -> Filters:
        ids, categories = self.catalogue.ids, self.catalogue.categories
        codes = None
        if filters.categories is not None:
            codes = categories.rows(filters.categories)
            codes = codes[codes >= 0]
        return Filters(
            include_seen=filters.include_seen,
            include_disliked=filters.include_disliked,
            categories=codes,
            allow=None if filters.allow is None else ids.rows(filters.allow),
            deny=ids.rows(filters.deny) if filters.deny else empty_rows(),
        )


def embed_query(snapshot: ServingSnapshot, request: RecommendationRequest, budget: LatencyBudget) -> QueryVectors:
    """Encode the query of a request; empty vectors if there is none, no encoder, no time, or an error."""
    if not request.query or snapshot.encode_query is None:
        return QueryVectors()
    if not (
        budget.may_start("encode_query")
        and budget.has_time_for("encode_query", "recall", "features", "rank", "journal")
    ):
        budget.skip("encode_query")
        return QueryVectors()
    try:
        vectors = snapshot.encode_query(request.query)
    except Exception:  # BM25 needs no model
        _log.exception("the query could not be encoded; using BM25 only")
        budget.skip("encode_query")
        return QueryVectors()
    budget.record("encode_query")
    return vectors


class StateReading:
    """Reads the state of a snapshot for one ranking, between the events that other threads apply to it.

    Holds the lock while the state is read. Recall runs before that, without the lock; so the reading first checks that
    nothing of what the request was resolved from has changed since.
    """

    def __init__(self, snapshot: ServingSnapshot, request: RecommendationRequest, lock: Reading) -> None:
        """Start a reading for a request; the caller holds the lock."""
        self._snapshot, self._lock = snapshot, lock
        self._visitor = request.user, request.session
        self._version = snapshot.visitor_version(*self._visitor)
        self.offset = snapshot.offset
        """Journal offset of the last event that the state included when it was read."""

    def __enter__(self) -> None:
        """Take the lock. Raises StateChangedError if the request must be resolved again."""
        self._lock.__enter__()
        snapshot = self._snapshot
        if snapshot.is_replaced or snapshot.visitor_version(*self._visitor) != self._version:
            self._lock.__exit__(None, None, None)
            raise StateChangedError(f"the state of {self._visitor!r} changed while candidates were selected")
        self.offset = snapshot.offset

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class RankingJob:
    """A request at its moment, with the snapshot and the pipeline that rank it."""

    id: str
    """Id of the ranking to make."""
    timestamp: int
    """Epoch milliseconds."""
    request: RecommendationRequest
    resolved: ResolvedRequest
    """The request in rows, with the user's history."""
    snapshot: ServingSnapshot
    pipeline: Pipeline
    reading: StateReading
    """How the ranking reads the state."""

    def rank_candidates(self, chain: FallbackChain, budget: LatencyBudget, on_ranked: OnRanked) -> tuple[str, Ranking]:
        """Return the fallback level that succeeded and its ranking of all candidates."""
        catalogue = self.snapshot.catalogue
        explicit = None if self.request.items is None else catalogue.ids.rows(self.request.items)
        level, ranking = chain.run(self.pipeline, catalogue, self.resolved, budget, explicit, self.reading)
        on_ranked(ranking.features, ranking.scores)
        return level, ranking

    def select_items(self, ranking: Ranking, budget: LatencyBudget) -> NDArray[np.int64]:
        """(n,) indices into the ranking of the items to show: the best, diversified if the request asks for it."""
        n, diversity, snapshot = self.request.n, self.request.diversity, self.snapshot
        if not (diversity.weight or diversity.per_category):
            return np.arange(min(n, len(ranking.order)))
        vectors = snapshot.item_vectors
        indices = diversify(ranking.rows, ranking.scores, n, diversity, snapshot.catalogue, vectors)
        budget.record("diversity")
        return indices


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request in no experiment: one pipeline ranks it. `AssignedRequest` has the same methods."""

    ranking_id: str
    request: RecommendationRequest
    snapshot: ServingSnapshot

    def embed_queries(self, budget: LatencyBudget) -> dict[str, QueryVectors]:
        """Encode the query. Slow: call it without the lock."""
        return {"": embed_query(self.snapshot, self.request, budget)}

    def resolve(self, timestamp: int, vectors: dict[str, QueryVectors], lock: Reading) -> list[RankingJob]:
        """Resolve the request as of a moment, in epoch milliseconds; the caller holds the lock of the state."""
        snapshot = self.snapshot
        resolved = snapshot.resolve(timestamp / 1000, self.request, vectors[""])
        reading = StateReading(snapshot, self.request, lock)
        return [RankingJob(self.ranking_id, timestamp, self.request, resolved, snapshot, snapshot.pipeline, reading)]

    def rank(
        self, jobs: Sequence[RankingJob], chain: FallbackChain, budget: LatencyBudget, on_ranked: OnRanked
    ) -> RankingRecord:
        """Rank the candidates and keep the items to show. Call it without the lock. Raises StateChangedError."""
        (job,) = jobs
        level, ranking = job.rank_candidates(chain, budget, on_ranked)
        return RankingRecord.from_ranking(job, level, ranking.take(job.select_items(ranking, budget)))
