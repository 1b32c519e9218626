"""Turns of several processes at one file, taken without the sleeps that SQLite waits by."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # where there is none, SQLite's own lock is what there is
    fcntl = None  # type: ignore[assignment]

PAUSE_S = 0.0002
TRIES = 500
"""Pauses before a turn is begun without: whoever holds it may be stopped, and the database has a lock of its own."""


class Turns:
    """Waits for the others in steps of a fifth of a millisecond; SQLite's go from 1 to 100.

    A turn is a courtesy: what must not happen at once is kept apart by the database itself.
    """

    def __init__(self, path: Path) -> None:
        """path: a file of its own beside the one that is written; made where it is not there."""
        self._path = path
        self._mine = threading.Lock()
        self._file: tuple[int, int] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn, or none after a while."""
        if fcntl is None:
            yield
            return
        with self._mine:
            handle = self._opened()
            held = False
            for _ in range(TRIES):
                if handle is None:
                    break
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    time.sleep(PAUSE_S)
                    continue
                held = True
                break
            try:
                yield
            finally:
                if held and handle is not None:
                    fcntl.flock(handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back; the next turn opens it again."""
        with self._mine:
            if self._file is not None and self._file[0] == os.getpid():
                os.close(self._file[1])
            self._file = None

    def _opened(self) -> int | None:
        """A handle of this process, as one that was inherited would be shared with the process that it came from.

        None where the file can't be opened: what else is wrong there the database says better.
        """
        if self._file is None or self._file[0] != os.getpid():
            try:
                self._file = (os.getpid(), os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError:
                return None
        return self._file[1]


def locked(handle: int, wait: bool = True) -> bool:
    """Lock a file until it is closed, once nobody else has it locked; True where there are no locks.

    wait: False: at once or not at all, which is what comes back.
    """
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
    return True
