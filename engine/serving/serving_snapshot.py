"""The serving snapshot: one pipeline with its catalogue, user ids and behavioural state up to a journal offset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import columns
from feedrank.engine.events.events import Event, forgotten, known_from
from feedrank.engine.events.vocabulary import Ids
from feedrank.engine.protocols import State
from feedrank.engine.serving.deadline import Watch
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import Asked, FilterIds
from feedrank.engine.types import Filters, Matrix, QueryVectors, Request, Times, no_rows

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Live:
    """All that answers are computed from; it is replaced as a whole, for example for a new bundle."""

    catalogue: Catalogue
    people: Ids
    """User ids, in the order of the state's user rows."""
    state: State
    pipeline: Pipeline
    vectors: Matrix
    """(n, d) item vectors for the similarity of two items."""
    encode: Callable[[str], QueryVectors] | None = None
    """Encodes a query to vectors; None: queries are matched by BM25 only."""
    offset: int = 0
    """Journal offset of the last event applied to the state."""
    items_offset: int = 0
    """Journal offset of the last item event applied to the catalogue."""
    latest: int = 0
    """Epoch milliseconds: the latest effective time of any event applied to the state."""

    def observe(self, events: Sequence[Event]) -> None:
        """Apply events to the state in journal order; a tombstone erases its user."""
        first = 0
        for index, event in enumerate(events):
            if (user := forgotten(event)) is not None:
                self._advance(events[first:index])
                self.state.forget(self.people.row(user))
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

    def request(self, at: float, asked: Asked, vectors: QueryVectors) -> Request:
        """Resolve a request to rows and add the user's history. at: unix seconds."""
        user = self.people.row(asked.user)
        interacted, times = self.state.touched(user)
        history = interacted
        if asked.history is not None:
            rows = self.catalogue.ids.rows(asked.history)
            history = rows[rows >= 0]
            unknown_times: Times = np.full(len(history), np.nan)
            interacted, times = np.concatenate([history, interacted]).astype(np.int32), unknown_times
        return Request(
            at=at,
            person=user,
            history=history,
            history_at=times,
            touched=interacted,
            query=asked.query,
            query_vector=vectors.text,
            query_tokens=vectors.tokens,
            filters=self._filters(asked.filters),
        )

    def _advance(self, events: Sequence[Event]) -> None:
        if events:
            self.state.advance(columns(events, self.catalogue.ids, self.people))
            self.latest = max(self.latest, max(map(known_from, events)))

    def _filters(self, filters: FilterIds) -> Filters:
        ids, categories = self.catalogue.ids, self.catalogue.categories
        codes = None
        if filters.categories is not None:
            codes = categories.rows(filters.categories)
            codes = codes[codes >= 0]
        return Filters(
            seen=filters.seen,
            categories=codes,
            allow=None if filters.allow is None else ids.rows(filters.allow),
            deny=ids.rows(filters.deny) if filters.deny else no_rows(),
        )


def embed_query(live: Live, asked: Asked, watch: Watch) -> QueryVectors:
    """Encode the query of a request; empty vectors if there is none, no encoder, no time, or an error."""
    if not asked.query or live.encode is None:
        return QueryVectors()
    if not (watch.knows("encode") and watch.allows("encode", "recall", "features", "rank", "journal")):
        watch.skip("encode")
        return QueryVectors()
    try:
        vectors = live.encode(asked.query)
    except Exception:  # BM25 needs no model
        _log.exception("the query could not be encoded; using BM25 only")
        watch.skip("encode")
        return QueryVectors()
    watch.mark("encode")
    return vectors
