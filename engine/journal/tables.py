"""Defines the journal's table and its most frequent statements, and configures SQLite connections."""

from __future__ import annotations

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
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ClauseElement

from feedrank.engine.events.events import TOMBSTONE

METADATA = MetaData()
EVENTS = Table(
    "events",
    METADATA,
    Column("offset", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("known", BigInteger, nullable=False),
    Column("person", String),
    Column("body", Text, nullable=False),
    Index("events_by_kind", "kind"),
    Index("events_in_order", "known", "offset"),
    sqlite_autoincrement=True,  # offsets of deleted events are never reused
)


INSERTED = (EVENTS.c.id, EVENTS.c.offset)
INSERT = {
    "sqlite": sqlite.insert(EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(*INSERTED),
    "postgresql": postgresql.insert(EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(*INSERTED),
}
SELECT_AFTER = (
    select(EVENTS.c.offset, EVENTS.c.body)
    .where(EVENTS.c.offset > bindparam("since"))
    .order_by(EVENTS.c.offset)
)  # fmt: skip
IS_TOMBSTONE = and_(EVENTS.c.kind == "user", EVENTS.c.body.contains(f'{{"name":"{TOMBSTONE}","value":true}}'))
"""Matches tombstones by their JSON text. Inside a string value the quotes would be escaped, so it can't match."""
ADVISORY_LOCK = text("SELECT pg_advisory_xact_lock(7203421)")
"""Serializes writers to a PostgreSQL journal; SQLite has a lock of its own."""


def configure_sqlite(connection: Any, _record: object) -> None:
    """Set the pragmas of a new SQLite connection; an SQLAlchemy `connect` listener."""
    connection.isolation_level = None  # only `begin_transaction` starts transactions
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def begin_transaction(connection: Connection) -> None:
    """Start a transaction, at once as a writing one if it will write; an SQLAlchemy `begin` listener."""
    # upgrading a deferred transaction from read to write fails while another process writes
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    writing = options.get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


INSERT_COLUMNS = ("id", "kind", "timestamp", "known", "person", "body")
"""Columns of an inserted row."""


def compile_sqlite(statement: ClauseElement) -> str:
    """Compile a statement to SQL with named parameters, for the sqlite3 driver; inserts take `INSERT_COLUMNS`."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named"), column_keys=INSERT_COLUMNS))
