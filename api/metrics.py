"""Prometheus metrics of the service, in one process or aggregated over several workers.

prometheus_client decides at its first import whether processes share their values. So it is imported only when a
`Metrics` is created, and `prepare_multiprocess` must be called before that.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from feedrank.api.drift_monitor import DriftMonitor
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.pipeline import FULL, LAST_GOOD, NO_NEURAL, POPULAR
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.types import Matrix, Scores
from feedrank.models.retraining.drift import FeatureHistogram

MULTIPROC_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder through which workers share their values."""
_log = logging.getLogger(__name__)
STAGES = (
    "catch_up", "encode_query", "items", "recall", "features", "first_stage", "cross_encoder", "rank", "diversity",
    "journal",
)  # fmt: skip
FALLBACK_LEVELS = (NO_NEURAL, POPULAR, LAST_GOOD)
DEGRADABLE_PARTS = ("late_interaction", "encode_query", "items", "rank", "cross_encoder", "diversity")
"""Parts of the pipeline that a deadline may cut off."""
PREFETCH_OUTCOMES = ("completed", "dropped", "failed")
EVENT_KINDS = ("item", "user", "ranking", "interaction")
ScoreOrigin = Literal["cache", "live", "missing"]
EventOutcome = Literal["accepted", "duplicate", "rejected"]
HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNMATCHED, OTHER = "unmatched", "other"
"""Label of a request that no route matched, and of any value that is not in the lists above."""
MAX_ROUTES = 100

REQUEST_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0),
)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
CANDIDATE_BUCKETS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


