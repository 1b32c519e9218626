"""The processes that serve: gunicorn's workers, or one process of waitress where there is no gunicorn.

What is large is read once, before the workers are forked, and shared by them as long as nobody writes to it; threads,
database connections and model sessions are made in each worker, since none of them survives a fork.
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

from api import logs, traces
from api.compose.experiments import Desk
from api.compose.refresh import Refresher
from api.compose.serving import live, living_state, warn
from api.compose.signals import TextModels
from api.config import Config
from api.guardian import Guardian
from api.home import Home
from api.http.app import create_app
from api.http.service import Service, new_id
from api.keys import Keys
from api.metrics import Metrics, prepare, worker_died
from api.upkeep import upkeep
from engine.asked import Asked
from engine.experiments.shadows import Shadows
from engine.experiments.trials import Trials
from engine.recommender import Recommender
from engine.watch import Costs, Watch
from models import bundle, registry
from models.snapshot import Living

DRAIN_S = 30
"""How long requests under way may take after the server was told to stop."""
WARM_UPS, ROUNDS = 5, 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is read before workers are forked."""

    opened: bundle.Bundle
    living: Living


def load(home: Home, config: Config) -> Loaded:
    """The current bundle and the state of the journal; the connection is closed again, it does not survive a fork."""
    journal = home.journal(config.journal.url)
    try:
        opened = registry.load_current(home.bundles, warn)
        return Loaded(opened, living_state(home, journal, opened))
    finally:
        journal.close()


def one_thread_a_feed() -> None:
    """Let BLAS in this process have one thread from now on.

    A feed's matrices are small, and BLAS threads that wait by spinning take the cores from what scores pairs. Not for a
    process that trains: sums come out otherwise by other numbers of threads.
    """
    threadpool_limits(1, user_api="blas")


def application(home: Home, config: Config, loaded: Loaded, clock: Callable[[], float]) -> Flask:
    """The application of one worker, warm, with the thread that keeps it up to date."""
    one_thread_a_feed()
    if registry.current(home.bundles) != loaded.opened.name:  # it takes the place of a worker that served another since
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
    """Have the garbage collector pass over all there is: it stays, and looking through it would hold up a feed."""
    gc.collect()
    gc.freeze()


def _measure(texts: TextModels, costs: Costs) -> None:
    """See how long it takes to read a query, so that those in a hurry know."""
    if texts:
        texts.query("warm up")
        started = time.perf_counter()
        texts.query("warmed up")
        costs.note("encode", time.perf_counter() - started)


def _tell(metrics: Metrics, opened: bundle.Bundle) -> None:
    made = bundle.read_made(opened.folder).get("at")
    at = datetime.fromisoformat(made).timestamp() if isinstance(made, str) else None
    metrics.bundle(opened.name, at, bundle.read_sketch(opened.folder), opened.builder.names)
    metrics.items(len(opened.knowledge.catalogue))


def warm(recommender: Recommender, costs: Costs, clock: Callable[[], float]) -> None:
    """Make a few feeds that nobody sees, so that the first request finds all loaded, and costs are known.

    The first round is not measured: it is slow as no later one is.
    """
    known = recommender.live.people
    for measured in (None, *[costs] * ROUNDS):
        for person in (None, *(known.name(row) for row in range(min(WARM_UPS, len(known))))):
            watch = Watch(time.perf_counter, costs=measured)
            recommender.recommend("warm-up", clock(), Asked(person), watch, keep=False)


def serve(home: Home, config: Config, say: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
    """Serve until told to stop. Raises ValueError where it can't listen, BundleError where no bundle can serve."""
    logs.configure("info" if config.serve.log_requests else "warning", config.serve.log_json)
    if config.serve.traces:
        traces.check(config.serve.traces)
    loaded = load(home, config)
    _leave_alone()  # nor does looking write to what forked processes share
    what = f"bundle {loaded.opened.name}, {len(loaded.opened.knowledge.catalogue):,} items"
    if config.serve.workers and find_spec("gunicorn") is not None and os.name == "posix":
        _gunicorn(home, config, loaded, lambda where: say(f"{what}; listening on {where} (Ctrl-C stops)"), clock)
    else:
        app = application(home, config, loaded, clock)
        _waitress(app, config, lambda where: say(f"{what}; listening on {where} (Ctrl-C stops)"))
    say("stopped")


def _gunicorn(
    home: Home, config: Config, loaded: Loaded, listening: Callable[[str], None], clock: Callable[[], float]
) -> None:
    from gunicorn.app.base import BaseApplication

    told = config.serve
    family = socket.AF_INET6 if ":" in told.host else socket.AF_INET
    probe = _bound(lambda address: socket.create_server(address, family=family), told.host, told.port)
    probe.close()  # gunicorn tries for seconds, and says so in its own words
    prepare(home.metrics)

    class Server(BaseApplication):  # type: ignore[misc]  # the library has no types
        def load_config(self) -> None:
            settings = {
                "bind": f"[{told.host}]:{told.port}" if ":" in told.host else f"{told.host}:{told.port}",
                "workers": told.workers,
                "worker_class": "gthread",
                "threads": told.threads,
                "graceful_timeout": DRAIN_S,
                "timeout": 4 * DRAIN_S,
                "keepalive": 75,
                "loglevel": "warning",
                "control_socket_disable": True,
                "when_ready": _ready,
                "child_exit": lambda _, worker: worker_died(worker.pid),
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Flask:
            return application(home, config, loaded, clock)

    def _ready(server: Any) -> None:
        names = [one.getsockname() for one in server.LISTENERS]
        listening(" and ".join(_url(str(name[0]), int(name[1])) for name in names))

    master = os.getpid()
    try:
        Server().run()
    except SystemExit:  # how gunicorn ends when told to, and its workers, which must not go on from here
        if os.getpid() != master:
            raise


def _waitress(app: Flask, config: Config, listening: Callable[[str], None]) -> None:
    from waitress import create_server

    told = config.serve
    server: Any = _bound(
        lambda _: create_server(app, host=told.host, port=told.port, threads=told.threads, ident="feedrank"),
        told.host, told.port,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    one = hasattr(server, "effective_port")
    sockets = [(server.effective_host, server.effective_port)] if one else server.effective_listen
    listening(" and ".join(_url(host, port) for host, port in sockets))
    server.run()


def _bound(bind: Callable[[tuple[str, int]], Any], host: str, port: int) -> Any:
    try:
        return bind((host, port))
    except (OSError, ValueError) as problem:
        raise ValueError(f"can't listen on {host}:{port}: {problem}; choose another --host or --port") from None


def _stop(number: int, _: object) -> None:
    """End the server's loop, which then waits for the requests under way."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise SystemExit


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
