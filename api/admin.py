"""Build the admin services of a running server: bundles, replay, new items, retraining and experiments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from feedrank.api import subprocess_cli
from feedrank.api.bundle_names import timestamped_name
from feedrank.api.cli.exit_codes import EXIT_REFUSED, EXIT_TOO_LITTLE
from feedrank.api.compose.experiments import ExperimentService
from feedrank.api.compose.replay import replay
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.service import AdminServices, TrainingError
from feedrank.api.http.user_data import UserEventReader
from feedrank.engine.journal.journal import Journal
from feedrank.engine.journal.user_events import read_events


def create_admin_services(
    home: HomePaths, config: Config, journal: Journal, register_new_items: Callable[[], int]
) -> AdminServices:
    """Build the admin services on a home; `register_new_items` returns how many items it added."""

    def user_events(user: str) -> UserEventReader:
        found = journal.erasure_log.find(user)
        return UserEventReader(sorted(found.sessions), lambda: read_events(journal.engine, found.offsets))

    return AdminServices(
        home.bundles,
        home.delete_user_data,
        user_events,
        journal.erasure_log.known,
        lambda record: replay(home, config, journal, record),
        register_new_items,
        lambda: run_retrain(home),
        ExperimentService(home, journal),
    )


def run_retrain(home: HomePaths) -> Mapping[str, Any]:
    """Run `feedrank retrain` on a home in a low-priority subprocess; return its report.

    Raises TrainingError if the command fails, or another training of the home is running; a candidate that the gate
    refuses and too little new data are no failures.
    """
    name = timestamped_name("retrained")
    done = subprocess_cli.run_cli(home, "retrain", "--name", name)
    if done.returncode not in (0, EXIT_REFUSED, EXIT_TOO_LITTLE):
        message = done.stderr.strip()[-2_000:]
        raise TrainingError(message or f"the training ended with the exit code {done.returncode}")
    report: dict[str, Any] = json.loads((home.reports / name / "report.json").read_text())
    return report
