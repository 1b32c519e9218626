"""Dedicated SQLite connections for the journal operations of every request: one polls, and one appends a few events.

Through SQLAlchemy and its pool these cost a millisecond; here they cost only what SQLite needs. No poll waits for a
write, as they have a connection each.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Select

from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.journal.tables import INSERT, LATEST_TIME, SELECT_AFTER, compile_sqlite, connect_sqlite

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


class _SqliteConnection:
    """One connection, opened on first use and reopened after an error and in a forked process."""

    def __init__(self, path: str) -> None:
        """path: of the database file."""
        self._path = path
        self._lock = threading.RLock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self.wait_ms = PATIENT_MS
        """Milliseconds that the next call waits for a locked database, and feeds with it."""
        self._busy_timeout_ms = -1
        """The wait that the open connection is set to; -1: another one."""

    def close(self) -> None:
        """Close the connection; the next call reopens it."""
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None or self._opened[0] != os.getpid():
            connection = connect_sqlite(self._path, self.wait_ms / 1000)
            self._configure(connection)
            self._opened, self._busy_timeout_ms = (os.getpid(), connection), -1
        if self._busy_timeout_ms != self.wait_ms:
            self._busy_timeout_ms = self.wait_ms
            self._opened[1].execute(f"PRAGMA busy_timeout={self.wait_ms}")
        return self._opened[1]

    def _give_up(self, problem: BaseException) -> None:
        """Close the connection; after waiting in vain for a lock, the next call hardly waits."""
        self.close()
        if isinstance(problem, sqlite3.OperationalError) and problem.sqlite_errorcode & 0xFF in _LOCKED:
            self.wait_ms = IMPATIENT_MS

    def _configure(self, connection: sqlite3.Connection) -> None:
        """Prepare a new connection."""


class SqliteReader(_SqliteConnection):
    """Polls for new events. A poll reads nothing if no other connection has written since the last empty one."""

    def __init__(self, path: str, statement: Select[Any] = SELECT_AFTER) -> None:
        """path: of the database file. statement: selects (offset, body) after an offset, in order."""
        super().__init__(path)
        self._select = f"{compile_sqlite(statement)} LIMIT :limit"
        self._polled: tuple[int, int] | None = None
        """Data version and offset at which a poll found nothing more."""

    def poll(self, since: int, limit: int) -> list[tuple[int, str]]:
        """Return up to `limit` (offset, body) after offset `since`. Raises sqlite3.Error."""
        with self._lock:
            try:
                connection = self._connection()
                current = (int(connection.execute("PRAGMA data_version").fetchone()[0]), since)
                if current == self._polled:
                    return []
                parameters = {"since": since, "limit": limit}
                rows: list[tuple[int, str]] = connection.execute(self._select, parameters).fetchall()
            except sqlite3.Error as problem:
                self._give_up(problem)
                raise
            self.wait_ms = PATIENT_MS
            # read to the end: until another connection writes, nothing is after the last row
            self._polled = (current[0], rows[-1][0] if rows else since) if len(rows) < limit else None
            return rows

    def _configure(self, connection: sqlite3.Connection) -> None:
        self._polled = None


class SqliteWriter(_SqliteConnection):
    """Appends a few events in one transaction."""

    _INSERT, _LATEST = compile_sqlite(INSERT["sqlite"]), compile_sqlite(LATEST_TIME)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._synchronous_full = True
        """Whether `PRAGMA synchronous` is FULL, as on a new connection: a commit waits until it is on disk."""
        self._auto_checkpoint = True
        """Whether commits run automatic WAL checkpoints, as on a new connection."""

    def append(
        self, rows: Sequence[dict[str, Any]], now_ms: int, stamp: Callable[[dict[str, Any], int], dict[str, Any]]
    ) -> tuple[int, dict[str, int]]:
        """Insert rows, stamped with the moment of the transaction; return it, and id -> offset of the new rows.

        now_ms: the clock, in epoch milliseconds; the moment is not before the latest effective time. Rows other than
        rankings are on disk when this returns. Rankings alone are committed without a sync: they survive a crash of the
        process, and reach the disk with the next sync, before any later row. Raises sqlite3.Error.
        """
        with self._lock:
            try:
                connection = self._connection()
                self._set_synchronous(connection, any(row["kind"] != "ranking" for row in rows))
                connection.execute("BEGIN IMMEDIATE")
                latest = connection.execute(self._LATEST, {"limit": now_ms + MAX_AHEAD_MS}).fetchone()
                moment = max(now_ms, latest[0]) if latest else now_ms
                stamped = (stamp(row, moment) for row in rows)
                new = dict(pair for row in stamped for pair in connection.execute(self._INSERT, row).fetchall())
                connection.execute("COMMIT")
            except BaseException as problem:
                self._give_up(problem)  # which also rolls back
                raise
            self.wait_ms = PATIENT_MS
            return moment, new

    def disable_checkpoint(self) -> None:
        """Turn off automatic WAL checkpoints on this connection: one takes many times as long as a write."""
        with self._lock:
            self._auto_checkpoint = False
            if self._opened is not None and self._opened[0] == os.getpid():
                self._configure(self._opened[1])

    def _configure(self, connection: sqlite3.Connection) -> None:
        if self._opened is None or self._opened[1] is not connection:
            self._synchronous_full = True
        if not self._auto_checkpoint:
            connection.execute("PRAGMA wal_autocheckpoint=0")

    def _set_synchronous(self, connection: sqlite3.Connection, full: bool) -> None:
        if full is not self._synchronous_full:
            connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._synchronous_full = full


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
        """Hold the lock; proceed without it after `wait_s` seconds, by default and at most `MAX_WAIT_S`."""
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
