"""Create, store and check API keys and their scopes. Only hashes are stored."""

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

from feedrank.api.validation_errors import first_error
from feedrank.engine.journal.file_lock import lock_file
from feedrank.models.atomic_files import atomic_write, fsync

Scope: TypeAlias = Literal["read", "write", "admin", "import"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""read: feeds. write: events. admin: everything. import: with write, rankings with what only the service says."""
MAX_TIMESTAMP_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the latest that datetime can represent."""

_ALPHABET = string.ascii_lowercase + string.digits
_ID = re.compile(r"[a-z0-9]{8}")
_TOKEN = re.compile(r"frk_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class KeysError(RuntimeError):
    """Raised for a keys file that can't be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One API key as it is stored, without its secret. Times are epoch milliseconds."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    """Public id; it is part of the token."""
    name: str
    """What the key is for; names need not be unique."""
    scopes: tuple[Scope, ...]
    created: int
    expires: int | None
    """From then on the key is invalid; None: it never expires."""
    digest: str = field(repr=False)
    """SHA-256 of the token, in hex."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"the id is {self.id!r:.60}; expected 8 of a-z and 0-9")
        # control characters could rewrite the terminal that lists the keys
        if not (self.name.strip() and self.name.isprintable() and len(self.name) <= 100):
            raise ValueError(f"the name is {self.name!r:.60}; expected 1 to 100 printable characters")
        if not self.scopes:
            raise ValueError(f"a key without scopes may do nothing; expected some of {', '.join(SCOPES)}")
        if not 0 <= self.created <= MAX_TIMESTAMP_MS:
            raise ValueError(f"created is {self.created}; expected epoch milliseconds from 0 to {MAX_TIMESTAMP_MS}")
        if self.expires is not None and not self.created < self.expires <= MAX_TIMESTAMP_MS:
            raise ValueError(
                f"expires is {self.expires}; expected epoch milliseconds after created,"
                f" {self.created}, to {MAX_TIMESTAMP_MS}"
            )
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError("the digest is not 64 hexadecimal digits")

    def allows(self, scope: Scope) -> bool:
        """Return whether the key has a scope; `admin` includes every scope."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class _KeysFile:
    """The content of keys.json: the keys in the order of their creation."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    keys: tuple[ApiKey, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for key in self.keys:
            if key.id in seen:
                raise ValueError(f"the id {key.id} comes twice")
            seen.add(key.id)


_KEYS_FILE = TypeAdapter(_KeysFile)


@dataclass(frozen=True, slots=True)
class _LoadedKeys:
    """The keys as last read, by id, and the version of the file that they come from."""

    file_version: tuple[int, ...]
    """(mtime in ns, size, inode) of the file."""
    keys: Mapping[str, ApiKey]
    damaged: bool = False
    """True if the file can't be read now and the keys are from an earlier version."""


_NO_FILE = ()
_UNREADABLE_FILE = (-1,)
"""The version of a file that can't be opened. No real file has it, so each check tries to read again."""


class ApiKeys:
    """The API keys in one file, which several processes can read and change at the same time."""

    def __init__(self, path: Path) -> None:
        """Load the keys; without a file there are none. Raises KeysError for a damaged file."""
        self._path = path
        self._path_text = os.fspath(path)
        self._lock = threading.Lock()
        self._loaded = self._load()

    def create(
        self, name: str, scopes: Collection[str], created: int, expires: int | None = None
    ) -> tuple[ApiKey, str]:
        """Create a key; return it with its token, which is not stored. Times: epoch milliseconds.

        The token has 256 random bits, too many for a brute-force search. So a single SHA-256 is as safe as a slow
        password hash, and requests stay fast. The hash covers the whole token: the id in it is the salt. Raises
        ValueError, KeysError and OSError.
        """
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown:
            raise ValueError(f"there is no scope {unknown[0]!r}; the scopes are {', '.join(SCOPES)}")
        with self._file_lock():
            before = self._load()
            key_id = _new_id()
            while key_id in before.keys:
                key_id = _new_id()
            token = f"frk_{key_id}_{secrets.token_urlsafe(32)}"
            in_order = tuple(scope for scope in SCOPES if scope in scopes)
            key = ApiKey(key_id, name, in_order, created, expires, _digest(token))
            self._write((*before.keys.values(), key), before)
        return key, token

    def revoke(self, key_id: str) -> bool:
        """Delete a key; return False if there is no key with that id. Raises KeysError and OSError."""
        if not self._path.exists():
            return False  # without creating a folder for the lock
        with self._file_lock():
            before = self._load()
            if key_id not in before.keys:
                return False
            self._write(tuple(key for key in before.keys.values() if key.id != key_id), before)
        return True

    def all(self) -> tuple[ApiKey, ...]:
        """Return all keys in the file, also expired ones, oldest first. Raises KeysError."""
        return tuple(self._load().keys.values())

    def authenticate(self, token: str, at: float) -> ApiKey | None:
        """Return the key of a token that is valid at `at` (epoch milliseconds); None for any other text.

        The file is read again only if it has changed. If it has become damaged, the earlier keys stay valid.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        key = self._current().keys.get(match[1])
        if key is None or not hmac.compare_digest(key.digest, _digest(token)):
            return None
        return key if key.expires is None or at < key.expires else None

    def _current(self) -> _LoadedKeys:
        try:
            stamp = _file_version(os.stat(self._path_text))
        except FileNotFoundError:
            stamp = _NO_FILE
        except OSError:
            stamp = _UNREADABLE_FILE
        held = self._loaded  # the attribute is replaced as a whole, so reading it needs no lock
        return held if held.file_version == stamp else self._reload(stamp)

    def _reload(self, file_version: tuple[int, ...]) -> _LoadedKeys:
        with self._lock:
            if self._loaded.file_version != file_version:  # no other thread has read the file in the meantime
                try:
                    self._loaded = self._load()
                except KeysError as problem:
                    if not self._loaded.damaged:
                        _log.warning("%s. Until then the earlier keys stay valid", problem)
                    # repairing the file mode, or freeing a file handle, does not change the file version
                    version = _UNREADABLE_FILE if isinstance(problem.__cause__, OSError) else file_version
                    self._loaded = _LoadedKeys(version, self._loaded.keys, damaged=True)
            return self._loaded

    def _load(self) -> _LoadedKeys:
        try:
            with self._path.open("rb") as file:
                stamp = _file_version(os.fstat(file.fileno()))
                content = file.read()
        except FileNotFoundError:
            return _LoadedKeys(_NO_FILE, {})
        except OSError as problem:
            raise KeysError(
                f"can't read {self._path}: {problem.strerror}; expected a file that this user may read: "
                "change its owner or mode"
            ) from problem
        try:
            stored = _KEYS_FILE.validate_json(content, strict=True)
        except ValidationError as problem:
            where, what = first_error(problem)
            if problem.errors(include_url=False)[0]["type"] == "json_invalid":
                where, what = "", f"{len(content):,} bytes that are not JSON"
            raise KeysError(
                f"{self._path}: {where and where + ': '}{what}; expected the keys as `feedrank keys create` writes "
                "them: restore a backup of the file, or remove it and create new keys"
            ) from problem
        return _LoadedKeys(stamp, {key.id: key for key in stored.keys})

    def _write(self, keys: tuple[ApiKey, ...], previous: _LoadedKeys) -> None:
        with atomic_write(self._path, 0o600) as aside:
            aside.write_bytes(_KEYS_FILE.dump_json(_KeysFile(keys), indent=1) + b"\n")
            if previous.file_version:
                # file times are coarse and inodes are reused: without this, two changes in a row could leave the
                # file version unchanged, and a revoked key would stay valid
                status = aside.stat()
                os.utime(aside, ns=(status.st_atime_ns, max(status.st_mtime_ns, previous.file_version[0] + 1_000)))
        fsync(self._path.parent)  # otherwise a revoked key could come back after a power failure

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        """Hold an exclusive lock over processes and threads. The lock file stays, so that all lock the same inode."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(f"{self._path_text}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_file(handle)
            yield
        finally:
            os.close(handle)  # releases the lock


def _new_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _file_version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino
