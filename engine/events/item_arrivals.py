"""Items that arrive while events are observed: from which event on they count, and which fields they bring.

An item event takes effect when the journal gets it. That of the live service says when that was (`received`). An
imported one does not; it takes effect after the events that the service had received before, whatever its own timestamp
says: no ranking that was served before the import could know of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import Event, ItemEvent, effective_time, valid_from
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import Rows

_UNKNOWN_MS = -(2**62)


@dataclass(frozen=True, eq=False, slots=True)
class ItemChanges:
    """Columns of C item events, in the order in which they take effect."""

    before_event: NDArray[np.int64]
    """(C,) position in the table's event order; the number of its events: after the last one."""
    rows: Rows
    """(C,) the row of each item."""
    valid_from_ms: NDArray[np.int64]
    """(C,) since when the values hold, epoch milliseconds; a later value replaces an earlier one."""
    fields: tuple[Mapping[str, FieldValue], ...] = ()
    """(C,) the fields that each event sets, of those that the state reads."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def none(cls) -> ItemChanges:
        """Make the columns of a table without item events."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))


class ItemArrivals:
    """Gives rows to new items, in the order of their first event, and collects the item events of a table.

    Announce the items of a table before its events are added. An imported event counts for an announced item at once,
    since its place in time says nothing of when it was imported. An event that the service received does not count
    before the item event has come.
    """

    def __init__(self, ids: Vocabulary, fields: Collection[str]) -> None:
        """ids: grows by the new items. fields: names of the item fields to keep."""
        self.ids = ids
        self.awaited: set[str] = set()
        """Announced items whose event has not come yet."""
        self._fields = frozenset(fields)
        self._before, self._rows, self._valid_from = array("q"), array("i"), array("q")
        self._changes: list[Mapping[str, FieldValue]] = []

    def announce(self, items: Iterable[str]) -> None:
        """Give rows to those of the items that are unknown."""
        for item in items:
            if item not in self.ids:
                self.ids.add(item)
                self.awaited.add(item)

    def add(self, event: ItemEvent, before_event: int) -> None:
        """Add an item event. before_event: number of the table's events so far."""
        self.awaited.discard(event.item)
        self._before.append(before_event)
        self._rows.append(self.ids.add(event.item))
        self._valid_from.append(valid_from(event))
        self._changes.append({name: event.fields[name] for name in self._fields & event.fields.keys()})

    def build(self) -> ItemChanges:
        """Return the columns of all item events added so far."""
        return ItemChanges(
            np.array(self._before, np.int64), np.array(self._rows, np.int32), np.array(self._valid_from, np.int64),
            tuple(self._changes),
        )  # fmt: skip


def arrival_times(imported: Sequence[int], received: Sequence[tuple[int, int]]) -> list[int]:
    """Return when imported events came, as far as the events tell that a service received before and after them.

    imported: ascending offsets. received: offset and `received` of events, by offset. An event of a clock that was
    ahead has a later `received` than those after it. Epoch milliseconds; -2^62 for one without an event before it.
    """
    if not received:
        return [_UNKNOWN_MS] * len(imported)
    offsets, times = np.array(received, np.int64).T
    earliest_after = np.append(np.minimum.accumulate(times[::-1])[::-1], -_UNKNOWN_MS)
    place = np.searchsorted(offsets, np.array(imported, np.int64))
    before = np.append(times, _UNKNOWN_MS)[place - 1]  # of place 0: the last one, which is unknown
    found: list[int] = np.minimum(before, earliest_after[place]).tolist()
    return found


def in_order_of_arrival(events: Sequence[Event], due: Sequence[Event] = ()) -> list[Event]:
    """Sort new events by `effective_time`, but leave imported item events between the received events beside them.

    events: in the order of the journal, which decides ties. due: earlier ones that were postponed until now.
    """
    places = [n for n, event in enumerate(events) if event.received is None and isinstance(event, ItemEvent)]
    arrived: dict[int, int] = {}
    if places:
        received = [(n, event.received) for n, event in enumerate(events) if event.received is not None]
        arrived = dict(zip(places, arrival_times(places, received), strict=True))
    keyed = [(effective_time(event), event) for event in due]
    keyed += [(arrived.get(n, effective_time(event)), event) for n, event in enumerate(events)]
    return [event for _, event in sorted(keyed, key=lambda entry: entry[0])]
