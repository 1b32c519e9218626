"""User histories: all interactions grouped by user in time order, the input of the collaborative views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.interaction_types import IN_HISTORY, NEGATIVE, MeaningColumns
from feedrank.engine.types import Offsets, Rows, Times, empty_rows


@dataclass(frozen=True, eq=False, slots=True)
class Dislikes:
    """D dislikes of U users and their ends, in order of time; user u has [offsets[u], offsets[u + 1])."""

    offsets: Offsets
    items: Rows
    is_dislike: NDArray[np.bool_]
    """(D,) False for an interaction, which ends the dislike of its item."""
    interaction: NDArray[np.int64]
    """(D,) index of each in the log."""

    @classmethod
    def from_log(cls, log: EventTable, columns: MeaningColumns) -> Dislikes:
        """Collect the dislikes of known users and items, and the interactions with items that their user disliked."""
        interactions = log.interactions
        is_known = (interactions.user >= 0) & (interactions.item >= 0)
        is_dislike = is_known & (columns.meaning == NEGATIVE)
        if not is_dislike.any():
            return cls(
                np.zeros(len(log.users) + 1, np.int64), empty_rows(), np.zeros(0, np.bool_), np.zeros(0, np.int64)
            )
        pair = interactions.user.astype(np.int64) * (int(interactions.item.max(initial=0)) + 1) + interactions.item
        is_end = is_known & columns.is_interaction & np.isin(pair, pair[is_dislike])
        order, offsets = _by_user(log, is_dislike | is_end)
        return cls(offsets, interactions.item[order], is_dislike[order], order)

    def rows(self, user: int, moment: int) -> Rows:
        """Return the items that a user dislikes just before the interaction of this index in the log."""
        first, stop = int(self.offsets[user]), int(self.offsets[user + 1])
        stop = first + int(np.searchsorted(self.interaction[first:stop], moment))
        if first == stop:
            return empty_rows()
        latest = dict(zip(self.items[first:stop].tolist(), self.is_dislike[first:stop].tolist(), strict=True))
        return np.array([row for row, is_dislike in latest.items() if is_dislike], np.int32)


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
    enters: NDArray[np.uint8]
    """(T,) bits of what each interaction enters; see `engine.events.interaction_types`."""
    is_target: NDArray[np.bool_]
    """(T,) True for interactions that a ranker can learn to predict: in the history, and positive in a label."""
    dislikes: Dislikes
    """Of the same users; a selection of interactions does not select them."""

    @classmethod
    def from_log(cls, log: EventTable, with_unknown_items: bool = False) -> UserHistories:
        """Collect the interactions of known users with known items that enter histories or item models.

        Impressions and neutral interactions are left out. `in_history` selects those that make the users' histories.
        with_unknown_items: also those with items that the catalogue lacks, which have the row `UNKNOWN_ROW`. They are
        targets of an evaluation that no recommender can find.
        """
        interactions, columns = log.interactions, log.meaning_columns()
        is_known = (interactions.user >= 0) & (with_unknown_items | (interactions.item >= 0))
        order, offsets = _by_user(log, is_known & (columns.enters > 0))
        return cls(
            offsets=offsets,
            items=interactions.item[order],
            at=interactions.at[order],
            values=interactions.value[order],
            interaction=order,
            enters=columns.enters[order],
            is_target=(columns.weight[order] > 0) & (columns.enters[order] & IN_HISTORY > 0),
            dislikes=Dislikes.from_log(log, columns),
        )

    @classmethod
    def plain(
        cls, offsets: Offsets, items: Rows, at: Times, values: NDArray[np.float64], interaction: NDArray[np.int64]
    ) -> UserHistories:
        """Make histories of positive interactions that enter everything, without dislikes."""
        n = len(items)
        none = Dislikes(np.zeros(len(offsets), np.int64), empty_rows(), np.zeros(0, np.bool_), np.zeros(0, np.int64))
        return cls(offsets, items, at, values, interaction, np.full(n, 15, np.uint8), np.ones(n, np.bool_), none)

    @property
    def in_history(self) -> UserHistories:
        """The interactions that make the users' histories."""
        return self.entering(IN_HISTORY)

    def entering(self, bit: int) -> UserHistories:
        """Select the interactions that enter something, such as `IN_TRANSITIONS`."""
        mask = self.enters & bit > 0
        return self if mask.all() else self.select(mask)

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
        return self._cut(counts[self.offsets], mask)

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
            yield self._cut(self.offsets[first : last + 1] - self.offsets[first], span)
            first = last

    def history_before(self, index: int, end: int) -> slice:
        """Return the slice of the same user's interactions before the one at `index`, oldest first.

        end: only interactions [0, end) of the log.
        """
        user = int(np.searchsorted(self.offsets, index, side="right")) - 1
        first = int(self.offsets[user])
        return slice(first, first + int(np.searchsorted(self.interaction[first:index], end)))

    def disliked_before(self, index: int, end: int) -> Rows:
        """Return the items that the user of the interaction at `index` dislikes after the interactions [0, end)."""
        user = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return self.dislikes.rows(user, end)

    def first_targets_after(self, end: int) -> NDArray[np.int64]:
        """Return the index of each user's first target after the log's interactions [0, end).

        Users without a known item before it have none.
        """
        counts_before = np.concatenate([[0], np.cumsum(self.interaction < end)])
        n_before = counts_before[self.offsets[1:]] - counts_before[self.offsets[:-1]]
        is_after = (self.count_before >= n_before[self.user]) & (n_before[self.user] > 0)
        targets = np.flatnonzero(is_after & self.is_target & (self.known_before > 0))
        _, first = np.unique(self.user[targets], return_index=True)
        return targets[first]

    def last_targets(self, count: int = 1, min_history: int = 1) -> NDArray[np.int64]:
        """Return the indices of each user's last `count` targets with so many known items before them."""
        targets = np.flatnonzero(self.is_target)
        n_later = np.searchsorted(targets, self.offsets[1:])[self.user[targets]] - 1 - np.arange(len(targets))
        return targets[(n_later < count) & (self.known_before[targets] >= min_history)]

    def first_of(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (U + 1,) the index in the log of each user's first one of these targets; none: after all others.

        An item model may learn from a user's interactions before it only: the later ones tell of the target. The last
        entry is of `UNKNOWN_ROW`.
        """
        first = np.full(len(self) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, self.user[targets], self.interaction[targets])
        return first

    def with_items(self, rows: Rows) -> UserHistories:
        """Map item rows to those of another catalogue. rows: (n + 1,) new row by old one; the last: `UNKNOWN_ROW`."""
        return replace(self, items=rows[self.items], dislikes=replace(self.dislikes, items=rows[self.dislikes.items]))

    def _cut(self, offsets: Offsets, kept: NDArray[np.bool_] | slice) -> UserHistories:
        return replace(
            self,
            offsets=offsets,
            items=self.items[kept],
            at=self.at[kept],
            values=self.values[kept],
            interaction=self.interaction[kept],
            enters=self.enters[kept],
            is_target=self.is_target[kept],
        )


def _by_user(log: EventTable, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Offsets]:
    """Return the indices of the selected interactions, user by user in order of time, and the users' offsets."""
    chosen = np.flatnonzero(mask)
    order = chosen[np.argsort(log.interactions.user[chosen], kind="stable")]
    counts = np.bincount(log.interactions.user[order], minlength=len(log.users))
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
