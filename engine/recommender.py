"""The recommender: ids in, a feed out that is a ranking event in the journal; events in, remembered at once.

The journal is also how processes tell each other what happened: before each answer, and with each write, what others
wrote since is read and learnt from. So a click that one process takes in changes the next feed of every other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.ahead import Ahead
from engine.asked import Asked
from engine.catalogue import Catalogue
from engine.diversity import diversified
from engine.events import FORGOTTEN, Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent, known_from
from engine.fallback import FULL, Ladder
from engine.journal import JournalError
from engine.live import Live
from engine.pipeline import Pipeline
from engine.protocols import EventLog
from engine.served import served_here, stored_features, stored_scores
from engine.types import Candidates, Matrix, QueryVectors, Ranking, Scores
from engine.watch import Watch, no_watch

REST_S = 1.0
"""How long a journal that failed is left alone before a feed tries it again."""
_log = logging.getLogger(__name__)


class IdTaken(ValueError):
    """A ranking was to have the id of another event."""


class Recommender:
    """Answers from what is live; safe to call from several threads, and beside other processes."""

    def __init__(self, live: Live, journal: EventLog, ahead: int = 0) -> None:
        """ahead: people who may wait for their next feed to be scored ahead, where there is a second phase."""
        self._live = live
        self._journal = journal
        self._items_changed: Callable[[], None] = lambda: None
        self._ranked: Callable[[Matrix, Scores], None] = lambda features, scores: None
        self._ahead_size = ahead
        self.ahead = self._new_ahead()
        self._ladder = Ladder()
        self._lock = threading.RLock()
        self._rests_until = -np.inf
        self.lag = 0.0
        """Seconds: how old the newest event was, of those that others wrote, when they were last read here."""

    def when_items_change(self, call: Callable[[], None]) -> None:
        """Have this called, which must be soon over, when item events came in, here or elsewhere."""
        self._items_changed = call

    def when_ranked(self, call: Callable[[Matrix, Scores], None]) -> None:
        """Have this called, which must be soon over, with the feature rows and scores of all candidates of a feed."""
        self._ranked = call

    @property
    def live(self) -> Live:
        """What answers come from now."""
        return self._live

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that answers now."""
        return self._live.pipeline

    @property
    def catalogue(self) -> Catalogue:
        """The items as they are known now."""
        return self._live.catalogue

    def recommend(
        self, ranking_id: str, at: float, asked: Asked | None = None, watch: Watch | None = None, keep: bool = True
    ) -> RankingEvent:
        """The best items for a person (unix seconds `at`), or the given ones in order, as a ranking event.

        It is written to the journal before it is returned, unless `keep` is false; an id that is there already gives
        the ranking that was written under it. Where the journal can't be written the feed comes all the same, with
        `kept: false` in `served`, and nothing is learnt of it. Raises IdTaken where another event has the id.
        """
        asked, watch = asked or Asked(), watch or no_watch()
        while True:
            live = self._live
            vectors = self._encoded(live, asked, watch)  # slow, so before anybody has to wait
            with self._lock:
                if live is not self._live:
                    continue
                self._catch_up(at)
                watch.mark("catch_up")
                moment = self._moment(at)
                at = moment / 1000  # as it is logged, so that a replay reads the state at the very same moment
                request = live.request(at, asked, vectors)
                given = None if asked.items is None else live.catalogue.ids.rows(asked.items)
                step, ranking = self._ladder.run(live, request, watch, given)
                self._ranked(ranking.features, ranking.scores)
                event = self._event(ranking_id, moment, asked, step, self._shown(ranking, asked, watch), watch)
                if keep and event.items:
                    event = self._keep(event, at)
                    watch.mark("journal")
            return event

    def similar(self, at: float, item: str, n: int) -> Candidates | None:
        """The items that recall finds for somebody who touched this one alone; None where there is no such item."""
        live = self._live
        row = live.catalogue.ids.row(item)
        if row < 0:
            return None
        request = live.request(at, Asked(history=(item,)), QueryVectors())
        return live.pipeline.retriever.retrieve(request, n)

    def find(self, event_id: str) -> Event | None:
        """The event of that id, by whatever process it was written; None where there is none."""
        return self._journal.find(event_id)

    def record(self, events: Sequence[Event], at: float) -> list[bool]:
        """Write events that came in at `at` (unix seconds) to the journal, then learn from those that were new.

        True for each of these. What an event says of its own arrival is replaced. Raises JournalError.
        """
        with self._lock:
            moment = self._moment(at)
            fresh = self._write([replace(event, received=moment) for event in events])
        if self.ahead is not None:
            pairs = zip(events, fresh, strict=True)
            users = (one.user for one, new in pairs if new and isinstance(one, InteractionEvent) and one.user)
            for user in dict.fromkeys(users):
                self.ahead.ask(user)
        return fresh

    def forget(self, user: str, note_id: str, at: float) -> int:
        """Delete all that the journal and the state hold of a person; how many events that were.

        Other processes hear of it by an event of this id, which is all that is left. Raises JournalError.
        """
        with self._lock:
            moment = self._moment(at)
        note = UserEvent(note_id, moment, user, {FORGOTTEN: True}, moment)
        gone = self._journal.forget(user, note)  # slow where the journal is long, so nobody has to wait for it
        with self._lock:
            self._rests_until = -np.inf
            self._catch_up(at)
        return gone

    def catch_up(self, at: float) -> None:
        """Learn from what other processes wrote, without a request."""
        with self._lock:
            self._catch_up(at)

    def renew(self, make: Callable[[Live], Live], at: float) -> None:
        """Answer from another generation from now on; `make` is given the last one, and must be quick.

        What was written since the new one was made is read first, so that nothing is forgotten in between.
        """
        with self._lock:
            self._catch_up(at)
            live = make(self._live)
            live.catch_up(self._journal.read(live.offset))
            live.latest = max(live.latest, self._live.latest)
            self._live = live
            if self.ahead is None:
                self.ahead = self._new_ahead()

    def prepare(self, user: str) -> int:
        """Score a person's next candidates ahead of their next request; how many pairs that took."""
        with self._lock:
            live = self._live
            if live.pipeline.rescoring is None:
                return 0
            request = live.request(live.latest / 1000, Asked(user), QueryVectors())
            found = live.pipeline.retriever.retrieve(request, live.pipeline.candidates)
        return live.pipeline.rescoring.prepare(request, found.rows)

    def _encoded(self, live: Live, asked: Asked, watch: Watch) -> QueryVectors:
        if not asked.query or live.encode is None:
            return QueryVectors()
        if not (watch.knows("encode") and watch.allows("encode", "recall", "features", "rank", "journal")):
            watch.skip("encode")
            return QueryVectors()
        try:
            vectors = live.encode(asked.query)
        except Exception:  # words can be looked for without a model
            _log.exception("a query could not be encoded; it is read by BM25 alone")
            watch.skip("encode")
            return QueryVectors()
        watch.mark("encode")
        return vectors

    def _shown(self, ranking: Ranking, asked: Asked, watch: Watch) -> Ranking:
        if not asked.diversity:
            return ranking.at(np.arange(min(asked.n, len(ranking.order))))
        live = self._live
        places = diversified(ranking.rows, ranking.scores, asked.n, asked.diversity, live.catalogue, live.vectors)
        watch.mark("diversity")
        return ranking.at(places)

    def _event(
        self, ranking_id: str, moment: int, asked: Asked, step: str, shown: Ranking, watch: Watch
    ) -> RankingEvent:
        live, found = self._live, shown.found
        if asked.items is None:
            names = live.catalogue.ids.names(shown.rows)
            recalled = live.catalogue.ids.names(found.rows[: len(names)])
        else:
            names, recalled = [asked.items[place] for place in shown.order.tolist()], list(asked.items[: asked.n])
        served: dict[str, Any] = {
            "offset": live.offset,
            "items": live.items_offset,
            # what would have been shown without the ranker, and what recall gave to what was shown
            "recall": {"items": recalled, "scores": _numbers(found.scores[shown.order]), "found": len(found.rows)},
        }
        served |= {"pairs": stored_scores(shown.pairs)} if len(shown.pairs) else {}
        served |= {"step": step} if step != FULL else {}
        served |= {"skipped": list(watch.skipped)} if watch.skipped else {}
        served |= {"asked": more} if (more := asked.narrowed()) else {}
        extra: dict[str, Any] = {
            "positions": list(range(1, len(names) + 1)),
            "scores": _numbers(shown.scores),
            "bundle": live.pipeline.bundle,
            "served": served,
        }
        if len(shown.features):
            extra["features"] = stored_features(live.pipeline.featurizer.fingerprint, shown.features)
        extra |= {"surface": asked.surface} if asked.surface else {}
        return RankingEvent(
            id=ranking_id,
            timestamp=moment,
            items=tuple(names),
            user=asked.user,
            session=asked.session,
            fields={**asked.context, "source": found.source, **asked.said()},
            extra=extra,
        )

    def _keep(self, event: RankingEvent, at: float) -> RankingEvent:
        if at >= self._rests_until:
            try:
                fresh = self._write([event])
                return event if fresh[0] else self._answered(event.id)
            except JournalError:
                _log.exception("a ranking could not be written to the journal; it is shown all the same")
                self._rests_until = at + REST_S
        return replace(event, extra={**event.extra, "served": {**event.extra["served"], "kept": False}})

    def _answered(self, ranking_id: str) -> RankingEvent:
        """The ranking that was answered under this id before."""
        known = self._journal.find(ranking_id)
        if known is None or not served_here(known):
            raise IdTaken(f"another event has the id {ranking_id!r}; choose another one for the ranking")
        return known

    def _write(self, events: Sequence[Event]) -> list[bool]:
        live = self._live
        done = self._journal.exchange(events, live.offset)
        new = [event for event, fresh in zip(events, done.fresh, strict=True) if fresh]
        live.observe([*done.before, *new])
        live.offset = done.offset
        self._look_for_items([*done.before, *new])
        return done.fresh

    def _catch_up(self, at: float) -> None:
        if at < self._rests_until:
            return
        try:
            missed = self._live.catch_up(self._journal.read(self._live.offset))
        except JournalError:
            _log.exception("the journal could not be read; feeds go on with what is known")
            self._rests_until = at + REST_S
            return
        if missed:
            self.lag = max(0.0, at - max(map(known_from, missed)) / 1000)
            self._look_for_items(missed)

    def _look_for_items(self, events: Sequence[Event]) -> None:
        if any(isinstance(one, ItemEvent) for one in events):
            self._items_changed()

    def _moment(self, at: float) -> int:
        """Epoch milliseconds, never less than the last one: by them a replay puts what happened in order."""
        live = self._live
        live.latest = max(live.latest, round(at * 1000))
        return live.latest

    def _new_ahead(self) -> Ahead | None:
        return Ahead(self.prepare, self._ahead_size) if self._ahead_size and self._live.pipeline.rescoring else None


def _numbers(scores: Any) -> list[float | None]:
    """JSON-ready: None for what is not a number."""
    return [float(one) if np.isfinite(one) else None for one in scores]
