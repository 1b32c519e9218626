"""Converts events to rows of the journal, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import Event, effective_time
from feedrank.engine.journal.errors import JournalError
from feedrank.engine.journal.legacy import upgrade


def decode(body: str) -> Event:
    """Read an event from the body of its row, in the names of today or of an older version."""
    return parse(upgrade(json.loads(body)))


def encode(event: Event) -> dict[str, Any]:
    """Return the row of an event. Raises JournalError for an event that could not be read back."""
    body = to_dict(event)
    try:
        parse(body)  # an event that can't be parsed again would block every reader at its offset
        encoded = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as problem:
        raise JournalError(f"event {event.id!r} could not be read back: {problem}; nothing was written") from None
    return {
        "id": event.id, "kind": body["event"], "timestamp": event.timestamp, "effective_time": effective_time(event),
        "user_id": body.get("user"), "body": encoded,
    }  # fmt: skip


def rows_by_id(events: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """Map each event id to the row of its first event."""
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.id not in rows:
            rows[event.id] = encode(event)
    return rows


def is_new_flags(events: Sequence[Event], inserted: Mapping[str, int]) -> list[bool]:
    """Return for each event whether it was written: True for the first event of each inserted id."""
    remaining = set(inserted)
    flags = []
    for event in events:
        flags.append(event.id in remaining)
        remaining.discard(event.id)
    return flags
