"""The journal: every event, in the order of writing, in a database through SQLAlchemy Core. The source of truth.

SQLite and PostgreSQL by the same code. Writers take turns, in one process or many, so that offsets are given in the
order in which events become visible: whoever reads on from an offset misses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    inspect,
    literal,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from engine.events import FORGOTTEN, Event, known_from, parse, to_dict
from engine.protocols import Exchange
from engine.turns import Turns

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
    Column("known", BigInteger, nullable=False),
    Column("person", String),
    Column("body", Text, nullable=False),
    Index("events_by_kind", "kind"),
    Index("events_in_order", "known", "offset"),
    sqlite_autoincrement=True,  # the offset of an event that was deleted is not given again
)


_WRITTEN = (_events.c.id, _events.c.offset)
_INSERT = {
    "sqlite": sqlite.insert(_events).on_conflict_do_nothing(index_elements=["id"]).returning(*_WRITTEN),
    "postgresql": postgresql.insert(_events).on_conflict_do_nothing(index_elements=["id"]).returning(*_WRITTEN),
}
_SINCE = (
    select(_events.c.offset, _events.c.body)
    .where(_events.c.offset > bindparam("since"))
    .order_by(_events.c.offset)
)  # fmt: skip
_NOTE = and_(_events.c.kind == "user", _events.c.body.contains(f'"{FORGOTTEN}"'))
"""What says that somebody was forgotten."""
_TURN = text("SELECT pg_advisory_xact_lock(7203421)")
"""What writers to a PostgreSQL journal wait for; SQLite has its own."""


class JournalError(RuntimeError):
    """The journal can't be opened, read or written."""


