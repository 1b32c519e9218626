"""The folder through which worker processes share their Prometheus metrics: in memory, not on a disk that can fill.

The files in it are mapped, and a process that writes to a mapped page for which there is no space is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from feedrank.engine.journal.file_lock import lock_file

MEMORY = Path("/dev/shm")  # the folder itself is private
"""A file system in memory; other platforms use the folder for temporary files."""
PREFIX, LOCK = "feedrank-metrics-", "lock"
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def metrics_folder() -> Iterator[Path | None]:
    """Create a new folder that only this user may enter, and remove it at the end; None if there is no place for one.

    Folders of servers that were killed are removed. Processes that are forked within the block leave the folder alone.
    """
    owner = os.getpid()
    base = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    try:
        remove_abandoned(base)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        handle = os.open(folder / f"{LOCK}.new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock_file(handle)
        os.replace(folder / f"{LOCK}.new", folder / LOCK)
    except OSError as problem:
        _log.warning("each process counts its own metrics, as they can't be shared through %s: %s", base, problem)
        yield None
        return
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(base: Path) -> list[Path]:
    """Remove the folders of this user's servers that have ended without doing so; returns them.

    A server that runs holds a lock on a file in its folder, also if it runs in another container.
    """
    removed = []
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is gone, or another user's
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                if lock_file(handle, blocking=False):
                    shutil.rmtree(folder)
                    removed.append(folder)
            finally:
                os.close(handle)
    return removed
