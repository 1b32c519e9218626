"""Files and folders that only their owner may read, whatever the umask of the process is."""

from __future__ import annotations

import os
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
"""Modes of new files and folders. What exists keeps its mode."""


def use_private_umask() -> None:
    """Let this process, and those that it starts, create files with mode 0600 and folders with mode 0700.

    It also covers files that libraries create. Call it in processes of feedrank's own only: the commands and the
    server.
    """
    os.umask(0o077)


def create_private_file(path: Path) -> None:
    """Create an empty file that only its owner may read, with its folder; do nothing if there is one.

    For files that a library would create by the umask. SQLite gives `-wal` and `-shm` the mode of their database.
    Raises OSError.
    """
    make_private_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


def make_private_folder(path: Path) -> None:
    """Create a folder that only its owner may enter, with those above it; do nothing if there is one.

    Raises OSError.
    """
    if path.is_dir():
        return
    make_private_folder(path.parent)
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(FOLDER_MODE)
