"""Run the HTTP server: gunicorn workers, or a single waitress process where gunicorn is not available.

Large data is loaded once, before the workers are forked, and stays shared as long as no process writes to it. Threads,
database connections and model sessions are created in each worker, because they do not survive a fork.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from feedrank.api.compose.serving import build_snapshot, restore_state, try_out, warn, warn_of_types
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.compose.vector_index import custom_index_type, with_custom_index
from feedrank.api.config import Config
from feedrank.api.guardrail_monitor import GuardrailMonitor
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import MAX_BODY_BYTES, create_app
from feedrank.api.http.middleware import counter_storage
from feedrank.api.http.service import Service, is_trial, new_id
from feedrank.api.keys import ApiKeys
from feedrank.api.metrics import Metrics, prepare_multiprocess
from feedrank.api.metrics_folder import metrics_folder
from feedrank.api.process_end import end_on_interrupt
from feedrank.engine.experiments.arm_servers import ArmServers
from feedrank.engine.experiments.registry import ExperimentRegistry
from feedrank.engine.experiments.shadows import ShadowRunner
from feedrank.engine.journal.journal import Journal, JournalError
from feedrank.engine.private_files import use_private_umask
from feedrank.engine.serving.deadline import LatencyBudget, LatencyEstimator
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.snapshot import RestoredState
from feedrank.models.text.embedder import import_text_libraries

DRAIN_TIMEOUT_S = 30
"""Seconds that running requests may still take after the server began to stop."""
_log = logging.getLogger(__name__)
WARM_UP_USERS, WARM_UP_ROUNDS = 5, 3


@dataclass(frozen=True, slots=True)
class PreloadedState:
    """The bundle and the state that are loaded before workers are forked."""

    current_bundle: bundle.Bundle
    restored: RestoredState
    promoted: str | None
    """Name of the bundle that was to be loaded; another one was loaded if that one is damaged."""
    experiments: ExperimentRegistry
    """The experiments as of the offset of the state."""
    purged_at: int | None = None
    """Time of the latest purge before the state was loaded, in nanoseconds."""
    passed_over: frozenset[int] = frozenset()
    """Journal offsets of the events that can't be read."""


def preload(home: HomePaths, config: Config) -> PreloadedState:
    """Load the current bundle and the state of the journal.

    The journal connection is closed again, because it does not survive a fork.
    """
    custom_index_type(config.index)  # an error here is one line, in a worker it would be a traceback
    journal = home.existing_journal(config.journal.url)
    try:
        promoted, purged_at = registry.current_name(home.bundles), home.purged_at
        opened = registry.load_current(home.bundles, warn)
        restored = restore_state(home, journal, opened, clock_ms())
        warn_of_types(config, opened, restored)
        experiments = ExperimentService(home, journal).experiment_registry_at(restored.offset)
        return PreloadedState(opened, restored, promoted, experiments, purged_at, journal.decoder.passed_over)
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
    preloaded = _reloaded(home, config, preloaded)
    journal = home.journal(config.journal.url, is_checked=True)  # it may be out of reach now
    journal.decoder.pass_over(preloaded.passed_over)
    preloaded, texts, now = _first_that_serves(home, config, journal, preloaded, clock)
    now.is_as_replayed = home.purged_at == preloaded.purged_at
    current_bundle, costs = preloaded.current_bundle, LatencyEstimator()
    recommender = Recommender(
        now,
        journal,
        config.cross_encoder.prefetch_queue_size,
        ArmServers(preloaded.experiments),
    )
    recommender.shadows = ShadowRunner(recommender.read_shadow_inputs, recommender.record, time.perf_counter, new_id)
    recommender.catch_up(clock())
    metrics = Metrics(clock)
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
    refresher.load_models()
    warm_up(recommender, costs, clock)
    recommender.on_ranked(lambda rows, scores: None if is_trial() else metrics.add_drift_rows(rows, scores))
    refresher.start()
    GuardrailMonitor(home, recommender).start()
    keys = ApiKeys(home.keys) if config.serve.require_api_key else None
    behind = create_admin_services(home, config, journal, refresher.check_items)
    spans = traces.create_tracer(config.serve.otlp_endpoint, config.serve.trace_sample_rate)
    app = create_app(Service(recommender, clock, keys, config.serve, costs, metrics, behind, home.counters, spans))
    _freeze_gc()
    return app


def _reloaded(home: HomePaths, config: Config, preloaded: PreloadedState) -> PreloadedState:
    """Load the current bundle if it was replaced since the start, as in a worker that was restarted.

    If that fails, the bundle of the start serves until the refresher can load the current one.
    """
    try:
        return preloaded if registry.current_name(home.bundles) == preloaded.promoted else preload(home, config)
    except Exception:
        _log.exception("the current bundle can't be loaded; %s serves", preloaded.current_bundle.name)
        return preloaded


