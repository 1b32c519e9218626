"""Deletes events from the journal's table: those of one user, or the old ones."""

from __future__ import annotations

from sqlalchemy import delete, or_
from sqlalchemy.engine import Connection

from feedrank.engine.journal.tables import EVENTS, IS_TOMBSTONE
from feedrank.engine.journal.user_events import MAX_PARAMETERS, UserEvents


def delete_user(connection: Connection, found: UserEvents) -> int:
    """Delete all events of a user, as `UserEvents.search` finds them in this transaction; return how many.

    Tombstones of earlier versions, which name the user, go too, and are not counted.
    """
    found.search_again(connection)
    deleted = 0
    offsets = sorted(found.offsets)
    for first in range(0, len(offsets), MAX_PARAMETERS):
        in_chunk = EVENTS.c.offset.in_(offsets[first : first + MAX_PARAMETERS])
        deleted += connection.execute(delete(EVENTS).where(in_chunk)).rowcount
    if found.user is not None:  # by kind, which has an index: a scan of all events would keep other writers waiting
        connection.execute(delete(EVENTS).where(EVENTS.c.kind == "user", EVENTS.c.user_id == found.user))
    return deleted


def delete_before(connection: Connection, cutoff_ms: int) -> int:
    """Delete rankings and interactions with timestamps before `cutoff_ms`; return how many.

    cutoff_ms: epoch milliseconds. Tombstones of earlier versions before it are deleted too, and not counted.
    """
    old = (EVENTS.c.timestamp < cutoff_ms, or_(EVENTS.c.kind == "ranking", EVENTS.c.kind == "interaction"))
    deleted = int(connection.execute(delete(EVENTS).where(*old)).rowcount)
    connection.execute(delete(EVENTS).where(EVENTS.c.timestamp < cutoff_ms, IS_TOMBSTONE))
    return deleted
