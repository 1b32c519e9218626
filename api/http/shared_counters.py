"""Counters of rate limits and quotas in an SQLite file, which all processes of a machine share.

The file holds nothing that must outlive a crash, so it is never synced, and nothing of it is mapped into memory. If it
can't be written, this process counts alone until it can.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path

from limits.storage import Storage

from feedrank.api.http.middleware import MemoryCounters

BUSY_TIMEOUT_S = 0.25
"""Seconds to wait for another process that counts; usually it takes less than a millisecond."""
PRUNE_INTERVAL_S = 60.0
WARN_INTERVAL_S = 60.0
_CREATE = "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, ends REAL NOT NULL, count INTEGER NOT NULL)"
_INCREMENT = """
    INSERT INTO counters VALUES (:name, :ends, :amount) ON CONFLICT (name) DO UPDATE SET
        count = CASE WHEN ends <= :now THEN :amount ELSE count + :amount END,
        ends = CASE WHEN ends <= :now THEN :ends ELSE ends END
    RETURNING count
"""
_log = logging.getLogger(__name__)


class SharedCounters(Storage):
    """Stores counters of the `limits` library in a file."""

    STORAGE_SCHEME = ["shared-counts"]  # noqa: RUF012  # the library reads this attribute
    base_exceptions = ()

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, path: str = "", **_: object) -> None:
        """path: the file; it is created if it does not exist."""
        super().__init__(uri, wrap_exceptions)
        self._path = Path(path)
        self._lock = threading.Lock()
        self._connection: tuple[int, sqlite3.Connection] | None = None
        self._alone = MemoryCounters()
        self._next_prune = self._next_warning = 0.0

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Increment a counter; an expired one restarts at zero."""
        now = time.time()
        with self._lock:
            try:
                connection = self._open()
                if now >= self._next_prune:
                    self._next_prune = now + PRUNE_INTERVAL_S
                    connection.execute("DELETE FROM counters WHERE ends <= ?", (now,))
                values = {"name": key, "ends": now + expiry, "amount": amount, "now": now}
                (count,) = connection.execute(_INCREMENT, values).fetchall()[0]
                return int(count)
            except (sqlite3.Error, OSError) as problem:
                self._fail(problem, now)
        return self._alone.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        """Return the value of a counter; 0 if it expired."""
        entry = self._entry(key)
        return self._alone.get(key) if entry is None else int(entry[1])

    def get_expiry(self, key: str) -> float:
        """Return the expiry time of a counter, in unix seconds."""
        entry = self._entry(key)
        return self._alone.get_expiry(key) if entry is None else float(entry[0])

    def check(self) -> bool:
        """Report whether the file can be read."""
        return self._entry("") is not None

    def reset(self) -> int:
        """Remove all counters; returns how many."""
        with self._lock:
            return int(self._open().execute("DELETE FROM counters").rowcount)

    def clear(self, key: str) -> None:
        """Remove a counter."""
        with self._lock:
            self._open().execute("DELETE FROM counters WHERE name = ?", (key,))

    def _entry(self, key: str) -> tuple[float, int] | None:
        """Return the end and the value of a counter that has not expired; None where the file can't be read."""
        now = time.time()
        with self._lock:
            try:
                found = self._open().execute("SELECT ends, count FROM counters WHERE name = ?", (key,)).fetchone()
            except (sqlite3.Error, OSError) as problem:
                self._fail(problem, now)
                return None
        return (float(found[0]), int(found[1])) if found is not None and found[0] > now else (now, 0)

    def _open(self) -> sqlite3.Connection:
        """Return the connection of this process; one from before a fork is left alone."""
        if self._connection is not None and self._connection[0] == os.getpid():
            return self._connection[1]
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = MEMORY", "PRAGMA synchronous = OFF", _CREATE):
            connection.execute(statement)
        self._connection = (os.getpid(), connection)
        return connection

    def _fail(self, problem: Exception, now: float) -> None:
        """Log a failure, and let the next call open the file again; one that is damaged is replaced."""
        if self._connection is not None and self._connection[0] == os.getpid():
            self._connection[1].close()
        self._connection = None
        is_damaged = isinstance(problem, sqlite3.DatabaseError) and not isinstance(problem, sqlite3.OperationalError)
        if is_damaged:
            self._path.unlink(missing_ok=True)
        if now >= self._next_warning:
            self._next_warning = now + WARN_INTERVAL_S
            _log.warning("can't count in %s (%s); this process counts alone", self._path, problem)
