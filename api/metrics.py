"""Prometheus metrics of the service, in one process or aggregated over several workers.

prometheus_client decides at its first import whether processes share their values. So it is imported only when a
`Metrics` is created, and `prepare_multiprocess` must be called before that.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from feedrank.api.drift_monitor import DriftWatch
from feedrank.engine.serving.fallback import LAST_GOOD, NO_NEURAL, POPULAR
from feedrank.engine.types import Matrix, Scores
from feedrank.models.retraining.drift import Sketch

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder through which workers share their values."""
STAGES = ("catch_up", "encode", "items", "recall", "features", "first", "pairs", "rank", "diversity", "journal")
STEPS = (NO_NEURAL, POPULAR, LAST_GOOD)
PARTS = ("late", "encode", "items", "rank", "pairs", "diversity")
"""Parts of the pipeline that a deadline may cut off."""
AHEAD = ("done", "dropped", "failed")
KINDS = ("item", "user", "ranking", "interaction")
Origin = Literal["cache", "live", "none"]
Outcome = Literal["accepted", "duplicate", "rejected"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNMATCHED, OTHER = "unmatched", "other"
"""Label of a request that no route matched, and of any value that is not in the lists above."""
MOST_ROUTES = 100

REQUEST_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0),
)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
CANDIDATE_BUCKETS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


