"""How often a key may ask: Flask-Limiter, counting in this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from flask import Flask, Response
from flask_limiter import Limiter, RequestLimit
from limits.storage import Storage

from api.http.problems import problem

KEPT = 10_000
"""Counts after which those whose time is over are let go."""


class Counts(Storage):
    """Counts in memory. The library's own storage starts a thread for nearly every request, to let old ones go."""

    STORAGE_SCHEME = ["counts"]  # noqa: RUF012  # as the library wants it
    base_exceptions = ()

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: float | str | bool) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[float, int]] = {}

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count; a count begins anew where its seconds are over."""
        now = time.time()
        with self._lock:
            ends, count = self._counts.get(key, (0.0, 0))
            if ends <= now:
                ends, count = now + expiry, 0
                if len(self._counts) >= KEPT:
                    self._counts = {name: one for name, one in self._counts.items() if one[0] > now}
            self._counts[key] = (ends, count + amount)
            return count + amount

    def get(self, key: str) -> int:
        """The count."""
        ends, count = self._counts.get(key, (0.0, 0))
        return count if ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """Unix seconds at which a count ends."""
        return self._counts.get(key, (time.time(), 0))[0]

    def check(self) -> bool:
        """Memory is there."""
        return True

    def reset(self) -> int:
        """Let all counts go; how many."""
        with self._lock:
            count, self._counts = len(self._counts), {}
        return count

    def clear(self, key: str) -> None:
        """Let a count go."""
        with self._lock:
            self._counts.pop(key, None)


def init_app(app: Flask, limit: str, caller: Callable[[], str], is_open: Callable[[], bool]) -> None:
    """So many requests a caller, over all routes but open ones, such as "100/second"."""
    Limiter(
        caller, app=app, application_limits=[limit], application_limits_exempt_when=is_open, storage_uri="counts://",
        on_breach=_refused,
    )  # fmt: skip


def _refused(breached: RequestLimit) -> Response:
    wait = max(1, math.ceil(breached.reset_at - time.time()))
    response = problem(429, "Too many requests", f"found more than {breached.limit} with this key; wait {wait} s")
    response.headers["Retry-After"] = str(wait)
    return response
