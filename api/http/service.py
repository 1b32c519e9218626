"""What the routes share: the recommender, the clock, and what stands around them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import current_app

from api.config import ServeConfig
from api.keys import Keys
from api.metrics import Metrics
from engine.recommender import Recommender
from engine.watch import Costs, Watch

NAME = "feedrank"
"""Under which the application keeps its service."""


@dataclass(frozen=True, slots=True)
class Service:
    """One application's parts."""

    recommender: Recommender
    clock: Callable[[], float] = time.time
    """Unix seconds; the only clock of that kind that is read."""
    keys: Keys | None = None
    """Who may call; None: anybody."""
    config: ServeConfig = field(default_factory=ServeConfig)
    costs: Costs = field(default_factory=Costs)
    metrics: Metrics | None = None
    """Where requests are counted; None: nowhere."""

    def watch(self, deadline_ms: float | None = None) -> Watch:
        """A watch that runs from now."""
        limit = deadline_ms or self.config.deadline_ms
        return Watch(time.perf_counter, limit / 1000 if limit else float("inf"), self.costs)


def service() -> Service:
    """That of the application which answers now."""
    found: Service = current_app.extensions[NAME]
    return found


def new_id() -> str:
    """An id for a ranking or an event that came without one."""
    return str(uuid.uuid4())
