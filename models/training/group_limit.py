"""The limit of a group's rows: LightGBM refuses larger groups, so rows without a click are left out of training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.models.training.dataset import LabeledGroups

MAX_GROUP_ROWS = 10_000
"""The most rows that LightGBM takes in one group."""


class GroupLimit:
    """Cuts groups to `MAX_GROUP_ROWS` rows, before their features are computed, and counts what it left out.

    All clicked items stay, and a random sample of the others. It is the same sample for the same seed and ranking. A
    group with more clicked items than the limit keeps a sample of all its rows.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rows_left_out = 0
        self._largest: list[int] = []
        self._clicked_left_out = 0
        self._over_clicked = 0

    def cut(self, groups: LabeledGroups) -> LabeledGroups:
        """Return the groups with at most the limit's number of rows each."""
        sizes = np.diff(groups.queries.offsets)
        if sizes.max(initial=0) <= MAX_GROUP_ROWS:
            return groups
        kept = np.ones(len(groups.labels), np.bool_)
        for group in np.flatnonzero(sizes > MAX_GROUP_ROWS).tolist():
            rows = slice(int(groups.queries.offsets[group]), int(groups.queries.offsets[group + 1]))
            kept[rows] = self._sample(groups.labels[rows] > 0, int(groups.queries.before_event[group]))
        return groups.select_rows(kept)

    def _sample(self, clicked: NDArray[np.bool_], event: int) -> NDArray[np.bool_]:
        """Return the (n,) mask of the rows of one group to keep. event: seeds its sample."""
        order = np.random.default_rng([self._seed, event]).permutation(len(clicked))
        if np.count_nonzero(clicked) <= MAX_GROUP_ROWS:
            order = order[np.argsort(~clicked[order], kind="stable")]  # clicked items first
        else:
            self._over_clicked += 1
        kept = np.zeros(len(clicked), np.bool_)
        kept[order[:MAX_GROUP_ROWS]] = True
        self._largest.append(len(clicked))
        self._rows_left_out += int(np.count_nonzero(~kept))
        self._clicked_left_out += int(np.count_nonzero(clicked & ~kept))
        return kept

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences; empty if nothing was."""
        if not self._largest:
            return ()
        lists = f"{len(self._largest):,} ranking{'s' * (len(self._largest) > 1)}"
        notes = [
            f"{lists} with more than {MAX_GROUP_ROWS:,} items, LightGBM's limit (the longest has "
            f"{max(self._largest):,}): {self._rows_left_out:,} row{'s' * (self._rows_left_out > 1)} drawn at random "
            + ("is" if self._rows_left_out == 1 else "are")
            + " left out of training"
            + ("" if self._over_clicked else ", none of them clicked")
        ]
        if self._over_clicked:
            notes.append(
                f"{self._over_clicked:,} of them have more than {MAX_GROUP_ROWS:,} clicked items; "
                f"{self._clicked_left_out:,} clicked rows are left out too"
            )
        return tuple(notes)
