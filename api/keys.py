"""API keys: who may call, and what they may do. Only hashes are at rest."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import string
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from api.schemas import explained
from engine.turns import locked
from models.files import synced, written_aside

Scope: TypeAlias = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999, after which no calendar writes a date."""

_ALPHABET = string.ascii_lowercase + string.digits
_ID = re.compile(r"[a-z0-9]{8}")
_TOKEN = re.compile(r"frk_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class KeysError(RuntimeError):
    """A keys file that can't be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, as it is at rest: without its secret. Times are epoch milliseconds."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    """Public, and a part of the token."""
    name: str
    """What the key is for; names need not differ."""
    scopes: tuple[Scope, ...]
    created: int
    expires: int | None
    """From then on the key is none; None: never."""
    digest: str = field(repr=False)
    """sha256 of the token, in hex."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"the id is {self.id!r:.60}; expected 8 of a-z and 0-9")
        # what can't be printed could rewrite the terminal that lists the keys
        if not (self.name.strip() and self.name.isprintable() and len(self.name) <= 100):
            raise ValueError(f"the name is {self.name!r:.60}; expected 1 to 100 printable characters")
        if not self.scopes:
            raise ValueError(f"a key without scopes may do nothing; expected some of {', '.join(SCOPES)}")
        if not 0 <= self.created <= LATEST:
            raise ValueError(f"created is {self.created}; expected epoch milliseconds from 0 to {LATEST}")
        if self.expires is not None and not self.created < self.expires <= LATEST:
            raise ValueError(
                f"expires is {self.expires}; expected epoch milliseconds after created, {self.created}, to {LATEST}"
            )
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError("the digest is not 64 hexadecimal digits")

    def allows(self, scope: Scope) -> bool:
        """May the key do this? admin may do everything."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class _File:
    """What is in keys.json: the keys, in the order in which they were made."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for key in self.keys:
            if key.id in seen:
                raise ValueError(f"the id {key.id} comes twice")
            seen.add(key.id)


_FILE = TypeAdapter(_File)


@dataclass(frozen=True, slots=True)
class _Held:
    """The keys as last read, by id, and the stamp of the file that they are from."""

    stamp: tuple[int, ...]
    keys: Mapping[str, Key]
    damaged: bool = False
    """The file can't be read as it is now; the keys are from before."""


_ABSENT = ()
_UNREADABLE = (-1,)
"""Stands for a file that can't be opened, and is the stamp of none, so that each check tries again."""


class Keys:
    """The API keys in one file, which several processes may read and change."""

    def __init__(self, path: Path) -> None:
        """Raises KeysError where the file is damaged; where there is none, there are no keys."""
        self._path = path
        self._name = os.fspath(path)
        self._lock = threading.Lock()
        self._held = self._read()

    def create(self, name: str, scopes: Collection[str], created: int, expires: int | None = None) -> tuple[Key, str]:
        """A new key, and its token, which is kept nowhere. Times: epoch ms. Raises ValueError, KeysError and OSError.

        The token has 256 random bits, which nobody can try through, so that one sha256 keeps it as safe as a slow hash
        would, and a request does not wait. It is taken of the whole token: the id in it is the salt.
        """
        unknown = [one for one in scopes if one not in SCOPES]
        if unknown:
            raise ValueError(f"there is no scope {unknown[0]!r}; the scopes are {', '.join(SCOPES)}")
        with self._locked():
            before = self._read()
            key_id = _new_id()
            while key_id in before.keys:
                key_id = _new_id()
            token = f"frk_{key_id}_{secrets.token_urlsafe(32)}"
            held = tuple(one for one in SCOPES if one in scopes)
            key = Key(key_id, name, held, created, expires, _digest(token))
            self._write((*before.keys.values(), key), before)
        return key, token

    def revoke(self, key_id: str) -> bool:
        """Remove a key for good; False where there is none of that id. Raises KeysError and OSError."""
        if not self._path.exists():
            return False  # and no folder is made for the lock
        with self._locked():
            before = self._read()
            if key_id not in before.keys:
                return False
            self._write(tuple(key for key in before.keys.values() if key.id != key_id), before)
        return True

    def all(self) -> tuple[Key, ...]:
        """All keys as the file has them now, expired ones too, oldest first. Raises KeysError."""
        return tuple(self._read().keys.values())

    def check(self, token: str, at: float) -> Key | None:
        """The key of a token that is valid at that time, in epoch ms; None for any other text.

        The file is read again only where it has changed. One that was damaged since leaves the keys as they were.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        key = self._current().keys.get(found[1])
        if key is None or not hmac.compare_digest(key.digest, _digest(token)):
            return None
        return key if key.expires is None or at < key.expires else None

    def _current(self) -> _Held:
        try:
            stamp = _stamp(os.stat(self._name))
        except FileNotFoundError:
            stamp = _ABSENT
        except OSError:
            stamp = _UNREADABLE
        held = self._held  # replaced as a whole, so that this needs no lock
        return held if held.stamp == stamp else self._renewed(stamp)

    def _renewed(self, stamp: tuple[int, ...]) -> _Held:
        with self._lock:
            if self._held.stamp != stamp:  # no other thread has read it meanwhile
                try:
                    self._held = self._read()
                except KeysError as problem:
                    if not self._held.damaged:
                        _log.warning("%s. Until then the keys from before stay valid", problem)
                    # a mode that is mended, or a file handle that comes free, does not change the stamp
                    known = _UNREADABLE if isinstance(problem.__cause__, OSError) else stamp
                    self._held = _Held(known, self._held.keys, damaged=True)
            return self._held

    def _read(self) -> _Held:
        try:
            with self._path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                content = file.read()
        except FileNotFoundError:
            return _Held(_ABSENT, {})
        except OSError as problem:
            raise KeysError(
                f"can't read {self._path}: {problem.strerror}; expected a file that this user may read: "
                "change its owner or its mode"
            ) from problem
        try:
            kept = _FILE.validate_json(content, strict=True)
        except ValidationError as problem:
            place, what = explained(problem)
            if problem.errors(include_url=False)[0]["type"] == "json_invalid":
                place, what = "", f"{len(content):,} bytes that are not JSON"
            raise KeysError(
                f"{self._path}: {place and place + ': '}{what}; expected the keys as `feedrank keys create` writes "
                "them: put a copy of the file back, or remove it and create new keys"
            ) from problem
        return _Held(stamp, {key.id: key for key in kept.keys})

    def _write(self, keys: tuple[Key, ...], before: _Held) -> None:
        with written_aside(self._path, 0o600) as aside:
            aside.write_bytes(_FILE.dump_json(_File(keys), indent=1) + b"\n")
            if before.stamp:
                # a disk's clock ticks slowly and inodes are used again: without this, two changes in a row may look
                # like none, and a revoked key would stay valid
                status = aside.stat()
                os.utime(aside, ns=(status.st_atime_ns, max(status.st_mtime_ns, before.stamp[0] + 1_000)))
        synced(self._path.parent)  # or a revoked key could come back after a power cut

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process, and one thread of it, at a time; the lock's file stays, for all to agree on."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(f"{self._name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            locked(handle)
            yield
        finally:
            os.close(handle)  # gives the lock back


def _new_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino
