"""Items that arrive while events are observed: from which event on they count, and which fields they bring.

An item event takes effect when the journal gets it. That of the live service says when that was (`received`). An
imported one does not; it takes effect after the events that the service had received before, whatever its own timestamp
says: no ranking that was served before the import could know of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import ItemEvent, valid_from
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import Rows


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
        self._fields, self._passed_over = frozenset(fields), set[str]()
        self._before, self._rows, self._valid_from = array("q"), array("i"), array("q")
        self._changes: list[Mapping[str, FieldValue]] = []

    def announce(self, items: Iterable[str]) -> None:
        """Give rows to those of the items that are unknown."""
        for item in items:
            if item not in self.ids:
                self.ids.add(item)
                self.awaited.add(item)

    def pass_over(self, event: ItemEvent) -> None:
        """Do not collect an event that comes next, since the catalogue has its item and its values."""
        self._passed_over.add(event.id)

    def takes(self, event: ItemEvent) -> bool:
        """Return whether an event is not passed over."""
        return event.id not in self._passed_over

    def add(self, event: ItemEvent, before_event: int) -> None:
        """Add an item event. before_event: number of the table's events so far."""
        if event.id in self._passed_over:
            self._passed_over.remove(event.id)
            return
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
