"""Checks a journal: which of its rows can't be read, and so are passed over by every reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Engine

from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event, service_field
from feedrank.engine.events.learnable import check_learnable
from feedrank.engine.journal.decoding import decode
from feedrank.engine.journal.journal import Journal
from feedrank.engine.journal.legacy import upgrade
from feedrank.engine.journal.tables import EVENTS

CHUNK_SIZE = 1_000
"""Rows per statement."""


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row of the journal that can't be read."""

    offset: int
    id: str
    kind: str
    reason: str


@dataclass(slots=True)
class JournalReport:
    """What a check of a journal found."""

    events: int = 0
    unreadable: int = 0
    foreign: int = 0
    """Rankings that are read without the parts that only the service may write."""


def check_journal(journal: Journal, report_row: Callable[[UnreadableRow], None]) -> JournalReport:
    """Read every row of a journal, and learn from each event alone. report_row: called with each that can't be read."""
    report = JournalReport()
    for offset, event_id, kind, body in _rows(journal.engine):
        report.events += 1
        try:
            event = decode(body)
            check_learnable([event])
        except Exception as problem:
            report.unreadable += 1
            report_row(UnreadableRow(offset, str(event_id), str(kind), str(problem)))
        else:
            report.foreign += kind == "ranking" and _has_foreign_fields(event, body)
    return report


def _has_foreign_fields(event: Event, body: str) -> bool:
    if service_field(event) is not None:
        return False
    try:
        return service_field(parse(upgrade(json.loads(body)))) is not None
    except ValueError:
        return False


def _rows(engine: Engine) -> Iterator[tuple[int, Any, Any, Any]]:
    """Yield (offset, id, kind, body) of every row in the order of writing."""
    last = -(2**62)
    query = (
        select(EVENTS.c.offset, EVENTS.c.id, EVENTS.c.kind, EVENTS.c.body).order_by(EVENTS.c.offset).limit(CHUNK_SIZE)
    )
    while True:
        with engine.connect() as connection:
            rows = connection.execute(query.where(EVENTS.c.offset > last)).all()
        yield from (tuple(row) for row in rows)
        if len(rows) < CHUNK_SIZE:
            return
        last = rows[-1][0]
