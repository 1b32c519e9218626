"""Keeps a running service up to date: another bundle when `current` points at one, and items that came since.

Answers go on from what is live while the next generation is made, and change over in one step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from api.compose.arms import Arms
from api.compose.newcomers import NewItems
from api.compose.serving import live, living_state
from api.compose.signals import TextModels
from api.config import Config
from api.home import Home
from engine.events import ItemEvent
from engine.journal import Journal
from engine.recommender import Recommender
from models import bundle, registry

POLL_S = 0.2
"""How often `current` is looked at, and others' events are read where nobody asks for a feed."""
FOLD_S = 10.0
"""How often what was written is moved to the journal's main file."""
_log = logging.getLogger(__name__)


class Refresher:
    """One thread of a serving process."""

    def __init__(
        self, home: Home, config: Config, journal: Journal, recommender: Recommender, opened: bundle.Bundle,
        texts: TextModels, loaded: Callable[[], None] = lambda: None,
        changed: Callable[[bundle.Bundle], None] = lambda _: None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """opened, texts: what the recommender answers from. loaded: called when the models that read texts are there.

        changed: told of a bundle that took over.
        """
        self._home, self._config, self._journal, self._recommender = home, config, journal, recommender
        self._loaded, self._changed, self._clock = loaded, changed, clock
        self._items = NewItems(config, opened, texts)
        self._read = bundle.read_for(opened)
        """Offset of the last item event that was looked at."""
        self._arms = Arms(home, config, journal, recommender, clock)
        self._refused = ""
        self._one = threading.Lock()
        """Held while a generation is made: by the thread, or by a request that can't wait for it."""
        self._folded = -FOLD_S
        self._stopped = False
        self._wake = threading.Event()
        self._wake.set()
        recommender.when_items_change(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="feedrank-refresh", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, once what is under way is done."""
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def look(self) -> bool:
        """Change over where another bundle is current; whether that was so. A bad one is refused once, with a word."""
        name = registry.current(self._home.bundles)
        if name is None or name in (self._recommender.pipeline.bundle, self._refused):
            return False
        with self._one:
            return self._change(name)

    def look_for_arms(self) -> bool:
        """Make the bundles of running experiments ready, and let go of others; whether anything changed."""
        with self._one:
            return self._arms.look()

    def look_for_items(self) -> int:
        """Take in the items of events that were not looked at; how many came or changed."""
        with self._one:
            self._arms.take_items()
            return self._take_items()

    def _change(self, name: str) -> bool:
        started = time.perf_counter()
        try:
            opened = bundle.load(self._home.bundles / name)
            texts = TextModels(self._home, opened)
            made = live(self._home, self._config, opened, living_state(self._home, self._journal, opened), texts)
            items = NewItems(self._config, opened, texts)
        except Exception as problem:  # whatever is wrong with it, the one that serves is not the worse for it
            self._refused = name
            _log.error(
                "the bundle %s can't be used: %s; %s goes on", name, str(problem), self._recommender.pipeline.bundle,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            return False
        self._refused = ""
        self._prepare(items)
        self._recommender.renew(lambda _: made, self._clock())
        self._items, self._read = items, bundle.read_for(opened)
        self._changed(opened)
        self._take_items()
        _log.info("bundle %s serves, after %.1f s", name, time.perf_counter() - started)
        return True

    def _take_items(self) -> int:
        found = list(self._journal.read(self._read, "item"))
        if not found:
            return 0
        events = [event for _, event in found if isinstance(event, ItemEvent)]
        renew = self._recommender.renew
        taken = self._items.take(events, found[-1][0], lambda make: renew(make, self._clock()))
        self._read = found[-1][0]  # not before: what could not be taken in is looked at again
        return taken

    def _prepare(self, items: NewItems) -> None:
        try:
            items.prepare()
        except Exception:  # a bundle serves all the same; items are taken in where its models can be had later
            _log.exception("the models that read texts could not be loaded; queries are read by BM25 alone")

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
            except Exception:  # it must be there for the next time
                _log.exception("what serves could not be brought up to date")

    def _fold(self) -> None:
        """Now and then, whatever becomes of all else: nobody else does it any more."""
        if time.perf_counter() - self._folded < FOLD_S:
            return
        self._folded = time.perf_counter()
        try:
            self._journal.fold()
        except Exception:  # such as a full disk; it must be tried again
            _log.exception("the journal's log could not be moved to its main file")
