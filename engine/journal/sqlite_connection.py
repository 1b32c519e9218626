"""A dedicated SQLite connection for the journal operations of every request: poll for new events and append a few.

Through SQLAlchemy and its pool these cost a millisecond; here they cost only what SQLite needs. A poll reads nothing
if no other connection has written since (`PRAGMA data_version`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedrank.engine.journal.tables import connect_sqlite

try:
    import fcntl
except ImportError:  # without fcntl (Windows), only SQLite's own lock applies
    fcntl = None  # type: ignore[assignment]

RETRY_INTERVAL_S = 0.0002
"""Seconds between two attempts to get the write lock."""
MAX_WAIT_S = 0.1
"""Seconds before proceeding without the write lock: its holder may be suspended, and the database has its own lock."""
PATIENT_MS, IMPATIENT_MS = 500, 10
"""Milliseconds that a request waits for a locked database: usually, and as long as the last one waited in vain."""


_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SqliteConnection:
    """One connection, opened on first use and reopened after an error and in a forked process."""

    def __init__(self, path: str, select_sql: str, insert_sql: str) -> None:
        """path: of the database file. select_sql: selects up to `:limit` (offset, body) after offset `:since`.

        insert_sql: inserts a row and returns its (id, offset) if the id is new.
        """
        self._path, self._select_sql, self._insert_sql = path, select_sql, insert_sql
        self._lock = threading.RLock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._polled: tuple[int, int] | None = None
        """Data version and offset at which a poll found nothing more."""
        self._busy_timeout_ms = -1
        """The wait that the open connection is set to; -1: another one."""
        self._synchronous_full = True
        """Whether `PRAGMA synchronous` is FULL, as on a new connection: a commit waits until it is on disk."""
        self._auto_checkpoint = True
        """Whether commits run automatic WAL checkpoints, as on a new connection."""
        self.wait_ms = PATIENT_MS
        """Milliseconds that the next call waits for a locked database; the feeds behind it wait as long."""

    def poll(self, since: int, limit: int) -> list[tuple[int, str]]:
        """Return up to `limit` (offset, body) after offset `since`. Raises sqlite3.Error.

        Skips the query if no other connection has written since the last empty poll.
        """
        with self._lock:
            try:
                connection = self._connection()
                current = (_data_version(connection), since)
                if current == self._polled:
                    return []
                parameters = {"since": since, "limit": limit}
                rows: list[tuple[int, str]] = connection.execute(self._select_sql, parameters).fetchall()
            except sqlite3.Error as problem:
                self._give_up(problem)
                raise
            self._polled = None if rows else current
            return rows

    def append_and_poll(
        self, rows: Sequence[Mapping[str, Any]], since: int
    ) -> tuple[list[tuple[int, str]], dict[str, int]]:
        """Insert rows in one transaction; return what others wrote after `since`, and id -> offset of the new rows.

        Rows other than rankings are on disk when this returns. Rankings alone are committed without a sync: they
        survive a crash of the process, and reach the disk with the next sync, before any later row. Raises
        sqlite3.Error.
        """
        with self._lock:
            try:
                connection = self._connection()
                self._set_synchronous(connection, any(row["kind"] != "ranking" for row in rows))
                connection.execute("BEGIN IMMEDIATE")
                version = _data_version(connection)
                missed: list[tuple[int, str]] = []
                if (version, since) != self._polled:
                    missed = connection.execute(self._select_sql, {"since": since, "limit": -1}).fetchall()
                new = dict(pair for row in rows for pair in connection.execute(self._insert_sql, row).fetchall())
                connection.execute("COMMIT")
            except BaseException as problem:
                self._give_up(problem)  # which also rolls back
                raise
            self.wait_ms = PATIENT_MS
            self._polled = (version, max([since, *(offset for offset, _ in missed), *new.values()]))
            return missed, new

    def _give_up(self, problem: BaseException) -> None:
        """Close the connection; after waiting in vain for a lock, the next call hardly waits."""
        self.close()
        if isinstance(problem, sqlite3.OperationalError) and problem.sqlite_errorcode & 0xFF in _LOCKED:
            self.wait_ms = IMPATIENT_MS

    def disable_checkpoint(self) -> None:
        """Turn off automatic WAL checkpoints on this connection: one takes many times as long as a write."""
        with self._lock:
            self._auto_checkpoint = False
            if self._opened is not None and self._opened[0] == os.getpid():
                _disable_auto_checkpoint(self._opened[1])

    def close(self) -> None:
        """Close the connection; the next call reopens it."""
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = self._polled = None

    def _set_synchronous(self, connection: sqlite3.Connection, full: bool) -> None:
        if full is not self._synchronous_full:
            connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._synchronous_full = full

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None or self._opened[0] != os.getpid():
            self._polled, self._synchronous_full = None, True
            connection = connect_sqlite(self._path, self.wait_ms / 1000)
            if not self._auto_checkpoint:
                _disable_auto_checkpoint(connection)
            self._opened, self._busy_timeout_ms = (os.getpid(), connection), -1
        if self._busy_timeout_ms != self.wait_ms:
            self._busy_timeout_ms = self.wait_ms
            self._opened[1].execute(f"PRAGMA busy_timeout={self.wait_ms}")
        return self._opened[1]


class WriteLock:
    """An advisory lock that is retried every 0.2 ms; SQLite's busy handler sleeps 1 to 100 ms.

    It only shortens waits. Correctness relies on the database's own lock.
    """

    def __init__(self, path: Path) -> None:
        """path: a separate lock file next to the database file; created if it is missing."""
        self._path = path
        self._thread_lock = threading.Lock()
        self._pid_and_descriptor: tuple[int, int] | None = None

    @contextmanager
    def acquire(self, wait_s: float | None = None) -> Iterator[None]:
        """Hold the lock; proceed without it after `wait_s` seconds, by default `MAX_WAIT_S`."""
        if fcntl is None:
            yield
            return
        wait_s = MAX_WAIT_S if wait_s is None else min(wait_s, MAX_WAIT_S)
        give_up_at = time.monotonic() + wait_s
        if not self._thread_lock.acquire(timeout=wait_s):
            yield  # another thread has waited for the database for so long
            return
        descriptor = None
        try:
            descriptor = self._lock_until(give_up_at)
            yield
        finally:
            if descriptor is not None:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            self._thread_lock.release()

    def _lock_until(self, give_up_at: float) -> int | None:
        """Lock the file between processes; returns its descriptor, None if it can't be locked until then."""
        descriptor = self._descriptor()
        while descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except OSError:
                if time.monotonic() >= give_up_at:
                    return None
                time.sleep(RETRY_INTERVAL_S)
        return None

    def close(self) -> None:
        """Close the lock file; the next `acquire` reopens it."""
        with self._thread_lock:
            if self._pid_and_descriptor is not None and self._pid_and_descriptor[0] == os.getpid():
                os.close(self._pid_and_descriptor[1])
            self._pid_and_descriptor = None

    def _descriptor(self) -> int | None:
        """Return a file descriptor of this process; one inherited by fork would share the parent's lock.

        None if the file can't be opened: the database then reports the cause with a better message.
        """
        if self._pid_and_descriptor is None or self._pid_and_descriptor[0] != os.getpid():
            try:
                self._pid_and_descriptor = (
                    os.getpid(),
                    os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600),
                )
            except OSError:
                return None
        return self._pid_and_descriptor[1]


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _disable_auto_checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0")
