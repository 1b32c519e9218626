"""The serving snapshot: one pipeline with its catalogue, user ids and behavioural state up to a journal offset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import events_to_table
from feedrank.engine.events.events import Event, effective_time, erased_user
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.protocols import State
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest
from feedrank.engine.types import Filters, Matrix, QueryVectors, ResolvedRequest, Times, empty_rows

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
    high_watermark_ms: int = 0
    """Epoch milliseconds: the latest effective time of any event applied to the state."""

    def observe(self, events: Sequence[Event]) -> None:
        """Apply events to the state in journal order; a tombstone erases its user."""
        first = 0
        for index, event in enumerate(events):
            if (user := erased_user(event)) is not None:
                self._advance(events[first:index])
                self.state.erase_user(self.users.row(user))
                first = index + 1
        self._advance(events[first:])

    def catch_up(self, events: Iterable[tuple[int, Event]]) -> list[Event]:
        """Apply the (offset, event) pairs that are newer than `offset`; return these events."""
        missed = [(offset, event) for offset, event in events if offset > self.offset]
        new_events = [event for _, event in missed]
        self.observe(new_events)
        if missed:
            self.offset = missed[-1][0]
        return new_events

    def resolve(self, at: float, request: RecommendationRequest, vectors: QueryVectors) -> ResolvedRequest:
        """Resolve a request to rows and add the user's history. at: unix seconds."""
        user = self.users.row(request.user)
        interacted, times = self.state.history(user)
        history = interacted
        if request.history is not None:
            rows = self.catalogue.ids.rows(request.history)
            history = rows[rows >= 0]
            unknown_times: Times = np.full(len(history), np.nan)
            interacted, times = np.concatenate([history, interacted]).astype(np.int32), unknown_times
        return ResolvedRequest(
            at=at,
            user=user,
            history=history,
            history_at=times,
            interacted=interacted,
            query=request.query,
            query_vector=vectors.text,
            query_tokens=vectors.tokens,
            filters=self._resolve_filters(request.filters),
        )

    def _advance(self, events: Sequence[Event]) -> None:
        if events:
            self.state.advance(events_to_table(events, self.catalogue.ids, self.users))
            self.high_watermark_ms = max(self.high_watermark_ms, max(map(effective_time, events)))

    def _resolve_filters(self, filters: FilterSpec) -> Filters:
        ids, categories = self.catalogue.ids, self.catalogue.categories
        codes = None
        if filters.categories is not None:
            codes = categories.rows(filters.categories)
            codes = codes[codes >= 0]
        return Filters(
            include_seen=filters.include_seen,
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
