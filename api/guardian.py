"""Looks, now and then, whether an arm of a running experiment breaks a guardrail, in one of the serving processes."""

from __future__ import annotations

import logging
import os
import threading

from api import aside
from api.home import Home
from engine.recommender import Recommender
from engine.turns import locked

EVERY_S = 300.0
_log = logging.getLogger(__name__)


class Guardian:
    """One thread. Reading the journal takes its time, so it is left to a process of its own, at a low priority."""

    def __init__(self, home: Home, recommender: Recommender, every: float = EVERY_S) -> None:
        """every: seconds between looks."""
        self._home, self._recommender, self._every = home, recommender, every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedrank-guardian", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, once a look that is under way is over."""
        self._stopped.set()
        self._thread.join()

    @property
    def needed(self) -> bool:
        """Whether an experiment asks to be guarded."""
        running = self._recommender.trials.roster.running
        return any(one.experiment.stop_on_breach and one.experiment.guardrails for one in running)

    def look(self) -> None:
        """Have a process look at all that asks for it."""
        done = aside.run(self._home, "experiment", "watch", "--once")
        for line in done.stdout.splitlines():
            _log.warning("experiments: %s", line)
        if done.returncode:
            _log.error("guardrails could not be looked at: %s", done.stderr.strip()[-2_000:])

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            if self.needed:
                self._look_alone()

    def _look_alone(self) -> None:
        """Unless another process of this machine is at it."""
        handle = os.open(self._home.guard, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if locked(handle, wait=False):
                self.look()
        except OSError:
            _log.exception("guardrails could not be looked at")
        finally:
            os.close(handle)
