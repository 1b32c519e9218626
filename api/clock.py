"""The clock of the process."""

from __future__ import annotations

import time


def clock_ms() -> int:
    """Return the time in epoch milliseconds."""
    return round(time.time() * 1000)
