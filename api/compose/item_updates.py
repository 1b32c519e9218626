"""Reads the item events that a serving bundle lacks, so that the same value of a field wins as at the next training."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy import case, func, select

from feedrank.engine.events.event_time import MAX_AHEAD_MS, FutureEvents
from feedrank.engine.events.events import ItemEvent, valid_from
from feedrank.engine.journal.journal import Journal
from feedrank.engine.journal.tables import EVENTS


@dataclass(frozen=True, slots=True)
class ItemBatch:
    """New item events, in an order in which each value replaces those before it."""

    events: list[ItemEvent]
    offset: int
    """Journal offset of the last item event that was read."""


class ItemUpdates:
    """Reads new item events. An event that is older than another one of its item is merged below it.

    Events that are more than a day ahead of the clock are passed over until their time has come, as in training.
    """

    def __init__(self, journal: Journal, offset: int) -> None:
        """offset: that of the bundle, in the journal."""
        self._journal = journal
        self.offset = offset
        """Journal offset of the last item event that was applied; set it when a batch was."""
        self._latest: dict[str, int] = {}  # item -> latest time of an event since the bundle
        self._latest_of_bundle: int | None = None
        self._future = FutureEvents(0)

    def read(self, now_ms: int, until: int | None = None) -> ItemBatch:
        """Return the item events after `offset`. until: the last offset to read; None: all.

        Of an item with a late event, all events are read again: it is the only way to know which values are older.
        """
        if self._latest_of_bundle is None:
            self._latest_of_bundle = self._latest_item_time(now_ms)
        due = [event for event in self._future.release(now_ms) if isinstance(event, ItemEvent)]
        entries = self._journal.read(self.offset, "item")
        new = list(entries if until is None else takewhile(lambda entry: entry[0] <= until, entries))
        events = due + [event for _, event in self._future.skip(new) if isinstance(event, ItemEvent)]
        offset = new[-1][0] if new else self.offset
        late: set[str] = {event.item for event in due}
        for event in events:
            latest = self._latest.get(event.item, self._latest_of_bundle)
            if valid_from(event) < latest:
                late.add(event.item)
            self._latest[event.item] = max(valid_from(event), latest)
        if late:
            events = [event for event in events if event.item not in late] + self._all_events(late, offset, now_ms)
        return ItemBatch(events, offset)

    def _all_events(self, items: set[str], until: int, now_ms: int) -> list[ItemEvent]:
        """Return all events of these items in the order in which they are merged."""
        read = takewhile(lambda entry: entry[0] <= until, self._journal.read(0, "item"))
        future = FutureEvents(now_ms)
        events = [event for _, event in read if isinstance(event, ItemEvent) and event.item in items]
        return sorted((event for event in events if not future.is_ahead(event)), key=valid_from)

    def _latest_item_time(self, now_ms: int) -> int:
        """Return the latest time from which a value of the bundle's items holds, in epoch milliseconds."""
        known, own = EVENTS.c.effective_time, EVENTS.c.timestamp
        query = select(func.max(case((own < known, own), else_=known))).where(
            EVENTS.c.kind == "item", EVENTS.c.offset <= self.offset, known <= now_ms + MAX_AHEAD_MS
        )
        with self._journal.engine.connect() as connection:
            return int(connection.scalar(query) or 0)
