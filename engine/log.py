"""The click log as columns: what was shown and what was touched, in order of time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, InteractionEvent, RankingEvent, known_from
from engine.ids import Ids
from engine.served import ServedColumns, ServedRows
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
    dwell: NDArray[np.float32]
    """Seconds, NaN where it is not known."""
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
    positions: NDArray[np.int32]
    """The places they were shown at, from 1; -1 where the log is silent, as it is where its order is not that shown."""
    served: ServedRows | None = None
    """The feature rows that they were served with; None: nobody asked for them."""

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


def columns(events: Iterable[Event], items: Ids, people: Ids | None = None) -> Log:
    """The log in these events, in the order in which a feed could know of them; item and user events are passed over.

    That is by `received`, or by timestamp where an event was imported; ties keep their order. So an event that came
    late to the live service stands where it came in, as it did for the feeds of that time, and its own timestamp still
    says how far it has decayed; an imported log is in order of time, whatever the order of its file.
    """
    return in_order(sorted(events, key=known_from), items, people)


def in_order(events: Iterable[Event], items: Ids, people: Ids | None = None, served: bool = False) -> Log:
    """As `columns`, of events that come in that order already, one by one: none is held.

    served: keep the feature rows that rankings were served with.
    """
    columns = _Columns(items, Ids() if people is None else people, ServedColumns() if served else None)
    for event in events:
        if isinstance(event, RankingEvent):
            columns.show(event)
        elif isinstance(event, InteractionEvent):
            columns.touch(event)
    return columns.log()


class _Columns:
    """Grows the columns of a log, and joins what was touched to what was shown."""

    def __init__(self, items: Ids, people: Ids, served: ServedColumns | None) -> None:
        self._items, self._people, self._types = items, people, Ids([HISTORY])
        self._served = served
        self._order = array("b")  # 1: a ranking
        self._touched: dict[str, array[Any]] = {name: array(code) for name, code in _TOUCHED.items()}
        self._shown: dict[str, array[Any]] = {name: array(code) for name, code in _SHOWN.items()}
        self._named = Ids()  # rankings that were shown or answered; a click may come before what it answers
        self._row_of: array[Any] = array("q")
        self._last_shown: dict[tuple[int, str], tuple[int, int]] = {}
        self._swept = 0

    def show(self, event: RankingEvent) -> None:
        """A ranking: what it showed is what clicks within the next 30 minutes answer."""
        name = self._name(event.id)
        self._row_of[name] = len(self._shown["at"])
        person = self._person(event.user)
        shown = self._shown
        shown["at"].append(_seconds(event))
        shown["person"].append(person)
        shown["rows"].extend(self._items.row(item) for item in event.items)
        shown["labels"].extend(event.labels or (math.nan,) * len(event.items))
        positions = event.extra.get("positions")
        shown["positions"].extend((-1,) * len(event.items) if positions is None else map(round, positions))
        shown["stops"].append(len(shown["rows"]))
        if self._served is not None:
            self._served.add(event.extra.get("features"), len(event.items))
        self._order.append(1)
        if person != NOBODY:
            self._sweep(event.timestamp)
            self._last_shown.update(((person, item), (event.timestamp, name)) for item in event.items)

    def touch(self, event: InteractionEvent) -> None:
        """An interaction, joined to the ranking that it names, or else to the last that showed the item in time."""
        person = self._person(event.user)
        if event.ranking is not None:
            ranking = self._name(event.ranking)
        elif event.type == HISTORY or person == NOBODY:
            ranking = -1
        else:
            when, ranking = self._last_shown.get((person, event.item), (-(10**18), -1))
            ranking = ranking if event.timestamp - when <= JOIN_SECONDS * 1000 else -1
        touched = self._touched
        touched["at"].append(_seconds(event))
        touched["person"].append(person)
        touched["item"].append(self._items.row(event.item))
        touched["type"].append(self._types.add(event.type))
        touched["value"].append(math.nan if event.value is None else event.value)
        touched["dwell"].append(math.nan if event.dwell_ms is None else event.dwell_ms / 1000)
        touched["ranking"].append(ranking)
        self._order.append(0)

    def log(self) -> Log:
        """What has come so far."""
        touched, shown = _as_arrays(self._touched), _as_arrays(self._shown)
        is_ranking = np.frombuffer(self._order, np.int8) == 1
        touches = len(touched["at"])
        rows = np.append(_as_arrays({"": self._row_of})[""], -1)  # the last for those that answer none
        touched["ranking"] = rows[touched["ranking"]]
        order = np.where(is_ranking, touches + np.cumsum(is_ranking) - 1, np.cumsum(~is_ranking) - 1).astype(np.int64)
        offsets = np.concatenate([[0], shown.pop("stops")]).astype(np.int64)
        served = None if self._served is None else self._served.rows()
        rankings = Rankings(offsets=offsets, served=served, **shown)
        return Log(self._people, self._types, Interactions(**touched), rankings, order)

    def _name(self, ranking: str) -> int:
        name = self._named.add(ranking)
        if name == len(self._row_of):
            self._row_of.append(-1)
        return name

    def _person(self, user: str | None) -> int:
        return NOBODY if user is None else self._people.add(user)

    def _sweep(self, now: int) -> None:
        """Let go of what nobody can answer any more, so that memory does not grow with the log."""
        if len(self._last_shown) > 2 * self._swept + 100_000:
            oldest = now - JOIN_SECONDS * 1000
            self._last_shown = {key: last for key, last in self._last_shown.items() if last[0] >= oldest}
            self._swept = len(self._last_shown)


_TOUCHED = {"at": "d", "person": "i", "item": "i", "type": "i", "value": "d", "dwell": "f", "ranking": "q"}
_SHOWN = {"at": "d", "person": "i", "stops": "q", "rows": "i", "labels": "f", "positions": "i"}
_DTYPES = {"d": np.float64, "f": np.float32, "i": np.int32, "q": np.int64}


def _as_arrays(columns: dict[str, array[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.frombuffer(column, _DTYPES[column.typecode]) for name, column in columns.items()}


def _seconds(event: RankingEvent | InteractionEvent) -> float:
    """Unix seconds of what happened, which was not after it came in, whatever the clock of its sender says."""
    return min(event.timestamp, known_from(event)) / 1000
