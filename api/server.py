"""Run the HTTP server: gunicorn workers, or a single waitress process where gunicorn is not available.

Large data is loaded once, before the workers are forked, and stays shared as long as no process writes to it. Threads,
database connections and model sessions are created in each worker, because they do not survive a fork.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from flask import Flask
from threadpoolctl import threadpool_limits

from feedrank.api import logs, traces
from feedrank.api.admin import create_admin_services
from feedrank.api.clock import clock_ms
from feedrank.api.compose.experiments import ExperimentService
from feedrank.api.compose.refresh import RefreshCallbacks, Refresher
from feedrank.api.compose.serving import build_snapshot, restore_state, warn, warn_of_types
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.compose.vector_index import custom_index_type, with_custom_index
from feedrank.api.config import Config
from feedrank.api.guardrail_monitor import GuardrailMonitor
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service, is_trial, new_id
from feedrank.api.keys import ApiKeys
from feedrank.api.metrics import Metrics, prepare_multiprocess, worker_died
from feedrank.engine.experiments.arm_servers import ArmServers
from feedrank.engine.experiments.shadows import ShadowRunner
from feedrank.engine.serving.deadline import LatencyBudget, LatencyEstimator
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.snapshot import RestoredState

DRAIN_TIMEOUT_S = 30
"""Seconds that running requests may still take after the server was asked to stop."""
WARM_UP_USERS, WARM_UP_ROUNDS = 5, 3


@dataclass(frozen=True, slots=True)
class PreloadedState:
    """The bundle and the state that are loaded before workers are forked."""

    current_bundle: bundle.Bundle
    restored: RestoredState
    passed_over: frozenset[int] = frozenset()
    """Journal offsets of the events that can't be read."""


def preload(home: HomePaths, config: Config) -> PreloadedState:
    """Load the current bundle and the state of the journal.

    The journal connection is closed again, because it does not survive a fork.
    """
    custom_index_type(config.index)  # an error here is one line, in a worker it would be a traceback
    journal = home.journal(config.journal.url)
    try:
        opened = registry.load_current(home.bundles, warn)
        restored = restore_state(home, journal, opened, clock_ms())
        warn_of_types(config, opened, restored)
        return PreloadedState(opened, restored, journal.decoder.passed_over)
    finally:
        journal.close()


def limit_blas_threads() -> None:
    """Limit BLAS in this process to one thread.

    A feed's matrices are small, and spinning BLAS threads take cores from the cross-encoder. Do not call it in a
    training process: sums depend on the number of threads.
    """
    threadpool_limits(1, user_api="blas")


def create_worker_app(home: HomePaths, config: Config, preloaded: PreloadedState, clock: Callable[[], float]) -> Flask:
    """Create the Flask application of one worker: warmed up, with its refresher and guardrail monitor running."""
    limit_blas_threads()
    if (
        registry.current_name(home.bundles) != preloaded.current_bundle.name
    ):  # a restarted worker; the bundle was replaced since
        preloaded = preload(home, config)
    # in each worker, not before the fork: a custom index may hold threads or connections
    current_bundle = with_custom_index(preloaded.current_bundle, config.index)
    journal = home.journal(config.journal.url)
    journal.decoder.pass_over(preloaded.passed_over)
    costs, texts = LatencyEstimator(), TextEncoders(home, current_bundle)
    now = build_snapshot(home, config, current_bundle, preloaded.restored, texts)
    recommender = Recommender(
        now,
        journal,
        config.cross_encoder.prefetch_queue_size,
        ArmServers(ExperimentService(home, journal).experiment_registry_at(now.offset)),
    )
    recommender.shadows = ShadowRunner(recommender.read_shadow_inputs, recommender.record, time.perf_counter, new_id)
    recommender.catch_up(clock())
    warm_up(recommender, costs, clock)
    metrics = Metrics(clock)
    recommender.on_ranked(lambda rows, scores: None if is_trial() else metrics.add_drift_rows(rows, scores))
    journal.decoder.on_passed_over(metrics.set_unreadable_events)
    _set_bundle_metrics(metrics, current_bundle)
    refresher = Refresher(
        home,
        config,
        journal,
        recommender,
        current_bundle,
        texts,
        RefreshCallbacks(
            lambda: _measure_query_encoding(texts, costs), lambda opened: _set_bundle_metrics(metrics, opened)
        ),
        clock,
    )
    refresher.start()
    GuardrailMonitor(home, recommender).start()
    keys = ApiKeys(home.keys) if config.serve.require_api_key else None
    behind = create_admin_services(home, config, journal, refresher.check_items)
    spans = traces.create_tracer(config.serve.otlp_endpoint, config.serve.trace_sample_rate)
    app = create_app(Service(recommender, clock, keys, config.serve, costs, metrics, behind, traces=spans))
    _freeze_gc()
    return app


def _freeze_gc() -> None:
    """Exclude all existing objects from garbage collection: they are permanent, and scanning them delays feeds."""
    gc.collect()
    gc.freeze()


