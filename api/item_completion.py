"""Completes the catalogue: makes an item of each id that imported events name and no item event describes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from feedrank.api.readers.rows import with_content_id
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.journal.journal import Journal

_MADE_ID = re.compile("item:[0-9a-f]{24}")


class ItemCompletion:
    """Collects the items that events name, to find those without an item event."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._described: set[str] = set()

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        """Yield the events unchanged, and collect the items that they name."""
        for event in events:
            if isinstance(event, ItemEvent):
                self._described.add(event.item)
            elif isinstance(event, InteractionEvent):
                self._named.add(event.item)
            elif isinstance(event, RankingEvent):
                self._named.update(event.items)
            yield event

    @property
    def described(self) -> frozenset[str]:
        """Items that the events describe."""
        return frozenset(self._described)

    @property
    def undescribed(self) -> frozenset[str]:
        """Items that the events name and do not describe."""
        return frozenset(self._named - self._described)

    @property
    def names_items(self) -> bool:
        """Whether an interaction or a ranking names an item."""
        return bool(self._named)

    def create_missing(self, journal: Journal, described: Collection[str] | None = None) -> int:
        """Write an item event without fields for each item that has none; return how many were new.

        described: the items of the journal; None: they are read. The events are the same in every import: their time is
        0, and their id is a hash of the content.
        """
        missing = self.undescribed
        if missing:
            missing -= frozenset(described_items(journal) if described is None else described)
        return sum(journal.append(with_content_id(ItemEvent("", 0, item)) for item in sorted(missing)))


def is_made(event: ItemEvent) -> bool:
    """Return whether `create_missing` made an item event: no fields, the time 0, and a hash of its content as id."""
    return not event.fields and event.timestamp == 0 and _MADE_ID.fullmatch(event.id) is not None


def described_items(journal: Journal) -> set[str]:
    """Return the ids of all items that have an item event."""
    return {event.item for event in journal.events("item") if isinstance(event, ItemEvent)}
