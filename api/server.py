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
from feedrank.api.admin import upkeep
from feedrank.api.compose.experiments import Desk
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.serving import live, living_state, warn
from feedrank.api.compose.text_signals import TextModels
from feedrank.api.config import Config
from feedrank.api.guardrail_monitor import Guardian
from feedrank.api.home import Home
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service, new_id
from feedrank.api.keys import Keys
from feedrank.api.metrics import Metrics, prepare, worker_died
from feedrank.engine.experiments.arm_servers import Trials
from feedrank.engine.experiments.shadows import Shadows
from feedrank.engine.serving.deadline import Costs, Watch
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import Asked
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.snapshot import Living

DRAIN_S = 30
"""Seconds that running requests may still take after the server was asked to stop."""
WARM_UPS, ROUNDS = 5, 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bundle and the state that are loaded before workers are forked."""

    opened: bundle.Bundle
    living: Living


def load(home: Home, config: Config) -> Loaded:
    """Load the current bundle and the state of the journal.

    The journal connection is closed again, because it does not survive a fork.
    """
    journal = home.journal(config.journal.url)
    try:
        opened = registry.load_current(home.bundles, warn)
        return Loaded(opened, living_state(home, journal, opened))
    finally:
        journal.close()


def one_thread_a_feed() -> None:
    """Limit BLAS in this process to one thread.

    A feed's matrices are small, and spinning BLAS threads take cores from the cross-encoder. Do not call it in a
    training process: sums depend on the number of threads.
    """
    threadpool_limits(1, user_api="blas")


def application(home: Home, config: Config, loaded: Loaded, clock: Callable[[], float]) -> Flask:
    """Create the Flask application of one worker: warmed up, with its refresher and guardrail monitor running."""
    one_thread_a_feed()
    if registry.current(home.bundles) != loaded.opened.name:  # a restarted worker; the bundle was replaced since
        loaded = load(home, config)
    journal = home.journal(config.journal.url)
    costs, texts = Costs(), TextModels(home, loaded.opened)
    now = live(home, config, loaded.opened, loaded.living, texts)
    recommender = Recommender(
        now, journal, config.cross_encoder.ahead, Trials(Desk(home, journal).roster_until(now.offset))
    )
    recommender.shadows = Shadows(recommender.look_on, recommender.record, time.perf_counter, new_id)
    recommender.catch_up(clock())
    warm(recommender, costs, clock)
    metrics = Metrics(clock)
    recommender.when_ranked(metrics.served)
    _tell(metrics, loaded.opened)
    refresher = Refresher(
        home, config, journal, recommender, loaded.opened, texts, lambda: _measure(texts, costs),
        lambda opened: _tell(metrics, opened), clock,
    )  # fmt: skip
    refresher.start()
    Guardian(home, recommender).start()
    keys = Keys(home.keys) if config.serve.keys else None
    behind = upkeep(home, config, journal, refresher.look_for_items)
    spans = traces.to(config.serve.traces, config.serve.trace_share)
    app = create_app(Service(recommender, clock, keys, config.serve, costs, metrics, behind, traces=spans))
    _leave_alone()
    return app


def _leave_alone() -> None:
    """Exclude all existing objects from garbage collection: they are permanent, and scanning them delays feeds."""
    gc.collect()
    gc.freeze()


def _measure(texts: TextModels, costs: Costs) -> None:
    """Measure how long encoding a query takes, so that requests with a deadline have an estimate."""
    if texts:
        texts.query("warm up")
        started = time.perf_counter()
        texts.query("warmed up")
        costs.note("encode", time.perf_counter() - started)


def _tell(metrics: Metrics, opened: bundle.Bundle) -> None:
    built = bundle.read_made(opened.folder).get("at")
    built_at = datetime.fromisoformat(built).timestamp() if isinstance(built, str) else None
    metrics.bundle(opened.name, built_at, bundle.read_sketch(opened.folder), opened.builder.names)
    metrics.items(len(opened.knowledge.catalogue))


def warm(recommender: Recommender, costs: Costs, clock: Callable[[], float]) -> None:
    """Compute a few feeds that are not logged, so that everything is loaded and stage costs have estimates.

    The first round is not measured, because it is much slower than later ones.
    """
    users = recommender.live.people
    for round_costs in (None, *[costs] * ROUNDS):
        for user in (None, *(users.name(row) for row in range(min(WARM_UPS, len(users))))):
            watch = Watch(time.perf_counter, costs=round_costs)
            recommender.recommend("warm-up", clock(), Asked(user), watch, keep=False)


def serve(home: Home, config: Config, say: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
    """Serve until a signal stops it; `echo` prints status lines.

    Raises ValueError if it can't listen, BundleError if no bundle can serve.
    """
    logs.configure("info" if config.serve.log_requests else "warning", config.serve.log_json)
    if config.serve.traces:
        traces.check(config.serve.traces)
    loaded = load(home, config)
    _leave_alone()  # garbage collection would also write to, and so copy, the memory that forked processes share
    summary = f"bundle {loaded.opened.name}, {len(loaded.opened.knowledge.catalogue):,} items"
    if config.serve.workers and find_spec("gunicorn") is not None and os.name == "posix":
        _gunicorn(home, config, loaded, lambda url: say(f"{summary}; listening on {url} (Ctrl-C stops)"), clock)
    else:
        app = application(home, config, loaded, clock)
        _waitress(app, config, lambda url: say(f"{summary}; listening on {url} (Ctrl-C stops)"))
    say("stopped")


def _gunicorn(
    home: Home, config: Config, loaded: Loaded, listening: Callable[[str], None], clock: Callable[[], float]
) -> None:
    from gunicorn.app.base import BaseApplication

    settings = config.serve
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = _bound(lambda address: socket.create_server(address, family=family), host, port)
    probe.close()  # fail early: gunicorn would retry for seconds and print its own messages
    prepare(home.metrics)

    class Server(BaseApplication):  # type: ignore[misc]  # the library has no types
        def load_config(self) -> None:
            options = {
                "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                "workers": settings.workers,
                "worker_class": "gthread",
                "threads": settings.threads,
                "graceful_timeout": DRAIN_S,
                "timeout": 4 * DRAIN_S,
                "keepalive": 75,
                "loglevel": "warning",
                "control_socket_disable": True,
                "when_ready": _ready,
                "child_exit": lambda _, worker: worker_died(worker.pid),
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Flask:
            return application(home, config, loaded, clock)

    def _ready(server: Any) -> None:
        addresses = [listener.getsockname() for listener in server.LISTENERS]
        listening(" and ".join(_url(str(address[0]), int(address[1])) for address in addresses))

    master = os.getpid()
    try:
        Server().run()
    except SystemExit:  # gunicorn and its workers exit this way; a worker must not return from here
        if os.getpid() != master:
            raise


def _waitress(app: Flask, config: Config, listening: Callable[[str], None]) -> None:
    from waitress import create_server

    settings = config.serve
    server: Any = _bound(
        lambda address: create_server(
            app, host=address[0], port=address[1], threads=settings.threads, ident="feedrank"
        ),
        settings.host, settings.port,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    has_one_socket = hasattr(server, "effective_port")
    sockets = [(server.effective_host, server.effective_port)] if has_one_socket else server.effective_listen
    listening(" and ".join(_url(host, port) for host, port in sockets))
    server.run()


def _bound(bind: Callable[[tuple[str, int]], Any], host: str, port: int) -> Any:
    try:
        return bind((host, port))
    except (OSError, ValueError) as problem:
        raise ValueError(f"can't listen on {host}:{port}: {problem}; choose another --host or --port") from None


def _stop(number: int, _: object) -> None:
    """Stop the server's loop, which then waits for running requests."""
    signal.signal(number, signal.SIG_IGN)  # ignore repeated signals
    raise SystemExit


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
