"""An exclusive lock on an open file, between processes."""

from __future__ import annotations

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
