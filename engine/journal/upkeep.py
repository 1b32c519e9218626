"""Maintains the files of a journal: WAL checkpoints, and the space of deleted events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

MAX_VACUUM_BYTES = 64_000_000
"""Size of a journal that is rewritten while it serves: this takes about half a second, for which writers wait."""
EMPTY_WAL_WAIT_S, EMPTY_WAL_INTERVAL_S = 30.0, 0.1
"""Seconds for which emptying the WAL file is tried again, and between two attempts."""
_log = logging.getLogger(__name__)


def wal_checkpoint(engine: Engine) -> None:
    """Run a WAL checkpoint in SQLite without blocking writers."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def empty_wal(engine: Engine, wait_s: float = EMPTY_WAL_WAIT_S) -> bool:
    """Move all of SQLite's WAL into the database, and empty the WAL file; return whether that was possible.

    A process that reads an older state, such as a backup, prevents it. SQLite would wait for it, and keep all writers
    out meanwhile. So each attempt gives up at once, and is repeated a little later, for up to `wait_s` seconds.
    """
    give_up_at = time.monotonic() + wait_s
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        timeout_ms = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
        try:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            while True:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")  # leaves the other one little to do
                if not connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar():
                    return True
                if time.monotonic() >= give_up_at:
                    _log.warning(
                        "the WAL file of %s could not be emptied for %g s, as another process reads the journal, so"
                        " copies of deleted rows may be left in it; `feedrank purge` empties it",
                        engine.url.database, wait_s,
                    )  # fmt: skip
                    return False
                time.sleep(EMPTY_WAL_INTERVAL_S)
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={timeout_ms}")


def vacuum(engine: Engine) -> None:
    """Return the space of deleted events to the file system."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM")
    if engine.dialect.name == "sqlite":
        empty_wal(engine)


def overwrite_deleted(
    engine: Engine, write: Callable[[], AbstractContextManager[Connection]], max_bytes: float = MAX_VACUUM_BYTES
) -> None:
    """Leave nothing of deleted events in the files.

    SQLite overwrites them, but copies of rows that it moved earlier stay in unused parts of its pages. So the file is
    rewritten, if it has at most `max_bytes`, and otherwise its indexes, which hold the ids. write: opens a transaction
    of the journal that excludes other writers.
    """
    path, is_sqlite = engine.url.database, engine.dialect.name == "sqlite"
    is_large = is_sqlite and path is not None and Path(path).exists() and Path(path).stat().st_size > max_bytes
    try:
        if is_large:
            _rewrite_indexes(engine, write)
            _log.warning("copies of deleted rows may be left in %s; `feedrank purge` rewrites the whole file", path)
            empty_wal(engine)
        else:
            vacuum(engine)
    except DBAPIError as problem:  # such as a full disk; the events are deleted all the same
        _log.warning("the journal could not be rewritten, so copies of deleted rows may be left: %s", problem.orig)


def _rewrite_indexes(engine: Engine, write: Callable[[], AbstractContextManager[Connection]]) -> None:
    """Rewrite one index after the other, so that other writers take turns with it."""
    with engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT name FROM pragma_index_list('events')").scalars().all()
    for name in names:
        with write() as connection:
            connection.exec_driver_sql(f'REINDEX "{name}"')
