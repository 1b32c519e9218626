"""Check periodically whether an arm of a running experiment violates a guardrail; one serving process does it."""

from __future__ import annotations

import logging
import os
import threading

from feedrank.api import subprocess_cli
from feedrank.api.home import Home
from feedrank.engine.journal.file_lock import locked
from feedrank.engine.serving.recommender import Recommender

EVERY_S = 300.0
_log = logging.getLogger(__name__)


class Guardian:
    """A thread that starts the check in a low-priority subprocess, because reading the journal is slow."""

    def __init__(self, home: Home, recommender: Recommender, every: float = EVERY_S) -> None:
        """interval_s: seconds between checks."""
        self._home, self._recommender, self._every = home, recommender, every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedrank-guardian", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; waits for a check that is running."""
        self._stopped.set()
        self._thread.join()

    @property
    def needed(self) -> bool:
        """True if a running experiment has guardrails and `stop_on_breach`."""
        running = self._recommender.trials.roster.running
        return any(state.experiment.stop_on_breach and state.experiment.guardrails for state in running)

    def look(self) -> None:
        """Check the guardrails of all these experiments in a subprocess, and log what it prints."""
        done = subprocess_cli.run(self._home, "experiment", "watch", "--once")
        for line in done.stdout.splitlines():
            _log.warning("experiments: %s", line)
        if done.returncode:
            _log.error("guardrails could not be checked: %s", done.stderr.strip()[-2_000:])

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            if self.needed:
                self._look_alone()

    def _look_alone(self) -> None:
        """Check, unless another process on this machine holds the lock."""
        handle = os.open(self._home.guard, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if locked(handle, wait=False):
                self.look()
        except OSError:
            _log.exception("guardrails could not be checked")
        finally:
            os.close(handle)
