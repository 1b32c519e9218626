"""Defines the journal's table and its most frequent statements, and configures SQLite connections."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    inspect,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ClauseElement

from feedrank.engine.events.events import TOMBSTONE
from feedrank.engine.journal import legacy

METADATA = MetaData()
EVENTS = Table(
    "events",
    METADATA,
    Column("offset", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("effective_time", BigInteger, nullable=False),
    Column("user_id", String),
    Column("body", Text, nullable=False),
    Index("events_by_kind", "kind"),
    sqlite_autoincrement=True,  # offsets of deleted events are never reused
)
BY_EFFECTIVE_TIME = Index("events_by_effective_time", EVENTS.c.effective_time, EVENTS.c.offset)


INSERTED = (EVENTS.c.id, EVENTS.c.offset)
INSERT = {
    "sqlite": sqlite.insert(EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(*INSERTED),
    "postgresql": postgresql.insert(EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(*INSERTED),
}
TOMBSTONE_KIND = "tombstone"
"""Value of the column `kind` of a tombstone, which is a user event with pseudonyms."""
SELECT_AFTER = (
    select(EVENTS.c.offset, EVENTS.c.body)
    .where(EVENTS.c.offset > bindparam("since"))
    .order_by(EVENTS.c.offset)
)  # fmt: skip
SELECT_TOMBSTONES = SELECT_AFTER.where(EVENTS.c.kind == literal_column(f"'{TOMBSTONE_KIND}'"))
LATEST_TIME = text(
    "SELECT effective_time FROM events WHERE effective_time <= :limit ORDER BY effective_time DESC LIMIT 1"
)
"""Selects the latest effective time that is not after `limit`, in epoch milliseconds."""
IS_TOMBSTONE = and_(
    EVENTS.c.kind == "user",
    or_(*(EVENTS.c.body.contains(f'{{"name":"{name}","value":true}}') for name in (TOMBSTONE, legacy.TOMBSTONE))),
)
"""Matches tombstones of earlier versions, which name the user, by their JSON text.

Inside a string value the quotes would be escaped, so it can't match.
"""
ADVISORY_LOCK = text("SELECT set_config('lock_timeout', :wait, true), pg_advisory_xact_lock(7203421)")
"""Serializes writers to a PostgreSQL journal; SQLite has a lock of its own. wait: at most, such as `500ms`."""


def migrate(connection: Connection) -> None:
    """Give the table of a journal of version 0.1 today's column names; does nothing for any other journal."""
    inspector = inspect(connection)
    if not inspector.has_table(EVENTS.name):
        return
    old = {column["name"] for column in inspector.get_columns(EVENTS.name)} & legacy.COLUMNS.keys()
    if not old:
        return
    for name in sorted(old):
        connection.execute(text(f"ALTER TABLE events RENAME COLUMN {name} TO {legacy.COLUMNS[name]}"))
    connection.execute(text(f"DROP INDEX IF EXISTS {legacy.INDEX}"))
    BY_EFFECTIVE_TIME.create(connection)


def connect_sqlite(path: str, timeout_s: float, **options: Any) -> sqlite3.Connection:
    """Open a connection to a journal's file. Raises sqlite3.Error. timeout_s: how long it waits for a locked file.

    In a read-only folder, SQLite can't create the files that it shares with other processes. If there are none, no
    process writes to the journal, and it is read as it is.
    """
    options = {"timeout": timeout_s, "check_same_thread": False, **options}
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    try:
        _configure(connection, ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "secure_delete=ON"))
        return connection
    except sqlite3.OperationalError:
        connection.close()
        if os.access(os.path.dirname(path) or ".", os.W_OK) or os.path.exists(f"{path}-wal"):
            raise
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?immutable=1", **{**options, "uri": True})
    _configure(connection, ())
    return connection


def _configure(connection: sqlite3.Connection, pragmas: Sequence[str]) -> None:
    connection.isolation_level = None  # only `begin_transaction` starts transactions
    # one row that is not UTF-8, from another program, must not fail a query of many
    connection.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


def begin_transaction(connection: Connection) -> None:
    """Start a transaction, at once as a writing one if it will write; an SQLAlchemy `begin` listener."""
    # upgrading a deferred transaction from read to write fails while another process writes
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    writing = options.get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


INSERT_COLUMNS = ("id", "kind", "timestamp", "effective_time", "user_id", "body")
"""Columns of an inserted row."""


def compile_sqlite(statement: ClauseElement) -> str:
    """Compile a statement to SQL with named parameters, for the sqlite3 driver; inserts take `INSERT_COLUMNS`."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named"), column_keys=INSERT_COLUMNS))
