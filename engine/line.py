"""A connection of one's own to an SQLite journal, for what every feed does: look what is new, and write a little.

Through a pool and a general layer these take a millisecond; here they take what the database takes. Nothing is read
where nobody else has written: SQLite says so itself (`PRAGMA data_version`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Engine


class Line:
    """One connection, opened where it is first used, again in another process, and after it failed."""

    def __init__(self, engine: Engine, since: str, insert: str) -> None:
        """since: SQL of up to `:most` (offset, body) from after `:since`; insert: of a row, its (id, offset) if new."""
        self._engine, self._since, self._insert = engine, since, insert
        self._lock = threading.RLock()
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._seen: tuple[int, int] | None = None
        """Data version and offset at which there was nothing more."""
        self._waits = True
        """Whether a write is on the disk when it is over, as a new connection has it."""
        self._folds = True
        """Whether a write that finds much in the log also moves it to the database file, as a new connection does."""

    def news(self, since: int, most: int) -> list[tuple[int, str]]:
        """(offset, body) of what was written after an offset, so many at most; looked for only where others wrote."""
        with self._lock:
            connection = self._connection()
            try:
                now = (_version(connection), since)
                if now == self._seen:
                    return []
                rows: list[tuple[int, str]] = connection.execute(self._since, {"since": since, "most": most}).fetchall()
            except sqlite3.Error:
                self.close()
                raise
            self._seen = None if rows else now
            return rows

    def exchange(self, rows: Sequence[Mapping[str, Any]], since: int) -> tuple[list[tuple[int, str]], dict[str, int]]:
        """Write rows in one transaction: what others wrote before, and id -> offset of those rows that were new.

        What is sent in is on the disk when this is over. Rankings alone are handed to the system, which has them on the
        disk with the next event, or soon: they outlive the process, and nothing is on the disk that came after them.
        """
        with self._lock:
            connection = self._connection()
            try:
                self._wait(connection, any(row["kind"] != "ranking" for row in rows))
                connection.execute("BEGIN IMMEDIATE")
                version = _version(connection)
                missed: list[tuple[int, str]] = []
                if (version, since) != self._seen:
                    missed = connection.execute(self._since, {"since": since, "most": -1}).fetchall()
                new = dict(found for row in rows for found in connection.execute(self._insert, row).fetchall())
                connection.execute("COMMIT")
            except BaseException:
                self.close()  # which also rolls back
                raise
            self._seen = (version, max([since, *(offset for offset, _ in missed), *new.values()]))
            return missed, new

    def fold_no_more(self) -> None:
        """Leave it to somebody else to move what was written to the database file: it takes many times what a write
        takes."""
        with self._lock:
            self._folds = False
            if self._open is not None and self._open[0] == os.getpid():
                _fold_never(self._open[1])

    def close(self) -> None:
        """Give the connection back."""
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
            found = self._engine.raw_connection()
            connection = found.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            found.detach()
            if not self._folds:
                _fold_never(connection)
            self._open = (os.getpid(), connection)
        return self._open[1]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _fold_never(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0")
