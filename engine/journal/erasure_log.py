"""Remembers which users were erased: as tombstones in the journal, and in a file that outlives the journal.

A backup of the journal holds users that were erased after it was made. So each erasure is also a line of a file beside
the journal, and the erasures of the file that a journal lacks are made again when it is opened.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import delete
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from feedrank.engine.events.erasure import Erasure, Erasures, hash_tie, make_salt, pseudonym, salt_of
from feedrank.engine.events.events import Event
from feedrank.engine.journal.decoding import decode
from feedrank.engine.journal.deletion import delete_user
from feedrank.engine.journal.errors import JournalError
from feedrank.engine.journal.tables import EVENTS, INSERT, TOMBSTONE_KIND
from feedrank.engine.journal.user_events import UserEvents, names_in

MAX_SEARCHES = 3
"""Searches for what a user did during the last one, before other writers are excluded for such a search."""
_log = logging.getLogger(__name__)


class ErasureLog:
    """The erasures of a journal. Other processes may add some at any time."""

    def __init__(
        self, engine: Engine, read: Callable[[int], Sequence[tuple[int, object]]],
        write: Callable[[], AbstractContextManager[Connection]],
        encode: Callable[[Connection, Event], Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """Create the log; nothing is read.

        read: returns (offset, body) of the next tombstones after an offset; it must be quick, as each request with
        events calls it. write: opens a transaction of the journal that excludes other writers. encode: makes the row of
        an event.
        """
        self._engine, self._read, self._write, self._encode = engine, read, write, encode
        self._path: Path | None = None
        self._known, self._offset = Erasures(), 0

    def known(self) -> Erasures:
        """Return all erasures, those of other processes included. Raises JournalError."""
        while rows := self._read(self._offset):
            for offset, body in rows:
                with suppress(ValueError):  # the journal's decoder names a row that can't be read
                    if (erasure := Erasure.from_event(decode(body))) is not None:
                        self._known.add(erasure)
                self._offset = offset
        return self._known

    def latest_offset(self) -> int:
        """Return the journal offset of the latest tombstone; 0 if there is none. Raises JournalError."""
        self.known()
        return self._offset

    def find(self, user: str) -> UserEvents:
        """Find all events of a user. Slow for a long journal. Raises JournalError."""
        found = UserEvents(user)
        self._search(found)
        return found

    def _search(self, found: UserEvents) -> bool:
        """Search the journal, or what came since the last search; return whether that ties more to the user."""
        try:
            with self._engine.connect() as connection:  # a new one, as each sees only the events before it
                return found.search_again(connection) if found.last_offset else found.search(connection)
        except DBAPIError as problem:
            raise JournalError(f"can't read the journal at {self._engine.url!r}: {problem.orig}") from None

    def erase(self, user: str, tombstone_id: str, at_ms: int) -> int:
        """Delete all events of a user, and write the tombstone with pseudonyms; return the number of deleted events.

        The file has the erasure first, so that what an interruption leaves is deleted when the journal is opened next.
        """
        known = self.known()
        remembered = Erasures([*self._read_file(), *known])
        salt = remembered.salt or make_salt(tombstone_id)
        found = self.find(user)  # slow, so it runs before other writers are excluded
        for _ in range(MAX_SEARCHES):  # a user who is active meanwhile
            if not self._search(found):
                break
        earlier = remembered.of(user)
        name = pseudonym(user, salt) if earlier is None else earlier.user
        before = () if earlier is None else earlier.ties
        at_ms = at_ms if earlier is None else max(earlier.at_ms, at_ms)

        def erasure() -> Erasure:
            ties = (hash_tie(*tie, salt_of(name) or salt) for tie in found.ties)
            return Erasure(tombstone_id, at_ms, name, tuple(dict.fromkeys((*before, *ties))))

        written = erasure()
        self._append_to_file(written)
        with self._write() as connection:
            deleted = delete_user(connection, found)
            if erasure() != written:
                self._append_to_file(erasure())
            self._write_tombstone(connection, erasure())
        return deleted

    def keep_in(self, path: Path) -> None:
        """Keep the erasures in a file too, from now on; nothing is read now."""
        self._path = path

    def remember_in(self, path: Path) -> int:
        """Keep the erasures in a file too, from now on; return how many of its erasures the journal lacked.

        Those are made again, as the journal is a restored backup or a new one. Raises JournalError.
        """
        self._path = path
        known, in_file = self.known(), self._read_file()
        for erasure in known:
            if not in_file.has(erasure):
                try:
                    self._append_to_file(erasure)
                except JournalError as problem:  # the journal has it all the same
                    _log.warning("%s", problem)
        lacking = [erasure for erasure in in_file if not known.has(erasure)]
        if lacking:
            with self._write() as connection:
                self._erase_again(connection, lacking)
            self.known()
        return len(lacking)

    def _erase_again(self, connection: Connection, lacking: list[Erasure]) -> None:
        """Delete the events of erased users and sessions from the journal, and write the tombstones that it lacks."""
        erased, deleted = Erasures(lacking), 0
        users, ties = names_in(connection)
        found = [UserEvents(user) for user in sorted(users) if erased.of(user) is not None]
        tied = [(kind, name) for kind, name in ties if erased.has_tie(kind, name)]
        rankings = {name for kind, name in tied if kind == "ranking"}
        sessions = {name for kind, name in tied if kind == "session"}
        found.append(UserEvents(None, sessions, rankings=rankings, named=set(rankings)))
        for events in found:
            deleted += delete_user(connection, events)
        for erasure in lacking:
            self._write_tombstone(connection, erasure)
        if deleted:
            _log.warning(
                "the journal held %d events of %d users that had been erased; they were deleted again",
                deleted, len(found) - 1,
            )  # fmt: skip

    def _write_tombstone(self, connection: Connection, erasure: Erasure) -> None:
        """Write a tombstone in place of an earlier one of the same user."""
        connection.execute(delete(EVENTS).where(EVENTS.c.kind == TOMBSTONE_KIND, EVENTS.c.user_id == erasure.user))
        row = {**self._encode(connection, erasure.to_event()), "kind": TOMBSTONE_KIND}
        connection.execute(INSERT[self._engine.dialect.name], [row])

    def _read_file(self) -> Erasures:
        """Return the erasures of the file; a line that an interruption cut short is passed over."""
        found = Erasures()
        try:
            lines = b"" if self._path is None else self._path.read_bytes()
        except FileNotFoundError:
            return found
        except OSError as problem:
            raise JournalError(f"can't read the erased users: {problem}; correct the rights of the file") from None
        for number, line in enumerate(lines.splitlines(), 1):
            try:
                found.add(Erasure.from_dict(json.loads(line)))
            except (KeyError, TypeError, ValueError):
                if line.strip():
                    _log.warning("line %d of %s can't be read, so its erasure is not known", number, self._path)
        return found

    def _append_to_file(self, erasure: Erasure) -> None:
        """Add a line to the file, on disk when this returns. Raises JournalError."""
        if self._path is None:
            return
        line = json.dumps(erasure.to_dict(), separators=(",", ":")).encode() + b"\n"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
                os.fsync(file.fileno())
        except OSError as problem:
            raise JournalError(
                f"the erasure can't be remembered in {self._path}: {problem}; nothing was deleted"
            ) from None
