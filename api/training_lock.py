"""The lock of a home folder for training: one training at a time, by any process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from feedrank.api.home_paths import HomePaths
from feedrank.engine.journal.file_lock import lock_file


class TrainingBusyError(RuntimeError):
    """Raised if another training of the same home is running."""


@contextmanager
def training_lock(home: HomePaths) -> Iterator[None]:
    """Hold the lock; a process that dies loses it. Raises TrainingBusyError that names the process that holds it.

    A home folder that does not exist yet is not created, and needs no lock.
    """
    if not home.folder.is_dir():
        yield
        return
    descriptor = os.open(home.training_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not lock_file(descriptor, blocking=False):
            holder = os.read(descriptor, 100).decode("ascii", "replace").strip() or "unknown"
            raise TrainingBusyError(
                f"another training is running in {home.folder} (process {holder}); wait for its end, and try again"
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        os.close(descriptor)
