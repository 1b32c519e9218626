"""Reads of a journal that do not follow its order: by event id, by item, by time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice

from sqlalchemy import String, case, cast, func, literal, or_, select
from sqlalchemy.engine import Engine

from feedrank.engine.events.events import ItemEvent
from feedrank.engine.journal.decoding import decode
from feedrank.engine.journal.tables import EVENTS

CHUNK_SIZE = 500
"""Ids per statement."""
_IS_ITEM = EVENTS.c.kind == "item"


def known_ids(engine: Engine, ids: Iterable[str], kind: str) -> set[str]:
    """Return those of the ids that events of one kind, such as "ranking", have. engine: the journal's."""
    found: set[str] = set()
    source = iter(ids)
    with engine.connect() as connection:
        while chunk := list(islice(source, CHUNK_SIZE)):
            of_kind = select(EVENTS.c.id).where(EVENTS.c.id.in_(chunk), EVENTS.c.kind == kind)
            found.update(connection.scalars(of_kind))
    return found


def latest_item_time(engine: Engine, until: int, limit_ms: int) -> int:
    """Return the latest time from which the value of an item event holds, in epoch milliseconds; 0 without any.

    Of the events up to offset `until` that take effect at `limit_ms` at the latest.
    """
    known, own = EVENTS.c.effective_time, EVENTS.c.timestamp
    latest = select(func.max(case((own < known, own), else_=known)))
    with engine.connect() as connection:
        found = connection.scalar(latest.where(_IS_ITEM, EVENTS.c.offset <= until, known <= limit_ms))
    return found if isinstance(found, int) else 0


def item_events_between(engine: Engine, after_ms: int, until_ms: int, until: int) -> list[ItemEvent]:
    """Return the item events up to offset `until` that take effect in (after_ms, until_ms], by that time."""
    time = EVENTS.c.effective_time
    query = select(EVENTS.c.body).where(_IS_ITEM, time > after_ms, time <= until_ms, EVENTS.c.offset <= until)
    with engine.connect() as connection:
        return _item_events(connection.scalars(query.order_by(time, EVENTS.c.offset)))


def item_events_since(
    engine: Engine, offset: int, built_ms: int, until: int, limit_ms: int
) -> list[tuple[int, ItemEvent]]:
    """Return (offset, event) of the item events that a catalogue lacks, by `effective_time`, then by offset.

    These are the events after an offset, and those that take effect after `built_ms`; of both those up to offset
    `until` that take effect at `limit_ms` at the latest. Epoch milliseconds.
    """
    time = EVENTS.c.effective_time
    is_later = or_(EVENTS.c.offset > offset, time > built_ms)
    query = select(EVENTS.c.offset, EVENTS.c.body).where(_IS_ITEM, is_later, EVENTS.c.offset <= until, time <= limit_ms)
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(time, EVENTS.c.offset)).all()
    return [(number, event) for number, body in rows for event in _item_events([body])]


def received_times(engine: Engine, around: int) -> list[tuple[int, int]]:
    """Return (offset, received) of the events that a service received: the last one before an offset, and all after it.

    Only an event whose JSON ends with `received` counts, as the journal stamps it. If there is none before the offset,
    the latest time of the events before it stands for it.
    """
    number, time = EVENTS.c.offset, EVENTS.c.effective_time
    is_received = EVENTS.c.body.like(literal('%,"received":').concat(cast(time, String)).concat("}"))
    columns = select(number, time)
    with engine.connect() as connection:
        before = connection.execute(columns.where(number < around, is_received).order_by(number.desc()).limit(1)).all()
        after = connection.execute(columns.where(number > around, is_received).order_by(number)).all()
        if not before:
            before = connection.execute(columns.where(number < around).order_by(time.desc()).limit(1)).all()
    return [(int(offset), int(received)) for offset, received in (*before, *after)]


def events_of_items(engine: Engine, items: Collection[str], until: int, limit_ms: int) -> list[ItemEvent]:
    """Return all events of these items up to offset `until` that take effect at `limit_ms` at the latest, in order."""
    query = select(EVENTS.c.body).where(_IS_ITEM, EVENTS.c.offset <= until, EVENTS.c.effective_time <= limit_ms)
    if len(items) == 1:  # the database leaves out most of the others, which costs less than to parse them
        query = query.where(EVENTS.c.body.contains(json.dumps(next(iter(items)), ensure_ascii=False), autoescape=True))
    with engine.connect() as connection:
        found = _item_events(connection.scalars(query.order_by(EVENTS.c.offset)))
    return [event for event in found if event.item in items]


def _item_events(bodies: Iterable[str]) -> list[ItemEvent]:
    """Decode item events; what can't be decoded was named by the reader that met it first."""
    events = []
    for body in bodies:
        with suppress(ValueError):
            events.append(decode(body))
    return [event for event in events if isinstance(event, ItemEvent)]
