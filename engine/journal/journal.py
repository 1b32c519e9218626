"""Stores every event in the order of writing, in SQLite or PostgreSQL through SQLAlchemy Core. The source of truth.

Writers take turns, across threads and processes, so offsets are assigned in the order in which events become visible.
A reader that continues from an offset therefore misses nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, literal, select, tuple_
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.events.events import Event
from feedrank.engine.events.learnable import check_learnable
from feedrank.engine.journal.database import create_database_engine, open_tables
from feedrank.engine.journal.decoding import EventDecoder
from feedrank.engine.journal.deletion import delete_before
from feedrank.engine.journal.erasure_log import ErasureLog
from feedrank.engine.journal.errors import JournalError as JournalError
from feedrank.engine.journal.sqlite_connection import SqliteReader, SqliteWriter, WriteLock
from feedrank.engine.journal.tables import ADVISORY_LOCK, EVENTS, INSERT, LATEST_TIME, SELECT_TOMBSTONES, TOMBSTONE_KIND
from feedrank.engine.journal.upkeep import MAX_VACUUM_BYTES, overwrite_deleted, vacuum, wal_checkpoint
from feedrank.engine.private_files import create_private_file

CHUNK_SIZE = 5_000
"""Events per read or insert statement."""
WRITE_WAIT_MS, REQUEST_WAIT_MS = 30_000, 500
"""Milliseconds that a command waits for other writers, and a request, behind which feeds wait."""
MAX_OWN = 1_000
"""Events of this process that are kept decoded until they are read."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Journal:
    """An append-only event log. Once `append` returns, its events are on disk. A repeated event id is ignored."""

    def __init__(self, url: str, is_checked: bool = False) -> None:
        """Open the journal, and create its table if it is missing. Raises JournalError.

        url: an SQLAlchemy URL, such as `sqlite:////data/journal.db` or `postgresql+psycopg://host/name`. is_checked:
        this service has opened it before, so nothing is read or written now, and it may be out of reach.
        """
        self._engine = create_database_engine(url)
        self._dialect = self._engine.dialect.name
        self.decoder = EventDecoder()
        self._write_lock: WriteLock | None = None
        self._readers: dict[str | None, SqliteReader] = {}
        """Kind -> connection, for what each request reads: all events, and each one with events the tombstones."""
        self._writer: SqliteWriter | None = None
        self._own: dict[int, Event] = {}
        """Offset -> event, of those that `record` wrote and `read` has not given yet: they need no decoding."""
        if self._dialect == "sqlite" and (path := self._engine.url.database) and path != ":memory:":
            self._write_lock = WriteLock(Path(f"{path}-lock"))
            self._readers = {None: SqliteReader(path), TOMBSTONE_KIND: SqliteReader(path, SELECT_TOMBSTONES)}
            self._writer = SqliteWriter(path)
        if not is_checked:
            open_tables(self._engine, self._write_transaction)
        self.erasure_log = ErasureLog(
            self._engine, partial(self._read_chunk, kind=TOMBSTONE_KIND), self._write_transaction, _encode_now
        )
        """The users that were erased, and what the journal holds of any other."""

    @classmethod
    def open_sqlite(cls, path: Path, is_checked: bool = False) -> Journal:
        """Open or create the journal in an SQLite file, which only its owner may read. Raises JournalError."""
        try:
            if not is_checked:
                create_private_file(path)
        except OSError as problem:
            raise JournalError(f"can't create the journal at {path}: {problem.strerror}") from None
        return cls(f"sqlite:///{path}", is_checked)

    def append(self, events: Iterable[Event], checked: bool = False) -> list[bool]:
        """Write all events or none, in one transaction; return for each event whether it was new.

        checked: as for `record`, which also raises the same errors.
        """
        is_new: list[bool] = []
        source = iter(events)
        with self._write_errors(), self._write_transaction() as connection:
            while chunk := list(islice(source, CHUNK_SIZE)):
                rows = _encode_all(list(_first_by_id(chunk).values()), checked)
                written = connection.execute(INSERT[self._dialect], rows)
                is_new += _is_new_flags(chunk, {row[0]: row[1] for row in written})
        return is_new

    def record(self, events: Sequence[Event], now_ms: int, checked: bool = False) -> list[bool]:
        """Write all events or none, as received now; return for each event whether it was new.

        Their `received` becomes the moment of the write: the clock, or the latest effective time of the journal if that
        is up to a day ahead. All other writers wait meanwhile, so events of all processes have one order, by offset and
        by effective time. now_ms: the clock, in epoch milliseconds. checked: the events can surely be read and learnt
        from; otherwise EventError or JournalError is raised. JournalError is also raised if the database refuses.
        """
        first = _first_by_id(events)
        rows = _encode_all(list(map(_unstamped, first.values())), checked)
        with self._write_errors():
            if self._writer is not None and self._write_lock is not None:
                with self._write_lock.acquire(self._writer.wait_ms / 1000):
                    moment, new = self._writer.append(rows, now_ms, _stamp)
            else:
                with self._write_transaction(REQUEST_WAIT_MS) as connection:
                    moment = _moment(connection, now_ms)
                    stamped = [_stamp(row, moment) for row in rows]
                    new = {row[0]: row[1] for row in connection.execute(INSERT[self._dialect], stamped)} if rows else {}
        if len(self._own) > MAX_OWN:
            self._own.clear()
        self._own.update((offset, replace(first[name], received=moment)) for name, offset in new.items())
        return _is_new_flags(events, new)

    def read(self, since: int = 0, kind: str | None = None) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) in the order of writing, after offset `since`; of one kind only if it is given."""
        while rows := self._read_chunk(since, kind):
            for offset, body in rows:
                event = self._own.pop(offset, None)
                if event is not None or (event := self.decoder.decode(offset, body)) is not None:
                    yield offset, event
            if len(rows) < CHUNK_SIZE:
                return
            since = rows[-1][0]

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """Yield all events in the order of writing; of one kind only if it is given."""
        return (event for _, event in self.read(kind=kind))

    def read_by_effective_time(self, since_ms: int | None = None) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) by `effective_time`, from `since_ms` (epoch milliseconds) on, then by offset."""
        key = (EVENTS.c.effective_time, EVENTS.c.offset)
        query = select(*key, EVENTS.c.body).order_by(*key).limit(CHUNK_SIZE)
        last = (-(2**62) if since_ms is None else since_ms, -1)
        while rows := self._fetch_all(query.where(tuple_(*key) > tuple_(*map(literal, last)))):
            yield from self.decoder.decode_rows((offset, body) for _, offset, body in rows)
            last = (rows[-1][0], rows[-1][1])

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, or None; also None if it can't be read."""
        rows = self._fetch_all(select(EVENTS.c.offset, EVENTS.c.body).where(EVENTS.c.id == event_id))
        return self.decoder.decode(*rows[0]) if rows else None

    def count_by_kind(self) -> dict[str, int]:
        """Return the number of events of each kind."""
        query = select(EVENTS.c.kind, func.count()).group_by(EVENTS.c.kind)
        with self._engine.connect() as connection:
            return {kind: int(count) for kind, count in connection.execute(query)}

    def erase_user(self, user: str, tombstone_id: str, at_ms: int, max_bytes: float = MAX_VACUUM_BYTES) -> int:
        """Delete all events of a user, as `UserEvents` finds them; return the number of deleted events.

        A tombstone is written instead. It names the user by a pseudonym, and tells other readers of the journal to
        erase the user's state. Nothing of the events stays readable, see `overwrite_deleted`. tombstone_id: a
        random event id. at_ms: epoch milliseconds. max_bytes: as for `overwrite_deleted`. Raises JournalError, with
        nothing deleted, if the database refuses.
        """
        try:
            deleted = self.erasure_log.erase(user, tombstone_id, at_ms)
            self._own.clear()
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        overwrite_deleted(self._engine, self._write_transaction, max_bytes)
        return deleted

    def remember_erasures(self, path: Path) -> int:
        """Remember erasures in a file, too; return how many of it had to be made again. Raises JournalError."""
        with self._write_errors():
            made_again = self.erasure_log.remember_in(path)
        if made_again:
            overwrite_deleted(self._engine, self._write_transaction, inf)
        return made_again

    def purge_before(self, cutoff_ms: int) -> int:
        """Delete rankings and interactions with timestamps before `cutoff_ms`; return the number of deleted events.

        cutoff_ms: epoch milliseconds. Item and user events stay, as the catalogue is built from them. Tombstones of
        earlier versions before the cutoff are deleted too. Raises JournalError, with nothing deleted, if the database
        refuses.
        """
        try:
            with self._write_transaction() as connection:
                deleted = delete_before(connection, cutoff_ms)
        except DBAPIError as problem:
            raise JournalError(f"the journal refused to delete: {problem.orig}; nothing was deleted") from None
        vacuum(self._engine)
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
        if self._writer is not None:
            self._writer.disable_checkpoint()
            with self._write_errors():
                wal_checkpoint(self._engine)

    def close(self) -> None:
        """Close all connections and the lock file."""
        for connection in (*self._readers.values(), self._writer):
            if connection is not None:
                connection.close()
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
        if (reader := self._readers.get(kind)) is not None:
            try:
                return reader.poll(since, CHUNK_SIZE)
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


