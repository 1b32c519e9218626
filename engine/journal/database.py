"""Opens the journal's database: its engine, and its tables without a write if they are there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from feedrank.engine.journal.errors import JournalError
from feedrank.engine.journal.tables import EVENTS, INSERT, METADATA, begin_transaction, connect_sqlite, migrate

OPEN_TIMEOUT_S = 1.0
"""Seconds that a new connection waits for a locked file; a statement on it waits longer."""


def create_database_engine(url: str) -> Engine:
    """Create the SQLAlchemy engine of a journal; nothing is connected. Raises JournalError."""
    try:
        engine = create_engine(url, future=True)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "do_connect", _connect_sqlite)
            event.listen(engine, "begin", begin_transaction)
    except (ArgumentError, NoSuchModuleError) as problem:
        raise JournalError(f"the journal's URL {url!r} can't be used: {problem}") from None
    except ModuleNotFoundError as problem:
        raise JournalError(
            f"the journal's URL {url!r} needs the driver {problem.name}, which is not installed; for PostgreSQL:"
            " pip install 'feedrank[postgresql]', and a URL that starts with postgresql+psycopg://"
        ) from None
    if engine.dialect.name not in INSERT:
        raise JournalError(f"found a {engine.dialect.name} database, expected one of {', '.join(INSERT)}")
    return engine


def _connect_sqlite(_dialect: object, _record: object, arguments: Any, options: dict[str, Any]) -> sqlite3.Connection:
    """Open a pooled connection; an SQLAlchemy `do_connect` listener."""
    more = {name: value for name, value in options.items() if name not in ("timeout", "check_same_thread")}
    return connect_sqlite(str(arguments[0]), OPEN_TIMEOUT_S, **more)


def open_tables(engine: Engine, write_transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
    """Create or migrate the journal's tables. Raises JournalError.

    If they are as today, they are only read: the disk may be full or read-only, or another process may hold the
    database's lock.
    """
    try:
        with engine.connect() as connection:
            if _is_current(connection):
                return
        with write_transaction() as connection:
            migrate(connection)
            METADATA.create_all(connection)
            columns = {column["name"] for column in inspect(connection).get_columns(EVENTS.name)}
    except (DBAPIError, sqlite3.Error) as problem:
        cause = problem.orig if isinstance(problem, DBAPIError) else problem
        raise JournalError(f"can't open the journal at {engine.url!r}: {cause}") from None
    if missing := {column.name for column in EVENTS.columns} - columns:
        raise JournalError(
            f"the journal at {engine.url!r} was made by another version: it lacks"
            f" {', '.join(sorted(missing))}; move it away and import its sources again"
        )


def _is_current(connection: Connection) -> bool:
    inspector = inspect(connection)
    if not inspector.has_table(EVENTS.name):
        return False
    columns = {column["name"] for column in inspector.get_columns(EVENTS.name)}
    indexes = {index["name"] for index in inspector.get_indexes(EVENTS.name)}
    return columns >= {column.name for column in EVENTS.columns} and indexes >= {index.name for index in EVENTS.indexes}
