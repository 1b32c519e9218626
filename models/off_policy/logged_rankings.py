"""Reads the rankings of a journal that have propensities, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table_builder import sorted_events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.models.experiments.click_join import CLICK, clicked_impressions
from feedrank.models.off_policy.log import BanditLog, Floats, SlateLog


@dataclass(frozen=True, slots=True)
class RankingFilter:
    """Filters the rankings that are read."""

    variant: str | None = None
    surface: str | None = None
    since: float = -np.inf
    """Unix seconds of the earliest ranking."""
    reward_type: str = CLICK
    """The type of the interactions that give a reward."""

    def matches(self, event: RankingEvent) -> bool:
        """True if this ranking passes the filter."""
        return (
            event.timestamp >= 1000 * self.since
            and (self.variant is None or event.variant == self.variant)
            and (self.surface is None or event.surface == self.surface)
        )


@dataclass(frozen=True, eq=False, slots=True)
class LoggedRankings:
    """Holds R rankings and their S impressions, flattened, in order of time."""

    events: tuple[RankingEvent, ...]
    items: Vocabulary
    offsets: NDArray[np.int64]
    """(R + 1,)"""
    rows: NDArray[np.int32]
    """(S,) item rows."""
    position: NDArray[np.int32]
    """(S,) from 0."""
    reward: Floats
    """(S,) 1 for impressions with an interaction of the reward's type, else 0."""
    propensity: Floats
    """(S,) NaN: not logged."""
    user: NDArray[np.str_] | None
    """(R,) None: no ranking names its user."""
    moved: int = 0
    """Number of interactions of the journal that stood before their ranking; each was moved to right after it."""
    notes: tuple[str, ...] = ()
    """What was done with the log, one sentence each."""

    def __len__(self) -> int:
        return len(self.events)

    @property
    def is_single_item(self) -> bool:
        """True if every ranking has exactly one item."""
        return bool(np.all(np.diff(self.offsets) == 1))

    def to_bandit_log(self) -> BanditLog:
        """Convert rankings of one item to a `BanditLog`."""
        return BanditLog(self.rows, self.position, self.reward, self.propensity, cluster=self.user)

    def to_slate_log(self, codes: NDArray[np.int32]) -> SlateLog:
        """Convert to a `SlateLog`. codes: (S,) the item codes to use, each once per ranking."""
        sizes = np.diff(self.offsets)
        shape = len(self), int(sizes.max())
        has_item = np.arange(shape[1]) < sizes[:, None]
        actions, rewards, propensities = np.full(shape, -1, np.int32), np.zeros(shape), np.ones(shape)
        actions[has_item], rewards[has_item], propensities[has_item] = codes, self.reward, self.propensity
        return SlateLog(actions, rewards, propensities, cluster=self.user)


def read_logged_rankings(
    events: Iterable[Event], ranking_filter: RankingFilter, require_propensities: bool = True
) -> LoggedRankings:
    """Read the rankings that pass the filter, from the events of a journal in order.

    require_propensities: skip rankings without propensities. Raises ValueError if no ranking is left.
    """
    kept: list[RankingEvent] = []
    is_kept: list[bool] = []
    items, matching = Vocabulary(), 0

    def pass_through() -> Iterator[Event]:
        nonlocal matching
        for event in events:
            if isinstance(event, RankingEvent):
                for item in event.items:
                    items.add(item)
                matches = ranking_filter.matches(event)
                matching += matches
                is_kept.append(matches and (not require_propensities or event.propensities is not None))
                kept.extend([event] if is_kept[-1] else [])
            if isinstance(event, RankingEvent | InteractionEvent):
                yield event

    log = sorted_events_to_table(pass_through(), items)
    if not kept:
        raise ValueError(
            f"found {matching:,} matching rankings, none of them with propensities; run an experiment with an arm that"
            " explores, or import a log with propensities"
        )
    rankings = log.rankings
    in_kept = np.repeat(np.array(is_kept), np.diff(rankings.offsets))
    sizes = np.diff(rankings.offsets)[np.array(is_kept)]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    position = np.where(rankings.positions > 0, rankings.positions, 0)[in_kept] - 1
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    logged_propensities = [event.propensities or [np.nan] * len(event.items) for event in kept]
    has_users = any(event.user is not None for event in kept)
    users = np.array([event.user if event.user is not None else f"ranking {event.id}" for event in kept])
    return LoggedRankings(
        tuple(kept),
        items,
        offsets,
        rankings.items[in_kept],
        np.where(position < 0, index, position).astype(np.int32),
        clicked_impressions(log, ranking_filter.reward_type)[in_kept].astype(np.float64),
        np.concatenate(logged_propensities).astype(np.float64),
        users if has_users else None,
        log.moved,
        log.notes,
    )