def _encode(event: Event, checked: bool = False) -> dict[str, Any]:
    """Return the row of an event. Raises JournalError for an event that could not be read back.

    checked: its values are known to be right, and only whether JSON in UTF-8 can hold them is checked.
    """
    body = to_dict(event, as_columns=True)
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


def _encode_all(events: Sequence[Event], checked: bool) -> list[dict[str, Any]]:
    if not checked:
        check_learnable(events)
    return [_encode(event, checked) for event in events]


def _moment(connection: Connection, now_ms: int) -> int:
    """Return the clock, or the latest effective time if that is up to a day ahead. Epoch milliseconds."""
    return max(now_ms, connection.scalar(LATEST_TIME, {"limit": now_ms + MAX_AHEAD_MS}) or now_ms)


def _encode_now(connection: Connection, event: Event) -> dict[str, Any]:
    """Return the row of an event that is received at its timestamp, or at the latest time of the journal."""
    return _stamp(_encode(_unstamped(event)), _moment(connection, event.timestamp))


def _unstamped(event: Event) -> Event:
    return event if event.received is None else replace(event, received=None)


def _stamp(row: dict[str, Any], moment: int) -> dict[str, Any]:
    """Return the row of an event that has no `received`, as received at a moment, in epoch milliseconds."""
    return {**row, "effective_time": moment, "body": f'{row["body"][:-1]},"received":{moment}}}'}


def _first_by_id(events: Sequence[Event]) -> dict[str, Event]:
    """Map each event id to its first event, in order."""
    first: dict[str, Event] = {}
    for event in events:
        first.setdefault(event.id, event)
    return first


def _is_new_flags(events: Sequence[Event], inserted: Mapping[str, int]) -> list[bool]:
    """Return for each event whether it was written: True for the first event of each inserted id."""
    first = {event.id: index for index, event in reversed(list(enumerate(events)))}
    return [event.id in inserted and first[event.id] == index for index, event in enumerate(events)]
