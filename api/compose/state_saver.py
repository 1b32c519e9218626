"""Saves the state of the journal for the current bundle in a process of its own, which slows down no feed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread

from feedrank.api.home_paths import HomePaths
from feedrank.api.process_turns import take_turn
from feedrank.api.subprocess_cli import run_cli
from feedrank.engine.journal.journal import Journal
from feedrank.models.bundles import snapshot
from feedrank.models.bundles.bundle import Bundle
from feedrank.models.bundles.item_cutoff import ItemCutoff

_log = logging.getLogger(__name__)


class StateSaver:
    """Has the state saved if many events came after the saved one, or if that is of other items or settings."""

    def __init__(self, home: HomePaths, journal: Journal, is_stopped: Callable[[], bool]) -> None:
        """is_stopped: called now and then; once it returns True, the other process is ended."""
        self._home, self._journal, self._is_stopped = home, journal, is_stopped

    def is_due(self, opened: Bundle) -> bool:
        """Return whether a restart with this bundle, which is the current one, would replay many events."""
        catalogue, cutoff = opened.item_model.catalogue, ItemCutoff.of(opened)
        saved = snapshot.saved_offset(self._home.snapshot, catalogue, opened.builder.spec, cutoff)
        return self._journal.last_offset - saved >= snapshot.MIN_EVENTS_TO_SAVE

    def save(self) -> None:
        """Save the state of the current bundle, and wait for it. A failure is logged: it is replayed again later."""
        finished = run_cli(self._home, "snapshot", is_cancelled=self._is_stopped)
        if finished.returncode and not self._is_stopped():
            _log.warning("the state could not be saved by another process: %s", finished.stderr.strip()[-500:])

    def save_behind(self) -> None:
        """Save the state in the background, unless another process does it already."""
        Thread(target=self._save_in_turn, name="feedrank-save-state", daemon=True).start()

    def _save_in_turn(self) -> None:
        with take_turn(self._home.saving_lock) as is_ours:
            if is_ours:
                self.save()
