"""Keeps a running service up to date: another bundle when `current` points at one.

Answers go on from what is live while the next generation is made, and change over in one step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from api.compose.serving import live, living_state
from api.config import Config
from api.home import Home
from engine.journal import Journal
from engine.recommender import Recommender
from models import bundle, registry

POLL_S = 0.2
"""How often `current` is looked at, and others' events are read where nobody asks for a feed."""
_log = logging.getLogger(__name__)


class Refresher:
    """One thread of a serving process."""

    def __init__(
        self, home: Home, config: Config, journal: Journal, recommender: Recommender,
        changed: Callable[[bundle.Bundle], None] = lambda _: None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._home, self._config, self._journal, self._recommender = home, config, journal, recommender
        self._changed, self._clock = changed, clock
        self._refused = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedrank-refresh", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, once what is under way is done."""
        self._stopped.set()
        self._thread.join()

    def look(self) -> bool:
        """Change over where another bundle is current; whether that was so. A bad one is refused once, with a word."""
        name = registry.current(self._home.bundles)
        if name is None or name in (self._recommender.pipeline.bundle, self._refused):
            return False
        started = time.perf_counter()
        try:
            opened = bundle.load(self._home.bundles / name)
            made = live(self._home, self._config, opened, living_state(self._home, self._journal, opened))
        except Exception as problem:  # whatever is wrong with it, the one that serves is not the worse for it
            self._refused = name
            _log.error(
                "the bundle %s can't be used: %s; %s goes on", name, str(problem), self._recommender.pipeline.bundle,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            return False
        self._refused = ""
        self._recommender.renew(lambda _: made, self._clock())
        self._changed(opened)
        _log.info("bundle %s serves, after %.1f s", name, time.perf_counter() - started)
        return True

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            try:
                self._recommender.catch_up(self._clock())
                self.look()
            except Exception:  # it must be there for the next time
                _log.exception("what serves could not be brought up to date")
