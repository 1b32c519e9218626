"""Server processes of a home take turns at loading a bundle, so that all but one serve at full speed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from feedrank.api.home_paths import HomePaths
from feedrank.engine.journal.file_lock import lock_file

SWITCH_INTERVAL_S = 0.0005
"""Seconds after which a thread that loads lets a feed go on; Python's default is ten times as long."""


@contextmanager
def loading_turn(home: HomePaths) -> Iterator[bool]:
    """Yield whether it is this process's turn; if so, other processes wait until the block ends, or this process.

    Meanwhile, threads of this process switch more often, as a feed waits for the interpreter several times. A home in
    which no file can be opened, such as a read-only one, has no turns.
    """
    try:
        descriptor = os.open(home.loading_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True
        return
    interval = sys.getswitchinterval()
    try:
        if not lock_file(descriptor, blocking=False):
            yield False
            return
        sys.setswitchinterval(min(interval, SWITCH_INTERVAL_S))
        yield True
    finally:
        sys.setswitchinterval(interval)
        os.close(descriptor)
