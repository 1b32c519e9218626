"""A dedicated SQLite connection for the journal operations of every request: poll for new events and append a few.

Through SQLAlchemy and its pool these cost a millisecond; here they cost only what SQLite needs. A poll reads nothing
if no other connection has written since (`PRAGMA data_version`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Engine


class Line:
    """One connection, opened on first use and reopened after an error and in a forked process."""

    def __init__(self, engine: Engine, since: str, insert: str) -> None:
        """select_sql: selects up to `:limit` (offset, body) after offset `:since`.

        insert_sql: inserts a row and returns its (id, offset) if the id is new.
        """
        self._engine, self._since, self._insert = engine, since, insert
        self._lock = threading.RLock()
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._seen: tuple[int, int] | None = None
        """Data version and offset at which a poll found nothing more."""
        self._waits = True
        """Whether `PRAGMA synchronous` is FULL, as on a new connection: a commit waits until it is on disk."""
        self._folds = True
        """Whether commits run automatic WAL checkpoints, as on a new connection."""

    def news(self, since: int, most: int) -> list[tuple[int, str]]:
        """Return up to `limit` (offset, body) after offset `since`. Raises sqlite3.Error.

        Skips the query if no other connection has written since the last empty poll.
        """
        with self._lock:
            connection = self._connection()
            try:
                current = (_version(connection), since)
                if current == self._seen:
                    return []
                parameters = {"since": since, "limit": most}
                rows: list[tuple[int, str]] = connection.execute(self._since, parameters).fetchall()
            except sqlite3.Error:
                self.close()
                raise
            self._seen = None if rows else current
            return rows

    def exchange(self, rows: Sequence[Mapping[str, Any]], since: int) -> tuple[list[tuple[int, str]], dict[str, int]]:
        """Insert rows in one transaction; return what others wrote after `since`, and id -> offset of the new rows.

        Rows other than rankings are on disk when this returns. Rankings alone are committed without a sync: they
        survive a crash of the process, and reach the disk with the next sync, before any later row. Raises
        sqlite3.Error.
        """
        with self._lock:
            connection = self._connection()
            try:
                self._wait(connection, any(row["kind"] != "ranking" for row in rows))
                connection.execute("BEGIN IMMEDIATE")
                version = _version(connection)
                missed: list[tuple[int, str]] = []
                if (version, since) != self._seen:
                    missed = connection.execute(self._since, {"since": since, "limit": -1}).fetchall()
                new = dict(pair for row in rows for pair in connection.execute(self._insert, row).fetchall())
                connection.execute("COMMIT")
            except BaseException:
                self.close()  # which also rolls back
                raise
            self._seen = (version, max([since, *(offset for offset, _ in missed), *new.values()]))
            return missed, new

    def fold_no_more(self) -> None:
        """Turn off automatic WAL checkpoints on this connection: one takes many times as long as a write."""
        with self._lock:
            self._folds = False
            if self._open is not None and self._open[0] == os.getpid():
                _fold_never(self._open[1])

    def close(self) -> None:
        """Close the connection; the next call reopens it."""
        with self._lock:
            if self._open is not None and self._open[0] == os.getpid():
                self._open[1].close()
            self._open = self._seen = None

    def _wait(self, connection: sqlite3.Connection, waits: bool) -> None:
        if waits is not self._waits:
            connection.execute(f"PRAGMA synchronous={'FULL' if waits else 'NORMAL'}")
            self._waits = waits

    def _connection(self) -> sqlite3.Connection:
        if self._open is None or self._open[0] != os.getpid():
            self._seen, self._waits = None, True
            pooled = self._engine.raw_connection()
            connection = pooled.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            pooled.detach()
            if not self._folds:
                _fold_never(connection)
            self._open = (os.getpid(), connection)
        return self._open[1]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _fold_never(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0")
