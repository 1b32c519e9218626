"""Retry policy of the client: which requests are retried, and with what backoff."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import httpx

Outcome: TypeAlias = httpx.Response | httpx.TransportError
"""The outcome of one attempt."""

NOT_PROCESSED_STATUSES = (429, 503)
"""Status codes with which the service says that it did nothing."""
GATEWAY_STATUSES = (502, 504)
"""Status codes of a gateway that got no response from the service."""
NOT_SENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors before the request was sent."""
PERMANENT_ERRORS = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
"""Errors that a retry can't fix."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Sources of time and randomness; tests replace them."""

    now: Callable[[], float] = time.time
    """Unix seconds."""
    monotonic: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    sleep: Callable[[float], None] = time.sleep
    """Sleeps for a number of seconds."""
    jitter: Callable[[], float] = random.random
    """Uniform in [0, 1), for the jitter of the backoff."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Limits on the number of attempts and on their total time.

    Every request is retried if no connection was made, or after 429 or 503. Idempotent requests (rankings and events,
    which have ids, and all reads) are also retried after a timeout, a broken connection, 502 or 504.
    """

    attempts: int = 4
    """Maximum number of attempts, including the first; 1: no retries."""
    total_s: float = 30.0
    """No attempt starts later than this after the first; the last may still take its own timeouts."""
    base_s: float = 0.1
    """Maximum backoff before the second attempt; it doubles with each attempt."""
    cap_s: float = 5.0
    """Maximum backoff before any attempt, not counting what `Retry-After` asks for."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; expected 1 or more")
        for name in ("total_s", "base_s", "cap_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected seconds, 0 or more")

    def run(self, send: Callable[[], httpx.Response], idempotent: bool, clock: Clock) -> tuple[Outcome, int]:
        """Send with retries; return the last outcome and the number of attempts.

        idempotent: the request may arrive twice without harm.
        """
        started, attempts = clock.monotonic(), 1
        while True:
            outcome = _send_once(send)
            if attempts >= self.attempts or not is_retryable(outcome, idempotent):
                return outcome, attempts
            wait_s = self.wait_s(attempts, clock.jitter(), retry_after(outcome, clock.now()))
            if clock.monotonic() - started + wait_s > self.total_s:
                return outcome, attempts
            clock.sleep(wait_s)
            attempts += 1

    def wait_s(self, attempts: int, jitter: float, retry_after_s: float | None) -> float:
        """Return the seconds to wait after that many attempts: `Retry-After` plus exponential backoff with full jitter.

        jitter: in [0, 1). Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
        """
        return (retry_after_s or 0.0) + jitter * min(self.cap_s, self.base_s * 2.0 ** min(attempts - 1, 60))


DEFAULT_RETRIES = Retries()
NO_RETRIES = Retries(attempts=1)
SYSTEM_CLOCK = Clock()


def is_retryable(outcome: Outcome, idempotent: bool) -> bool:
    """Return whether a request with this outcome may be sent again."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in NOT_PROCESSED_STATUSES or (idempotent and outcome.status_code in GATEWAY_STATUSES)
    return isinstance(outcome, NOT_SENT_ERRORS) or (idempotent and not isinstance(outcome, PERMANENT_ERRORS))


def retry_after(outcome: Outcome, now: float) -> float | None:
    """Return the seconds that `Retry-After` asks for, given as seconds or as a date; None if missing or invalid.

    now: unix seconds.
    """
    value = outcome.headers.get("Retry-After") if isinstance(outcome, httpx.Response) else None
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _send_once(send: Callable[[], httpx.Response]) -> Outcome:
    try:
        return send()
    except httpx.TransportError as error:
        return error
