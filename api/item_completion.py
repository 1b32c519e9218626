"""Completes the catalogue: makes an item of each id that imported events name and no item event describes."""

from __future__ import annotations

from collections.abc import Iterator

from feedrank.api.readers.rows import with_content_id
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.journal.journal import Journal


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

    def create_missing(self, journal: Journal) -> int:
        """Write an item event without fields for each item that has none; return how many were new.

        The events are the same in every import: their time is 0, and their id is a hash of the content.
        """
        missing = self._named - self._described
        missing = missing - described_items(journal) if missing else missing
        return sum(journal.append(with_content_id(ItemEvent("", 0, item)) for item in sorted(missing)))


def described_items(journal: Journal) -> set[str]:
    """Return the ids of all items that have an item event."""
    return {event.item for event in journal.events("item") if isinstance(event, ItemEvent)}
