"""An advisory file lock between processes, with shorter waits than SQLite's own lock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # without fcntl (Windows), only SQLite's own lock applies
    fcntl = None  # type: ignore[assignment]

RETRY_INTERVAL_S = 0.0002
"""Seconds between two attempts."""
MAX_ATTEMPTS = 500
"""Attempts before proceeding without the lock: its holder may be suspended, and the database has its own lock."""


class FileLock:
    """An advisory lock that is retried every 0.2 ms; SQLite's busy handler sleeps 1 to 100 ms.

    It only shortens waits. Correctness relies on the database's own lock.
    """

    def __init__(self, path: Path) -> None:
        """path: a separate lock file next to the database file; created if it is missing."""
        self._path = path
        self._thread_lock = threading.Lock()
        self._pid_and_descriptor: tuple[int, int] | None = None

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Hold the lock; after `MAX_ATTEMPTS` attempts proceed without it."""
        if fcntl is None:
            yield
            return
        with self._thread_lock:
            descriptor = self._descriptor()
            held = False
            for _ in range(MAX_ATTEMPTS):
                if descriptor is None:
                    break
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    time.sleep(RETRY_INTERVAL_S)
                    continue
                held = True
                break
            try:
                yield
            finally:
                if held and descriptor is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock file; the next `acquire` reopens it."""
        with self._thread_lock:
            if self._pid_and_descriptor is not None and self._pid_and_descriptor[0] == os.getpid():
                os.close(self._pid_and_descriptor[1])
            self._pid_and_descriptor = None

    def _descriptor(self) -> int | None:
        """Return a file descriptor of this process; one inherited by fork would share the parent's lock.

        None if the file can't be opened: the database then reports the cause with a better message.
        """
        if self._pid_and_descriptor is None or self._pid_and_descriptor[0] != os.getpid():
            try:
                self._pid_and_descriptor = (
                    os.getpid(),
                    os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600),
                )
            except OSError:
                return None
        return self._pid_and_descriptor[1]


def lock_file(descriptor: int, blocking: bool = True) -> bool:
    """Lock an open file exclusively until it is closed; return whether it is locked.

    blocking: wait for other holders; False: return False at once if another holder has it. Always True on platforms
    without file locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
    return True
