"""Keeps a running service up to date: loads a new current bundle, experiment arms, and new items.

The old snapshot serves while the next one is built; the swap is one step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from feedrank.api.compose.arm_loader import ArmLoader
from feedrank.api.compose.carried_state import CarriedState
from feedrank.api.compose.cold_start_updater import ColdStartUpdater
from feedrank.api.compose.item_updates import ItemUpdates, NewItems
from feedrank.api.compose.serving import build_snapshot, restore_state, try_out
from feedrank.api.compose.state_saver import StateSaver
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.compose.vector_index import with_custom_index
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.process_turns import frequent_switches, take_turn
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.snapshot import RestoredState

ITEMS_INTERVAL_S = 0.5
"""Shortest interval, in seconds, between two steps that add new items."""
ITEMS_RETRY_S = 10.0
"""Seconds before items that could not be added are tried again."""
POLL_S = 0.2
"""Interval, in seconds, at which the current bundle is checked and events of other processes are read."""
CHECKPOINT_S = 10.0
"""Interval, in seconds, between WAL checkpoints of the journal."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefreshCallbacks:
    """What the refresher calls."""

    models_loaded: Callable[[], None] = lambda: None
    """Called once the text models are loaded."""
    bundle_changed: Callable[[bundle.Bundle], None] = lambda _: None
    """Called with each bundle that takes over."""


