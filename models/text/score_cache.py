"""Caches cross-encoder scores in SQLite by the content of text, item and model; bounded, the oldest are evicted.

A cache file may be deleted at any time, and several processes may share it.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from copy import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.private_files import create_private_file
from feedrank.engine.types import Rows, Scores

OVERFLOW_FACTOR = 1.1
"""Factor by which the number of texts may exceed its bound before the oldest are evicted."""
WAIT_S = 0.05
"""Seconds that a request waits for another process's write to the cache."""
RETRY_S, LOG_INTERVAL_S = 1.0, 60.0
"""Seconds after a failed write before the next, and between two log lines of failures."""
_log = logging.getLogger(__name__)
CachedScores = tuple[NDArray[np.uint64], Scores]
"""Sorted item keys and their scores."""


class SqliteScoreCache:
    """A `CrossEncoderScoreCache` in SQLite, for one model and the item texts of one catalogue."""

    def __init__(self, path: Path, model_digest: str, documents: Sequence[str], max_texts: int) -> None:
        """Open or create the SQLite file at `path`; only memory is used if that fails.

        documents: (n,) item texts. max_texts: bound on the cached request texts; 0: memory only.
        """
        self._model_digest, self._max_texts = model_digest, max_texts
        self._item_keys = np.array([_key(text) for text in documents], np.uint64)
        self._memory: OrderedDict[int, CachedScores] = OrderedDict()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self.hits = self.misses = 0
        self._write_again_at = self._log_again_at = 0.0
        if max_texts:
            try:
                self._connection = _open(path)
            except (OSError, sqlite3.Error) as problem:  # such as a full disk, or a read-only folder
                _log.warning("the scores are cached in memory only, as %s can't be opened: %s", path, problem)

    def scores(self, text: str, rows: Rows) -> Scores:
        """Return the (len(rows),) cached scores of a text; NaN if there is none."""
        with self._lock:
            keys, scores = self._load(text)
        out = np.full(len(rows), np.nan, np.float32)
        if len(keys) and len(rows):
            wanted = np.where(rows >= 0, self._item_keys[rows], 0)
            index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            cached = (keys[index] == wanted) & (rows >= 0)
            out[cached] = scores[index[cached]]
        hits = int(np.count_nonzero(~np.isnan(out)))
        self.hits += hits
        self.misses += len(rows) - hits
        return out

    def add(self, text: str, rows: Rows, scores: Scores) -> None:
        """Add scores of a text to the cached ones; NaN is ignored."""
        valid = (rows >= 0) & ~np.isnan(scores)
        if not valid.any():
            return
        with self._lock:
            keys, cached = self._load(text)
            all_keys = np.concatenate([self._item_keys[rows[valid]], keys])
            all_scores = np.concatenate([scores[valid], cached]).astype(np.float32)
            distinct, first = np.unique(all_keys, return_index=True)
            self._store(self._text_key(text), (distinct, all_scores[first]))

    def forget(self) -> None:
        """Drop the scores in memory; those in the file are read again."""
        with self._lock:
            self._memory.clear()

    def with_more_items(self, documents: Sequence[str]) -> SqliteScoreCache:
        """Return a cache with more items after the current ones; it shares file and memory with this one."""
        extended = copy(self)
        extended._item_keys = np.concatenate([self._item_keys, np.array([_key(text) for text in documents], np.uint64)])
        return extended

    def close(self) -> None:
        """Close the SQLite file."""
        if self._connection is not None:
            self._connection.close()

    def _text_key(self, text: str) -> int:
        return _key(f"{self._model_digest}\0{text}") >> 1  # SQLite integers are signed

    def _load(self, text: str) -> CachedScores:
        key = self._text_key(text)
        in_memory = self._memory.get(key)
        if in_memory is not None:
            self._memory.move_to_end(key)
            return in_memory
        row = None
        if self._connection is not None:
            try:
                row = self._connection.execute("SELECT items, scores FROM scores WHERE text = ?", (key,)).fetchone()
            except sqlite3.Error as problem:
                self._note(problem)
        if row is None:
            return np.empty(0, np.uint64), np.empty(0, np.float32)
        entry = np.frombuffer(row[0], np.uint64), np.frombuffer(row[1], np.float32)
        self._remember(key, entry)
        return entry

    def _store(self, key: int, entry: CachedScores) -> None:
        self._remember(key, entry)
        if self._connection is None or time.monotonic() < self._write_again_at:
            return
        try:
            self._write(self._connection, key, entry)
        except sqlite3.Error as problem:
            self._write_again_at = time.monotonic() + RETRY_S
            self._note(problem)

    def _write(self, connection: sqlite3.Connection, key: int, entry: CachedScores) -> None:
        connection.execute(
            "INSERT INTO scores VALUES (?1, (SELECT coalesce(max(used), 0) + 1 FROM scores), ?2, ?3) "
            "ON CONFLICT (text) DO UPDATE SET used = excluded.used, items = excluded.items, scores = excluded.scores",
            (key, entry[0].tobytes(), entry[1].tobytes()),
        )
        (count,) = connection.execute("SELECT count(*) FROM scores").fetchone() if key % 64 == 0 else (0,)
        if count > self._max_texts * OVERFLOW_FACTOR:
            oldest = "SELECT text FROM scores ORDER BY used LIMIT ?"
            connection.execute(f"DELETE FROM scores WHERE text IN ({oldest})", (count - self._max_texts,))

    def _note(self, problem: sqlite3.Error) -> None:
        """Log a failure of the file, at most once per `LOG_INTERVAL_S`; the scores are in memory, or computed again."""
        if time.monotonic() >= self._log_again_at:
            self._log_again_at = time.monotonic() + LOG_INTERVAL_S
            _log.warning("the file of cached cross-encoder scores can't be used: %s", problem)

    def _remember(self, key: int, entry: CachedScores) -> None:
        self._memory[key] = entry
        self._memory.move_to_end(key)
        while len(self._memory) > max(self._max_texts // 10, 100):
            self._memory.popitem(last=False)


def _open(path: Path) -> sqlite3.Connection:
    """Open the file; its table is created if it is missing, and otherwise nothing is written."""
    create_private_file(path)
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")  # a crash loses only scores that can be computed again
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'by_use'").fetchone():
        connection.execute(
            "CREATE TABLE IF NOT EXISTS scores (text INTEGER PRIMARY KEY, used INTEGER NOT NULL, items BLOB, "
            "scores BLOB) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS by_use ON scores (used)")
    return connection


def clear_file(path: Path) -> None:
    """Delete all scores of a cache file, and overwrite them; does nothing if it does not exist.

    A damaged file is deleted. Raises OSError if the file can't be written, or stays locked.
    """
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'scores'").fetchone():
                connection.execute("DELETE FROM scores")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as problem:
        raise OSError(f"the cached scores in {path} can't be deleted: {problem}; delete the file") from None
    except sqlite3.DatabaseError as problem:
        _log.warning("deleted the damaged cache of scores %s: %s", path, problem)
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
