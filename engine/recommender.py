"""The recommender: ids in, a feed out that is a ranking event in the journal; events in, remembered at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.ahead import Ahead
from engine.catalogue import Catalogue
from engine.events import Event, InteractionEvent, RankingEvent
from engine.ids import Ids
from engine.log import columns
from engine.pipeline import Pipeline
from engine.protocols import EventLog, State
from engine.served import stored_features
from engine.types import Filters, QueryVectors, Ranking, Request, Times, no_rows


@dataclass(frozen=True, slots=True)
class FilterIds:
    """Which items may come back, by ids and category names."""

    seen: bool = False
    """May items that the person has touched before come back?"""
    categories: tuple[str, ...] | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class Recommender:
    """Holds what a feed needs; safe to call from several threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        people: Ids,
        state: State,
        pipeline: Pipeline,
        journal: EventLog,
        encode: Callable[[str], QueryVectors] | None = None,
        ahead: int = 0,
    ) -> None:
        """people: the ids behind the state's rows. encode: a query to its vectors; None: BM25 alone reads it.

        ahead: people who may wait for their next feed to be scored ahead, where the pipeline has a second phase.
        """
        self.catalogue = catalogue
        self.pipeline = pipeline
        self._people = people
        self._state = state
        self._journal = journal
        self._encode = encode
        self.ahead = Ahead(self.prepare, ahead) if ahead and pipeline.rescoring else None
        self._lock = threading.RLock()
        self._latest = 0

    def recommend(
        self,
        ranking_id: str,
        at: float,
        user: str | None = None,
        query: str = "",
        history: Sequence[str] | None = None,
        n: int = 10,
        filters: FilterIds | None = None,
        surface: str | None = None,
    ) -> RankingEvent:
        """The n best items for a person (unix seconds `at`), written to the journal before it is returned.

        history: item ids, latest first, in place of what is known of the person; unknown ids are passed over.
        """
        # slow, so before anybody has to wait
        vectors = self._encode(query) if query and self._encode else QueryVectors()
        with self._lock:
            moment = self._moment(at)
            at = moment / 1000  # as it is logged, so that a replay reads the state at the very same moment
            request = self._request(at, user, query, vectors, history, filters or FilterIds())
            ranking = self.pipeline.run(request)
            event = self._event(ranking_id, moment, user, query, history, surface, ranking, n)
            if event.items:
                self._record([event])
        return event

    def _event(
        self, ranking_id: str, moment: int, user: str | None, query: str, history: Sequence[str] | None,
        surface: str | None, ranking: Ranking, n: int,
    ) -> RankingEvent:  # fmt: skip
        shown = ranking.rows[:n]
        extra = {
            "positions": list(range(1, len(shown) + 1)),
            "scores": [float(score) for score in ranking.scores[:n]],
            "bundle": self.pipeline.bundle,
            "features": stored_features(self.pipeline.featurizer.fingerprint, ranking.features[:n]),
        } | ({"surface": surface} if surface else {})
        # all that the order came of besides the journal itself
        asked = ({"query": query} if query else {}) | ({} if history is None else {"history": list(history)})
        return RankingEvent(
            id=ranking_id,
            timestamp=moment,
            items=tuple(self.catalogue.ids.names(shown)),
            user=user,
            fields={"source": ranking.source, **asked},
            extra=extra,
        )

    def record(self, events: Sequence[Event], at: float) -> list[bool]:
        """Write events that came in at `at` (unix seconds) to the journal, then learn from those that were new.

        True for each of these. What an event says of its own arrival is replaced.
        """
        with self._lock:
            moment = self._moment(at)
            fresh = self._record([replace(event, received=moment) for event in events])
        if self.ahead is not None:
            pairs = zip(events, fresh, strict=True)
            users = (one.user for one, new in pairs if new and isinstance(one, InteractionEvent) and one.user)
            for user in dict.fromkeys(users):
                self.ahead.ask(user)
        return fresh

    def prepare(self, user: str) -> int:
        """Score a person's next candidates ahead of their next request; how many pairs that took."""
        if self.pipeline.rescoring is None:
            return 0
        with self._lock:
            request = self._request(self._latest / 1000, user, "", QueryVectors(), None, FilterIds())
            found = self.pipeline.retriever.retrieve(request, self.pipeline.candidates)
        return self.pipeline.rescoring.prepare(request, found.rows)

    def _record(self, events: Sequence[Event]) -> list[bool]:
        fresh = self._journal.append(events)
        new = [event for event, is_new in zip(events, fresh, strict=True) if is_new]
        self._state.advance(columns(new, self.catalogue.ids, self._people))
        return fresh

    def _moment(self, at: float) -> int:
        """Epoch milliseconds, never less than the last one: by them a replay puts what happened in order."""
        self._latest = max(self._latest, round(at * 1000))
        return self._latest

    def _request(
        self, at: float, user: str | None, query: str, vectors: QueryVectors, history: Sequence[str] | None,
        filters: FilterIds,
    ) -> Request:  # fmt: skip
        person = self._people.row(user)
        touched, times = self._state.touched(person)
        if history is not None:
            rows = self.catalogue.ids.rows(history)
            own = rows[rows >= 0]
            times_own: Times = np.full(len(own), np.nan)
            touched, times = np.concatenate([own, touched]).astype(np.int32), times_own
        else:
            own = touched
        return Request(
            at=at,
            person=person,
            history=own,
            history_at=times,
            touched=touched,
            query=query,
            query_vector=vectors.text,
            query_tokens=vectors.tokens,
            filters=self._filters(filters),
        )

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
