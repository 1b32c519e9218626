"""Keeps a running service up to date: loads a new current bundle, experiment arms, and new items.

The old snapshot serves while the next one is built; the swap is one step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from feedrank.api.compose.arm_loader import Arms
from feedrank.api.compose.cold_start_updater import NewItems
from feedrank.api.compose.serving import live, living_state
from feedrank.api.compose.text_signals import TextModels
from feedrank.api.config import Config
from feedrank.api.home import Home
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender
from feedrank.models.bundles import bundle, registry

POLL_S = 0.2
"""Interval, in seconds, at which the current bundle is checked and events of other processes are read."""
FOLD_S = 10.0
"""Interval, in seconds, between WAL checkpoints of the journal."""
_log = logging.getLogger(__name__)


class Refresher:
    """A background thread of a serving process that refreshes what it serves."""

    def __init__(
        self, home: Home, config: Config, journal: Journal, recommender: Recommender, opened: bundle.Bundle,
        texts: TextModels, loaded: Callable[[], None] = lambda: None,
        changed: Callable[[bundle.Bundle], None] = lambda _: None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Create the refresher; `start` starts its thread.

        opened, texts: the bundle that serves and its text models. loaded: called once the text models are loaded.
        changed: called with each bundle that takes over.
        """
        self._home, self._config, self._journal, self._recommender = home, config, journal, recommender
        self._loaded, self._changed, self._clock = loaded, changed, clock
        self._items = NewItems(config, opened, texts)
        self._read = bundle.read_for(opened)
        """Journal offset of the last item event that was read."""
        self._arms = Arms(home, config, journal, recommender, clock)
        self._refused = ""
        self._one = threading.Lock()
        """Held while a snapshot is built: by the thread, or by a request that needs its items at once."""
        self._folded = -FOLD_S
        self._stopped = False
        self._wake = threading.Event()
        self._wake.set()
        recommender.when_items_change(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="feedrank-refresh", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current step."""
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def look(self) -> bool:
        """Switch to the current bundle if it is another one; returns whether it switched.

        A bundle that can't be loaded is logged once and not tried again.
        """
        name = registry.current(self._home.bundles)
        if name is None or name in (self._recommender.pipeline.bundle, self._refused):
            return False
        with self._one:
            return self._change(name)

    def look_for_arms(self) -> bool:
        """Load the bundles of running experiments and remove the others; returns whether anything changed."""
        with self._one:
            return self._arms.look()

    def look_for_items(self) -> int:
        """Add the items of unread item events; returns how many are new or changed."""
        with self._one:
            self._arms.take_items()
            return self._take_items()

    def _change(self, name: str) -> bool:
        started = time.perf_counter()
        try:
            opened = bundle.load(self._home.bundles / name)
            encoders = TextModels(self._home, opened)
            snapshot = live(self._home, self._config, opened, living_state(self._home, self._journal, opened), encoders)
            updater = NewItems(self._config, opened, encoders)
        except Exception as problem:  # a broken bundle must not affect the one that serves
            self._refused = name
            _log.error(
                "can't load the bundle %s: %s; %s keeps serving", name, str(problem), self._recommender.pipeline.bundle,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            return False
        self._refused = ""
        self._prepare(updater)
        self._recommender.renew(lambda _: snapshot, self._clock())
        self._items, self._read = updater, bundle.read_for(opened)
        self._changed(opened)
        self._take_items()
        _log.info("bundle %s serves now; loading took %.1f s", name, time.perf_counter() - started)
        return True

    def _take_items(self) -> int:
        new = list(self._journal.read(self._read, "item"))
        if not new:
            return 0
        events = [event for _, event in new if isinstance(event, ItemEvent)]
        renew = self._recommender.renew
        count = self._items.take(events, new[-1][0], lambda make: renew(make, self._clock()))
        self._read = new[-1][0]  # only on success, so that failed items are retried
        return count

    def _prepare(self, items: NewItems) -> None:
        try:
            items.prepare()
        except Exception:  # the bundle serves anyway; its items are added once the models can be loaded
            _log.exception("the text models could not be loaded; queries use BM25 only")

    def _run(self) -> None:
        self._prepare(self._items)
        self._loaded()
        while not self._stopped:
            woken = self._wake.wait(POLL_S)
            self._wake.clear()
            self._fold()
            try:
                self._recommender.catch_up(self._clock())
                self.look()
                self.look_for_arms()
                if woken and not self._stopped:
                    self.look_for_items()
            except Exception:  # the thread must survive for the next round
                _log.exception("the refresh of the served bundle and items failed")

    def _fold(self) -> None:
        """Checkpoint the journal if it is due, even if other steps fail: no other thread does it."""
        if time.perf_counter() - self._folded < FOLD_S:
            return
        self._folded = time.perf_counter()
        try:
            self._journal.fold()
        except Exception:  # such as a full disk; it is retried
            _log.exception("the WAL checkpoint of the journal failed")
