"""Reads the item events that a serving bundle lacks, so that the same value of a field wins as at the next training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.events.events import ItemEvent, effective_time, valid_from
from feedrank.engine.journal.journal import Journal
from feedrank.engine.journal.lookups import events_of_items, item_events_between, latest_item_time
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.models.bundles import bundle


@dataclass(frozen=True, slots=True)
class ItemBatch:
    """New item events, in an order in which each value replaces those before it."""

    events: list[ItemEvent]
    offset: int
    """Journal offset of the last item event that was read."""
    limit_ms: int
    """Epoch milliseconds: later item events wait until their time has come."""
    latest: Mapping[str, int]
    """Item -> the latest time from which one of its values holds, of the items in `events`."""


class NewItems(NamedTuple):
    """The items that a state knows and its catalogue lacks."""

    ids: list[str]
    """In the order of the state's rows, which are those after the catalogue's."""
    offset: int
    """Journal offset of the last event applied to the state."""
    now_ms: int
    """The clock of the state, epoch milliseconds; later item events are postponed."""

    @classmethod
    def of(cls, snapshot: ServingSnapshot) -> NewItems:
        """Read them from a snapshot, which must not change meanwhile."""
        items = snapshot.state.items
        rows = np.arange(len(snapshot.catalogue), len(items), dtype=np.int32)
        return cls(items.names(rows), snapshot.offset, snapshot.future.now_ms)


class ItemUpdates:
    """Reads new item events. An event that is older than another one of its item is merged below it.

    Events that are more than a day ahead of the clock are passed over until their time has come, as in training.
    """

    def __init__(self, journal: Journal, opened: bundle.Bundle) -> None:
        """opened: the bundle, as it was trained."""
        self._journal, self._item_ids = journal, opened.item_model.catalogue.ids
        self._offset = bundle.journal_offset_of(opened)
        self._limit_ms = bundle.built_ms(opened)  # what takes effect later may not be in the bundle
        self._latest: dict[str, int] = {}
        self._latest_of_bundle: int | None = None

    def read(self, now_ms: int, until: int | None = None) -> ItemBatch:
        """Return the item events that are not applied. until: the last offset to read; None: all.

        Of an item with a late event, all events are read again: it is the only way to know which values are older.
        Nothing changes until `applied` is called.
        """
        limit_ms, engine = now_ms + MAX_AHEAD_MS, self._journal.engine
        if self._latest_of_bundle is None:
            self._latest_of_bundle = latest_item_time(engine, self._offset, limit_ms)
        entries = self._journal.read(self._offset, "item")
        new = list(entries if until is None else takewhile(lambda entry: entry[0] <= until, entries))
        events = [
            *item_events_between(engine, self._limit_ms, limit_ms, self._offset),
            *(event for _, event in new if isinstance(event, ItemEvent) and effective_time(event) <= limit_ms),
        ]
        offset = new[-1][0] if new else self._offset
        latest: dict[str, int] = {}
        late: set[str] = set()
        for event in events:
            before = latest.get(event.item, self._latest_before(event.item))
            if valid_from(event) < before:
                late.add(event.item)
            latest[event.item] = max(valid_from(event), before)
        if late:
            events = [event for event in events if event.item not in late]
            events += sorted(events_of_items(engine, late, offset, limit_ms), key=valid_from)
        return ItemBatch(events, offset, limit_ms, latest)

    def applied(self, batch: ItemBatch) -> None:
        """Note that a batch was applied; one that failed is read again."""
        self._offset, self._limit_ms = batch.offset, batch.limit_ms
        self._latest |= batch.latest

    def has_due(self, now_ms: int) -> bool:
        """Return whether the time of an item event has come since the last batch."""
        return bool(item_events_between(self._journal.engine, self._limit_ms, now_ms + MAX_AHEAD_MS, self._offset))

    def _latest_before(self, item: str) -> int:
        """Return the latest time of an applied value of an item; of one in the bundle, at most that of all of them."""
        of_bundle = (self._latest_of_bundle or 0) if item in self._item_ids else 0
        return self._latest.get(item, of_bundle)
