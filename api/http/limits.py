"""Rate limits by Flask-Limiter, with counters in the memory of this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from flask import Flask, Response
from flask_limiter import Limiter, RequestLimit
from limits.storage import Storage

from feedrank.api.http.problems import problem

PRUNE_THRESHOLD = 10_000
"""Number of counters above which expired ones are removed."""


class MemoryCounters(Storage):
    """Stores rate-limit counters in memory.

    The library's own memory storage starts a thread for nearly every request to remove expired counters.
    """

    STORAGE_SCHEME = ["counts"]  # noqa: RUF012  # the library reads this attribute
    base_exceptions = ()

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: float | str | bool) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[float, int]] = {}

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Increment a counter; an expired one restarts at zero."""
        now = time.time()
        with self._lock:
            ends, count = self._counts.get(key, (0.0, 0))
            if ends <= now:
                ends, count = now + expiry, 0
                if len(self._counts) >= PRUNE_THRESHOLD:
                    self._counts = {name: entry for name, entry in self._counts.items() if entry[0] > now}
            self._counts[key] = (ends, count + amount)
            return count + amount

    def get(self, key: str) -> int:
        """Return the value of a counter; 0 if it expired."""
        ends, count = self._counts.get(key, (0.0, 0))
        return count if ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """Return the expiry time of a counter, in unix seconds."""
        return self._counts.get(key, (time.time(), 0))[0]

    def check(self) -> bool:
        """Report that the storage is available."""
        return True

    def reset(self) -> int:
        """Remove all counters; returns how many."""
        with self._lock:
            count, self._counts = len(self._counts), {}
        return count

    def clear(self, key: str) -> None:
        """Remove a counter."""
        with self._lock:
            self._counts.pop(key, None)


def init_app(app: Flask, limit: str, caller_id: Callable[[], str], is_open: Callable[[], bool]) -> None:
    """Limit the requests per caller over all routes except open ones. limit: such as "100/second"."""
    Limiter(
        caller_id, app=app, application_limits=[limit], application_limits_exempt_when=is_open, storage_uri="counts://",
        on_breach=_too_many_requests,
    )  # fmt: skip


def _too_many_requests(exceeded: RequestLimit) -> Response:
    wait = max(1, math.ceil(exceeded.reset_at - time.time()))
    response = problem(429, "Too many requests", f"found more than {exceeded.limit}; wait {wait} s")
    response.headers["Retry-After"] = str(wait)
    return response
