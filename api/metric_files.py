"""Files of Prometheus values whose space is allocated before they are mapped.

Import it only once the folder for sharing is set: importing prometheus_client decides whether processes share values.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

INITIAL_BYTES = 1 << 18
"""Bytes of a new file; it is doubled when they are used up."""
_log = logging.getLogger(__name__)


class AllocatedDict(MmapedDict):
    """A file of values in which every mapped page has its space, so that a full disk can't kill the process.

    Values for which there is no space are kept in the memory of this process: other processes do not see them.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        """filename: created with mode 0600 if it is missing."""
        self._alone: dict[str, tuple[float, float]] = {}
        try:
            if not read_mode:
                _create(Path(filename))
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]  # it has no types
        except OSError as problem:
            self._f = None  # type: ignore[assignment]  # it is checked before each use
            self._used = self._capacity = 0
            self._positions: dict[str, int] = {}
            self._keep_alone(problem)

    def read_value(self, key: str) -> tuple[float, float]:
        """Return a value and its timestamp; a new value is 0."""
        if key not in self._positions and key not in self._alone:
            self._init_value(key)
        if key in self._alone:
            return self._alone[key]
        found: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]  # it has no types
        return found

    def _init_value(self, key: str) -> None:
        """Add a value, with space for it."""
        size = 64 + len(key.encode())  # at least what its entry takes
        try:
            if self._f is None:
                raise OSError("the file could not be created")
            if self._used + size > self._capacity:
                _allocate(self._f.fileno(), 2 * self._capacity)
            super()._init_value(key)  # type: ignore[no-untyped-call]  # it has no types
        except OSError as problem:
            self._keep_alone(problem)
            self._alone[key] = (0.0, 0.0)

    def _keep_alone(self, problem: OSError) -> None:
        """From now on look for values in memory too; not before, as it is slower."""
        if not self._alone:
            self.write_value = self._write  # type: ignore[method-assign]  # of this file only
            _log.warning("new metrics of this process are not shared with the others: %s", problem)

    def _write(self, key: str, value: float, timestamp: float) -> None:
        if key in self._alone:
            self._alone[key] = (value, timestamp)
        else:
            MmapedDict.write_value(self, key, value, timestamp)  # type: ignore[no-untyped-call]  # it has no types


def install() -> None:
    """Let prometheus_client keep the shared values of this process in such files."""
    values.MmapedDict = AllocatedDict  # type: ignore[attr-defined]  # the library has no setting for it


def _create(path: Path) -> None:
    """Create a file with its space; it gets its name once it has it, as other processes may read it at any time."""
    if path.exists():
        return
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _allocate(descriptor, INITIAL_BYTES)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Make a file this long, with space on its disk for every byte. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    length = os.fstat(descriptor).st_size
    os.pwrite(descriptor, bytes(max(0, size - length)), length)
