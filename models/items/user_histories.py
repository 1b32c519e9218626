"""User histories: all interactions grouped by user in time order, the input of the collaborative views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Offsets, Rows, Times


@dataclass(frozen=True, eq=False, slots=True)
class UserHistories:
    """T interactions of U users; user u has [offsets[u], offsets[u + 1])."""

    offsets: Offsets
    items: Rows
    at: Times
    values: NDArray[np.float64]
    """(T,) interaction values, such as ratings; NaN if there is none."""
    interaction: NDArray[np.int64]
    """(T,) index of each interaction in the log."""

    @classmethod
    def from_log(cls, log: EventTable) -> UserHistories:
        """Collect all interactions of known users with known items."""
        interactions = log.interactions
        known = np.flatnonzero((interactions.user >= 0) & (interactions.item >= 0))
        order = known[np.argsort(interactions.user[known], kind="stable")]
        counts = np.bincount(interactions.user[order], minlength=len(log.users))
        return cls(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            items=interactions.item[order],
            at=interactions.at[order],
            values=interactions.value[order],
            interaction=order,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def user(self) -> Rows:
        """Return (T,) the user of each interaction."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    @property
    def count_after(self) -> NDArray[np.int64]:
        """Return (T,) the number of later interactions of the same user."""
        return np.repeat(self.offsets[1:], np.diff(self.offsets)) - 1 - np.arange(len(self.items))

    @property
    def count_before(self) -> NDArray[np.int64]:
        """Return (T,) the number of earlier interactions of the same user."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def select(self, mask: NDArray[np.bool_]) -> UserHistories:
        """Select interactions by a (T,) mask; user indices do not change."""
        counts = np.concatenate([[0], np.cumsum(mask)])
        return UserHistories(
            counts[self.offsets], self.items[mask], self.at[mask], self.values[mask], self.interaction[mask]
        )

    def before(self, end: int) -> UserHistories:
        """Select the interactions [0, end) of the log."""
        return self.select(self.interaction < end)

    def chunks(self, interactions: int) -> Iterator[UserHistories]:
        """Yield chunks of whole users with at most `interactions` interactions, or one longer user."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + interactions, "right")) - 1
            last = min(max(last, first + 1), len(self))
            span = slice(int(self.offsets[first]), int(self.offsets[last]))
            bounds = self.offsets[first : last + 1] - self.offsets[first]
            yield UserHistories(bounds, self.items[span], self.at[span], self.values[span], self.interaction[span])
            first = last

    def history_before(self, index: int, end: int) -> slice:
        """Return the slice of the same user's interactions before the one at `index`, oldest first.

        end: only interactions [0, end) of the log.
        """
        user = int(np.searchsorted(self.offsets, index, side="right")) - 1
        first = int(self.offsets[user])
        return slice(first, first + int(np.searchsorted(self.interaction[first:index], end)))
