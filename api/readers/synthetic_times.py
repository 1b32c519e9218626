"""Gives synthetic timestamps to data sets without times: random, the same in every import, and without a meaning."""

from __future__ import annotations

from hashlib import blake2b

FIRST_MS = 1_420_070_400_000
"""Earliest synthetic timestamp: 2015-01-01, in epoch milliseconds."""
SPAN_DAYS = 3_000
"""Days over which they are spread."""
DAY_MS = 86_400_000
NOTE = "interactions with a synthetic timestamp, because the file has no times"
"""Note of the report about each interaction."""

LIST_NOTE = "rankings with a synthetic timestamp, because the file has no times"
"""Note of the report about each ranking."""
LIST_STEP_MS = 60_000
_LATER_FILES = (("test", 2 * SPAN_DAYS // 3), ("vali", SPAN_DAYS // 3), ("dev", SPAN_DAYS // 3))
"""Part of a file's name -> days by which its lists are later than those of others, such as training files."""


def random_ms(*ids: str) -> int:
    """Return a random time in epoch milliseconds that depends on nothing but the ids."""
    random = int.from_bytes(blake2b("\0".join(ids).encode(), digest_size=8).digest())
    return FIRST_MS + random % (SPAN_DAYS * DAY_MS)


class SyntheticTimes:
    """Gives the interactions of each user times in the order of the file, one day apart.

    The first one of each user has a random place in time, so that the times say nothing but the order.
    """

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def next_ms(self, user: str) -> int:
        """Return the time of the user's next interaction, in epoch milliseconds."""
        time = self._next.get(user)
        time = random_ms(user) if time is None else time
        self._next[user] = time + DAY_MS
        return time


def list_ms(file_name: str, number: int) -> int:
    """Return the time of a file's n-th list, in epoch milliseconds: a minute after the list before it.

    Files with test, vali or dev in their names are later than all others, so that a split by time is that of the files.
    """
    days = next((days for part, days in _LATER_FILES if part in file_name.lower()), 0)
    return FIRST_MS + days * DAY_MS + number * LIST_STEP_MS
