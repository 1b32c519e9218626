"""Chooses the number of boosting rounds from the validation metric of each round.

The metric of few validation groups is mostly noise: its largest value is often that of the first trees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feedrank.models.training.query_groups import QueryGroups

ENOUGH_GROUPS = 200
"""Validation groups with a positive label from which on the best round is taken as it is."""
WINDOW = 21
"""Rounds over which the metric of fewer groups is smoothed."""


def positive_groups(groups: QueryGroups) -> int:
    """Return the number of groups with a positive label."""
    return len(np.unique(np.searchsorted(groups.offsets, np.flatnonzero(groups.labels > 0), "right")))


def choose_rounds(curve: Sequence[float], groups: int) -> int:
    """Return the number of rounds to keep. curve: the metric after each round, of so many validation groups.

    With `ENOUGH_GROUPS` it is the round with the best metric. With fewer it is a mean of the round that is best after
    smoothing, with the weight groups / ENOUGH_GROUPS, and of all rounds: boosting with regularised leaves loses less
    by too many rounds than by too few.
    """
    values = np.asarray(curve, np.float64)
    if not len(values):
        return 0
    if groups >= ENOUGH_GROUPS:
        return int(np.argmax(values)) + 1
    window = np.ones(WINDOW)
    counts = np.convolve(np.ones(len(values)), window)[WINDOW // 2 :][: len(values)]
    best = int(np.argmax(np.convolve(values, window)[WINDOW // 2 :][: len(values)] / counts)) + 1
    weight = groups / ENOUGH_GROUPS
    return round(weight * best + (1 - weight) * len(values))
