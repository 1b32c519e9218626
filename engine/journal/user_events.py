"""Finds all events of a user in the journal's table, with those that only a session or a ranking ties to the user."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import JSON, ColumnElement, case, cast, func, select
from sqlalchemy.engine import Connection, Engine

from feedrank.engine.journal.legacy import upgrade
from feedrank.engine.journal.tables import EVENTS, IS_TOMBSTONE, TOMBSTONE_KIND

MAX_SESSION_USERS = 10
"""Other users that may name a session before it counts as a constant, such as `web`, and ties nothing to a user."""
CHUNK_SIZE = 5_000
"""Events per read."""
MAX_PARAMETERS = 500
"""Ids in one statement."""
NO_TOMBSTONE = (EVENTS.c.kind != TOMBSTONE_KIND, ~IS_TOMBSTONE)
"""Conditions that leave out tombstones."""
_WITHOUT_USER = (EVENTS.c.user_id.is_(None), EVENTS.c.kind.in_(("ranking", "interaction")))
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class UserEvents:
    """The events of one user, found by `search`.

    These are the user's own events; events without a user in a session that these name; rankings without a user that
    the user's interactions name; and interactions without a user that name a ranking of the user. What is found this
    way ties further sessions and rankings to the user. A session that several users name counts for each of them, but
    one that more than `MAX_SESSION_USERS` others name is no session of a user.
    """

    user: str | None
    """None: only sessions are searched for."""
    sessions: set[str] = field(default_factory=set)
    """The user's sessions."""
    offsets: set[int] = field(default_factory=set)
    """Journal offsets of the events."""
    rankings: set[str] = field(default_factory=set)
    """Ids of the user's rankings."""
    named: set[str] = field(default_factory=set)
    """Ids of rankings that the user's interactions name."""
    constants: set[str] = field(default_factory=set)
    """Sessions that too many others name."""
    last_offset: int = 0
    """Journal offset of the last event that was searched."""
    without_user: list[tuple[str | None, str | None]] = field(default_factory=list)
    """(session, ranking) of each event without a user."""

    @property
    def ties(self) -> list[tuple[str, str]]:
        """What ties all events without a user to the user: (session, its id) or, for those without, (ranking, its id).

        In order.
        """
        rankings = {ranking for session, ranking in self.without_user if session not in self.sessions and ranking}
        return [
            *(("session", name) for name in sorted(self.sessions)),
            *(("ranking", name) for name in sorted(rankings)),
        ]

    def search(self, connection: Connection) -> bool:
        """Search the events after `last_offset`; return whether they tie further sessions or rankings to the user."""
        since, at_first, before = self.last_offset, self._size(), set(self.sessions)
        self.last_offset = max(since, int(connection.scalar(select(func.max(EVENTS.c.offset))) or 0))
        if self.user is not None:  # SQLAlchemy compares with None by IS NULL, as all events without a user are
            for row in self._rows(connection, since, EVENTS.c.user_id == self.user):
                self._take(row)
        pending = self.sessions - before
        while True:
            self._drop_constants(connection, pending)
            known, size = set(self.sessions), self._size()
            for row in self._rows(connection, since, *_WITHOUT_USER):
                offset, kind, event_id, session, ranking = row
                if offset not in self.offsets and (
                    session in known or (event_id in self.named if kind == "ranking" else ranking in self.rankings)
                ):
                    self._take(row)
                    self.without_user.append((session, event_id if kind == "ranking" else ranking))
            pending = self.sessions - known
            if self._size() == size:
                return size > at_first

    def search_again(self, connection: Connection) -> bool:
        """Search the events that came since; return whether they tie more to the user.

        Those may tie older events to the user too, so then all events are searched once more.
        """
        if not self.search(connection):
            return False
        self.last_offset = 0
        self.search(connection)
        return True

    def _take(self, row: Sequence[Any]) -> None:
        offset, kind, event_id, session, ranking = row
        self.offsets.add(offset)
        if session is not None and session not in self.constants:
            self.sessions.add(session)
        if kind == "ranking":
            self.rankings.add(event_id)
        elif ranking is not None:
            self.named.add(ranking)

    def _rows(self, connection: Connection, since: int, *conditions: ColumnElement[bool]) -> Iterator[Sequence[Any]]:
        """Yield (offset, kind, id, session, ranking) of the events after `since` that meet all conditions."""
        session, ranking = (_json_text(connection, name) for name in ("session", "ranking"))
        query = select(EVENTS.c.offset, EVENTS.c.kind, EVENTS.c.id, session, ranking)
        query = query.where(EVENTS.c.offset > since, *conditions, *NO_TOMBSTONE)
        yield from connection.execute(query.execution_options(yield_per=CHUNK_SIZE))

    def _drop_constants(self, connection: Connection, sessions: Iterable[str]) -> None:
        """Drop those of the sessions that too many others name."""
        session, users = _json_text(connection, "session"), func.count(EVENTS.c.user_id.distinct())
        names = sorted(sessions)
        for first in range(0, len(names), MAX_PARAMETERS):
            chunk = names[first : first + MAX_PARAMETERS]
            query = select(session, users).where(EVENTS.c.user_id.is_not(None), session.in_(chunk)).group_by(session)
            if self.user is not None:
                query = query.where(EVENTS.c.user_id != self.user)
            constants = {str(name) for name, count in connection.execute(query) if count > MAX_SESSION_USERS}
            if constants:
                _log.warning(
                    "%d sessions of the user are named by more than %d others, so their events without a user stay",
                    len(constants), MAX_SESSION_USERS,
                )  # fmt: skip
            self.sessions -= constants
            self.constants |= constants

    def _size(self) -> int:
        return len(self.sessions) + len(self.rankings) + len(self.named)


