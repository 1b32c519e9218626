"""Stores every event in the order of writing, in SQLite or PostgreSQL through SQLAlchemy Core. The source of truth.

Writers take turns, across threads and processes, so offsets are assigned in the order in which events become visible.
A reader that continues from an offset therefore misses nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, func, literal, select, tuple_
from sqlalchemy import event as sa_event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import Event
from feedrank.engine.journal.database import create_database_engine, open_tables
from feedrank.engine.journal.deletion import delete_before, delete_user
from feedrank.engine.journal.errors import JournalError as JournalError
from feedrank.engine.journal.legacy import upgrade
from feedrank.engine.journal.sqlite_connection import SqliteConnection, WriteLock
from feedrank.engine.journal.tables import (
    ADVISORY_LOCK,
    EVENTS,
    INSERT,
    SELECT_AFTER,
    begin_transaction,
    compile_sqlite,
)
from feedrank.engine.private_files import create_private_file
from feedrank.engine.protocols import AppendResult

CHUNK_SIZE = 5_000
"""Events per read or insert statement."""
WRITE_WAIT_MS, REQUEST_WAIT_MS = 30_000, 500
"""Milliseconds that a writer waits for others: a command, and a request, behind which feeds wait."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Journal:
    """An append-only event log. Once `append` returns, its events are on disk. A repeated event id is ignored."""

    def __init__(self, url: str, is_checked: bool = False) -> None:
        """Open the journal, and create its table if it is missing. Raises JournalError.

        url: an SQLAlchemy URL, such as `sqlite:////data/journal.db` or `postgresql+psycopg://host/name`. is_checked:
        another process of this service has opened it before, so nothing is read or written now, and the database may
        be out of reach.
        """
        self._engine = create_database_engine(url)
        self._dialect = self._engine.dialect.name
        self._write_lock: WriteLock | None = None
        self._connection: SqliteConnection | None = None
        if self._dialect == "sqlite":
            if (path := self._engine.url.database) and path != ":memory:":
                self._write_lock = WriteLock(Path(f"{path}-lock"))
                self._connection = SqliteConnection(
                    path, f"{compile_sqlite(SELECT_AFTER)} LIMIT :limit", compile_sqlite(INSERT["sqlite"])
                )
            sa_event.listen(self._engine, "begin", begin_transaction)
        if not is_checked:
            open_tables(self._engine, self._write_transaction)

    @classmethod
    def open_sqlite(cls, path: Path, is_checked: bool = False) -> Journal:
        """Open the journal in an SQLite file; create the file if it is missing. Raises JournalError.

        Only its owner may read a new file. is_checked: as for `Journal`.
        """
        try:
            if not is_checked:
                create_private_file(path)
        except OSError as problem:
            raise JournalError(f"can't create the journal at {path}: {problem.strerror}") from None
        return cls(f"sqlite:///{path}", is_checked)

    def append(self, events: Iterable[Event], checked: bool = False) -> list[bool]:
        """Write all events or none, in one transaction; return for each event whether it was new.

        checked: as for `append_and_poll`. Raises JournalError, with nothing written, for an event that could not be
        read back, or if the database refuses.
        """
        is_new: list[bool] = []
        source = iter(events)
        with self._write_errors(), self._write_transaction() as connection:
            while chunk := list(islice(source, CHUNK_SIZE)):
                rows = _rows_by_id(chunk, checked)
                written = connection.execute(INSERT[self._dialect], list(rows.values()))
                is_new += _is_new_flags(chunk, {row[0]: row[1] for row in written})
        return is_new

    def append_and_poll(self, events: Sequence[Event], since: int, checked: bool = False) -> AppendResult:
        """Append events and, in the same transaction, read what others wrote between offset `since` and them.

        checked: the events can surely be read back, so they are not parsed again first. Raises JournalError, with
        nothing written, for an event that can't be read back, or if the database refuses.
        """
        rows = _rows_by_id(events, checked)
        with self._write_errors():
            if self._connection is None:
                with self._write_transaction(REQUEST_WAIT_MS) as connection:
                    result = connection.execute(SELECT_AFTER, {"since": since})
                    missed = [(int(offset), str(body)) for offset, body in result]
                    written = connection.execute(INSERT[self._dialect], list(rows.values())) if rows else ()
                    new = {row[0]: row[1] for row in written}
            else:
                wait_s = self._connection.wait_ms / 1000
                with self._write_lock.acquire(wait_s) if self._write_lock else nullcontext():
                    missed, new = self._connection.append_and_poll(list(rows.values()), since)
        offset = max([since, *(offset for offset, _ in missed), *new.values()])
        return AppendResult(_is_new_flags(events, new), [_decode(body) for _, body in missed], offset)

    def read(self, since: int = 0, kind: str | None = None) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) in the order of writing, after offset `since`; of one kind only if it is given."""
        while rows := self._read_chunk(since, kind):
            for offset, body in rows:
                yield offset, _decode(body)
            if len(rows) < CHUNK_SIZE:
                return
            since = rows[-1][0]

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """Yield all events in the order of writing; of one kind only if it is given."""
        return (event for _, event in self.read(kind=kind))

    def read_by_effective_time(self, since_ms: int | None = None) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) sorted by `effective_time`, then by offset.

        since_ms: start at this effective time, in epoch milliseconds.
        """
        key = (EVENTS.c.effective_time, EVENTS.c.offset)
        query = select(*key, EVENTS.c.body).order_by(*key).limit(CHUNK_SIZE)
        last = (-(2**62) if since_ms is None else since_ms, -1)
        while rows := self._fetch_all(query.where(tuple_(*key) > tuple_(*map(literal, last)))):
            for _, position, body in rows:
                yield position, _decode(body)
            last = (rows[-1][0], rows[-1][1])

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, or None."""
        rows = self._fetch_all(select(EVENTS.c.body).where(EVENTS.c.id == event_id))
        return _decode(rows[0][0]) if rows else None

    def count_by_kind(self) -> dict[str, int]:
        """Return the number of events of each kind."""
        query = select(EVENTS.c.kind, func.count()).group_by(EVENTS.c.kind)
        with self._engine.connect() as connection:
            return {kind: int(count) for kind, count in connection.execute(query)}

    def erase_user(self, user: str, tombstone: Event) -> int:
        """Delete all events of a user and write a tombstone instead; return the number of deleted events.

        Deletes rankings, interactions, user events, and interactions without a user that name one of these rankings.
        SQLite overwrites deleted data, so nothing stays readable in the file. The tombstone tells other readers of the
        journal to erase the user's state. Raises JournalError, with nothing deleted, if the database refuses.
        """
        try:
            with self._write_transaction() as connection:
                deleted = delete_user(connection, user)
                if deleted:
                    connection.execute(delete(EVENTS).where(EVENTS.c.user_id == user))
                    connection.execute(INSERT[self._dialect], [_encode(tombstone)])
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        if self._dialect == "sqlite":
            self._wal_checkpoint("TRUNCATE")
        else:
            self._vacuum()
        return deleted

    def purge_before(self, cutoff_ms: int) -> int:
        """Delete rankings and interactions with timestamps before `cutoff_ms`; return the number of deleted events.

        cutoff_ms: epoch milliseconds. Item and user events stay, as the catalogue is built from them. Tombstones
        before the cutoff are deleted too. Raises JournalError, with nothing deleted, if the database refuses.
        """
        try:
            with self._write_transaction() as connection:
                deleted = delete_before(connection, cutoff_ms)
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        self._vacuum()
        return deleted

    @property
    def last_offset(self) -> int:
        """Offset of the latest event; 0 if the journal is empty."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.max(EVENTS.c.offset))) or 0)

    def checkpoint(self) -> None:
        """Run a WAL checkpoint in SQLite without blocking writers; a no-op for other databases.

        The first call turns off automatic checkpoints, so that no request has to wait for one. From then on the caller
        must call this every few seconds. Raises JournalError.
        """
        if self._connection is not None:
            self._connection.disable_checkpoint()
            with self._write_errors():
                self._wal_checkpoint("PASSIVE")

    def close(self) -> None:
        """Close all connections and the lock file."""
        if self._connection:
            self._connection.close()
        self._engine.dispose()
        if self._write_lock:
            self._write_lock.close()

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine."""
        return self._engine

    @contextmanager
    def _write_transaction(self, wait_ms: int = WRITE_WAIT_MS) -> Iterator[Connection]:
        """Open a transaction that excludes all other writers; wait_ms: for them, at most."""
        lock = self._write_lock.acquire() if self._write_lock else nullcontext()
        with lock, self._engine.connect().execution_options(writing=True) as connection, connection.begin():
            if self._dialect == "postgresql":
                connection.execute(ADVISORY_LOCK, {"wait": f"{wait_ms}ms"})
            yield connection

    def _read_chunk(self, since: int, kind: str | None) -> Sequence[Any]:
        """Return (offset, body) of up to CHUNK_SIZE events after offset `since`."""
        if kind is None and self._connection is not None:
            try:
                return self._connection.poll(since, CHUNK_SIZE)
            except (sqlite3.Error, DBAPIError) as problem:
                raise JournalError(f"can't read the journal at {self._engine.url!r}: {problem}") from None
        query = select(EVENTS.c.offset, EVENTS.c.body).order_by(EVENTS.c.offset).limit(CHUNK_SIZE)
        query = query if kind is None else query.where(EVENTS.c.kind == kind)
        return self._fetch_all(query.where(EVENTS.c.offset > since))

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Convert database errors to a JournalError that says that nothing was written."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as problem:
            cause = problem.orig if isinstance(problem, DBAPIError) else problem
            raise JournalError(f"the journal refused to write: {cause}; nothing was written") from None

    def _fetch_all(self, query: Select[Any]) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except DBAPIError as problem:
            raise JournalError(f"can't read the journal at {self._engine.url!r}: {problem.orig}") from None

    def _vacuum(self) -> None:
        """Return the space of deleted events to the file system."""
        with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM")
        if self._dialect == "sqlite":
            self._wal_checkpoint("TRUNCATE")

    def _wal_checkpoint(self, mode: str) -> None:
        """Run a WAL checkpoint in SQLite; the mode TRUNCATE also empties the WAL file."""
        with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})")


def _decode(body: str) -> Event:
    """Read an event from the body of its row, in the names of today or of an older version."""
    return parse(upgrade(json.loads(body)))


def _encode(event: Event, checked: bool = False) -> dict[str, Any]:
    """Return the row of an event. Raises JournalError for an event that could not be read back.

    checked: its values are known to be right, and only whether JSON in UTF-8 can hold them is checked.
    """
    body = to_dict(event)
    try:
        if not checked:
            parse(body)  # an event that can't be parsed again would block every reader at its offset
        (encoded := _ENCODER.encode(body)).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise JournalError(f"event {event.id!r} could not be read back: {problem}; nothing was written") from None
    return {
        "id": event.id, "kind": body["event"], "timestamp": event.timestamp,
        "effective_time": body.get("received", event.timestamp), "user_id": body.get("user"), "body": encoded,
    }  # fmt: skip


def _rows_by_id(events: Sequence[Event], checked: bool = False) -> dict[str, dict[str, Any]]:
    """Map each event id to the row of its first event."""
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.id not in rows:
            rows[event.id] = _encode(event, checked)
    return rows


def _is_new_flags(events: Sequence[Event], inserted: Mapping[str, int]) -> list[bool]:
    """Return for each event whether it was written: True for the first event of each inserted id."""
    remaining = set(inserted)
    flags = []
    for event in events:
        flags.append(event.id in remaining)
        remaining.discard(event.id)
    return flags