class Refresher:
    """A background thread of a serving process that refreshes what it serves."""

    def __init__(
        self, home: HomePaths, config: Config, journal: Journal, recommender: Recommender, opened: bundle.Bundle,
        encoders: TextEncoders, callbacks: RefreshCallbacks | None = None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Create the refresher; `start` starts its thread.

        opened, encoders: the bundle that serves and its text models.
        """
        self._home, self._config, self._journal, self._recommender = home, config, journal, recommender
        self._callbacks, self._clock = callbacks or RefreshCallbacks(), clock
        self._updater = ColdStartUpdater(config, opened, encoders)
        self._encoders, self._carried = encoders, CarriedState(home, opened)
        self._items = ItemUpdates(journal, opened)
        self._arm_loader = ArmLoader(home, config, journal, recommender, clock)
        self._failed_bundle = ""
        self._update_lock = threading.Lock()
        """Held while a snapshot takes over: by the thread, or by a request that needs its items at once."""
        self._last_checkpoint = -CHECKPOINT_S
        self._erased_offset = recommender.snapshot.offset
        self._stopped = False
        self._saver = StateSaver(home, journal, lambda: self._stopped)
        self._wake = threading.Event()
        self._wake.set()
        self._has_new_items, self._items_due_at = False, 0.0
        recommender.on_items_changed(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="feedrank-refresh", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def load_models(self) -> None:
        """Load the text models, before the service counts as ready: the first query must not wait for them."""
        self._warm_up(self._updater)
        self._callbacks.models_loaded()

    def stop(self) -> None:
        """Stop the thread after its current step."""
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def check_bundle(self) -> bool:
        """Switch to the current bundle if it is another one; returns whether it switched.

        While another process loads it, this one goes on serving its own, and tries again later. A bundle that can't be
        loaded is logged once and not tried again. The same bundle is loaded again if its state is more than a day ahead
        of the clock, which was wrong before: the events of that time then wait.
        """
        name = registry.current_name(self._home.bundles)
        is_ahead = self._recommender.snapshot.is_ahead(round(self._clock() * 1000))
        serving = "" if is_ahead else self._recommender.pipeline.bundle
        if name is None or name in (serving, self._failed_bundle):
            return False
        with take_turn(self._home.loading_lock) as is_ours, frequent_switches():
            return is_ours and self._swap_bundle(name)

    def check_arms(self) -> bool:
        """Load the bundles of running experiments and remove the others; returns whether anything changed."""
        with self._update_lock:
            return self._arm_loader.sync()

    def check_items(self) -> int:
        """Add the items of unread item events; returns how many are new or changed."""
        with self._update_lock:
            self._arm_loader.update_items()
            return self._update_items()

    def _swap_bundle(self, name: str) -> bool:
        started = time.perf_counter()
        try:
            opened = with_custom_index(bundle.load(bundle.path_of(self._home.bundles, name)), self._config.index)
            encoders = TextEncoders(self._home, opened, self._encoders)
            updater, is_behind = ColdStartUpdater(self._config, opened, encoders), self._saver.is_due(opened)
            if is_behind and self._carried_state(opened) is None:
                self._saver.save()  # a long replay in this process would slow down its feeds
        except Exception as problem:  # a broken bundle must not affect the one that serves
            return self._refuse(name, problem)
        self._warm_up(updater)
        with self._update_lock:
            try:
                taking_over = CarriedState(self._home, opened)
                snapshot = self._build_snapshot(opened, encoders)
            except Exception as problem:
                return self._refuse(name, problem)
            self._failed_bundle = ""
            self._recommender.swap_snapshot(snapshot.taking_over, self._clock())
            self._updater, self._items = updater, ItemUpdates(self._journal, opened)
            self._encoders, self._carried = encoders, taking_over
            self._callbacks.bundle_changed(opened)
            self._update_items()
        _log.info("bundle %s serves now; loading took %.1f s", name, time.perf_counter() - started)
        if self._saver.is_due(opened):
            self._saver.save_behind()
        return True

    def _refuse(self, name: str, problem: Exception) -> bool:
        """Log why a bundle can't serve, and don't try it again; return False."""
        self._failed_bundle = name
        _log.error(
            "can't load the bundle %s: %s; %s keeps serving", name, str(problem), self._recommender.pipeline.bundle,
            exc_info=None if isinstance(problem, bundle.BundleError) else problem,
        )  # fmt: skip
        return False

    def _build_snapshot(self, opened: bundle.Bundle, encoders: TextEncoders) -> ServingSnapshot:
        """Build the snapshot of another bundle and try it out; its state is the one that serves, or a restored one."""
        carried, now_ms = self._carried_state(opened), round(self._clock() * 1000)
        restored = carried or restore_state(self._home, self._journal, opened, now_ms)
        snapshot = build_snapshot(self._home, self._config, opened, restored, encoders)
        try_out(snapshot, self._clock(), self._recommender.state_lock)
        if carried is None:
            snapshot.catch_up(self._journal.read(snapshot.offset))  # most of it before feeds have to wait
        return snapshot

    def _carried_state(self, opened: bundle.Bundle) -> RestoredState | None:
        now_ms = round(self._clock() * 1000)
        return self._carried.hand_over(self._recommender, self._journal, opened, now_ms)

    def _update_items(self) -> int:
        known = self._recommender.read_snapshot(self._clock(), NewItems.of)
        new = self._items.read(known.now_ms, until=known.offset)
        renew = self._recommender.swap_snapshot
        reranker = self._recommender.pipeline.reranker
        count = self._updater.apply(
            new.events, known.ids, new.offset, reranker, lambda make: renew(make, self._clock())
        )
        self._items.applied(new)  # only on success, so that failed items are retried
        return count

    def _warm_up(self, updater: ColdStartUpdater) -> None:
        try:
            updater.warm_up()
        except Exception:  # the bundle serves anyway; its items are added once the models can be loaded
            _log.exception("the text models could not be loaded; queries use BM25 only")

    def _run(self) -> None:
        while not self._stopped:
            self._has_new_items |= self._wake.wait(POLL_S)
            self._wake.clear()
            self._checkpoint()
            try:
                self._recommender.catch_up(self._clock())
                self.check_bundle()
                self.check_arms()
                if not self._stopped and time.perf_counter() >= self._items_due_at:
                    self._check_due_items()
            except Exception:  # the thread must survive for the next round
                _log.exception("the refresh of the served bundle and items failed")

    def _check_due_items(self) -> None:
        """Add new items. Those that come in quick succession are added together, as each step costs much the same."""
        if not (self._has_new_items or self._items.has_due(round(self._clock() * 1000))):
            return
        self._has_new_items = False
        self._items_due_at = time.perf_counter() + ITEMS_RETRY_S
        try:
            self.check_items()
        except Exception:
            self._has_new_items = True  # they are tried again
            raise
        self._items_due_at = time.perf_counter() + ITEMS_INTERVAL_S

    def _checkpoint(self) -> None:
        """Checkpoint the journal if it is due, even if other steps fail: no other thread does it."""
        if time.perf_counter() - self._last_checkpoint < CHECKPOINT_S:
            return
        self._last_checkpoint = time.perf_counter()
        try:
            self._journal.checkpoint()
            erased = self._journal.erasure_log.latest_offset()
            if erased > self._erased_offset:  # by another machine, which can't delete the files of this one
                self._home.delete_user_data()
                self._erased_offset = erased
        except Exception:  # such as a full disk; it is retried
            _log.exception("the WAL checkpoint of the journal failed, or files of an erased user could not be deleted")
