"""Check periodically whether an arm of a running experiment violates a guardrail; one serving process does it."""

from __future__ import annotations

import logging
import os
import threading

from feedrank.api import subprocess_cli
from feedrank.api.home_paths import HomePaths
from feedrank.engine.journal.file_lock import lock_file
from feedrank.engine.serving.recommender import Recommender

CHECK_INTERVAL_S = 300.0
_log = logging.getLogger(__name__)


class GuardrailMonitor:
    """A thread that starts the check in a low-priority subprocess, because reading the journal is slow."""

    def __init__(self, home: HomePaths, recommender: Recommender, interval_s: float = CHECK_INTERVAL_S) -> None:
        """interval_s: seconds between checks."""
        self._home, self._recommender, self._interval_s = home, recommender, interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedrank-guardrails", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; waits for a check that is running."""
        self._stopped.set()
        self._thread.join()

    @property
    def has_guarded_experiments(self) -> bool:
        """True if a running experiment has guardrails and `stop_on_breach`."""
        running = self._recommender.arm_servers.registry.running
        return any(state.experiment.stop_on_breach and state.experiment.plan.guardrails for state in running)

    def check(self) -> None:
        """Check the guardrails of all these experiments in a subprocess, and log what it prints."""
        done = subprocess_cli.run_cli(self._home, "experiment", "watch", "--once")
        for line in done.stdout.splitlines():
            _log.warning("experiments: %s", line)
        if done.returncode:
            _log.error("guardrails could not be checked: %s", done.stderr.strip()[-2_000:])

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            if self.has_guarded_experiments:
                self._check_under_lock()

    def _check_under_lock(self) -> None:
        """Check, unless another process on this machine holds the lock."""
        try:
            handle = os.open(self._home.guardrail_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if lock_file(handle, blocking=False):
                    self.check()
            finally:
                os.close(handle)
        except OSError:  # such as a full disk; the thread must survive for the next round
            _log.exception("guardrails could not be checked")
