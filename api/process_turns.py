"""Server processes of a home take turns at heavy work, so that all but one serve at full speed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedrank.engine.journal.file_lock import lock_file

SWITCH_INTERVAL_S = 0.0005
"""Seconds after which a thread that loads lets a feed go on; Python's default is ten times as long."""


@contextmanager
def take_turn(path: Path) -> Iterator[bool]:
    """Yield whether it is this process's turn; if so, others have none until the block ends, or this process.

    path: of a lock file. Where it can't be opened, such as in a read-only folder, there are no turns.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True
        return
    try:
        yield lock_file(descriptor, blocking=False)
    finally:
        os.close(descriptor)


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Let the threads of this process switch more often: a feed waits several times for a thread that computes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, SWITCH_INTERVAL_S))
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