def _first_that_serves(
    home: HomePaths, config: Config, journal: Journal, preloaded: PreloadedState, clock: Callable[[], float]
) -> tuple[PreloadedState, TextEncoders, ServingSnapshot]:
    """Build the serving snapshot of a bundle and try it out; if that fails, of the one that was promoted before it.

    It runs in each worker, not before the fork: a custom index and a cross-encoder may hold threads or connections.
    Raises the error of the first bundle if none can serve.
    """
    first = None
    while True:
        try:
            opened = with_custom_index(preloaded.current_bundle, config.index)
            texts = TextEncoders(home, opened)
            snapshot = build_snapshot(home, config, opened, preloaded.restored, texts)
            try_out(snapshot, clock())
            return replace(preloaded, current_bundle=opened), texts, snapshot
        except JournalError:
            raise
        except Exception as problem:  # whatever a damaged file leads to
            first = first or problem
            earlier = registry.load_before(home.bundles, preloaded.current_bundle.name)
            if earlier is None:
                raise first from None
            _log.error(
                "the bundle %s can't serve: %s; serving the previous bundle instead: %s",
                preloaded.current_bundle.name, problem, earlier.name,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            restored = restore_state(home, journal, earlier, clock_ms())
            preloaded = replace(preloaded, current_bundle=earlier, restored=restored)


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
    """Compute a few feeds and searches that are not logged: everything is loaded, and stage costs have estimates.

    The first round is not measured, because it is much slower than later ones.
    """
    users = recommender.snapshot.users
    known = [users.name(row) for row in range(min(WARM_UP_USERS, len(users)))]
    for number, round_costs in enumerate((None, *[costs] * WARM_UP_ROUNDS)):
        searches = [RecommendationRequest(user, query=f"warm up {number}") for user in (None, *known[:1])]
        for request in (*map(RecommendationRequest, (None, *known)), *searches):
            budget = LatencyBudget(time.perf_counter, estimator=round_costs)
            recommender.recommend("warm-up", clock(), request, budget, log=False)


def serve(home: HomePaths, config: Config, echo: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
    """Serve until a signal stops it; `echo` prints status lines. Its files can be read by their owner only.

    Raises ValueError if it can't listen, BundleError if no bundle can serve, RuntimeError if gunicorn ends with an
    error.
    """
    use_private_umask()
    end_on_interrupt()  # until gunicorn or waitress have their own handlers
    logs.configure_logging("info" if config.serve.log_requests else "warning", config.serve.log_json)
    if config.serve.otlp_endpoint:
        traces.check_endpoint(config.serve.otlp_endpoint)
    if "://" in config.serve.rate_limit_storage:
        counter_storage(config.serve.rate_limit_storage, None)  # an error here is one line
    loaded = preload(home, config)
    uses_gunicorn = config.serve.workers and find_spec("gunicorn") is not None and os.name == "posix"
    if uses_gunicorn and TextEncoders(home, loaded.current_bundle):
        import_text_libraries()  # once and shared: a worker that replaces another one must not take seconds for it
    _freeze_gc()  # garbage collection would also write to, and so copy, the memory that forked processes share
    summary = f"bundle {loaded.current_bundle.name}, {len(loaded.current_bundle.item_model.catalogue):,} items"
    if uses_gunicorn:
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
    from feedrank.api.connection_worker import ConnectionWorker
    from feedrank.api.gunicorn_server import GunicornServer

    settings = config.serve

    class Worker(ConnectionWorker):
        request_timeout_s = settings.request_timeout_s
        max_connections = settings.max_connections

    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = _bind(lambda address: socket.create_server(address, family=family), host, port)
    probe.close()  # fail early: gunicorn would retry for seconds and print its own messages
    options = {
        "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "workers": settings.workers,
        "worker_class": Worker,
        "threads": settings.threads,
        "graceful_timeout": DRAIN_TIMEOUT_S,
        "timeout": 4 * DRAIN_TIMEOUT_S,
        "sendfile": False,
        "loglevel": "warning",
        "control_socket_disable": True,
    }
    with metrics_folder() as folder:
        if folder is not None:
            prepare_multiprocess(folder)
        GunicornServer(
            lambda: create_worker_app(home, config, preloaded, clock),
            options,
            lambda addresses: on_listening(" and ".join(_url(str(one[0]), int(one[1])) for one in addresses)),
        ).serve()


def _serve_waitress(app: Flask, config: Config, on_listening: Callable[[str], None]) -> None:
    from feedrank.api.waitress_limits import CallerLimits
    from feedrank.api.waitress_server import WaitressServer

    settings = config.serve
    limits = CallerLimits(settings.request_timeout_s, settings.max_connections, MAX_BODY_BYTES)
    server = _bind(lambda address: WaitressServer(app, address, settings.threads, limits), settings.host, settings.port)
    where = " and ".join(_url(host, port) for host, port in server.addresses)
    server.serve(lambda: on_listening(where), DRAIN_TIMEOUT_S)


def _bind(create: Callable[[tuple[str, int]], Any], host: str, port: int) -> Any:
    try:
        return create((host, port))
    except (OSError, ValueError) as problem:
        raise ValueError(f"can't listen on {host}:{port}: {problem}; choose another --host or --port") from None


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
