"""The recommender: ids in, a feed out that is a ranking event in the journal; events in, remembered at once.

The journal is also how processes tell each other what happened: before each answer, and with each write, what others
wrote since is read and learnt from. So a click that one process takes in changes the next feed of every other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from engine.ahead import Ahead
from engine.asked import Asked
from engine.catalogue import Catalogue
from engine.events import FORGOTTEN, Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent, known_from
from engine.experiments.declared import Arm
from engine.experiments.enrolment import NOT_ENROLLED, Enrolled
from engine.experiments.shadows import Shadows, Sight
from engine.experiments.showing import as_one, list_of
from engine.experiments.trials import Trials, serving
from engine.fallback import Ladder
from engine.journal import JournalError
from engine.live import Live
from engine.pipeline import Pipeline
from engine.protocols import EventLog
from engine.served import served_here
from engine.told import ranking_event
from engine.types import Candidates, Matrix, QueryVectors, Scores
from engine.watch import Watch, no_watch

REST_S = 1.0
"""How long a journal that failed is left alone before a feed tries it again."""
_log = logging.getLogger(__name__)


class IdTaken(ValueError):
    """A ranking was to have the id of another event."""


class Recommender:
    """Answers from what is live; safe to call from several threads, and beside other processes."""

    def __init__(self, live: Live, journal: EventLog, ahead: int = 0, trials: Trials | None = None) -> None:
        """ahead: people who may wait for their next feed to be scored ahead, where there is a second phase."""
        self._live = live
        self._journal = journal
        self._items_changed: Callable[[], None] = lambda: None
        self._ranked: Callable[[Matrix, Scores], None] = _nobody
        self._ahead_size = ahead
        self.ahead = self._new_ahead()
        self.trials = trials or Trials()
        """The experiments; changed under the lock alone."""
        self.shadows: Shadows | None = None
        """Where arms score along; None: nowhere."""
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
        self, ranking_id: str, at: float, asked: Asked | None = None, watch: Watch | None = None, keep: bool = True,
        arm: Arm | None = None,
    ) -> RankingEvent:  # fmt: skip
        """The best items for a person (unix seconds `at`), or the given ones in order, as a ranking event.

        It is written to the journal before it is returned, unless `keep` is false; an id that is there already gives
        the ranking that was written under it. Where the journal can't be written the feed comes all the same, with
        `kept: false` in `served`, and nothing is learnt of it. Raises IdTaken where another event has the id.
        arm: make it so, whatever experiments there are.
        """
        asked, watch = asked or Asked(), watch or no_watch()
        while True:
            live, trials = self._live, self.trials
            enrolled = NOT_ENROLLED  # what is not kept counts for no experiment
            if arm is not None:
                enrolled = Enrolled(arm=arm)
            elif keep:
                enrolled = trials.enrol(live, asked, ranking_id, round(at * 1000))
            vectors = {  # slow, so before anybody has to wait
                one.bundle: self._encoded(trials.peek(one.bundle, live), asked, watch) for one in enrolled.arms
            }
            with self._lock:
                if live is not self._live:
                    continue
                self._catch_up(at)
                watch.mark("catch_up")
                moment = self._moment(at)
                at = moment / 1000  # as it is logged, so that a replay reads the state at the very same moment
                servings = trials.servings(live, enrolled, asked)
                if servings is None:
                    continue
                lists = []
                for one, own in zip(servings, enrolled.arms, strict=True):
                    request = one.live.request(at, one.asked, vectors[own.bundle])
                    lists.append(list_of(one, self._ladder, request, ranking_id, watch, self._look_at(one.live)))
                shown = as_one(lists, [one.name for one in servings], enrolled, asked, ranking_id)
                event = ranking_event(ranking_id, moment, servings[0].asked, servings[0].live, shown, watch.skipped)
                if keep and event.items:
                    event = self._keep(event, at)
                    watch.mark("journal")
            if keep and enrolled.shadows and self.shadows is not None:
                self.shadows.ask(event, asked, enrolled.shadows)
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
                self.ahead.ask(user, user)
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
            self.trials.catch_up()

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

    def seat(self, live: Live, at: float) -> None:
        """Have another bundle's generation make lists where an experiment asks for it."""
        with self._lock:
            self._catch_up(at)
            known = self._live.offset  # what is written after it, both are told of together
            live.catch_up(takewhile(lambda one: one[0] <= known, self._journal.read(live.offset)))
            live.latest = max(live.latest, self._live.latest)
            self.trials.seat(live)

    def reseat(self, bundle: str, make: Callable[[Live], Live], at: float) -> None:
        """As `renew`, of a generation that was seated."""
        with self._lock:
            self._catch_up(at)
            self.trials.reseat(bundle, make)

    def unseat(self, bundle: str) -> None:
        """Let go of a generation that no experiment asks for any more."""
        with self._lock:
            self.trials.unseat(bundle)

    def look_on(self, one: Arm, event: RankingEvent, asked: Asked) -> Sight | None:
        """What an arm would make of a request that was answered; None where its bundle is not at hand."""
        at = event.timestamp / 1000
        vectors = self._encoded(self.trials.peek(one.bundle, self._live), asked, no_watch())
        with self._lock:
            live = self.trials.live_of(one.bundle, self._live, asked.user)
            if live is None:
                return None
            return Sight.read(serving("", one, live, asked), vectors, at, event.items)

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

    def _look_at(self, live: Live) -> Callable[[Matrix, Scores], None]:
        """Who is told of rows and scores; those of another bundle are not what it knows."""
        return self._ranked if live is self._live else _nobody

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
        self._note([*done.before, *new])
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
            self._note(missed)

    def _note(self, events: Sequence[Event]) -> None:
        """All but what `live` itself learns."""
        self.trials.observe(events, self._live.offset)
        if any(isinstance(one, ItemEvent) for one in events):
            self._items_changed()

    def _moment(self, at: float) -> int:
        """Epoch milliseconds, never less than the last one: by them a replay puts what happened in order."""
        live = self._live
        live.latest = max(live.latest, round(at * 1000))
        return live.latest

    def _new_ahead(self) -> Ahead[str] | None:
        return Ahead(self.prepare, self._ahead_size) if self._ahead_size and self._live.pipeline.rescoring else None


def _nobody(features: Matrix, scores: Scores) -> None:
    """Who need not know of rows and scores."""
