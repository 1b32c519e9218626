"""Completes the catalogue: creates an item from each id that imported events name and no item event describes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from feedrank.api.readers.rows import with_content_id
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.journal.journal import Journal

_CONTENT_ID = re.compile("item:[0-9a-f]{24}")


def create_from_ids(journal: Journal, ids: Iterable[str]) -> int:
    """Write an item event without fields for each id; return how many were new.

    The events are the same in every import: their time is 0, and their id is a hash of the content.
    """
    return sum(journal.append(with_content_id(ItemEvent("", 0, item)) for item in sorted(ids)))


def is_created(event: ItemEvent) -> bool:
    """Return whether `create_from_ids` wrote an item event: no fields, the time 0, and a hash of its content as id."""
    return not event.fields and event.timestamp == 0 and _CONTENT_ID.fullmatch(event.id) is not None


def described_items(journal: Journal) -> set[str]:
    """Return the ids of all items that have an item event."""
    return {event.item for event in journal.events("item") if isinstance(event, ItemEvent)}
