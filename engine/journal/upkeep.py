"""Maintains the files of a journal: WAL checkpoints, and the space of deleted events."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

MAX_VACUUM_BYTES = 64_000_000
"""Size of a journal that is rewritten while it serves: this takes about half a second, for which writers wait."""
_log = logging.getLogger(__name__)


def wal_checkpoint(engine: Engine, mode: str) -> None:
    """Run a WAL checkpoint in SQLite; the mode TRUNCATE also empties the WAL file."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})")


def vacuum(engine: Engine) -> None:
    """Return the space of deleted events to the file system."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM")
    if engine.dialect.name == "sqlite":
        wal_checkpoint(engine, "TRUNCATE")


def overwrite_deleted(engine: Engine, max_bytes: float = MAX_VACUUM_BYTES) -> None:
    """Leave nothing of deleted events in the files.

    SQLite overwrites them, but copies of rows that it moved earlier stay in unused parts of its pages. So the file is
    rewritten, if it has at most `max_bytes`, and otherwise its indexes, which hold the ids.
    """
    path, is_sqlite = engine.url.database, engine.dialect.name == "sqlite"
    is_large = is_sqlite and path is not None and Path(path).exists() and Path(path).stat().st_size > max_bytes
    try:
        if not is_large:
            vacuum(engine)
            return
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("REINDEX events")
        _log.warning("copies of deleted rows may be left in %s; `feedrank purge` rewrites the whole file", path)
    except DBAPIError as problem:  # such as a full disk; the events are deleted all the same
        _log.warning("the journal could not be rewritten, so copies of deleted rows may be left: %s", problem.orig)
    if is_sqlite:
        wal_checkpoint(engine, "TRUNCATE")
