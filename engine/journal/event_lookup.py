"""Looks up which of many event ids a journal has."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from sqlalchemy import select
from sqlalchemy.engine import Engine

from feedrank.engine.journal.tables import EVENTS

CHUNK_SIZE = 500
"""Ids per statement."""


def known_ids(engine: Engine, ids: Iterable[str], kind: str) -> set[str]:
    """Return those of the ids that events of one kind, such as "ranking", have. engine: the journal's."""
    found: set[str] = set()
    source = iter(ids)
    with engine.connect() as connection:
        while chunk := list(islice(source, CHUNK_SIZE)):
            of_kind = select(EVENTS.c.id).where(EVENTS.c.id.in_(chunk), EVENTS.c.kind == kind)
            found.update(connection.scalars(of_kind))
    return found
