"""Holds the click log as columns: rankings and interactions, in order of time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent, known_from
from feedrank.engine.events.logged_features import ServedColumns, ServedRows
from feedrank.engine.events.vocabulary import Ids
from feedrank.engine.types import NOBODY, Offsets, Rows, Times

HISTORY = "history"
"""Interaction type of interactions from before the log began."""
JOIN_SECONDS = 30 * 60
"""An interaction without a ranking id is joined to the user's last ranking with the item within this time."""


@dataclass(frozen=True, eq=False, slots=True)
class Interactions:
    """Columns of I interactions, in order of time."""

    at: Times
    person: Rows
    item: Rows
    type: NDArray[np.int32]
    """(I,) codes of `EventTable.types`."""
    value: NDArray[np.float64]
    """(I,) NaN if there is none."""
    dwell: NDArray[np.float32]
    """(I,) dwell time in seconds, NaN if unknown."""
    ranking: NDArray[np.int64]
    """(I,) index of the ranking it belongs to, -1: none."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False, slots=True)
class Rankings:
    """Columns of R rankings, in order of time, with their N items (impressions) flattened."""

    at: Times
    person: Rows
    offsets: Offsets
    rows: Rows
    """(N,) rows of the items shown, in order; UNKNOWN_ROW if the catalogue does not have the item."""
    labels: NDArray[np.float32]
    """(N,) logged labels, NaN if there is none."""
    positions: NDArray[np.int32]
    """(N,) logged positions, from 1; -1 if there is none. Logs that are not in display order have none."""
    served: ServedRows | None = None
    """Logged features of the rankings; None: not loaded."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False, slots=True)
