"""Finds features that alone rank too well to be true: their values probably hold the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.models.training.label_contrast import above_lowest
from feedrank.models.training.query_groups import QueryGroups

MAX_GROUPS = 2_000
"""Number of groups on which single features are checked."""
MIN_FEATURE_GROUPS, MIN_FEATURE_SHARE = 50, 0.1
"""A single feature is checked if its values differ in at least so many groups, and in at least this share of them."""


MAX_POSITIVES, MAX_OTHERS = 20, 200
"""Number of rows of a group that are compared."""


@dataclass(frozen=True, slots=True)
class SuspectFeature:
    """A feature that alone ranks too well to be true."""

    name: str
    auc: float
    """Mean AUC over the groups in which it differs; above 0.5 also for a feature whose low values are better."""
    groups: int
    """Number of these groups."""

    def sentence(self) -> str:
        """Return what was found, in a sentence."""
        return (
            f"the feature {self.name!r} alone ranks with an AUC of {self.auc:.3f} ({self.groups:,} groups): it probably"
            " holds the answer; leave it out, or raise training.max_feature_auc if it is right"
        )


def suspect_features(parts: Sequence[QueryGroups], names: Sequence[str], max_auc: float) -> tuple[SuspectFeature, ...]:
    """Return the features that alone rank the groups with an AUC above `max_auc`, in either direction, best first.

    Missing values count as one more value, below all others. Only groups in which a feature differs count for it. The
    whole 95 % interval must be above `max_auc`.
    """
    if max_auc >= 1:
        return ()
    values = np.array(list(_feature_aucs(parts)))
    if not len(values):
        return ()
    suspects = []
    for column, name in enumerate(names):
        known = values[~np.isnan(values[:, column]), column]
        if len(known) < max(MIN_FEATURE_GROUPS, MIN_FEATURE_SHARE * len(values)):
            continue
        mean, error = float(known.mean()), float(known.std() / np.sqrt(len(known)))
        if max(mean, 1 - mean) - 1.96 * error > max_auc:
            suspects.append(SuspectFeature(name, max(mean, 1 - mean), len(known)))
    return tuple(sorted(suspects, key=lambda suspect: -suspect.auc))


def _feature_aucs(parts: Sequence[QueryGroups]) -> Iterator[NDArray[np.float64]]:
    """Yield per group with contrast, in up to `MAX_GROUPS`, (F,) the AUC of each feature; NaN: it is constant.

    A row is positive if its label is above the lowest of its group.
    """
    step = max(1, -(-sum(map(len, parts)) // MAX_GROUPS))
    for part in parts:
        for group in range(0, len(part), step):
            rows = slice(int(part.offsets[group]), int(part.offsets[group + 1]))
            positive = above_lowest(part.labels[rows], np.array([0, rows.stop - rows.start]))
            if not positive.any():
                continue
            matrix = np.asarray(part.matrix[rows], np.float32)
            matrix = np.where(np.isnan(matrix), -np.inf, matrix)
            better, other = matrix[positive][:MAX_POSITIVES, None, :], matrix[~positive][None, :MAX_OTHERS, :]
            value = ((better > other) + 0.5 * (better == other)).mean(axis=(0, 1))
            yield np.where(matrix.min(axis=0) == matrix.max(axis=0), np.nan, value)
