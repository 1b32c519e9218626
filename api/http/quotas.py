"""Quotas on what one API key may write: events, and items that only /v1/rank requests describe."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import limits
from flask import Flask, current_app
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.exceptions import TooManyRequests

from feedrank.api.config import ServeConfig
from feedrank.api.http import shared_counters as shared_counters  # registers its storage
from feedrank.api.http.middleware import counter_storage, rate_limit_key
from feedrank.api.http.service import EXTENSION_KEY, Service

QUOTAS_KEY = "feedrank-quotas"
"""Key of the quotas in `app.extensions`."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriteQuotas:
    """The quotas of all keys, and the counters of what they have used."""

    events: tuple[limits.RateLimitItem, ...]
    rank_only_items: tuple[limits.RateLimitItem, ...]
    limiter: FixedWindowRateLimiter

    @classmethod
    def of(cls, config: ServeConfig, storage: Storage) -> WriteQuotas:
        """Read the quotas from the config."""
        events, items = (
            tuple(limits.parse_many(text)) if text else () for text in (config.event_quota, config.item_quota)
        )
        return cls(events, items, FixedWindowRateLimiter(storage))

    def take_events(self, count: int) -> None:
        """Count events of the current request's key. Raises HTTP 429 if they exceed the quota; then none is counted."""
        wait_s = self._take("events", self.events, count)
        if wait_s:
            quota = " and ".join(map(str, self.events))
            raise TooManyRequests(
                f"found {count:,} more events, expected at most {quota} of one key (serve.event_quota); "
                f"send them in {wait_s:,} s",
                retry_after=wait_s,
            )

    def take_items(self, count: int) -> bool:
        """Count new items of the current request's key; returns whether they are within the quota."""
        return not self._take("items", self.rank_only_items, count)

    def _take(self, what: str, quotas: tuple[limits.RateLimitItem, ...], count: int) -> int:
        """Count what a key writes; returns 0, or the seconds until it may write that much."""
        key = rate_limit_key()
        try:
            for quota in quotas:
                if not self.limiter.test(quota, what, key, cost=count):
                    reset_at = self.limiter.get_window_stats(quota, what, key).reset_time
                    return max(1, math.ceil(reset_at - time.time()))
            for quota in quotas:
                self.limiter.hit(quota, what, key, cost=count)
        except Exception:  # a server of counters that is gone must not stop events
            _log.exception("the quotas can't be counted")
        return 0


def init_app(app: Flask) -> None:
    """Create the quotas; their counters are shared by the processes, wherever requests are counted."""
    service: Service = app.extensions[EXTENSION_KEY]
    where = service.config.rate_limit_storage
    storage = counter_storage("home" if where == "process" else where, service.counters_path)
    app.extensions[QUOTAS_KEY] = WriteQuotas.of(service.config, storage)


def current_quotas() -> WriteQuotas:
    """Return the quotas of the current application."""
    quotas: WriteQuotas = current_app.extensions[QUOTAS_KEY]
    return quotas
