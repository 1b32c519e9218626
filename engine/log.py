"""The click log as columns: what was shown and what was touched, in order of time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, InteractionEvent, RankingEvent, known_from
from engine.ids import Ids
from engine.types import NOBODY, Offsets, Rows, Times

HISTORY = "history"
"""The interaction type of a touch from before the log began."""
JOIN_SECONDS = 30 * 60
"""A click that names no ranking belongs to the last one of that person that showed the item within this time."""


@dataclass(frozen=True, eq=False, slots=True)
class Interactions:
    """I interactions, in order of time."""

    at: Times
    person: Rows
    item: Rows
    type: NDArray[np.int32]
    """Codes into `Log.types`."""
    value: NDArray[np.float64]
    """NaN where there is none."""
    ranking: NDArray[np.int64]
    """The ranking it answers, -1: none."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False, slots=True)
class Rankings:
    """R rankings, in order of time, their items flattened."""

    at: Times
    person: Rows
    offsets: Offsets
    rows: Rows
    """Shown item rows, in order; NOBODY where the catalogue has no such item."""
    labels: NDArray[np.float32]
    """As logged, NaN where the log is silent."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False, slots=True)
class Log:
    """Interactions and rankings, and the order in which they happened."""

    people: Ids
    types: Ids
    interactions: Interactions
    rankings: Rankings
    order: NDArray[np.int64]
    """(I + R,) what happened, in order of time: i is interaction i, I + r is ranking r."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def at(self) -> Times:
        """(I + R,) unix seconds of each happening, aligned with `order`."""
        return np.concatenate([self.interactions.at, self.rankings.at])[self.order]

    @property
    def is_history(self) -> NDArray[np.bool_]:
        """(I,) True for touches from before the log began."""
        is_history: NDArray[np.bool_] = self.interactions.type == self.types.row(HISTORY)
        return is_history

    def places(self) -> NDArray[np.int64]:
        """(I + R,) the place in `order` of each interaction, then of each ranking."""
        places = np.empty(len(self.order), np.int64)
        places[self.order] = np.arange(len(self.order))
        return places

    def labels(self) -> NDArray[np.float32]:
        """One label a shown item: as logged, or else 1 where an interaction answered the ranking with it, 0 if not."""
        rankings, interactions = self.rankings, self.interactions
        labels = np.where(np.isnan(rankings.labels), np.float32(0), rankings.labels)
        answering = np.flatnonzero((interactions.ranking >= 0) & (interactions.item >= 0))
        for i in answering.tolist():
            r = int(interactions.ranking[i])
            shown = slice(int(rankings.offsets[r]), int(rankings.offsets[r + 1]))
            place = np.flatnonzero(rankings.rows[shown] == interactions.item[i])
            if len(place) and np.isnan(rankings.labels[shown][place[0]]):
                labels[shown.start + place[0]] = 1.0
        return labels.astype(np.float32)


def columns(events: Iterable[Event], items: Ids, people: Ids | None = None) -> Log:
    """The log in these events (item and user events are passed over), in the order in which a feed could know of them.

    That is by `received`, or by timestamp where an event was imported; ties keep their order. So an event that came
    late to the live service stands where it came in, as it did for the feeds of that time, and its own timestamp still
    says how far it has decayed; an imported log is in order of time, whatever the order of its file.
    """
    people = Ids() if people is None else people
    types = Ids([HISTORY])
    happened: list[InteractionEvent | RankingEvent] = [
        event for event in events if isinstance(event, InteractionEvent | RankingEvent)
    ]
    happened.sort(key=known_from)
    touched = [event for event in happened if isinstance(event, InteractionEvent)]
    shown = [event for event in happened if isinstance(event, RankingEvent)]
    rankings = _rankings(shown, items, people)
    interactions = Interactions(
        at=_seconds(touched),
        person=_people(touched, people),
        item=items.rows([event.item for event in touched]),
        type=np.array([types.add(event.type) for event in touched], np.int32),
        value=np.array([math.nan if event.value is None else event.value for event in touched], np.float64),
        ranking=_join(happened, {event.id: r for r, event in enumerate(shown)}),
    )
    is_ranking = np.fromiter((isinstance(event, RankingEvent) for event in happened), np.bool_, len(happened))
    order = np.where(is_ranking, len(touched) + np.cumsum(is_ranking) - 1, np.cumsum(~is_ranking) - 1)
    return Log(people, types, interactions, rankings, order.astype(np.int64))


def _rankings(shown: list[RankingEvent], items: Ids, people: Ids) -> Rankings:
    sizes = [len(event.items) for event in shown]
    labels = [event.labels or (math.nan,) * len(event.items) for event in shown]
    return Rankings(
        at=_seconds(shown),
        person=_people(shown, people),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        rows=items.rows([item for event in shown for item in event.items]),
        labels=np.array([label for one in labels for label in one], np.float32),
    )


def _join(happened: list[InteractionEvent | RankingEvent], known: dict[str, int]) -> NDArray[np.int64]:
    """(I,) the ranking each interaction answers: the one it names, or else the last that showed the item in time."""
    last_shown: dict[tuple[str, str], tuple[int, int]] = {}
    answered: list[int] = []
    for event in happened:
        if isinstance(event, RankingEvent):
            if event.user is not None:
                last_shown.update(((event.user, item), (event.timestamp, known[event.id])) for item in event.items)
        elif event.ranking is not None:
            answered.append(known.get(event.ranking, -1))
        elif event.type == HISTORY:
            answered.append(-1)
        else:
            when, ranking = last_shown.get((event.user or "", event.item), (-(10**18), -1))
            answered.append(ranking if event.timestamp - when <= JOIN_SECONDS * 1000 else -1)
    return np.array(answered, np.int64)


def _seconds(events: list[InteractionEvent] | list[RankingEvent]) -> Times:
    return np.array([event.timestamp for event in events], np.float64) / 1000


def _people(events: list[InteractionEvent] | list[RankingEvent], people: Ids) -> Rows:
    return np.array([NOBODY if event.user is None else people.add(event.user) for event in events], np.int32)
