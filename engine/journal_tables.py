"""The journal's table, the statements that every feed uses, and how SQLite is set up for them."""

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

from engine.events import FORGOTTEN

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
    sqlite_autoincrement=True,  # the offset of an event that was deleted is not given again
)


WRITTEN = (EVENTS.c.id, EVENTS.c.offset)
INSERT = {
    "sqlite": sqlite.insert(EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(*WRITTEN),
    "postgresql": postgresql.insert(EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(*WRITTEN),
}
SINCE = (
    select(EVENTS.c.offset, EVENTS.c.body)
    .where(EVENTS.c.offset > bindparam("since"))
    .order_by(EVENTS.c.offset)
)  # fmt: skip
NOTE = and_(EVENTS.c.kind == "user", EVENTS.c.body.contains(f'{{"name":"{FORGOTTEN}","value":true}}'))
"""What says that somebody was forgotten, as it is written; in a string of a field its quotes would be escaped."""
TURN = text("SELECT pg_advisory_xact_lock(7203421)")
"""What writers to a PostgreSQL journal wait for; SQLite has its own."""


def set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `begin` alone
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def begin(connection: Connection) -> None:
    # a deferred transaction that turns from reading to writing can fail where another process writes
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    writing = options.get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


COLUMNS = ("id", "kind", "timestamp", "known", "person", "body")
"""Of a row that is written."""


def plain(statement: ClauseElement) -> str:
    """A statement as SQLite's own driver takes it, with named parameters; of a row, those of `COLUMNS`."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named"), column_keys=COLUMNS))