def _measure_query_encoding(texts: TextEncoders, costs: LatencyEstimator) -> None:
    """Measure how long encoding a query takes, so that requests with a deadline have an estimate."""
    if texts:
        texts.encode_query("warm up")
        started = time.perf_counter()
        texts.encode_query("warmed up")
        costs.observe("encode_query", time.perf_counter() - started)


def _set_bundle_metrics(metrics: Metrics, current_bundle: bundle.Bundle) -> None:
    built = bundle.read_build_info(current_bundle.folder).get("at")
    built_at = datetime.fromisoformat(built).timestamp() if isinstance(built, str) else None
    metrics.set_bundle(
        current_bundle.name, built_at, bundle.read_histogram(current_bundle.folder), current_bundle.builder.names
    )
    metrics.set_item_count(len(current_bundle.item_model.catalogue))


def warm_up(recommender: Recommender, costs: LatencyEstimator, clock: Callable[[], float]) -> None:
    """Compute a few feeds that are not logged, so that everything is loaded and stage costs have estimates.

    The first round is not measured, because it is much slower than later ones.
    """
    users = recommender.snapshot.users
    for round_costs in (None, *[costs] * WARM_UP_ROUNDS):
        for user in (None, *(users.name(row) for row in range(min(WARM_UP_USERS, len(users))))):
            budget = LatencyBudget(time.perf_counter, estimator=round_costs)
            recommender.recommend("warm-up", clock(), RecommendationRequest(user), budget, log=False)


def serve(home: HomePaths, config: Config, echo: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
    """Serve until a signal stops it; `echo` prints status lines.

    Raises ValueError if it can't listen, BundleError if no bundle can serve.
    """
    logs.configure_logging("info" if config.serve.log_requests else "warning", config.serve.log_json)
    if config.serve.otlp_endpoint:
        traces.check_endpoint(config.serve.otlp_endpoint)
    loaded = preload(home, config)
    _freeze_gc()  # garbage collection would also write to, and so copy, the memory that forked processes share
    summary = f"bundle {loaded.current_bundle.name}, {len(loaded.current_bundle.item_model.catalogue):,} items"
    if config.serve.workers and find_spec("gunicorn") is not None and os.name == "posix":
        _serve_gunicorn(home, config, loaded, lambda url: echo(f"{summary}; listening on {url} (Ctrl-C stops)"), clock)
    else:
        app = create_worker_app(home, config, loaded, clock)
        _serve_waitress(app, config, lambda url: echo(f"{summary}; listening on {url} (Ctrl-C stops)"))
    echo("stopped")


def _serve_gunicorn(
    home: HomePaths,
    config: Config,
    preloaded: PreloadedState,
    on_listening: Callable[[str], None],
    clock: Callable[[], float],
) -> None:
    from gunicorn.app.base import BaseApplication

    settings = config.serve
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = _bind(lambda address: socket.create_server(address, family=family), host, port)
    probe.close()  # fail early: gunicorn would retry for seconds and print its own messages
    prepare_multiprocess(home.metrics)

    class Server(BaseApplication):  # type: ignore[misc]  # the library has no types
        def load_config(self) -> None:
            options = {
                "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                "workers": settings.workers,
                "worker_class": "gthread",
                "threads": settings.threads,
                "graceful_timeout": DRAIN_TIMEOUT_S,
                "timeout": 4 * DRAIN_TIMEOUT_S,
                "keepalive": 75,
                "loglevel": "warning",
                "control_socket_disable": True,
                "when_ready": _ready,
                "child_exit": lambda _, worker: worker_died(worker.pid),
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Flask:
            return create_worker_app(home, config, preloaded, clock)

    def _ready(server: Any) -> None:
        addresses = [listener.getsockname() for listener in server.LISTENERS]
        on_listening(" and ".join(_url(str(address[0]), int(address[1])) for address in addresses))

    master = os.getpid()
    try:
        Server().run()
    except SystemExit:  # gunicorn and its workers exit this way; a worker must not return from here
        if os.getpid() != master:
            raise


def _serve_waitress(app: Flask, config: Config, on_listening: Callable[[str], None]) -> None:
    from waitress import create_server

    settings = config.serve
    server: Any = _bind(
        lambda address: create_server(
            app, host=address[0], port=address[1], threads=settings.threads, ident="feedrank"
        ),
        settings.host, settings.port,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle_signal)
    has_one_socket = hasattr(server, "effective_port")
    sockets = [(server.effective_host, server.effective_port)] if has_one_socket else server.effective_listen
    on_listening(" and ".join(_url(host, port) for host, port in sockets))
    server.run()


def _bind(create: Callable[[tuple[str, int]], Any], host: str, port: int) -> Any:
    try:
        return create((host, port))
    except (OSError, ValueError) as problem:
        raise ValueError(f"can't listen on {host}:{port}: {problem}; choose another --host or --port") from None


def _handle_signal(number: int, _: object) -> None:
    """Stop the server's loop, which then waits for running requests."""
    signal.signal(number, signal.SIG_IGN)  # ignore repeated signals
    raise SystemExit


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
