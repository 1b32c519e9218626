"""The state that the serving snapshot hands over to the next bundle: what a replay of the journal would give again."""

from __future__ import annotations

from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.event_time import FutureEvents
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles.bundle import Bundle, journal_offset_of
from feedrank.models.bundles.snapshot import RestoredState, is_same_state


class CarriedState:
    """Whether a serving state can be handed over; it remembers which bundle and which purge it was restored with."""

    def __init__(self, home: HomePaths, opened: Bundle) -> None:
        """opened: the bundle that the state was restored for, as it was trained."""
        self._home, self._opened, self._purged_at = home, opened, home.purged_at

    def hand_over(
        self, recommender: Recommender, journal: Journal, opened: Bundle, now_ms: int
    ) -> RestoredState | None:
        """Return the state that serves, for another bundle; None if the journal must be replayed for it.

        Nothing is copied: once the other bundle serves, its snapshot alone applies events to the state. The state is
        handed over if a replay would give the same bits: both bundles have the same items, in the same order, and the
        same state settings, no item event has added an item or changed what is counted by, and nothing happened that a
        replay sees in another way, such as an import of older events, an erasure, a purge or a wrong clock.
        """
        live, catalogue = recommender.snapshot, self._opened.item_model.catalogue
        if not (
            live.is_as_replayed
            and live.catalogue is catalogue
            and isinstance(live.state, BehaviouralState)
            and not live.is_ahead(now_ms)
            and not live.future.postponed
            and self._home.purged_at == self._purged_at
            and journal_offset_of(opened) <= live.offset <= journal.last_offset
            and is_same_state(catalogue, live.state.spec, opened.item_model.catalogue, opened.builder.spec)
        ):
            return None
        future = FutureEvents(now_ms)
        return RestoredState(live.state, live.users, live.offset, live.high_watermark_ms, 0, future=future)