def prepare_multiprocess(folder: Path) -> None:
    """Let processes that are forked later share their metrics through a folder; earlier values are deleted.

    The folder should be in memory, as that of `metrics_folder` is. Call it once, before the first worker starts. Only
    the value files (*.db) in the folder are deleted. Raises RuntimeError if prometheus_client was imported before.
    """
    if "prometheus_client" in sys.modules and not _is_multiprocess():
        raise RuntimeError(
            "prometheus_client was imported before prepare_multiprocess(), so workers can't share; call it first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    os.environ[MULTIPROC_DIR_VARIABLE] = str(folder)


def worker_died(pid: int) -> None:
    """Remove the gauges of a dead worker; its counts stay in the totals. A failure is only logged."""
    if MULTIPROC_DIR_VARIABLE in os.environ:
        from prometheus_client import multiprocess

        try:
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types
        except OSError as problem:  # the process that calls this looks after the others: it must go on
            _log.warning("the gauges of the process %d could not be removed: %s", pid, problem)


class Metrics:
    """The Prometheus metrics of one process; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """clock: unix seconds, for the age of the bundle and for drift.

        Raises RuntimeError if prometheus_client was imported before the folder for sharing was set.
        """
        if not (shared := _is_multiprocess()) and MULTIPROC_DIR_VARIABLE in os.environ:
            raise RuntimeError(
                f"prometheus_client was imported before {MULTIPROC_DIR_VARIABLE} was set; call"
                " prepare_multiprocess() first"
            )
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        if shared:
            from feedrank.api import metric_files

            metric_files.install()
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
        self._request_seconds = histogram("request_seconds", "Duration of requests.", "route", REQUEST_BUCKETS)
        stages = histogram("stage_seconds", "Duration of the stages of a feed.", "stage", STAGE_BUCKETS)
        self._candidates = histogram("candidates", "Candidates that were ranked.", "source", CANDIDATE_BUCKETS)
        fallbacks = counter("fallbacks_total", "Feeds served by a fallback because ranking failed.", "level")
        self._exposures = counter("exposures_total", "Feeds that were part of an experiment.", "experiment", "variant")
        degraded = counter("degraded_total", "Pipeline parts skipped to meet a deadline.", "part")
        cross_encoder = counter("cross_encoder_scores_total", "Cross-encoder scores by origin.", "origin")
        prefetch = counter("prefetch_total", "Users queued for precomputing their next feed's scores.", "outcome")
        events = counter("events_total", "Events received.", "kind", "outcome")
        self._journal_failures = counter("journal_failures_total", "Failed reads and writes of the journal.")
        self._unreadable = gauge(
            "journal_unreadable_events", "Events that can't be read and were passed over.", of="livemax"
        )
        self._state_lag = gauge("state_lag_seconds", "Age of the newest event when it was read.", of="livemax")
        self._bundle_age = gauge("bundle_age_seconds", "Time since the bundle was built.", of="livemax")
        self._bundle_info = gauge("bundle_info", "1 for the bundle that serves.", "bundle", of="livemax")
        self._items = gauge("items", "Items that can be recommended.")
        self._score_mean = gauge("score_mean", "Mean of recently served scores.")
        self._score_psi = gauge("score_psi", "Stability index (PSI) of recently served scores against the first ones.")
        self._feature_psi = gauge("feature_psi", "Stability index (PSI) of features against training.", "feature")
        # series that exist from the start have a rate at their first count, and looking them up here is faster
        self._stage_seconds = {name: stages.labels(name) for name in (*STAGES, OTHER)}
        self._fallbacks = {level: fallbacks.labels(level) for level in FALLBACK_LEVELS}
        self._degraded = {part: degraded.labels(part) for part in DEGRADABLE_PARTS}
        self._cross_encoder_scores = {origin: cross_encoder.labels(origin) for origin in get_args(ScoreOrigin)}
        self._prefetch = {outcome: prefetch.labels(outcome) for outcome in PREFETCH_OUTCOMES}
        kinds, outcomes = (*EVENT_KINDS, OTHER), get_args(EventOutcome)
        self._events = {(kind, outcome): events.labels(kind, outcome) for kind in kinds for outcome in outcomes}
        self._shared = shared
        self._lock = threading.Lock()
        self._routes: set[str] = set()
        self._prefetch_totals: dict[str, int] = {}
        self._bundle_built_at: float | None = None
        self._bundle_name: str | None = None
        self._drift: DriftMonitor | None = None
        self._drift_features: set[str] = set()
        if not shared:  # NaN, because 0 would look like no drift; shared gauges have no value until they are set
            self._clear_drift()

    def observe_feed(self, record: RankingRecord, budget: LatencyBudget) -> None:
        """Observe a ranking: its stages, its candidates, what was left out of it and its experiments."""
        self.observe_stages(budget.stage_seconds)
        self.count_degraded(budget.skipped)
        for origin in get_args(ScoreOrigin):
            self.count_cross_encoder_scores(origin, budget.counts.get(f"cross_encoder_{origin}", 0))
        self.observe_candidates(record.source, record.recall.candidates or 0)
        if record.fallback != FULL:
            self.count_fallback(record.fallback)
        for experiment, variant in record.experiments:
            self.count_exposure(experiment, variant)
        if not record.logged:
            self.count_journal_failure()

    def observe_request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Record an answered request. route: the URL rule that matched, never the path; None: no rule matched."""
        route = self._route_label(route)
        self._requests.labels(route, method if method in HTTP_METHODS else OTHER, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe_stage(self, name: str, seconds: float) -> None:
        """Record the duration of a stage of a feed."""
        self._stage_seconds[name if name in self._stage_seconds else OTHER].observe(seconds)

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        """Record the durations of all stages of a feed, as its `LatencyBudget` has them."""
        for name, took in seconds.items():
            self.observe_stage(name, took)

    def observe_candidates(self, source: str, count: int) -> None:
        """Record the number of candidates of a feed. source: the retriever's name."""
        self._candidates.labels(source).observe(count)

    def count_fallback(self, level: str) -> None:
        """Count a feed that a fallback level served; the full pipeline is not counted."""
        if level in self._fallbacks:
            self._fallbacks[level].inc()

    def count_exposure(self, experiment: str, variant: str) -> None:
        """Count a feed that was part of an experiment."""
        self._exposures.labels(experiment, variant).inc()

    def count_degraded(self, parts: Iterable[str]) -> None:
        """Count the parts that a feed skipped to meet its deadline. Failed levels count as fallbacks, not here."""
        for part in parts:
            if part in self._degraded:
                self._degraded[part].inc()

    def count_cross_encoder_scores(self, origin: ScoreOrigin, count: int) -> None:
        """Count cross-encoder scores by origin: from the cache, computed live, or missing."""
        self._cross_encoder_scores[origin].inc(count)

    def update_prefetch(self, completed: int, dropped: int, failed: int) -> None:
        """Update the prefetch counters from this process's queue totals; the increase is added."""
        with self._lock:
            for outcome, total in zip(PREFETCH_OUTCOMES, (completed, dropped, failed), strict=True):
                if (increase := total - self._prefetch_totals.get(outcome, 0)) > 0:
                    self._prefetch[outcome].inc(increase)
                    self._prefetch_totals[outcome] = total

    def count_events(self, kind: str, outcome: EventOutcome, count: int = 1) -> None:
        """Count received events; an unknown kind counts as other."""
        self._events[kind if kind in EVENT_KINDS else OTHER, outcome].inc(count)

    def count_journal_failure(self) -> None:
        """Count a failed read or write of the journal."""
        self._journal_failures.inc()

    def set_unreadable_events(self, count: int) -> None:
        """Set the number of events of the journal that this process passed over, as they can't be read."""
        self._unreadable.set(count)

    def set_state_lag(self, seconds: float) -> None:
        """Set the age, in seconds, of the newest event when it was read."""
        self._state_lag.set(seconds)

    def set_item_count(self, count: int) -> None:
        """Set the number of items in the catalogue."""
        self._items.set(count)

    def set_bundle(
        self, name: str, built_at: float | None, histogram: FeatureHistogram | None, feature_names: Sequence[str]
    ) -> None:
        """Set the bundle that serves now.

        built_at: unix seconds. histogram, feature_names: the reference that drift is measured against.
        """
        with self._lock:
            if self._bundle_name not in (None, name):
                self._bundle_info.labels(self._bundle_name).set(0)  # shared series can't be removed
                self._clear_drift()
            self._bundle_info.labels(name).set(1)
            self._bundle_name, self._bundle_built_at = name, built_at
            self._drift = DriftMonitor(histogram, feature_names)
        self._update_bundle_age()

    def add_drift_rows(self, features: Matrix, scores: Scores) -> None:
        """Add the (N, F) feature rows of the impressions of a feed, and their (N,) scores, to the drift monitor."""
        if self._drift is not None:
            self._drift.add(features, scores)

    def render(self) -> tuple[bytes, str]:
        """Return the Prometheus exposition, of all workers where they share, and its content type."""
        from prometheus_client import CollectorRegistry, multiprocess
        from prometheus_client.exposition import choose_encoder

        self._update_bundle_age()
        self._update_drift()
        registry = self.registry
        if self._shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        encode, content_type = choose_encoder("")
        return encode(registry), content_type

    def _route_label(self, route: str | None) -> str:
        if route is None:
            return UNMATCHED
        if route not in self._routes:
            if len(self._routes) >= MAX_ROUTES:  # callers passed paths, not rules: each would be a series
                return OTHER
            self._routes.add(route)
        return route

    def _update_bundle_age(self) -> None:
        if self._bundle_built_at is not None:
            self._bundle_age.set(max(0.0, self._clock() - self._bundle_built_at))

    def _update_drift(self) -> None:
        drift = None if self._drift is None else self._drift.report(self._clock())
        if drift is None:
            return
        self._score_mean.set(drift.mean_score)
        self._score_psi.set(np.nan if drift.score_psi is None else drift.score_psi)
        for feature, value in drift.feature_psi.items():
            self._feature_psi.labels(feature).set(value)
        self._drift_features |= drift.feature_psi.keys()

    def _clear_drift(self) -> None:
        for gauge in (self._score_mean, self._score_psi, *map(self._feature_psi.labels, self._drift_features)):
            gauge.set(np.nan)


def _is_multiprocess() -> bool:
    from prometheus_client import values

    shared: Any = values.ValueClass._multiprocess
    return bool(shared)
