"""Compares a ranker in training with recall order on its validation groups.

Early stopping chooses the round with the best validation metric, so the metric of that round is too good. Here the
groups are dealt into two halves, and each half is measured at the round that is best on the other one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Scores
from feedrank.models.evaluation.bootstrap import Difference, difference
from feedrank.models.evaluation.gains import Gain, gains
from feedrank.models.evaluation.metrics import Values
from feedrank.models.training.query_groups import QueryGroups, score_in_chunks

MAX_GROUPS, MAX_PAIRS = 2_000, 2_000_000
"""Number of validation groups that are compared, evenly spread, and of their pairs of a relevant row and any row."""
CUTOFF = 10
"""Rank to which gains count, as in nDCG@10."""
RECALL_FEATURE = "recall_score"


class RecallComparison:
    """Follows the rounds of one booster, and keeps the nDCG@10 of each validation group at a round chosen elsewhere."""

    def __init__(self, validation: QueryGroups, recall: Scores, gain: Gain) -> None:
        """Prepare the comparison.

        recall: (N,) recall scores of the validation rows; a row without one is last. gain: of the labels, as in nDCG.
        """
        self._recall = np.nan_to_num(recall.astype(np.float64), nan=-np.inf)
        offsets, row_gains = validation.offsets, gains(validation.labels, gain)
        positive = np.flatnonzero(row_gains > 0)
        group_of_positive = np.searchsorted(offsets, positive, side="right") - 1
        sizes = np.diff(offsets)
        pairs = sizes * np.bincount(group_of_positive, minlength=len(sizes))
        usable = np.flatnonzero((pairs > 0) & (pairs <= MAX_PAIRS))
        step = max(1, -(-len(usable) // MAX_GROUPS), -(-int(pairs[usable].sum()) // MAX_PAIRS))
        chosen = usable[::step]
        self._rows = positive[np.isin(group_of_positive, chosen)]
        group = np.searchsorted(offsets, self._rows, side="right") - 1
        self._group = np.searchsorted(chosen, group)
        self._count = len(chosen)
        # each relevant row is compared with all rows of its group
        self._starts = np.cumsum(sizes[group]) - sizes[group]
        first = np.repeat(offsets[group] - self._starts, sizes[group])
        self._other = np.arange(len(first)) + first
        self._own = np.repeat(self._rows, sizes[group])
        self._half = np.arange(self._count) % 2
        self._best, self._kept = [-1.0, -1.0], np.full(self._count, np.nan)
        self._use(row_gains, CUTOFF)

    @classmethod
    def from_features(cls, validation: QueryGroups, names: Sequence[str], gain: Gain) -> RecallComparison | None:
        """Prepare the comparison with the recall feature; None without it, or without two groups that can be used."""
        if RECALL_FEATURE not in names:
            return None
        column = list(names).index(RECALL_FEATURE)
        comparison = cls(validation, score_in_chunks(validation, lambda matrix: matrix[:, column]), gain)
        return comparison if comparison._count > 1 else None

    def weight(self, row_gains: NDArray[np.float64]) -> None:
        """Use inverse-propensity-weighted gains of the (N,) rows, at every rank, before the first round.

        The nDCG is then the share of the mean ideal: the ideal of a group with one click has a random weight.
        """
        self._use(row_gains, None)
        self._ideal[:] = self._ideal.mean()

    def observe(self, scores: NDArray[np.float64]) -> None:
        """Take the (N,) scores of the validation rows after one more round."""
        values = self._ndcg(scores)
        for half in (0, 1):
            mean = float(values[self._half == half].mean())
            if mean > self._best[half]:
                self._best[half] = mean
                self._kept[self._half != half] = values[self._half != half]

    @property
    def values(self) -> tuple[Values, Values]:
        """Return the (groups,) nDCG of the ranker and of recall order."""
        return self._kept, self._ndcg(self._recall)

    def _use(self, row_gains: NDArray[np.float64], cutoff: int | None) -> None:
        self._gains, self._cutoff = row_gains[self._rows], cutoff
        best_first = np.lexsort((-self._gains, self._group))
        ranks = np.arange(len(best_first)) - np.searchsorted(self._group, self._group)
        self._ideal = self._sums(self._gains[best_first], ranks)

    def _sums(self, row_gains: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (groups,) the discounted gains of the relevant rows at these ranks, from 0."""
        discounted = row_gains / np.log2(2.0 + ranks)
        if self._cutoff is not None:
            discounted[ranks >= self._cutoff] = 0.0
        return np.bincount(self._group, discounted, self._count).astype(np.float64)

    def _ndcg(self, scores: NDArray[np.float64]) -> Values:
        """Return (groups,) the nDCG of each group; equal scores keep the order of the rows."""
        own, other = scores[self._own], scores[self._other]
        is_before = (other > own) | ((other == own) & (self._other < self._own))
        ranks = np.add.reduceat(is_before.astype(np.int64), self._starts)
        return np.asarray(self._sums(self._gains, ranks) / self._ideal, np.float64)


def mean_gain(comparisons: Sequence[RecallComparison], seed: int) -> Difference | None:
    """Return the paired difference in nDCG@10, ranker minus recall order; of an ensemble its boosters' mean."""
    if not comparisons:
        return None
    values = [comparison.values for comparison in comparisons]
    ranker, recall = np.mean([own for own, _ in values], axis=0), np.mean([other for _, other in values], axis=0)
    return difference(ranker, recall, seed=seed)