class Log:
    """Interactions and rankings, and the order in which they took effect."""

    people: Ids
    types: Ids
    interactions: Interactions
    rankings: Rankings
    order: NDArray[np.int64]
    """(I + R,) events in order of time: value i is interaction i, value I + r is ranking r."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def at(self) -> Times:
        """(I + R,) unix seconds of each event, aligned with `event_order`."""
        return np.concatenate([self.interactions.at, self.rankings.at])[self.order]

    @property
    def is_history(self) -> NDArray[np.bool_]:
        """(I,) True for interactions from before the log began."""
        is_history: NDArray[np.bool_] = self.interactions.type == self.types.row(HISTORY)
        return is_history

    def places(self) -> NDArray[np.int64]:
        """Return the (I + R,) position in `event_order` of each interaction, then of each ranking."""
        positions = np.empty(len(self.order), np.int64)
        positions[self.order] = np.arange(len(self.order))
        return positions


def columns(events: Iterable[Event], items: Ids, people: Ids | None = None) -> Log:
    """Build an event table, sorted by `effective_time`; ties keep their order. Item and user events are ignored.

    An event that reached the live service late is placed at its ingestion time, as it was for the requests of that
    time; counters still decay from its own timestamp. An imported log is sorted by timestamp, whatever the order of
    its file.
    """
    return in_order(sorted(events, key=known_from), items, people)


def in_order(events: Iterable[Event], items: Ids, people: Ids | None = None, served: bool = False) -> Log:
    """Build an event table from events that are sorted by `effective_time` already; streams, and keeps no event.

    with_logged_features: also keep the logged features of rankings.
    """
    builder = _Columns(items, Ids() if people is None else people, ServedColumns() if served else None)
    for event in events:
        if isinstance(event, RankingEvent):
            builder.show(event)
        elif isinstance(event, InteractionEvent):
            builder.touch(event)
    return builder.log()


class _Columns:
    """Builds an event table event by event, and joins interactions to rankings."""

    def __init__(self, items: Ids, people: Ids, served: ServedColumns | None) -> None:
        self._items, self._people, self._types = items, people, Ids([HISTORY])
        self._served = served
        self._order = array("b")  # 1: ranking, 0: interaction
        self._touched: dict[str, array[Any]] = {name: array(code) for name, code in _TOUCHED.items()}
        self._shown: dict[str, array[Any]] = {name: array(code) for name, code in _SHOWN.items()}
        self._named = Ids()  # of rankings seen or named; an interaction may come before its ranking
        self._row_of: array[Any] = array("q")
        self._last_shown: dict[tuple[int, str], tuple[int, int]] = {}
        self._swept = 0

    def show(self, event: RankingEvent) -> None:
        """Add a ranking; interactions with its items within the next 30 minutes are joined to it."""
        code = self._name(event.id)
        self._row_of[code] = len(self._shown["at"])
        user = self._person(event.user)
        columns = self._shown
        columns["at"].append(_seconds(event))
        columns["user"].append(user)
        columns["items"].extend(self._items.row(item) for item in event.items)
        columns["labels"].extend(event.labels or (math.nan,) * len(event.items))
        positions = event.extra.get("positions")
        columns["positions"].extend((-1,) * len(event.items) if positions is None else map(round, positions))
        columns["stops"].append(len(columns["items"]))
        if self._served is not None:
            self._served.add(event.extra.get("features"), len(event.items))
        self._order.append(1)
        if user != NOBODY:
            self._sweep(event.timestamp)
            self._last_shown.update(((user, item), (event.timestamp, code)) for item in event.items)

    def touch(self, event: InteractionEvent) -> None:
        """Add an interaction, joined to the ranking it names or else to the user's last one with the item in time."""
        user = self._person(event.user)
        if event.ranking is not None:
            ranking = self._name(event.ranking)
        elif event.type == HISTORY or user == NOBODY:
            ranking = -1
        else:
            shown_ms, ranking = self._last_shown.get((user, event.item), (-(10**18), -1))
            ranking = ranking if event.timestamp - shown_ms <= JOIN_SECONDS * 1000 else -1
        columns = self._touched
        columns["at"].append(_seconds(event))
        columns["user"].append(user)
        columns["item"].append(self._items.row(event.item))
        columns["type"].append(self._types.add(event.type))
        columns["value"].append(math.nan if event.value is None else event.value)
        columns["dwell_s"].append(math.nan if event.dwell_ms is None else event.dwell_ms / 1000)
        columns["ranking"].append(ranking)
        self._order.append(0)

    def log(self) -> Log:
        """Return the table of all events added so far."""
        is_ranking = np.frombuffer(self._order, np.int8) == 1
        ranking_index = np.append(_as_arrays({"": self._row_of})[""], -1)  # the last one: code -1, no ranking
        column = _as_arrays(self._touched)
        interactions = Interactions(
            at=column["at"],
            person=column["user"],
            item=column["item"],
            type=column["type"],
            value=column["value"],
            dwell=column["dwell_s"],
            ranking=ranking_index[column["ranking"]],
        )
        column = _as_arrays(self._shown)
        rankings = Rankings(
            at=column["at"],
            person=column["user"],
            offsets=np.concatenate([[0], column["stops"]]).astype(np.int64),
            rows=column["items"],
            labels=column["labels"],
            positions=column["positions"],
            served=None if self._served is None else self._served.rows(),
        )
        n = len(interactions)
        order = np.where(is_ranking, n + np.cumsum(is_ranking) - 1, np.cumsum(~is_ranking) - 1).astype(np.int64)
        return Log(self._people, self._types, interactions, rankings, order)

    def _name(self, ranking: str) -> int:
        code = self._named.add(ranking)
        if code == len(self._row_of):
            self._row_of.append(-1)
        return code

    def _person(self, user: str | None) -> int:
        return NOBODY if user is None else self._people.add(user)

    def _sweep(self, now: int) -> None:
        """Drop impressions that are older than the join window, so that memory does not grow with the log."""
        if len(self._last_shown) > 2 * self._swept + 100_000:
            oldest = now - JOIN_SECONDS * 1000
            self._last_shown = {key: last for key, last in self._last_shown.items() if last[0] >= oldest}
            self._swept = len(self._last_shown)


_TOUCHED = {"at": "d", "user": "i", "item": "i", "type": "i", "value": "d", "dwell_s": "f", "ranking": "q"}
_SHOWN = {"at": "d", "user": "i", "stops": "q", "items": "i", "labels": "f", "positions": "i"}
_DTYPES = {"d": np.float64, "f": np.float32, "i": np.int32, "q": np.int64}


def _as_arrays(columns: dict[str, array[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.frombuffer(column, _DTYPES[column.typecode]) for name, column in columns.items()}


def _seconds(event: RankingEvent | InteractionEvent) -> float:
    """Return the unix seconds of an event, at most its `effective_time`: a sender's clock may be ahead."""
    return min(event.timestamp, known_from(event)) / 1000
