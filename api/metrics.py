"""Prometheus metrics: what the service counts and measures, in one process or over several workers.

prometheus_client decides on its first import whether processes share their values. So it is imported where a `Metrics`
is made, and nowhere before: `prepare` must come first.
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

from api.drift_watch import DriftWatch
from engine.fallback import LAST_GOOD, NO_NEURAL, POPULAR
from engine.types import Matrix, Scores
from models.drift import Sketch

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder through which workers share their values."""
STAGES = ("catch_up", "encode", "items", "recall", "features", "first", "pairs", "rank", "diversity", "journal")
STEPS = (NO_NEURAL, POPULAR, LAST_GOOD)
PARTS = ("late", "encode", "items", "rank", "pairs", "diversity")
"""What a deadline may cut off."""
AHEAD = ("done", "dropped", "failed")
KINDS = ("item", "user", "ranking", "interaction")
Origin = Literal["cache", "live", "none"]
Outcome = Literal["accepted", "duplicate", "rejected"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNMATCHED, OTHER = "unmatched", "other"
"""The route of a request that none matched, and the label of whatever is not on a list above."""
MOST_ROUTES = 100

REQUEST_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0),
)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
CANDIDATE_BUCKETS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


def prepare(folder: Path) -> None:
    """Let processes that are forked from now on share their values through a folder; what it had counted goes.

    Call it once, before the first worker starts. Of what is in the folder only the counts (*.db) are removed.
    """
    if "prometheus_client" in sys.modules and not _shared():
        raise RuntimeError("prometheus_client was imported before prepare(), so workers can't share; call this first")
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    os.environ[FOLDER] = str(folder)


def worker_died(pid: int) -> None:
    """Forget the gauges of a worker that is gone; what it counted stays in the sums."""
    if FOLDER in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types


