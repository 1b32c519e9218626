"""User histories: all interactions grouped by user in time order, the input of the collaborative views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import Log
from feedrank.engine.types import Offsets, Rows, Times


@dataclass(frozen=True, eq=False, slots=True)
class Sequences:
    """T interactions of U users; user u has [offsets[u], offsets[u + 1])."""

    offsets: Offsets
    items: Rows
    at: Times
    values: NDArray[np.float64]
    """(T,) interaction values, such as ratings; NaN if there is none."""
    touch: NDArray[np.int64]
    """(T,) index of each interaction in the log."""

    @classmethod
    def of(cls, log: Log) -> Sequences:
        """Collect all interactions of known users with known items."""
        interactions = log.interactions
        known = np.flatnonzero((interactions.person >= 0) & (interactions.item >= 0))
        order = known[np.argsort(interactions.person[known], kind="stable")]
        counts = np.bincount(interactions.person[order], minlength=len(log.people))
        return cls(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            items=interactions.item[order],
            at=interactions.at[order],
            values=interactions.value[order],
            touch=order,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def person(self) -> Rows:
        """Return (T,) the user of each interaction."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    @property
    def from_end(self) -> NDArray[np.int64]:
        """Return (T,) the number of later interactions of the same user."""
        return np.repeat(self.offsets[1:], np.diff(self.offsets)) - 1 - np.arange(len(self.items))

    @property
    def from_start(self) -> NDArray[np.int64]:
        """Return (T,) the number of earlier interactions of the same user."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def keep(self, mask: NDArray[np.bool_]) -> Sequences:
        """Select interactions by a (T,) mask; user indices do not change."""
        counts = np.concatenate([[0], np.cumsum(mask)])
        return Sequences(counts[self.offsets], self.items[mask], self.at[mask], self.values[mask], self.touch[mask])

    def chunks(self, touches: int) -> Iterator[Sequences]:
        """Yield chunks of whole users with at most `interactions` interactions, or one longer user."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + touches, "right")) - 1
            last = min(max(last, first + 1), len(self))
            span = slice(int(self.offsets[first]), int(self.offsets[last]))
            bounds = self.offsets[first : last + 1] - self.offsets[first]
            yield Sequences(bounds, self.items[span], self.at[span], self.values[span], self.touch[span])
            first = last

    def before(self, place: int) -> slice:
        """Return the slice of the same user's interactions before the one at `index`, oldest first."""
        user = int(np.searchsorted(self.offsets, place, side="right")) - 1
        return slice(int(self.offsets[user]), place)
