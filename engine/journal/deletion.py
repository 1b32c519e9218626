"""Deletes events from the journal's table: those of one user, or the old ones."""

from __future__ import annotations

import json

from sqlalchemy import delete, or_, select
from sqlalchemy.engine import Connection

from feedrank.engine.journal.tables import EVENTS, IS_TOMBSTONE

CHUNK_SIZE = 5_000
"""Events per read."""
MAX_IDS = 500
"""Ids per delete statement."""


def delete_user(connection: Connection, user: str) -> int:
    """Delete all events of a user but tombstones; return how many.

    These are rankings, interactions and user events, and interactions without a user that name one of these rankings.
    """
    user_rankings = select(EVENTS.c.id).where(EVENTS.c.user_id == user, EVENTS.c.kind == "ranking")
    rankings = set(connection.scalars(user_rankings))
    anonymous = select(EVENTS.c.id, EVENTS.c.body).where(EVENTS.c.kind == "interaction", EVENTS.c.user_id.is_(None))
    joined = [
        event_id
        for event_id, body in connection.execute(anonymous.execution_options(yield_per=CHUNK_SIZE))
        if rankings and json.loads(body).get("ranking") in rankings
    ]
    deleted = int(connection.execute(delete(EVENTS).where(EVENTS.c.user_id == user, ~IS_TOMBSTONE)).rowcount)
    for first in range(0, len(joined), MAX_IDS):
        in_chunk = EVENTS.c.id.in_(joined[first : first + MAX_IDS])
        deleted += connection.execute(delete(EVENTS).where(in_chunk)).rowcount
    return deleted


def delete_before(connection: Connection, cutoff_ms: int) -> int:
    """Delete rankings and interactions with timestamps before `cutoff_ms`; return how many.

    cutoff_ms: epoch milliseconds. Tombstones before it are deleted too, and not counted.
    """
    old = (EVENTS.c.timestamp < cutoff_ms, or_(EVENTS.c.kind == "ranking", EVENTS.c.kind == "interaction"))
    deleted = int(connection.execute(delete(EVENTS).where(*old)).rowcount)
    connection.execute(delete(EVENTS).where(EVENTS.c.timestamp < cutoff_ms, IS_TOMBSTONE))
    return deleted
