"""Erasures of users, which are remembered without the user's id: as a tombstone event with pseudonyms.

A pseudonym is a salted hash of an id. It lets every process find the user that it stands for among those that it knows,
and lets an import or a restored journal leave out what was erased, while no file names the user any more. It hides an
id but does not make it anonymous: ids that can be guessed, such as small numbers, can be tested against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from feedrank.engine.events.events import (
    TOMBSTONE,
    Event,
    InteractionEvent,
    RankingEvent,
    UserEvent,
    erased_user,
)
from feedrank.engine.events.vocabulary import Vocabulary, session_of
from feedrank.engine.types import UNKNOWN_ROW

PREFIX = "erased"
"""First part of a pseudonym; the others are the salt and the hash, after colons."""
TIES = "ties"
"""Field of a tombstone with the hashes of the sessions and rankings that tied events without a user to the user."""
SALT_BYTES, HASH_BYTES, TIE_BYTES = 8, 16, 8
_PSEUDONYM = re.compile(rf"{PREFIX}:([!-9;-~]{{1,64}}):[0-9a-f]{{{2 * (HASH_BYTES + 1)}}}")


def make_salt(seed: str) -> str:
    """Return a salt made of a random text, such as a new UUID."""
    return blake2b(seed.encode(), digest_size=SALT_BYTES).hexdigest()


def pseudonym(identifier: str, salt: str) -> str:
    """Return the pseudonym of an id: a checksum of its bytes, and a salted hash."""
    key = identifier.encode("utf-8", "surrogatepass")
    digest = blake2b(key, digest_size=HASH_BYTES, key=salt.encode()).hexdigest()
    return f"{PREFIX}:{salt}:{sum(key) % 256:02x}{digest}"


def hash_tie(kind: str, identifier: str, salt: str) -> str:
    """Return the salted hash of the id of a session or a ranking. kind: session or ranking."""
    key = f"{kind}:{identifier}".encode("utf-8", "surrogatepass")
    return blake2b(key, digest_size=TIE_BYTES, key=salt.encode()).hexdigest()


def ties_of(event: RankingEvent | InteractionEvent) -> Iterator[tuple[str, str]]:
    """Yield (kind, id) of the session and the ranking of an event."""
    if event.session is not None:
        yield "session", event.session
    ranking = event.id if isinstance(event, RankingEvent) else event.ranking
    if ranking is not None:
        yield "ranking", ranking


def salt_of(name: str) -> str | None:
    """Return the salt of a pseudonym; None for any other text."""
    match = _PSEUDONYM.fullmatch(name)
    return None if match is None else match[1]


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure of a user, with all events until then."""

    id: str
    at_ms: int
    """Epoch milliseconds."""
    user: str
    """Pseudonym of the user; the id itself in tombstones of earlier versions."""
    ties: tuple[str, ...] = ()
    """Hashes of the sessions and rankings whose events without a user were erased too."""

    @classmethod
    def from_event(cls, event: Event) -> Erasure | None:
        """Return the erasure that a tombstone records; None for any other event."""
        user = erased_user(event)
        if user is None or not isinstance(event, UserEvent):
            return None
        ties = event.fields.get(TIES, ())
        found = tuple(tie for tie in ties if isinstance(tie, str)) if isinstance(ties, list) else ()
        return cls(event.id, event.timestamp, user, found)

    def to_event(self) -> UserEvent:
        """Return the tombstone."""
        fields: dict[str, Any] = {TOMBSTONE: True} | ({TIES: list(self.ties)} if self.ties else {})
        return UserEvent(self.id, self.at_ms, self.user, fields, self.at_ms)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Erasure:
        """Build the erasure from the result of `to_dict`. Raises KeyError, TypeError or ValueError."""
        user, at_ms, ties = body["user"], body["at"], body[TIES]
        if not (isinstance(user, str) and isinstance(at_ms, int) and isinstance(ties, list)):
            raise ValueError("found another shape, expected id, at, user and ties")
        return cls(str(body["id"]), at_ms, user, tuple(map(str, ties)))

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-ready values."""
        return {"id": self.id, "at": self.at_ms, "user": self.user, TIES: list(self.ties)}

    def concerns(self, event: Event) -> bool:
        """Return whether an event is of the erased user, or has none and is tied to the user; at any time."""
        if not isinstance(event, UserEvent | RankingEvent | InteractionEvent):
            return False
        salt = salt_of(self.user)
        if salt is None:
            return event.user == self.user
        if event.user is not None:
            return pseudonym(event.user, salt) == self.user
        return not isinstance(event, UserEvent) and any(hash_tie(*tie, salt) in self.ties for tie in ties_of(event))

    def rows(self, users: Vocabulary) -> list[int]:
        """Return the rows of the erased user in a vocabulary: one, or none."""
        salt = salt_of(self.user)
        if salt is None:
            row = users.row(self.user)
            return [] if row == UNKNOWN_ROW else [row]
        candidates = users.rows_with_checksum(int(self.user.rpartition(":")[2][:2], 16)).tolist()
        return [row for row in candidates if pseudonym(users.name(row), salt) == self.user]

    def session_rows(self, visitors: Vocabulary) -> list[int]:
        """Return the rows of sessions that name no user in their later events, but are tied to the erased user."""
        salt = salt_of(self.user)
        if salt is None or not self.ties:
            return []
        sessions = ((row, session_of(name)) for row, name in enumerate(visitors))
        return [
            row for row, session in sessions
            if session is not None and hash_tie("session", session, salt) in self.ties
        ]  # fmt: skip


class Erasures:
    """All erasures that are known, by pseudonym."""

    def __init__(self, erasures: Iterable[Erasure] = ()) -> None:
        self._all: dict[str, Erasure] = {}
        self._users: dict[str, int] = {}
        self._ties: dict[str, int] = {}
        self._salts: dict[str, None] = {}
        self.latest_ms = -(2**62)
        """Epoch milliseconds of the latest erasure."""
        for erasure in erasures:
            self.add(erasure)

    def __iter__(self) -> Iterator[Erasure]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    @property
    def salt(self) -> str | None:
        """The first salt; None if there is no erasure yet."""
        return next(iter(self._salts), None)

    @property
    def salts(self) -> tuple[str, ...]:
        """All salts: one, unless several homes with a history of their own share the journal.

        A copy, as another thread may add one.
        """
        return tuple(self._salts)

    def add(self, erasure: Erasure) -> None:
        """Add an erasure; a later one of the same user replaces an earlier one and takes over its ties."""
        if (salt := salt_of(erasure.user)) is None:
            return
        earlier = self._all.get(erasure.user)
        if earlier is not None:
            ties = tuple(dict.fromkeys((*earlier.ties, *erasure.ties)))
            latest = max(earlier, erasure, key=lambda one: one.at_ms)
            erasure = Erasure(latest.id, latest.at_ms, latest.user, ties)
        self._all[erasure.user] = erasure
        self._salts[salt] = None
        self._users[erasure.user] = erasure.at_ms
        for tie in erasure.ties:
            self._ties[tie] = max(erasure.at_ms, self._ties.get(tie, erasure.at_ms))
        self.latest_ms = max(self.latest_ms, erasure.at_ms)

    def of(self, user: str) -> Erasure | None:
        """Return the erasure of a user, given by id; None if the user was not erased."""
        return next((self._all[name] for name in self._pseudonyms(user) if name in self._all), None)

    def has_tie(self, kind: str, identifier: str) -> bool:
        """Return whether a session or a ranking, given by id, tied events to an erased user."""
        return any(hash_tie(kind, identifier, salt) in self._ties for salt in self.salts)

    def has(self, erasure: Erasure) -> bool:
        """Return whether an erasure of the same user, as late and with all its ties, is among these."""
        known = self._all.get(erasure.user)
        return known is not None and known.at_ms >= erasure.at_ms and set(known.ties) >= set(erasure.ties)

    def covers(self, event: Event) -> bool:
        """Return whether an event was erased: it is of an erased user, or tied to one, and from before the erasure."""
        if event.timestamp >= self.latest_ms or not isinstance(event, UserEvent | RankingEvent | InteractionEvent):
            return False
        if event.user is not None or isinstance(event, UserEvent):
            return any(
                event.timestamp < self._users.get(name, event.timestamp) for name in self._pseudonyms(event.user)
            )
        hashes = (hash_tie(*tie, salt) for tie in ties_of(event) for salt in self.salts)
        return any(event.timestamp < self._ties.get(tie, event.timestamp) for tie in hashes)

    def without(self, events: list[Event]) -> list[Event]:
        """Return the events that were not erased, in their order."""
        return [event for event in events if not self.covers(event)] if self._all else events

    def _pseudonyms(self, identifier: str) -> Iterator[str]:
        return (pseudonym(identifier, salt) for salt in self.salts)
