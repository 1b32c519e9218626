"""When a call is made again, and how long to wait before it is."""

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
"""Of one attempt."""

NOT_DONE = (429, 503)
"""The service says that it did nothing."""
GATEWAY = (502, 504)
"""What stands before the service had no answer from it."""
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
HOPELESS = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Ambient:
    """Time and chance as the client meets them; a test brings its own."""

    clock: Callable[[], float] = time.time
    """Unix seconds."""
    timer: Callable[[], float] = time.monotonic
    """Seconds that only grow."""
    sleep: Callable[[float], None] = time.sleep
    """Seconds."""
    draw: Callable[[], float] = random.random
    """In [0, 1)."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is made, and how long it may take in all.

    Made again are: any call where no connection came about, or after 429 or 503; and those that may arrive twice
    without harm (feeds and events, which have ids, and all that only reads) also after a timeout, a cut connection,
    502 or 504.
    """

    attempts: int = 4
    """At most, the first one among them; 1: nothing is made again."""
    total_s: float = 30.0
    """No attempt begins later than this after the first; the last may still take its timeouts."""
    base_s: float = 0.1
    """The longest wait before the second attempt; it doubles with each one."""
    cap_s: float = 5.0
    """The longest wait of all, less what `Retry-After` asks for."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; expected 1 or more")
        for name in ("total_s", "base_s", "cap_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected seconds, 0 or more")

    def run(self, once: Callable[[], httpx.Response], twice: bool, ambient: Ambient) -> tuple[Outcome, int]:
        """The last outcome, and how many attempts there were; `twice`: the call may arrive twice without harm."""
        begun, made = ambient.timer(), 1
        while True:
            outcome = _outcome(once)
            if made >= self.attempts or not may_repeat(outcome, twice):
                return outcome, made
            wait = self.wait_s(made, ambient.draw(), asked_s(outcome, ambient.clock()))
            if ambient.timer() - begun + wait > self.total_s:
                return outcome, made
            ambient.sleep(wait)
            made += 1

    def wait_s(self, made: int, draw: float, asked: float | None) -> float:
        """Seconds after so many attempts: exponential backoff with full jitter, after what the service asked for.

        Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
        """
        return (asked or 0.0) + draw * min(self.cap_s, self.base_s * 2.0 ** min(made - 1, 60))


USUAL = Retries()
ONCE = Retries(attempts=1)
REAL = Ambient()


def may_repeat(outcome: Outcome, twice: bool) -> bool:
    """Whether the call may be made again."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in NOT_DONE or (twice and outcome.status_code in GATEWAY)
    return isinstance(outcome, UNSENT) or (twice and not isinstance(outcome, HOPELESS))


def asked_s(outcome: Outcome, now: float) -> float | None:
    """The seconds in `Retry-After`, which has them or a date; None where it is not there or can't be read."""
    value = outcome.headers.get("Retry-After") if isinstance(outcome, httpx.Response) else None
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _outcome(once: Callable[[], httpx.Response]) -> Outcome:
    try:
        return once()
    except httpx.TransportError as error:
        return error
