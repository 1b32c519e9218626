"""What the routes share: the recommender, the clock, and what stands around them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import current_app, g
from werkzeug import exceptions

from api.compose.experiments import Desk
from api.config import ServeConfig
from api.keys import Keys
from api.metrics import Metrics
from api.traces import Traces
from engine.events import RankingEvent
from engine.recommender import Recommender
from engine.retold import Difference
from engine.watch import Costs, Watch


class TrainingError(RuntimeError):
    """A training that failed; the message is what it said."""


ANSWER = "answer"
"""The stage after the feed: writing it out, counting and logging it."""
NAME = "feedrank"
"""Under which the application keeps its service."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What stands behind what serves, for those who look after it."""

    bundles: Path
    snapshot: Path
    replay: Callable[[RankingEvent], tuple[RankingEvent, Difference | None]]
    take_in: Callable[[], int]
    """Make the items of events that came in known at once; how many."""
    retrain: Callable[[], Mapping[str, Any]]
    """Train a candidate, and promote it if it passes the gate: the report. Takes minutes; raises TrainingError."""
    experiments: Desk
    busy: threading.Lock = field(default_factory=threading.Lock)
    """Held by what is so slow that it is done one at a time."""


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
    upkeep: Upkeep | None = None
    """None: this service only serves."""
    traces: Traces | None = None
    """Where spans go; None: nowhere."""

    def watch(self, deadline_ms: float | None = None) -> Watch:
        """A watch for the request under way: what that has taken is gone, and what follows the feed has its time."""
        limit = deadline_ms or self.config.deadline_ms
        if not limit:
            return Watch(time.perf_counter, costs=self.costs)
        now = time.perf_counter()
        spent = now - g.get("started", now)
        return Watch(time.perf_counter, limit / 1000 - spent - self.costs.of(ANSWER), self.costs)


def service() -> Service:
    """That of the application which answers now."""
    found: Service = current_app.extensions[NAME]
    return found


def upkeep() -> Upkeep:
    """What stands behind the service; an HTTP 501 where there is nothing."""
    found = service().upkeep
    if found is None:
        raise exceptions.NotImplemented("this service only serves; `feedrank serve` starts one that can do this")
    return found


@contextmanager
def one_at_a_time(behind: Upkeep) -> Iterator[None]:
    """An HTTP 409 where something slow is under way in this process."""
    if not behind.busy.acquire(blocking=False):
        raise exceptions.Conflict("another replay or training is under way here; try again when it is over")
    try:
        yield
    finally:
        behind.busy.release()


def new_id() -> str:
    """An id for a ranking or an event that came without one."""
    return str(uuid.uuid4())
