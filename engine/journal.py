"""The journal: every event, in the order of writing, in a database through SQLAlchemy Core. The source of truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy import insert as insert_into
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from engine.events import Event, parse, to_dict

CHUNK = 5_000
"""Events written or read at a time."""

_metadata = MetaData()
_events = Table(
    "events",
    _metadata,
    Column("offset", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("events_by_kind", "kind"),
)


class JournalError(RuntimeError):
    """The journal can't be opened, read or written."""


class Journal:
    """An append-only event log. What `append` has returned is on disk; an event id counts once."""

    def __init__(self, url: str) -> None:
        """url: a database URL as SQLAlchemy takes it, such as `sqlite:////data/journal.db`."""
        self._engine = create_engine(url, future=True)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin)
        try:
            _metadata.create_all(self._engine)
        except DBAPIError as problem:
            raise JournalError(f"can't open the journal at {self._engine.url!r}: {problem.orig}") from None

    @classmethod
    def at(cls, path: Path) -> Journal:
        """The journal in an SQLite file, made where it is not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{path}")

    def append(self, events: Iterable[Event]) -> list[bool]:
        """Write all or none in one transaction; for each event, True where it was new.

        Raises JournalError, with nothing written, where the database refuses.
        """
        fresh: list[bool] = []
        source = iter(events)
        try:
            with self._engine.connect().execution_options(writing=True) as connection, connection.begin():
                while chunk := list(islice(source, CHUNK)):
                    ids = [one.id for one in chunk]
                    known = set(connection.scalars(select(_events.c.id).where(_events.c.id.in_(ids))))
                    rows: list[dict[str, Any]] = []
                    for one in chunk:
                        fresh.append(one.id not in known)
                        if fresh[-1]:
                            known.add(one.id)
                            rows.append(_row(one))
                    if rows:
                        connection.execute(insert_into(_events), rows)
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to write: {problem.orig}; nothing of this was kept") from None
        return fresh

    def read(self, since: int = 0, kind: str | None = None) -> Iterator[tuple[int, Event]]:
        """(offset, event) in the order of writing, from after offset `since`; of one kind only, if asked."""
        query = select(_events.c.offset, _events.c.body).order_by(_events.c.offset).limit(CHUNK)
        if kind is not None:
            query = query.where(_events.c.kind == kind)
        while True:
            with self._engine.connect() as connection:
                rows = connection.execute(query.where(_events.c.offset > since)).all()
            if not rows:
                return
            for offset, body in rows:
                yield offset, parse(json.loads(body))
            since = rows[-1][0]

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """All events in the order of writing; of one kind only, if asked."""
        return (one for _, one in self.read(kind=kind))

    def find(self, event_id: str) -> Event | None:
        """The event of that id."""
        with self._engine.connect() as connection:
            body = connection.scalar(select(_events.c.body).where(_events.c.id == event_id))
        return None if body is None else parse(json.loads(body))

    def counts(self) -> dict[str, int]:
        """How many events of each kind there are."""
        query = select(_events.c.kind, func.count()).group_by(_events.c.kind)
        with self._engine.connect() as connection:
            return {kind: int(count) for kind, count in connection.execute(query)}

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine behind it."""
        return self._engine


def _row(one: Event) -> dict[str, Any]:
    body = to_dict(one)
    try:
        parse(body)  # what no reader could take must not be written: it would bar the way to all that comes after it
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as problem:
        raise JournalError(f"event {one.id!r} could not be read back: {problem}; nothing of this was kept") from None
    return {"id": one.id, "kind": body["event"], "timestamp": one.timestamp, "body": text}


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin` alone
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # a deferred transaction that turns from reading to writing can fail where another process writes
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