class Metrics:
    """The instruments; safe to use from several threads. One in each process where processes share their values."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """clock: unix seconds, for the age of the bundle and for drift."""
        if not (shared := _shared()) and FOLDER in os.environ:
            raise RuntimeError(f"prometheus_client was imported before {FOLDER} was set; call prepare() first")
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
            # what a process that is gone had to say would stand for ever, were it not for "live"
            return Gauge(f"feedrank_{name}", about, labels, registry=registry, multiprocess_mode=of)

        self._requests = counter("requests_total", "Requests answered.", "route", "method", "status")
        self._seconds = histogram("request_seconds", "How long requests took.", "route", REQUEST_BUCKETS)
        stages = histogram("stage_seconds", "How long the stages of a feed took.", "stage", STAGE_BUCKETS)
        self._candidates = histogram("candidates", "Candidates that were ranked.", "source", CANDIDATE_BUCKETS)
        fallbacks = counter("fallbacks_total", "Feeds made at a plainer step, as ranking failed.", "step")
        self._exposures = counter("exposures_total", "Feeds that were part of an experiment.", "experiment", "variant")
        skipped = counter("skipped_total", "Parts of feeds cut off for a deadline.", "what")
        pairs = counter("pair_scores_total", "Where pair scores came from.", "from")
        ahead = counter("ahead_total", "People whose next feed was to be scored ahead.", "outcome")
        events = counter("events_total", "Events that came in.", "kind", "outcome")
        self._journal = counter("journal_failures_total", "Times that the journal could not be read or written.")
        self._lag = gauge("state_lag_seconds", "How old the newest event was when it was read.", of="livemax")
        self._age = gauge("bundle_age_seconds", "How long ago the bundle was made.", of="livemax")
        self._bundle = gauge("bundle_info", "1 for the bundle that answers.", "bundle", of="livemax")
        self._items = gauge("items", "Items that can be recommended.")
        self._score_mean = gauge("score_mean", "Mean of the scores served lately.")
        self._score_psi = gauge("score_psi", "Stability index of scores served lately against the first ones.")
        self._feature_psi = gauge("feature_psi", "Stability index of features against training.", "feature")
        # series that are there from the start have a rate when they first count; and it is quicker
        self._stages = {name: stages.labels(name) for name in (*STAGES, OTHER)}
        self._fallbacks = {step: fallbacks.labels(step) for step in STEPS}
        self._skipped = {part: skipped.labels(part) for part in PARTS}
        self._pairs = {origin: pairs.labels(origin) for origin in get_args(Origin)}
        self._ahead = {outcome: ahead.labels(outcome) for outcome in AHEAD}
        kinds, outcomes = (*KINDS, OTHER), get_args(Outcome)
        self._events = {(kind, one): events.labels(kind, one) for kind in kinds for one in outcomes}
        self._shared = shared
        self._lock = threading.Lock()
        self._routes: set[str] = set()
        self._counted: dict[str, int] = {}
        self._made_at: float | None = None
        self._name: str | None = None
        self._drift: DriftWatch | None = None
        self._features: set[str] = set()
        if not shared:  # no number must not look like a good one; shared gauges are silent until they are set
            self._forget_drift()

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """A request was answered. route: the rule that matched, never the path; None: none did."""
        route = self._known_route(route)
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a feed is over."""
        self._stages[name if name in self._stages else OTHER].observe(seconds)

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Every stage of a feed, as its watch has them."""
        for name, took in seconds.items():
            self.stage(name, took)

    def candidates(self, source: str, count: int) -> None:
        """So many candidates were found. source: the retriever's name."""
        self._candidates.labels(source).observe(count)

    def fallback(self, step: str) -> None:
        """A feed was made at this step of the ladder; the full one is none."""
        if step in self._fallbacks:
            self._fallbacks[step].inc()

    def exposed(self, experiment: str, variant: str) -> None:
        """A feed was part of an experiment."""
        self._exposures.labels(experiment, variant).inc()

    def skipped(self, parts: Iterable[str]) -> None:
        """What a feed went without, as its watch has it. Steps that failed count as fallbacks, not here."""
        for part in parts:
            if part in self._skipped:
                self._skipped[part].inc()

    def pair_scores(self, origin: Origin, count: int) -> None:
        """So many pair scores came from the cache, from the model now, or are missing."""
        self._pairs[origin].inc(count)

    def ahead(self, done: int, dropped: int, failed: int) -> None:
        """What this process's queue has counted so far; what is new of it is added."""
        with self._lock:
            for outcome, total in zip(AHEAD, (done, dropped, failed), strict=True):
                if (new := total - self._counted.get(outcome, 0)) > 0:
                    self._ahead[outcome].inc(new)
                    self._counted[outcome] = total

    def events(self, kind: str, outcome: Outcome, count: int = 1) -> None:
        """Events came in; a kind that is not one counts as other."""
        self._events[kind if kind in KINDS else OTHER, outcome].inc(count)

    def journal_failed(self) -> None:
        """The journal could not be read or written."""
        self._journal.inc()

    def state_lag(self, seconds: float) -> None:
        """How old the newest event was when it was read."""
        self._lag.set(seconds)

    def items(self, count: int) -> None:
        """How many items there are."""
        self._items.set(count)

    def bundle(self, name: str, made_at: float | None, sketch: Sketch | None, names: Sequence[str]) -> None:
        """Feeds come from this bundle now. made_at: unix seconds. sketch, names: what drift is measured by."""
        with self._lock:
            if self._name not in (None, name):
                self._bundle.labels(self._name).set(0)  # shared series can't be removed
                self._forget_drift()
            self._bundle.labels(name).set(1)
            self._name, self._made_at = name, made_at
            self._drift = DriftWatch(sketch, names)
        self._grow_old()

    def served(self, features: Matrix, scores: Scores) -> None:
        """The (N, F) feature rows of what a feed showed, and their (N,) scores."""
        if self._drift is not None:
            self._drift.add(features, scores)

    def text(self) -> tuple[bytes, str]:
        """The exposition, of all workers where they share, and its content type."""
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
            if len(self._routes) >= MOST_ROUTES:  # paths were given for rules: each would be a series for ever
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
        for one in (self._score_mean, self._score_psi, *map(self._feature_psi.labels, self._features)):
            one.set(np.nan)


def _shared() -> bool:
    from prometheus_client import values

    shared: Any = values.ValueClass._multiprocess
    return bool(shared)
