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
    def from_log(cls, log: EventTable, with_unknown_items: bool = False) -> UserHistories:
        """Collect all interactions of known users with known items.

        with_unknown_items: also those with items that the catalogue lacks, which have the row `UNKNOWN_ROW`. They are
        targets of an evaluation that no recommender can find.
        """
        interactions = log.interactions
        known = np.flatnonzero((interactions.user >= 0) & (with_unknown_items | (interactions.item >= 0)))
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

    @property
    def known_before(self) -> NDArray[np.int64]:
        """Return (T,) the number of earlier interactions of the same user with items that the catalogue has."""
        known = np.concatenate([[0], np.cumsum(self.items >= 0)]).astype(np.int64)
        before: NDArray[np.int64] = known[:-1] - np.repeat(known[self.offsets[:-1]], np.diff(self.offsets))
        return before

    def select(self, mask: NDArray[np.bool_]) -> UserHistories:
        """Select interactions by a (T,) mask; user indices do not change."""
        counts = np.concatenate([[0], np.cumsum(mask)])
        return UserHistories(
            counts[self.offsets], self.items[mask], self.at[mask], self.values[mask], self.interaction[mask]
        )

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

    def history_before(self, index: int) -> slice:
        """Return the slice of the same user's interactions before the one at `index`, oldest first."""
        user = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return slice(int(self.offsets[user]), index)
