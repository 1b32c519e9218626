"""The rankings of a journal that say by which probabilities they were drawn, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, InteractionEvent, RankingEvent
from engine.ids import Ids
from engine.log import in_order
from models.experiments.answers import CLICK, clicked
from models.off_policy.log import BanditLog, Floats, SlateLog


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rankings are read."""

    variant: str | None = None
    surface: str | None = None
    since: float = -np.inf
    """Unix seconds."""
    reward: str = CLICK
    """The type of the interactions that count."""

    def takes(self, event: RankingEvent) -> bool:
        """Whether this is one of them."""
        extra = event.extra
        return (
            event.timestamp >= 1000 * self.since
            and (self.variant is None or extra.get("variant") == self.variant)
            and (self.surface is None or extra.get("surface") == self.surface)
        )


@dataclass(frozen=True, eq=False, slots=True)
class Logged:
    """R rankings, S items shown in them, flattened, in order of time."""

    events: tuple[RankingEvent, ...]
    items: Ids
    offsets: NDArray[np.int64]
    """(R + 1,)"""
    rows: NDArray[np.int32]
    """(S,) item rows."""
    position: NDArray[np.int32]
    """(S,) from 0."""
    reward: Floats
    """(S,) 1 where it was answered."""
    propensity: Floats
    """(S,) NaN where the log is silent."""
    user: NDArray[np.str_] | None
    """(R,) None: nobody is named."""

    def __len__(self) -> int:
        return len(self.events)

    @property
    def single(self) -> bool:
        """Whether every ranking has one item, as a log of places has."""
        return bool(np.all(np.diff(self.offsets) == 1))

    def bandit(self) -> BanditLog:
        """Of single items."""
        return BanditLog(self.rows, self.position, self.reward, self.propensity, cluster=self.user)

    def slates(self, codes: NDArray[np.int32]) -> SlateLog:
        """Of lists. codes: (S,) what stands for the items, each once in a list."""
        sizes = np.diff(self.offsets)
        shape = len(self), int(sizes.max())
        inside = np.arange(shape[1]) < sizes[:, None]
        actions, rewards, shares = np.full(shape, -1, np.int32), np.zeros(shape), np.ones(shape)
        actions[inside], rewards[inside], shares[inside] = codes, self.reward, self.propensity
        return SlateLog(actions, rewards, shares, cluster=self.user)


def logged(events: Iterable[Event], chosen: Chosen, propensities: bool = True) -> Logged:
    """The chosen rankings of a journal, whose events come in order.

    propensities: only those that have them. Raises ValueError where there is none.
    """
    kept: list[RankingEvent] = []
    which: list[bool] = []
    items, seen = Ids(), 0

    def through() -> Iterator[Event]:
        nonlocal seen
        for event in events:
            if isinstance(event, RankingEvent):
                for item in event.items:
                    items.add(item)
                taken = chosen.takes(event)
                seen += taken
                which.append(taken and (not propensities or "propensities" in event.extra))
                kept.extend([event] if which[-1] else [])
            if isinstance(event, RankingEvent | InteractionEvent):
                yield event

    log = in_order(through(), items)
    if not kept:
        raise ValueError(
            f"found {seen:,} rankings that were asked for, none of them with propensities; let a running experiment"
            " explore, or import a log that has them"
        )
    shown = log.rankings
    own = np.repeat(np.array(which), np.diff(shown.offsets))
    sizes = np.diff(shown.offsets)[np.array(which)]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    position = np.where(shown.positions > 0, shown.positions, 0)[own] - 1
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    shares = [event.extra.get("propensities") or [np.nan] * len(event.items) for event in kept]
    named = any(event.user is not None for event in kept)
    users = np.array([event.user if event.user is not None else f"ranking {event.id}" for event in kept])
    return Logged(
        tuple(kept), items, offsets, shown.rows[own], np.where(position < 0, place, position).astype(np.int32),
        clicked(log, chosen.reward)[own].astype(np.float64), np.concatenate(shares).astype(np.float64),
        users if named else None,
    )  # fmt: skip
