"""What answers come from at a time: a pipeline, the ids around it, and the state as far as the journal was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.asked import Asked, FilterIds
from engine.catalogue import Catalogue
from engine.events import Event, forgotten, known_from
from engine.ids import Ids
from engine.log import columns
from engine.pipeline import Pipeline
from engine.protocols import State
from engine.types import Filters, Matrix, QueryVectors, Request, Times, no_rows


@dataclass(eq=False, slots=True)
class Live:
    """One generation of what serves; another one takes its place as a whole."""

    catalogue: Catalogue
    people: Ids
    """The ids behind the state's rows."""
    state: State
    pipeline: Pipeline
    vectors: Matrix
    """(n, d) of the items: how alike two of them are."""
    encode: Callable[[str], QueryVectors] | None = None
    """A query to its vectors; None: BM25 alone reads it."""
    offset: int = 0
    """Of the last event of the journal that the state has seen."""
    items_offset: int = 0
    """Of the last item event that the catalogue has taken in."""
    latest: int = 0
    """Epoch milliseconds: nothing that the state has seen became known after this."""

    def observe(self, events: Sequence[Event]) -> None:
        """Learn from events, in the order of the journal, and forget whom they say to forget."""
        first = 0
        for place, event in enumerate(events):
            if (user := forgotten(event)) is not None:
                self._advance(events[first:place])
                self.state.forget(self.people.row(user))
                first = place + 1
        self._advance(events[first:])

    def catch_up(self, events: Iterable[tuple[int, Event]]) -> list[Event]:
        """Learn from (offset, event) of the journal that the state has not seen; these events."""
        missed = [(offset, event) for offset, event in events if offset > self.offset]
        found = [event for _, event in missed]
        self.observe(found)
        if missed:
            self.offset = missed[-1][0]
        return found

    def request(self, at: float, asked: Asked, vectors: QueryVectors) -> Request:
        """A question resolved to rows, with what is known of its person."""
        person = self.people.row(asked.user)
        touched, times = self.state.touched(person)
        own = touched
        if asked.history is not None:
            rows = self.catalogue.ids.rows(asked.history)
            own = rows[rows >= 0]
            own_times: Times = np.full(len(own), np.nan)
            touched, times = np.concatenate([own, touched]).astype(np.int32), own_times
        return Request(
            at=at,
            person=person,
            history=own,
            history_at=times,
            touched=touched,
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
