"""Turn the tags that users gave to items into the items' tags as of each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from feedrank.api.readers.rows import with_content_id
from feedrank.engine.events.events import Event, ItemEvent

MAX_TAGS = 50
"""Different tags of an item that are kept; later ones are left out."""


class GivenTag(NamedTuple):
    """One tag that a user gave to an item."""

    timestamp: int
    """Epoch milliseconds."""
    item: str
    tag: str


def tag_events(given: Iterable[GivenTag]) -> Iterator[Event]:
    """Yield an item event with all tags so far for each tag that is new to its item, in order of time.

    So no request sees a tag that was given later. Capital letters make no difference. The tags are held in memory.
    """
    tags: dict[str, dict[str, str]] = {}
    for timestamp, item, tag in sorted(given):
        of_item = tags.setdefault(item, {})
        if tag.casefold() in of_item or len(of_item) >= MAX_TAGS:
            continue
        of_item[tag.casefold()] = tag
        yield with_content_id(ItemEvent("", timestamp, item, {"tags": list(of_item.values())}))
