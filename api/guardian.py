"""Looks, now and then, whether an arm of a running experiment breaks a guardrail, in one of the serving processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable

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
        """Have a process look, if one is needed."""
        if not self.needed:
            return
        chosen = [] if self._home.config is None else ["--config", str(self._home.config)]
        command = [sys.executable, "-m", "api.cli", "--home", str(self._home.folder), *chosen]
        done = subprocess.run(
            [*command, "experiment", "watch", "--once"], capture_output=True, text=True, check=False,
            preexec_fn=_lower if hasattr(os, "nice") else None,
        )  # fmt: skip
        for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines():
            (_log.warning if done.returncode == 0 else _log.error)("experiments: %s", line)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            if self.needed:
                self._alone(self.look)

    def _alone(self, call: Callable[[], None]) -> None:
        """Unless another process of this machine is at it."""
        path = self._home.folder / "experiments-guard"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if locked(handle, wait=False):
                call()
        except OSError:
            _log.exception("guardrails could not be looked at")
        finally:
            os.close(handle)


def _lower() -> None:
    os.nice(10)
