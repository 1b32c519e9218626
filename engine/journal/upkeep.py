"""Maintains the files of a journal: WAL checkpoints, and the space of deleted events."""

from __future__ import annotations

from sqlalchemy.engine import Engine


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


def overwrite_deleted(engine: Engine) -> None:
    """Leave nothing of deleted events in the files. SQLite has overwritten them, and only its WAL file is left."""
    if engine.dialect.name == "sqlite":
        wal_checkpoint(engine, "TRUNCATE")
    else:
        vacuum(engine)
