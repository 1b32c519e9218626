"""Logged labels become grades: whole numbers from 0 on, which are the labels that training and metrics read.

Whole numbers up to `MAX_GRADE` are grades already. Other labels (fractions, percentages, prices) are cut by thresholds:
those of the config, or else one for each different value, or else quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_GRADE = 30
"""The maximum grade: LightGBM has gains for labels 0 to 30."""


@dataclass(frozen=True, slots=True)
class LabelGrading:
    """How the logged labels of a log become grades."""

    thresholds: tuple[float, ...] | None
    """The grade is how many of these the label exceeds; None: the label is the grade, and a negative one has 0."""
    note: str = ""
    """What was done, in words; empty if every label is its grade."""

    def grades(self, labels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N,) the grade of each label; NaN stays NaN."""
        if self.thresholds is None:
            return np.maximum(labels, np.float32(0))
        # Thresholds have the precision of the labels: a label of 0.4 does not exceed a threshold of 0.4.
        found = np.searchsorted(np.array(self.thresholds, np.float32), labels, side="left")
        return np.where(np.isnan(labels), np.nan, found).astype(np.float32)


def grade_labels(labels: NDArray[np.float32], thresholds: Sequence[float] = (), quantiles: int = 10) -> LabelGrading:
    """Choose the grading of the (N,) logged labels of a log; NaN where there is none.

    thresholds: those of the config; empty: they follow from the labels. quantiles: number of grades above 0 if there
    are more than `MAX_GRADE` different labels above 0.
    """
    logged = labels[~np.isnan(labels)]
    if not len(logged):
        return LabelGrading(None)
    lowest, highest = float(logged.min()), float(logged.max())
    if thresholds:
        chosen = tuple(thresholds)
        return LabelGrading(
            chosen, f"logged labels from {lowest:g} to {highest:g} were graded by logged_thresholds: {_mapping(chosen)}"
        )
    if highest <= MAX_GRADE and bool((np.floor(logged) == logged).all()):
        negative = int((logged < 0).sum())
        note = f"{negative:,} of {len(logged):,} logged labels are negative; their grade is 0" if negative else ""
        return LabelGrading(None, note)
    values = np.unique(logged[logged > 0])
    if len(values) <= MAX_GRADE:
        how = "by value, one grade each"
        chosen = (0.0, *values[:-1].tolist())
    else:
        how = f"by quantiles of the {(logged > 0).sum():,} labels above 0"
        shares = np.arange(1, quantiles) / quantiles
        cuts = np.unique(np.quantile(logged[logged > 0], shares, method="inverted_cdf"))
        chosen = (0.0, *cuts[cuts < highest].tolist())
    reason = f"exceed {MAX_GRADE}" if highest > MAX_GRADE else "have fractions"
    return LabelGrading(
        chosen,
        f"logged labels from {lowest:g} to {highest:g} {reason}, so they were graded {how}: {_mapping(chosen)}; "
        "set labels.logged_thresholds to grade them otherwise",
    )


def _mapping(thresholds: Sequence[float]) -> str:
    """Return thresholds in words, such as `0 up to 0, 1 up to 2.5, 2 above 2.5`."""
    steps = [f"{grade} up to {float(np.float32(threshold)):g}" for grade, threshold in enumerate(thresholds)]
    return ", ".join([*steps, f"{len(thresholds)} above {float(np.float32(thresholds[-1])):g}"])
