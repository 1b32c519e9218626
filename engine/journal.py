"""The journal: every event, in the order of writing, in a database through SQLAlchemy Core. The source of truth.

SQLite and PostgreSQL by the same code. Writers take turns, in one process or many, so that offsets are given in the
order in which events become visible: whoever reads on from an offset misses nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Select, create_engine, delete, event, func, inspect, literal, or_, select, tuple_
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from engine.events import Event, known_from, parse, to_dict
from engine.journal_tables import EVENTS, INSERT, METADATA, NOTE, SINCE, TURN, begin, plain, set_up_sqlite
from engine.line import Line
from engine.protocols import Exchange
from engine.turns import Turns

CHUNK = 5_000
"""Events written or read at a time."""


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
        if self._dialect not in INSERT:
            raise JournalError(f"found a {self._dialect} database, expected one of {', '.join(INSERT)}")
        self._turns: Turns | None = None
        self._line: Line | None = None
        if self._dialect == "sqlite":
            if (path := self._engine.url.database) and path != ":memory:":
                self._turns = Turns(Path(f"{path}-turns"))
                self._line = Line(self._engine, f"{plain(SINCE)} LIMIT :most", plain(INSERT["sqlite"]))
            event.listen(self._engine, "connect", set_up_sqlite)
            event.listen(self._engine, "begin", begin)
        try:
            with self._writing() as connection:
                METADATA.create_all(connection)
                found = {column["name"] for column in inspect(connection).get_columns("events")}
        except DBAPIError as problem:
            raise JournalError(f"can't open the journal at {self._engine.url!r}: {problem.orig}") from None
        if missing := {column.name for column in EVENTS.columns} - found:
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
        fresh: list[bool] = []
        source = iter(events)
        with self._refusals(), self._writing() as connection:
            while chunk := list(islice(source, CHUNK)):
                rows = _rows(chunk)
                written = connection.execute(INSERT[self._dialect], list(rows.values()))
                fresh += _fresh(chunk, {row[0]: row[1] for row in written})
        return fresh

    def exchange(self, events: Sequence[Event], since: int) -> Exchange:
        """As `append`; and what others wrote from after offset `since` up to these events, in the same transaction."""
        rows = _rows(events)
        with self._refusals():
            if self._line is None:
                with self._writing() as connection:
                    found = connection.execute(SINCE, {"since": since})
                    missed = [(int(offset), str(body)) for offset, body in found]
                    written = connection.execute(INSERT[self._dialect], list(rows.values())) if rows else ()
                    new = {row[0]: row[1] for row in written}
            else:
                with self._turns.turn() if self._turns else nullcontext():
                    missed, new = self._line.exchange(list(rows.values()), since)
        offset = max([since, *(place for place, _ in missed), *new.values()])
        return Exchange(_fresh(events, new), [parse(json.loads(body)) for _, body in missed], offset)

    def read(self, since: int = 0, kind: str | None = None) -> Iterator[tuple[int, Event]]:
        """(offset, event) in the order of writing, from after offset `since`; of one kind only, if asked."""
        while rows := self._after(since, kind):
            for offset, body in rows:
                yield offset, parse(json.loads(body))
            if len(rows) < CHUNK:
                return
            since = rows[-1][0]

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """All events in the order of writing; of one kind only, if asked."""
        return (one for _, one in self.read(kind=kind))

    def in_order(self, since: int | None = None) -> Iterator[tuple[int, Event]]:
        """(offset, event) in the order in which a feed could know of them: by `known_from`, then by offset.

        since: from this moment on, in epoch milliseconds.
        """
        known, offset = EVENTS.c.known, EVENTS.c.offset
        query = select(known, offset, EVENTS.c.body).order_by(known, offset).limit(CHUNK)
        last = (-(2**62) if since is None else since, -1)
        while rows := self._rows(query.where(tuple_(known, offset) > tuple_(*map(literal, last)))):
            for _, place, body in rows:
                yield place, parse(json.loads(body))
            last = (rows[-1][0], rows[-1][1])

    def find(self, event_id: str) -> Event | None:
        """The event of that id."""
        rows = self._rows(select(EVENTS.c.body).where(EVENTS.c.id == event_id))
        return parse(json.loads(rows[0][0])) if rows else None

    def counts(self) -> dict[str, int]:
        """How many events of each kind there are."""
        query = select(EVENTS.c.kind, func.count()).group_by(EVENTS.c.kind)
        with self._engine.connect() as connection:
            return {kind: int(count) for kind, count in connection.execute(query)}

    def forget(self, user: str, note: Event) -> int:
        """Delete all that is kept of one person, and write the note in its place; how many events went.

        Their rankings, their interactions, what is known of them, and interactions that name no user but answer one of
        their rankings. What is deleted is overwritten, so that nothing stays readable in the file. The note tells
        whoever reads on that there was something to forget.
        """
        own = select(EVENTS.c.id).where(EVENTS.c.person == user, EVENTS.c.kind == "ranking")
        try:
            with self._writing() as connection:
                rankings = set(connection.scalars(own))
                nameless = select(EVENTS.c.id, EVENTS.c.body).where(
                    EVENTS.c.kind == "interaction", EVENTS.c.person.is_(None)
                )
                answers = [
                    one
                    for one, body in connection.execute(nameless.execution_options(yield_per=CHUNK))
                    if rankings and json.loads(body).get("ranking") in rankings
                ]
                gone = connection.execute(delete(EVENTS).where(EVENTS.c.person == user, ~NOTE)).rowcount
                for first in range(0, len(answers), 500):
                    chosen = EVENTS.c.id.in_(answers[first : first + 500])
                    gone += connection.execute(delete(EVENTS).where(chosen)).rowcount
                if gone:
                    connection.execute(delete(EVENTS).where(EVENTS.c.person == user))
                    connection.execute(INSERT[self._dialect], [_row(note)])
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        if self._dialect == "sqlite":
            self._fold("TRUNCATE")
        else:
            self._give_back()
        return int(gone)

    def retain(self, since: int) -> int:
        """Delete rankings and interactions with timestamps before `since` (epoch milliseconds); how many.

        Item and user events stay: they are what the catalogue is made of. Notes of people who were forgotten go.
        """
        old = (EVENTS.c.timestamp < since, or_(EVENTS.c.kind == "ranking", EVENTS.c.kind == "interaction"))
        try:
            with self._writing() as connection:
                gone = connection.execute(delete(EVENTS).where(*old)).rowcount
                connection.execute(delete(EVENTS).where(EVENTS.c.timestamp < since, NOTE))
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        self._give_back()
        return int(gone)

    @property
    def last(self) -> int:
        """The offset of the latest event, 0 where there is none."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.max(EVENTS.c.offset))) or 0)

    def fold(self) -> None:
        """Move what was written to SQLite's main file, while others write on; other databases see to it themselves.

        From the first call on this is the caller's to do every few seconds: feeds, which would wait for it now and
        then, leave it alone. Raises JournalError.
        """
        if self._line is not None:
            self._line.fold_no_more()
            with self._refusals():
                self._fold("PASSIVE")

    def close(self) -> None:
        """Give the connections back."""
        if self._line:
            self._line.close()
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
                connection.execute(TURN)
            yield connection

    def _after(self, since: int, kind: str | None) -> Sequence[Any]:
        """(offset, body) of up to CHUNK events from after an offset."""
        if kind is None and self._line is not None:
            try:
                return self._line.news(since, CHUNK)
            except (sqlite3.Error, DBAPIError) as problem:
                raise JournalError(f"can't read the journal at {self._engine.url!r}: {problem}") from None
        query = select(EVENTS.c.offset, EVENTS.c.body).order_by(EVENTS.c.offset).limit(CHUNK)
        query = query if kind is None else query.where(EVENTS.c.kind == kind)
        return self._rows(query.where(EVENTS.c.offset > since))

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say that nothing was kept, where the database says that it could not."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as problem:
            cause = problem.orig if isinstance(problem, DBAPIError) else problem
            raise JournalError(f"the journal refused to write: {cause}; nothing of this was kept") from None

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
            self._fold("TRUNCATE")

    def _fold(self, how: str) -> None:
        """Let SQLite move what was written to its main file, and with TRUNCATE empty the other."""
        with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(f"PRAGMA wal_checkpoint({how})")


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


def _rows(events: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """Id -> row, of the first event of each id."""
    rows: dict[str, dict[str, Any]] = {}
    for one in events:
        if one.id not in rows:
            rows[one.id] = _row(one)
    return rows


def _fresh(events: Sequence[Event], new: Mapping[str, int]) -> list[bool]:
    """For each event, whether it is the one of its id that was written."""
    left = set(new)
    found = []
    for one in events:
        found.append(one.id in left)
        left.discard(one.id)
    return found