class Journal:
    """An append-only event log. What `append` has returned is on disk; an event id counts once."""

    def __init__(self, url: str) -> None:
        """url: as SQLAlchemy takes it: `sqlite:////data/journal.db`, `postgresql+psycopg://host/name`."""
        try:
            self._engine = create_engine(url, future=True)
        except (ArgumentError, NoSuchModuleError) as problem:
            raise JournalError(f"the journal's URL {url!r} can't be used: {problem}") from None
        except ModuleNotFoundError as problem:
            raise JournalError(
                f"the journal's URL {url!r} wants the driver {problem.name}, which is not installed; for PostgreSQL:"
                " pip install 'feedrank[postgresql]', and a URL that starts with postgresql+psycopg://"
            ) from None
        self._dialect = self._engine.dialect.name
        if self._dialect not in _INSERT:
            raise JournalError(f"found a {self._dialect} database, expected one of {', '.join(_INSERT)}")
        self._turns: Turns | None = None
        if self._dialect == "sqlite":
            if (path := self._engine.url.database) and path != ":memory:":
                self._turns = Turns(Path(f"{path}-turns"))
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin)
        try:
            with self._writing() as connection:
                _metadata.create_all(connection)
                found = {column["name"] for column in inspect(connection).get_columns("events")}
        except DBAPIError as problem:
            raise JournalError(f"can't open the journal at {self._engine.url!r}: {problem.orig}") from None
        if missing := {column.name for column in _events.columns} - found:
            raise JournalError(
                f"the journal at {self._engine.url!r} was made by another version: it lacks"
                f" {', '.join(sorted(missing))}; move it away and load its sources again"
            )

    @classmethod
    def at(cls, path: Path) -> Journal:
        """The journal in an SQLite file, made where it is not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{path}")

    def append(self, events: Iterable[Event]) -> list[bool]:
        """Write all or none in one transaction; for each event, True where it was new.

        Raises JournalError, with nothing written, where the database refuses.
        """
        return self._write(events, None).fresh

    def exchange(self, events: Iterable[Event], since: int) -> Exchange:
        """As `append`; and what others wrote from after offset `since` up to these events, in the same transaction."""
        return self._write(events, since)

    def _write(self, events: Iterable[Event], since: int | None) -> Exchange:
        fresh: list[bool] = []
        missed: list[tuple[int, str]] = []
        offset = since or 0
        source = iter(events)
        insert = _INSERT[self._dialect]
        try:
            with self._writing() as connection:
                if since is not None:
                    missed = [(row[0], row[1]) for row in connection.execute(_SINCE, {"since": since})]
                    offset = missed[-1][0] if missed else offset
                while chunk := list(islice(source, CHUNK)):
                    rows: dict[str, dict[str, Any]] = {}
                    for one in chunk:
                        if one.id not in rows:
                            rows[one.id] = _row(one)
                    new: dict[str, int] = {row[0]: row[1] for row in connection.execute(insert, list(rows.values()))}
                    offset = max([offset, *new.values()])
                    fresh += [new.pop(one.id, None) is not None for one in chunk]
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to write: {problem.orig}; nothing of this was kept") from None
        return Exchange(fresh, [parse(json.loads(body)) for _, body in missed], offset)

    def read(self, since: int = 0, kind: str | None = None) -> Iterator[tuple[int, Event]]:
        """(offset, event) in the order of writing, from after offset `since`; of one kind only, if asked."""
        query = select(_events.c.offset, _events.c.body).order_by(_events.c.offset).limit(CHUNK)
        if kind is not None:
            query = query.where(_events.c.kind == kind)
        while rows := self._rows(query.where(_events.c.offset > since)):
            for offset, body in rows:
                yield offset, parse(json.loads(body))
            if len(rows) < CHUNK:
                return
            since = rows[-1][0]

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """All events in the order of writing; of one kind only, if asked."""
        return (one for _, one in self.read(kind=kind))

    def in_order(self) -> Iterator[tuple[int, Event]]:
        """(offset, event) in the order in which a feed could know of them: by `known_from`, then by offset."""
        known, offset = _events.c.known, _events.c.offset
        query = select(known, offset, _events.c.body).order_by(known, offset).limit(CHUNK)
        last = (-(2**62), 0)
        while rows := self._rows(query.where(tuple_(known, offset) > tuple_(*map(literal, last)))):
            for _, place, body in rows:
                yield place, parse(json.loads(body))
            last = (rows[-1][0], rows[-1][1])

    def find(self, event_id: str) -> Event | None:
        """The event of that id."""
        rows = self._rows(select(_events.c.body).where(_events.c.id == event_id))
        return parse(json.loads(rows[0][0])) if rows else None

    def counts(self) -> dict[str, int]:
        """How many events of each kind there are."""
        query = select(_events.c.kind, func.count()).group_by(_events.c.kind)
        with self._engine.connect() as connection:
            return {kind: int(count) for kind, count in connection.execute(query)}

    def forget(self, user: str, note: Event) -> int:
        """Delete all that is kept of one person, and write the note in its place; how many events went.

        Their rankings, their interactions, what is known of them, and interactions that name no user but answer one of
        their rankings. What is deleted is overwritten, so that nothing stays readable in the file. The note tells
        whoever reads on that there was something to forget.
        """
        own = select(_events.c.id).where(_events.c.person == user, _events.c.kind == "ranking")
        try:
            with self._writing() as connection:
                rankings = set(connection.scalars(own))
                nameless = select(_events.c.id, _events.c.body).where(
                    _events.c.kind == "interaction", _events.c.person.is_(None)
                )
                answers = [
                    one
                    for one, body in connection.execute(nameless.execution_options(yield_per=CHUNK))
                    if rankings and json.loads(body).get("ranking") in rankings
                ]
                gone = connection.execute(delete(_events).where(_events.c.person == user, ~_NOTE)).rowcount
                for first in range(0, len(answers), 500):
                    chosen = _events.c.id.in_(answers[first : first + 500])
                    gone += connection.execute(delete(_events).where(chosen)).rowcount
                if gone:
                    connection.execute(delete(_events).where(_events.c.person == user))
                    connection.execute(_INSERT[self._dialect], [_row(note)])
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        if self._dialect == "sqlite":
            self._fold()
        else:
            self._give_back()
        return int(gone)

    def retain(self, since: int) -> int:
        """Delete rankings and interactions with timestamps before `since` (epoch milliseconds); how many.

        Item and user events stay: they are what the catalogue is made of. Notes of people who were forgotten go.
        """
        old = (_events.c.timestamp < since, or_(_events.c.kind == "ranking", _events.c.kind == "interaction"))
        try:
            with self._writing() as connection:
                gone = connection.execute(delete(_events).where(*old)).rowcount
                connection.execute(delete(_events).where(_events.c.timestamp < since, _NOTE))
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        self._give_back()
        return int(gone)

    @property
    def last(self) -> int:
        """The offset of the latest event, 0 where there is none."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.max(_events.c.offset))) or 0)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()
        if self._turns:
            self._turns.close()

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine behind it."""
        return self._engine

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other writer is in."""
        turn = self._turns.turn() if self._turns else nullcontext()
        with turn, self._engine.connect().execution_options(writing=True) as connection, connection.begin():
            if self._dialect == "postgresql":
                connection.execute(_TURN)
            yield connection

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except DBAPIError as problem:
            raise JournalError(f"can't read the journal at {self._engine.url!r}: {problem.orig}") from None

    def _give_back(self) -> None:
        """Give the space of what was deleted back."""
        with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM")
        if self._dialect == "sqlite":
            self._fold()

    def _fold(self) -> None:
        """Let SQLite move what was written to its main file, and empty the other."""
        with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _row(one: Event) -> dict[str, Any]:
    body = to_dict(one)
    try:
        parse(body)  # what no reader could take must not be written: it would bar the way to all that comes after it
        written = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as problem:
        raise JournalError(f"event {one.id!r} could not be read back: {problem}; nothing of this was kept") from None
    return {
        "id": one.id, "kind": body["event"], "timestamp": one.timestamp, "known": known_from(one),
        "person": body.get("user"), "body": written,
    }  # fmt: skip


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin` alone
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # a deferred transaction that turns from reading to writing can fail where another process writes
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    writing = options.get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
