"""Builds event tables from events, and joins interactions to the rankings that showed their items."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_order import Placement, place_after_rankings
from feedrank.engine.events.event_table import EventTable, Interactions, Rankings, UnknownItems
from feedrank.engine.events.events import (
    JOIN_WINDOW_S,
    Event,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
    effective_time,
)
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.interaction_types import HISTORY_TYPE, InteractionTypes
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.logged_features import LoggedFeaturesBuilder, LoggedRows
from feedrank.engine.events.vocabulary import Vocabulary, joined_session, visitor_name
from feedrank.engine.types import UNKNOWN_ROW


def events_to_table(
    events: Iterable[Event], item_ids: Vocabulary, user_ids: Vocabulary | None = None, as_arrived: bool = False,
    fields: FieldCollector | None = None,
) -> EventTable:  # fmt: skip
    """Build an event table, sorted by `effective_time`; ties keep their order. Item and user events are ignored.

    An event that reached the live service late is placed at its ingestion time, as it was for the requests of that
    time; counters still decay from its own timestamp. An imported log is sorted by timestamp, whatever the order of
    its file. as_arrived: see `sorted_events_to_table`.
    """
    return sorted_events_to_table(
        sorted(events, key=effective_time), item_ids, user_ids, as_arrived=as_arrived, fields=fields
    )


def sorted_events_to_table(
    events: Iterable[Event],
    item_ids: Vocabulary,
    user_ids: Vocabulary | None = None,
    with_logged_features: bool = False,
    meanings: InteractionTypes | None = None,
    as_arrived: bool = False,
    fields: FieldCollector | None = None,
    arrivals: ItemArrivals | None = None,
) -> EventTable:
    """Build an event table from events that are sorted by `effective_time` already; streams, and keeps no event.

    An interaction never stands before its ranking, whatever the clocks say: it is moved to right after it, with the
    later of both times. Among imported events of one time, whose order is unknown, each interaction directly follows
    its ranking, so the order in which files were imported makes no difference.

    with_logged_features: also keep the logged features of rankings. meanings: what the interaction types mean; None:
    what their names usually mean. as_arrived: move nothing; for a state that nothing is learnt from, as it was for the
    requests of that time. fields: collects the declared fields; None: there are none. arrivals: takes the item events,
    and only with `as_arrived`; None: items are as they are.
    """
    builder = _EventTableBuilder(
        item_ids,
        Vocabulary() if user_ids is None else user_ids,
        LoggedFeaturesBuilder() if with_logged_features else None,
        fields,
        arrivals,
    )
    for event in events:
        if isinstance(event, RankingEvent):
            builder.add_ranking(event)
        elif isinstance(event, InteractionEvent):
            builder.add_interaction(event)
        elif isinstance(event, ItemEvent | UserEvent):
            builder.add_description(event)
    table = builder.build(as_arrived)
    if arrivals is not None:
        table = replace(table, item_changes=arrivals.build())
    return table if meanings is None else replace(table, meanings=meanings)


class _EventTableBuilder:
    """Builds an event table event by event, and joins interactions to rankings."""

    def __init__(
        self, item_ids: Vocabulary, user_ids: Vocabulary, logged_features: LoggedFeaturesBuilder | None,
        fields: FieldCollector | None, arrivals: ItemArrivals | None = None,
    ) -> None:  # fmt: skip
        self._item_ids, self._user_ids, self._types = item_ids, user_ids, Vocabulary([HISTORY_TYPE])
        self._logged_features = logged_features
        self._fields, self._arrivals = fields, arrivals
        self._awaited: Collection[str] = () if arrivals is None else arrivals.awaited
        self._is_ranking = array("b")  # 1: ranking, 0: interaction
        self._is_imported = array("b")
        self._interactions: dict[str, array[Any]] = {name: array(code) for name, code in _INTERACTION_COLUMNS.items()}
        self._rankings: dict[str, array[Any]] = {name: array(code) for name, code in _RANKING_COLUMNS.items()}
        self._ranking_ids = Vocabulary()  # of rankings seen or named; an interaction may come before its ranking
        self._ranking_index: array[Any] = array("q")
        self._unknown_ids = Vocabulary()
        self._unknown: dict[str, array[Any]] = {name: array(code) for name, code in _UNKNOWN_COLUMNS.items()}
        self._last_shown: dict[tuple[int, str], tuple[int, int]] = {}
        self._size_after_cleanup = 0
        self._time_ms = -(10**18)
        self._unjoined: dict[tuple[int, str], list[int]] = {}  # imported interactions of this time, by user and item

    def add_ranking(self, event: RankingEvent) -> None:
        """Add a ranking; interactions with its items within the next 30 minutes are joined to it."""
        code = self._ranking_code(event.id)
        self._ranking_index[code] = len(self._rankings["at"])
        user = self._visitor_row(event)
        columns = self._rankings
        columns["at"].append(_event_seconds(event))
        columns["user"].append(user)
        columns["session"].append(joined_session(self._user_ids, event.user, event.session))
        rows = [self._item_ids.row(item) for item in event.items]
        if self._awaited and event.received is not None:
            rows = [UNKNOWN_ROW if item in self._awaited else row for item, row in zip(event.items, rows, strict=True)]
        if UNKNOWN_ROW in rows:
            self._add_unknown("impression", len(columns["items"]), event.items, rows)
        columns["items"].extend(rows)
        columns["labels"].extend(event.labels or (math.nan,) * len(event.items))
        positions = event.positions
        columns["positions"].extend((-1,) * len(event.items) if positions is None else map(round, positions))
        columns["stops"].append(len(columns["items"]))
        if self._logged_features is not None:
            self._logged_features.add(LoggedRows.from_json(event.features, len(event.items)))
        if self._fields is not None:
            self._fields.add_ranking(event)
        self._is_ranking.append(1)
        self._is_imported.append(event.received is None)
        if user != UNKNOWN_ROW:
            if self._unjoined and event.received is None:
                self._join_of_same_time(event, user, code)
            self._drop_expired(event.timestamp)
            self._last_shown.update(((user, item), (event.timestamp, code)) for item in event.items)

    def add_interaction(self, event: InteractionEvent) -> None:
        """Add an interaction, joined to the ranking it names or else to the user's last one with the item in time."""
        user = self._visitor_row(event)
        if event.ranking is not None:
            ranking = self._ranking_code(event.ranking)
        elif event.type == HISTORY_TYPE or user == UNKNOWN_ROW:
            ranking = -1
        else:
            shown_ms, ranking = self._last_shown.get((user, event.item), (-(10**18), -1))
            ranking = ranking if event.timestamp - shown_ms <= JOIN_WINDOW_S * 1000 else -1
            if ranking < 0 and event.received is None:
                self._remember_unjoined(event, user)
        columns = self._interactions
        columns["at"].append(_event_seconds(event))
        columns["user"].append(user)
        columns["session"].append(joined_session(self._user_ids, event.user, event.session))
        row = self._item_ids.row(event.item)
        if self._awaited and event.received is not None and event.item in self._awaited:
            row = UNKNOWN_ROW
        if row == UNKNOWN_ROW:
            self._add_unknown("interaction", len(columns["item"]), (event.item,), [row])
        columns["item"].append(row)
        columns["type"].append(self._types.add(event.type))
        columns["value"].append(math.nan if event.value is None else event.value)
        columns["dwell_s"].append(math.nan if event.dwell_ms is None else event.dwell_ms / 1000)
        columns["ranking"].append(ranking)
        columns["names_ranking"].append(event.ranking is not None)
        if self._fields is not None:
            self._fields.add_interaction(event)
        self._is_ranking.append(0)
        self._is_imported.append(event.received is None)

    def add_description(self, event: ItemEvent | UserEvent) -> None:
        """Add an item or a user event: the item that arrives, and the declared fields that it sets."""
        position, fields = len(self._is_ranking), self._fields
        if isinstance(event, ItemEvent):
            if self._arrivals is not None:
                self._arrivals.add(event, position)
            if fields is not None:
                fields.add_item(event, self._item_ids.row(event.item), position)
        elif fields is not None and fields.reads_users:
            fields.add_user(event, self._user_ids.add(event.user), position)

    def build(self, as_arrived: bool) -> EventTable:
        """Return the table of all events added so far; as_arrived: move no interaction."""
        is_ranking = np.frombuffer(self._is_ranking, np.int8) == 1
        ranking_index = np.append(_as_arrays({"": self._ranking_index})[""], -1)  # the last one: code -1, no ranking
        column = _as_arrays(self._interactions)
        interactions = Interactions(
            at=column["at"],
            user=column["user"],
            item=column["item"],
            type=column["type"],
            value=column["value"],
            dwell_s=column["dwell_s"],
            ranking=ranking_index[column["ranking"]],
            names_ranking=column["names_ranking"] == 1,
            session=column["session"],
        )
        column = _as_arrays(self._rankings)
        rankings = Rankings(
            at=column["at"],
            user=column["user"],
            offsets=np.concatenate([[0], column["stops"]]).astype(np.int64),
            items=column["items"],
            labels=column["labels"],
            positions=column["positions"],
            session=column["session"],
            logged_features=None if self._logged_features is None else self._logged_features.build(),
        )
        moved, placed = 0, None
        if not as_arrived:
            is_imported = np.frombuffer(self._is_imported, np.int8) == 1
            placed = place_after_rankings(interactions.at, interactions.ranking, rankings.at, is_ranking, is_imported)
            if placed is not None:
                columns = {
                    field.name: getattr(interactions, field.name)[placed.index] for field in fields(interactions)
                }
                interactions, is_ranking = Interactions(**columns | {"at": placed.at}), placed.is_ranking
                moved = placed.moved
        n = len(interactions)
        order = np.where(is_ranking, n + np.cumsum(is_ranking) - 1, np.cumsum(~is_ranking) - 1).astype(np.int64)
        declared = None
        if self._fields is not None:
            declared = self._fields.build(None if placed is None else placed.index)
        return EventTable(
            self._user_ids, self._types, interactions, rankings, order, self._unknown_items(placed), moved=moved,
            fields=declared,
        )  # fmt: skip

    def _unknown_items(self, placed: Placement | None) -> UnknownItems:
        """Return the ids of unknown items, by the indices of the interactions as they are placed."""
        column = _as_arrays(self._unknown)
        interactions, codes = column["interaction"], column["interaction_code"]
        if placed is not None:
            place = np.empty(len(placed.index), np.int64)
            place[placed.index] = np.arange(len(placed.index))
            order = np.argsort(place[interactions], kind="stable")
            interactions, codes = place[interactions][order], codes[order]
        return UnknownItems(
            self._unknown_ids,
            impressions=column["impression"],
            impression_codes=column["impression_code"],
            interactions=interactions,
            interaction_codes=codes,
        )

    def _add_unknown(self, kind: str, first: int, items: Sequence[str], rows: Sequence[int]) -> None:
        """Keep the ids of unknown items. kind: impression or interaction. first: the index of the first item."""
        for index, (item, row) in enumerate(zip(items, rows, strict=True), first):
            if row == UNKNOWN_ROW:
                self._unknown[kind].append(index)
                self._unknown[f"{kind}_code"].append(self._unknown_ids.add(item))

    def _ranking_code(self, ranking_id: str) -> int:
        code = self._ranking_ids.add(ranking_id)
        if code == len(self._ranking_index):
            self._ranking_index.append(-1)
        return code

    def _visitor_row(self, event: RankingEvent | InteractionEvent) -> int:
        name = visitor_name(event.user, event.session)
        return UNKNOWN_ROW if name is None else self._user_ids.add(name)

    def _remember_unjoined(self, event: InteractionEvent, user: int) -> None:
        """Remember an imported interaction without a ranking while events have its time: the ranking may follow."""
        if event.timestamp != self._time_ms:
            self._time_ms = event.timestamp
            self._unjoined.clear()
        self._unjoined.setdefault((user, event.item), []).append(len(self._interactions["at"]))

    def _join_of_same_time(self, event: RankingEvent, user: int, code: int) -> None:
        """Join a ranking with the remembered interactions of its time, before which it counts as shown."""
        if event.timestamp != self._time_ms:
            self._unjoined.clear()
            return
        for item in event.items:
            for index in self._unjoined.get((user, item), ()):
                self._interactions["ranking"][index] = code

    def _drop_expired(self, now: int) -> None:
        """Drop impressions that are older than the join window, so that memory does not grow with the log."""
        if len(self._last_shown) > 2 * self._size_after_cleanup + 100_000:
            oldest = now - JOIN_WINDOW_S * 1000
            self._last_shown = {key: last for key, last in self._last_shown.items() if last[0] >= oldest}
            self._size_after_cleanup = len(self._last_shown)


_INTERACTION_COLUMNS = {
    "at": "d", "user": "i", "item": "i", "type": "i", "value": "d", "dwell_s": "f", "ranking": "q",
    "names_ranking": "b", "session": "i",
}  # fmt: skip
_RANKING_COLUMNS = {
    "at": "d", "user": "i", "stops": "q", "items": "i", "labels": "f", "positions": "i",
    "session": "i",
}  # fmt: skip
_UNKNOWN_COLUMNS = {"impression": "q", "impression_code": "i", "interaction": "q", "interaction_code": "i"}
_DTYPES = {"b": np.int8, "d": np.float64, "f": np.float32, "i": np.int32, "q": np.int64}


def _as_arrays(columns: dict[str, array[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.frombuffer(column, _DTYPES[column.typecode]) for name, column in columns.items()}


def _event_seconds(event: RankingEvent | InteractionEvent) -> float:
    """Return the unix seconds of an event, as of `valid_from`; written out for speed."""
    timestamp, received = event.timestamp, event.received
    return (timestamp if received is None or received > timestamp else received) / 1000