def names_in(connection: Connection) -> tuple[set[str], set[tuple[str, str]]]:
    """Return all users of the journal, and (kind, id) of all sessions and rankings of events without a user."""
    users = connection.scalars(select(EVENTS.c.user_id).where(EVENTS.c.user_id.is_not(None), *NO_TOMBSTONE).distinct())
    session = _json_text(connection, "session")
    ranking = case((EVENTS.c.kind == "ranking", EVENTS.c.id), else_=_json_text(connection, "ranking"))
    ties = {
        (kind, str(name))
        for kind, column in (("session", session), ("ranking", ranking))
        for name in connection.scalars(select(column).where(*_WITHOUT_USER, column.is_not(None)).distinct())
    }
    return set(users), ties


def read_events(engine: Engine, offsets: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset, body) of the events at these offsets, in order, in today's names.

    The body of an event that is damaged has only the text of it, under `damaged`.
    """
    wanted = sorted(offsets)
    for first in range(0, len(wanted), MAX_PARAMETERS):
        chosen = EVENTS.c.offset.in_(wanted[first : first + MAX_PARAMETERS])
        with engine.connect() as connection:
            rows = connection.execute(select(EVENTS.c.offset, EVENTS.c.body).where(chosen).order_by(EVENTS.c.offset))
            found = [(int(offset), str(body)) for offset, body in rows]
        for offset, text in found:
            try:
                body = json.loads(text)
            except ValueError:
                body = None
            yield offset, upgrade(body) if isinstance(body, dict) else {"damaged": text}


def _json_text(connection: Connection, name: str) -> ColumnElement[Any]:
    """Return the text under a name in the body of an event; NULL if there is none, or if the body is damaged."""
    if connection.dialect.name == "sqlite":
        return case((func.json_valid(EVENTS.c.body) == 1, func.json_extract(EVENTS.c.body, f"$.{name}")))
    in_json: ColumnElement[Any] = cast(EVENTS.c.body, JSON)[name].as_string()
    return in_json