def prepare(folder: Path) -> None:
    """Let processes that are forked later share their metrics through a folder; earlier values are deleted.

    Call it once, before the first worker starts. Only the value files (*.db) in the folder are deleted. Raises
    RuntimeError if prometheus_client was imported before.
    """
    if "prometheus_client" in sys.modules and not _shared():
        raise RuntimeError(
            "prometheus_client was imported before prepare_multiprocess(), so workers can't share; call it first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    os.environ[FOLDER] = str(folder)


def worker_died(pid: int) -> None:
    """Remove the gauges of a dead worker; its counts stay in the totals."""
    if FOLDER in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types


class Metrics:
    """The Prometheus metrics of one process; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """clock: unix seconds, for the age of the bundle and for drift.

        Raises RuntimeError if prometheus_client was imported before the folder for sharing was set.
        """
        if not (shared := _shared()) and FOLDER in os.environ:
            raise RuntimeError(
                f"prometheus_client was imported before {FOLDER} was set; call prepare_multiprocess() first"
            )
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._clock = clock
        self.registry = registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"feedrank_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, label: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"feedrank_{name}", about, [label], buckets=buckets, registry=registry)

        def gauge(
            name: str, about: str, *labels: str, of: Literal["livemax", "livemostrecent"] = "livemostrecent"
        ) -> Gauge:
            # without a "live" mode, the last value of a dead process would be reported forever
            return Gauge(f"feedrank_{name}", about, labels, registry=registry, multiprocess_mode=of)

        self._requests = counter("requests_total", "Requests answered.", "route", "method", "status")
        self._seconds = histogram("request_seconds", "Duration of requests.", "route", REQUEST_BUCKETS)
        stages = histogram("stage_seconds", "Duration of the stages of a feed.", "stage", STAGE_BUCKETS)
        self._candidates = histogram("candidates", "Candidates that were ranked.", "source", CANDIDATE_BUCKETS)
        fallbacks = counter("fallbacks_total", "Feeds served by a fallback because ranking failed.", "step")
        self._exposures = counter("exposures_total", "Feeds that were part of an experiment.", "experiment", "variant")
        degraded = counter("skipped_total", "Pipeline parts skipped to meet a deadline.", "what")
        cross_encoder = counter("pair_scores_total", "Cross-encoder scores by origin.", "from")
        prefetch = counter("ahead_total", "Users queued for precomputing their next feed's scores.", "outcome")
        events = counter("events_total", "Events received.", "kind", "outcome")
        self._journal = counter("journal_failures_total", "Failed reads and writes of the journal.")
        self._lag = gauge("state_lag_seconds", "Age of the newest event when it was read.", of="livemax")
        self._age = gauge("bundle_age_seconds", "Time since the bundle was built.", of="livemax")
        self._bundle = gauge("bundle_info", "1 for the bundle that serves.", "bundle", of="livemax")
        self._items = gauge("items", "Items that can be recommended.")
        self._score_mean = gauge("score_mean", "Mean of recently served scores.")
        self._score_psi = gauge("score_psi", "Stability index (PSI) of recently served scores against the first ones.")
        self._feature_psi = gauge("feature_psi", "Stability index (PSI) of features against training.", "feature")
        # series that exist from the start have a rate at their first count, and looking them up here is faster
        self._stages = {name: stages.labels(name) for name in (*STAGES, OTHER)}
        self._fallbacks = {step: fallbacks.labels(step) for step in STEPS}
        self._skipped = {part: degraded.labels(part) for part in PARTS}
        self._pairs = {origin: cross_encoder.labels(origin) for origin in get_args(Origin)}
        self._ahead = {outcome: prefetch.labels(outcome) for outcome in AHEAD}
        kinds, outcomes = (*KINDS, OTHER), get_args(Outcome)
        self._events = {(kind, outcome): events.labels(kind, outcome) for kind in kinds for outcome in outcomes}
        self._shared = shared
        self._lock = threading.Lock()
        self._routes: set[str] = set()
        self._counted: dict[str, int] = {}
        self._made_at: float | None = None
        self._name: str | None = None
        self._drift: DriftWatch | None = None
        self._features: set[str] = set()
        if not shared:  # NaN, because 0 would look like no drift; shared gauges have no value until they are set
            self._forget_drift()

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Record an answered request. route: the URL rule that matched, never the path; None: no rule matched."""
        route = self._known_route(route)
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """Record the duration of a stage of a feed."""
        self._stages[name if name in self._stages else OTHER].observe(seconds)

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Record the durations of all stages of a feed, as its `LatencyBudget` has them."""
        for name, took in seconds.items():
            self.stage(name, took)

    def candidates(self, source: str, count: int) -> None:
        """Record the number of candidates of a feed. source: the retriever's name."""
        self._candidates.labels(source).observe(count)

    def fallback(self, step: str) -> None:
        """Count a feed that a fallback level served; the full pipeline is not counted."""
        if step in self._fallbacks:
            self._fallbacks[step].inc()

    def exposed(self, experiment: str, variant: str) -> None:
        """Count a feed that was part of an experiment."""
        self._exposures.labels(experiment, variant).inc()

    def skipped(self, parts: Iterable[str]) -> None:
        """Count the parts that a feed skipped to meet its deadline. Failed levels count as fallbacks, not here."""
        for part in parts:
            if part in self._skipped:
                self._skipped[part].inc()

    def pair_scores(self, origin: Origin, count: int) -> None:
        """Count cross-encoder scores by origin: from the cache, computed live, or missing."""
        self._pairs[origin].inc(count)

    def ahead(self, done: int, dropped: int, failed: int) -> None:
        """Update the prefetch counters from this process's queue totals; the increase is added."""
        with self._lock:
            for outcome, total in zip(AHEAD, (done, dropped, failed), strict=True):
                if (increase := total - self._counted.get(outcome, 0)) > 0:
                    self._ahead[outcome].inc(increase)
                    self._counted[outcome] = total

    def events(self, kind: str, outcome: Outcome, count: int = 1) -> None:
        """Count received events; an unknown kind counts as other."""
        self._events[kind if kind in KINDS else OTHER, outcome].inc(count)

    def journal_failed(self) -> None:
        """Count a failed read or write of the journal."""
        self._journal.inc()

    def state_lag(self, seconds: float) -> None:
        """Set the age, in seconds, of the newest event when it was read."""
        self._lag.set(seconds)

    def items(self, count: int) -> None:
        """Set the number of items in the catalogue."""
        self._items.set(count)

    def bundle(self, name: str, made_at: float | None, sketch: Sketch | None, names: Sequence[str]) -> None:
        """Set the bundle that serves now.

        built_at: unix seconds. histogram, feature_names: the reference that drift is measured against.
        """
        with self._lock:
            if self._name not in (None, name):
                self._bundle.labels(self._name).set(0)  # shared series can't be removed
                self._forget_drift()
            self._bundle.labels(name).set(1)
            self._name, self._made_at = name, made_at
            self._drift = DriftWatch(sketch, names)
        self._grow_old()

    def served(self, features: Matrix, scores: Scores) -> None:
        """Add the (N, F) feature rows of the impressions of a feed, and their (N,) scores, to the drift monitor."""
        if self._drift is not None:
            self._drift.add(features, scores)

    def text(self) -> tuple[bytes, str]:
        """Return the Prometheus exposition, of all workers where they share, and its content type."""
        from prometheus_client import CollectorRegistry, multiprocess
        from prometheus_client.exposition import choose_encoder

        self._grow_old()
        self._look_for_drift()
        registry = self.registry
        if self._shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        encode, content_type = choose_encoder("")
        return encode(registry), content_type

    def _known_route(self, route: str | None) -> str:
        if route is None:
            return UNMATCHED
        if route not in self._routes:
            if len(self._routes) >= MOST_ROUTES:  # callers passed paths, not rules: each would be a series
                return OTHER
            self._routes.add(route)
        return route

    def _grow_old(self) -> None:
        if self._made_at is not None:
            self._age.set(max(0.0, self._clock() - self._made_at))

    def _look_for_drift(self) -> None:
        drift = None if self._drift is None else self._drift.read(self._clock())
        if drift is None:
            return
        self._score_mean.set(drift.mean)
        self._score_psi.set(np.nan if drift.score is None else drift.score)
        for feature, value in drift.features.items():
            self._feature_psi.labels(feature).set(value)
        self._features |= drift.features.keys()

    def _forget_drift(self) -> None:
        for gauge in (self._score_mean, self._score_psi, *map(self._feature_psi.labels, self._features)):
            gauge.set(np.nan)


def _shared() -> bool:
    from prometheus_client import values

    shared: Any = values.ValueClass._multiprocess
    return bool(shared)
