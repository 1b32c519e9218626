"""Which item events a bundle's catalogue has, and when the others take effect in the order of a journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from sqlalchemy.engine import Engine

from feedrank.engine.events.arrived_events import arrival_times
from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.events.events import Event, ItemEvent, effective_time
from feedrank.engine.journal.lookups import item_events_since, received_times
from feedrank.models.bundles.bundle import Bundle, built_ms, journal_offset_of


@dataclass(frozen=True, slots=True)
class ItemCutoff:
    """The last item events of a catalogue: those up to an offset that took effect before the bundle was built."""

    offset: int = 0
    """Journal offset of the last item event."""
    built_ms: int = 2**62
    """When the bundle was built, epoch milliseconds."""

    @classmethod
    def of(cls, bundle: Bundle) -> ItemCutoff:
        """Return that of a bundle's catalogue."""
        return cls(journal_offset_of(bundle), built_ms(bundle))

    def has(self, offset: int, event: ItemEvent) -> bool:
        """Return whether the catalogue has the values of an item event, by its journal offset."""
        return offset <= self.offset and effective_time(event) <= self.built_ms


class ArrivalOrder:
    """The order in which a running service applied the events of a journal, as far as the journal says it.

    That is by `effective_time`, then by offset. But an imported item event that the catalogue lacks comes after the
    events that the service had received before it (`engine.events.item_arrivals`).
    """

    def __init__(self, engine: Engine, cutoff: ItemCutoff, until: int, limit_ms: int) -> None:
        """engine: the journal's. until, limit_ms: the last offset and the last effective time, epoch milliseconds."""
        entries = item_events_since(engine, cutoff.offset, cutoff.built_ms, until, limit_ms)
        imported = sorted(offset for offset, event in entries if event.received is None)
        times = arrival_times(imported, received_times(engine, imported[0])) if imported else []
        arrived = dict(zip(imported, times, strict=True))
        for offset, event in entries:
            if offset in arrived and effective_time(event) > arrived[offset] + MAX_AHEAD_MS:
                del arrived[offset]  # it was postponed, or nothing says when it came
        keyed = sorted((arrived.get(offset, effective_time(event)), offset, event.item) for offset, event in entries)
        self.items = [item for _, _, item in keyed]
        """The items of these events, in order; an item may be there several times."""
        self._time_of = {offset: time_ms for time_ms, offset, _ in keyed if offset in arrived}

    def sort(self, entries: Iterable[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) pairs in this order. entries: by `effective_time`, then by offset."""
        waiting: list[tuple[int, int, Event]] = []
        for offset, event in entries:
            if offset in self._time_of:
                heappush(waiting, (self._time_of[offset], offset, event))
                continue
            while waiting and waiting[0][:2] < (effective_time(event), offset):
                yield heappop(waiting)[1:]
            yield offset, event
        while waiting:
            yield heappop(waiting)[1:]
