"""The service object that the routes share: recommender, clock, keys, metrics and admin functions."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import current_app, g, has_request_context
from werkzeug import exceptions

from feedrank.api.compose.experiments import ExperimentService
from feedrank.api.config import ServeConfig
from feedrank.api.http.user_data import UserEventReader
from feedrank.api.keys import ApiKeys
from feedrank.api.metrics import Metrics
from feedrank.api.traces import RequestTracer
from feedrank.engine.events.erasure import Erasures
from feedrank.engine.serving.deadline import LatencyBudget, LatencyEstimator
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.replay_check import RankingDifference


class TrainingError(RuntimeError):
    """Raised when training fails; the message is the output of the training process."""


RESPONSE_STAGE = "answer"
"""Stage after the ranking: serialize the response, record metrics and log."""
EXTENSION_KEY = "feedrank"
"""Key of the service in `app.extensions`."""


@dataclass(frozen=True, slots=True)
class AdminServices:
    """Functions behind the admin routes."""

    bundles: Path
    delete_user_data: Callable[[], None]
    """Delete the files that are derived from the journal and may hold data of a user who was erased."""
    user_events: Callable[[str], UserEventReader]
    """Find all events of a user. Slow for a long journal."""
    erasures: Callable[[], Erasures]
    """Return which users were erased, and when."""
    replay: Callable[[RankingRecord], tuple[RankingRecord, RankingDifference | None]]
    update_items: Callable[[], int]
    """Add the items of new item events to the catalogue now; returns how many."""
    retrain: Callable[[], Mapping[str, Any]]
    """Train a candidate bundle and promote it if it passes the gate; returns the report.

    Takes minutes. Raises TrainingError.
    """
    experiments: ExperimentService
    slow_task_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a slow task (replay, training, readout) runs."""


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one application."""

    recommender: Recommender
    clock: Callable[[], float] = time.time
    """Unix seconds; the only wall clock that requests read."""
    keys: ApiKeys | None = None
    """API keys; None: no key is required."""
    config: ServeConfig = field(default_factory=ServeConfig)
    latencies: LatencyEstimator = field(default_factory=LatencyEstimator)
    metrics: Metrics | None = None
    """Prometheus metrics; None: no metrics."""
    admin: AdminServices | None = None
    """Admin functions; None: admin routes respond 501."""
    counters_path: Path | None = None
    """SQLite file of the counters that all processes share; None: this process counts alone."""
    traces: RequestTracer | None = None
    """OpenTelemetry traces; None: no traces."""
    unlisted_types: set[str] = field(default_factory=set)
    """Interaction types that nothing lists and that a warning was logged of."""

    def latency_budget(self, deadline_ms: float | None = None) -> LatencyBudget:
        """Create the latency budget of the current request.

        Time already spent and the estimated time to send the response are subtracted from the deadline.
        """
        limit = deadline_ms or self.config.deadline_ms
        if not limit:
            return LatencyBudget(time.perf_counter, estimator=self.latencies)
        now = time.perf_counter()
        spent = now - g.get("started", now)
        return LatencyBudget(
            time.perf_counter, limit / 1000 - spent - self.latencies.estimate(RESPONSE_STAGE), self.latencies
        )

    def record_feed(self, record: RankingRecord, budget: LatencyBudget, is_trial: bool = False) -> None:
        """Record a ranking in the metrics, the trace and the log line of the current request.

        is_trial: the ranking is not shown, so it is in no metrics of feeds.
        """
        g.ranked_at = time.perf_counter()
        g.rankings = [record.id]
        g.bundle = record.bundle
        g.degraded = budget.skipped
        if (trace := g.get("trace")) is not None:
            trace.record_stages(budget.stage_seconds)
        if self.metrics is None or is_trial:
            return
        self.metrics.observe_feed(record, budget)
        if (queue := self.recommender.prefetch_queue) is not None:
            self.metrics.update_prefetch(queue.completed, queue.dropped, queue.failed)
        self.metrics.set_state_lag(self.recommender.lag_s)
        self.metrics.set_item_count(len(self.recommender.catalogue))


def is_trial() -> bool:
    """Return whether the ranking of the current request is not shown."""
    return has_request_context() and bool(g.get("is_trial"))


def current_service() -> Service:
    """Return the service of the current application."""
    current: Service = current_app.extensions[EXTENSION_KEY]
    return current


def admin_services() -> AdminServices:
    """Return the admin functions of the service. Raises HTTP 501 if it has none."""
    admin = current_service().admin
    if admin is None:
        raise exceptions.NotImplemented("this service has no admin functions; start one with `feedrank serve`")
    return admin


@contextmanager
def exclusive(admin: AdminServices) -> Iterator[None]:
    """Hold the lock for slow tasks. Raises HTTP 409 if another one runs in this process."""
    if not admin.slow_task_lock.acquire(blocking=False):
        raise exceptions.Conflict("another replay, readout or training is running in this process; try again later")
    try:
        yield
    finally:
        admin.slow_task_lock.release()


def new_id() -> str:
    """Create an id for a ranking or an event."""
    return str(uuid.uuid4())
