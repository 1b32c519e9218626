"""Loads the bundles of running experiments next to the serving one, and keeps their items up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from feedrank.api.compose.cold_start_updater import ColdStartUpdater
from feedrank.api.compose.item_updates import ItemUpdates, NewItems
from feedrank.api.compose.serving import build_snapshot
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.compose.vector_index import with_custom_index
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.models.bundles import bundle, snapshot
from feedrank.models.bundles.item_cutoff import ItemCutoff

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _LoadedArm:
    updater: ColdStartUpdater
    items: ItemUpdates


class ArmLoader:
    """Adds the bundles of experiment arms to a recommender, and removes them. Not thread-safe."""

    def __init__(
        self, home: HomePaths, config: Config, journal: Journal, recommender: Recommender, clock: Callable[[], float]
    ) -> None:
        self._home, self._config, self._journal = home, config, journal
        self._recommender, self._clock = recommender, clock
        self._loaded: dict[str, _LoadedArm] = {}
        self._failed: set[str] = set()

    def sync(self) -> bool:
        """Load the bundles that running experiments need and remove the others; returns whether anything changed.

        One whose state is more than a day ahead of the clock, which was wrong before, is loaded again.
        """
        trials = self._recommender.arm_servers
        wanted = [name for name in trials.registry.bundles if name != self._recommender.pipeline.bundle]
        self._failed &= set(wanted)
        now_ms = round(self._clock() * 1000)
        gone = [name for name in self._loaded if name not in wanted or trials.snapshots[name].is_ahead(now_ms)]
        for name in gone:
            self._recommender.remove_arm_snapshot(name)
            del self._loaded[name]
        new = [name for name in wanted if name not in self._loaded and name not in self._failed]
        for name in new:
            self._load(name)
        return bool(gone or new)

    def update_items(self) -> None:
        """Add the items of unread item events to every loaded bundle."""
        for name, seat in self._loaded.items():
            known = self._recommender.read_snapshot(self._clock(), NewItems.of, name)
            new = seat.items.read(known.now_ms, until=known.offset)
            reranker = self._recommender.arm_servers.snapshots[name].pipeline.reranker
            seat.updater.apply(new.events, known.ids, new.offset, reranker, partial(self._replace_snapshot, name))
            seat.items.applied(new)

    def _replace_snapshot(self, name: str, make: Callable[[ServingSnapshot], ServingSnapshot]) -> None:
        self._recommender.replace_arm_snapshot(name, make, self._clock())

    def _load(self, name: str) -> None:
        try:
            opened = with_custom_index(bundle.load(bundle.path_of(self._home.bundles, name)), self._config.index)
            encoders = TextEncoders(self._home, opened)
            restored = snapshot.restore(
                self._home.snapshot, self._journal, opened.item_model.catalogue, opened.builder.spec,
                now_ms=round(self._clock() * 1000), cutoff=ItemCutoff.of(opened),
            )  # fmt: skip
            serving = build_snapshot(self._home, self._config, opened, restored, encoders)
            updater = ColdStartUpdater(self._config, opened, encoders)
            updater.warm_up()
        except Exception as problem:  # this process assigns no units to the experiment; serving continues
            self._failed.add(name)
            _log.error(
                "can't load the bundle %s of an experiment arm: %s", name, problem,
                exc_info=None if isinstance(problem, bundle.BundleError) else problem,
            )  # fmt: skip
            return
        self._recommender.add_arm_snapshot(serving, self._clock())
        self._loaded[name] = _LoadedArm(updater, ItemUpdates(self._journal, opened))
        self.update_items()
        _log.info("loaded the bundle %s for its experiment", name)
