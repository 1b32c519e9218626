"""Runs worker processes under gunicorn: their start, their replacement and the end of all.

The first process loads nothing itself, answers nothing, and must never end because one of its workers did.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer

from feedrank.api.metrics import worker_died
from feedrank.api.metrics_folder import MEMORY
from feedrank.api.process_end import end_process

MAX_LOAD_S = 900.0
"""Seconds that a worker may take to load before it counts as hung."""
MAX_WAIT_S = 30.0
"""Seconds that a loaded worker waits for the other workers of the start."""
HEARTBEAT_S = 5.0
RETRY_LOAD_S = 1.0
"""Seconds before a worker that could not be loaded is replaced by another, once the server has started."""
_log = logging.getLogger(__name__)


class GunicornServer(BaseApplication):  # type: ignore[misc]  # the library has no types
    """A gunicorn server of one application, without a command line or a config file."""

    def __init__(
        self, create_app: Callable[[], Flask], options: Mapping[str, Any], on_listening: Callable[[list[Any]], None]
    ) -> None:
        """create_app: called in each worker. options: gunicorn's settings. on_listening: called with the addresses."""
        self._create_app, self._options, self._on_listening = create_app, dict(options), on_listening
        self._is_replacement = False
        self._arrivals = mmap.mmap(-1, max(1, int(self._options.get("workers", 1))))
        """A byte for each of the first workers, which all processes share: whether it is loaded."""
        self._loaded = threading.Event()
        super().__init__()

    def load_config(self) -> None:
        """Set the options, and the hooks of this class."""
        hooks = {
            "when_ready": self._when_ready,
            "post_fork": self._post_fork,
            "post_worker_init": self._post_worker_init,
            "worker_exit": _end_worker,
            "child_exit": lambda _, worker: worker_died(worker.pid),
            "worker_tmp_dir": str(MEMORY) if os.access(MEMORY, os.W_OK | os.X_OK) else None,
        }
        for name, value in (self._options | hooks).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Create the application in a worker.

        If a replacement can't, it ends alone: its error would otherwise end the server, with the workers that serve.
        """
        try:
            return self._create_app()
        except Exception:
            if not self._is_replacement:
                raise
            _log.exception("a worker could not be loaded; another one is started")
            time.sleep(RETRY_LOAD_S)
            raise SystemExit(1) from None

    def serve(self) -> None:
        """Serve until a signal stops it. Only the first process returns from here.

        Raises RuntimeError if it ends because of an error, such as a worker of the start that can not be loaded.
        """
        first = os.getpid()
        try:
            self.run()
        except (SystemExit, HaltServer) as end:  # gunicorn and its workers end this way
            if os.getpid() != first:
                raise
            if isinstance(end, HaltServer) or end.code:
                raise RuntimeError("the server ended because of an error, which is logged above") from None

    def _when_ready(self, arbiter: Any) -> None:
        """Make Ctrl-C end the server as SIGTERM does, and a second one at once."""

        def interrupt(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, arbiter.signal)
            arbiter.signal(signal.SIGTERM, frame)

        signal.signal(signal.SIGINT, interrupt)
        self._on_listening([listener.getsockname() for listener in arbiter.LISTENERS])

    def _post_fork(self, arbiter: Any, worker: Any) -> None:
        """Let a worker that loads end at once, and count as alive."""
        _end_on_signals()
        self._is_replacement = worker.age > len(self._arrivals)
        worker.init_signals = _init_loading(worker, worker.init_signals)
        give_up_at = time.monotonic() + MAX_LOAD_S

        def beat() -> None:
            while not self._loaded.wait(HEARTBEAT_S) and time.monotonic() < give_up_at:
                worker.notify()

        threading.Thread(target=beat, name="loading", daemon=True).start()

    def _wait_for_others(self, worker: Any) -> None:
        """Wait until all workers of the start are loaded: what loads beside it would delay its first answers."""
        if self._is_replacement:
            return
        self._arrivals[worker.age - 1] = 1
        give_up_at = time.monotonic() + MAX_WAIT_S
        while not all(self._arrivals) and time.monotonic() < give_up_at and worker.ppid == os.getppid():
            time.sleep(0.02)

    def _post_worker_init(self, worker: Any) -> None:
        """Give a loaded worker gunicorn's signal handlers. Only the first process handles Ctrl-C."""
        self._wait_for_others(worker)
        self._loaded.set()
        worker.init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _init_loading(worker: Any, init_signals: Callable[[], None]) -> Callable[[], None]:
    """Return what gunicorn calls to set signal handlers: until the worker is loaded, those that stop end it at once."""

    def init() -> None:
        worker.init_signals = init_signals
        init_signals()
        _end_on_signals()

    return init


def _end_worker(arbiter: Any, worker: Any) -> None:
    """End the process of a worker with the exit code that gunicorn has for it, such as 3 if it could not be loaded.

    gunicorn calls this while the SystemExit with the code is raised, and in the first process for a worker that is
    gone.
    """
    if worker.pid != os.getpid():
        return
    end = sys.exc_info()[1]
    end_process(end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 1)


def _end_on_signals() -> None:
    """Let signals end a worker that loads at once, also amid a long call of a library.

    Ctrl-C reaches all processes of a terminal, but only the first one acts on it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(0))  # by default it would dump the memory
    signal.signal(signal.SIGINT, signal.SIG_IGN)
