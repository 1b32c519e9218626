"""Tests for a sample ratio mismatch (SRM): if the split of units is off, no number of the experiment can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

SRM_P_THRESHOLD = 0.001
"""A p-value below this is a sample ratio mismatch."""
MIN_EXPECTED_UNITS = 5
"""Expected units per arm that the chi-square distribution needs; with fewer no mismatch is reported."""


@dataclass(frozen=True, slots=True)
class SampleRatioTest:
    """Holds the units of each arm, the number that its weight leads to expect, and the test of both."""

    arms: tuple[str, ...]
    units: tuple[int, ...]
    expected: tuple[float, ...]
    statistic: float
    """Chi-square statistic; NaN: there are too few units."""
    p: float

    @property
    def mismatch(self) -> bool:
        """True if there is a sample ratio mismatch."""
        return self.p < SRM_P_THRESHOLD


def sample_ratio_test(
    units: NDArray[np.int64], weights: Sequence[float] = (), arms: Sequence[str] = ()
) -> SampleRatioTest:
    """Test (A,) units against the arms' weights by chi-square; without weights, against equal shares.

    Raises ValueError unless there are two or more arms with a weight above 0 each.
    Source: Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019.
    """
    share = np.array(weights if len(weights) else [1.0] * len(units), np.float64)
    if len(share) != len(units) or len(units) < 2 or not (share > 0).all():
        raise ValueError(
            f"found weights {share.tolist()} for {len(units)} arms; expected one above 0 for each of 2 or more"
        )
    names = tuple(arms) if len(arms) else tuple(str(n) for n in range(len(units)))
    expected = units.sum() * share / share.sum()
    if expected.min() < MIN_EXPECTED_UNITS:
        statistic = p = math.nan
    else:
        statistic = float(((units - expected) ** 2 / expected).sum())
        p = float(special.chdtrc(len(units) - 1, statistic))
    return SampleRatioTest(names, tuple(units.tolist()), tuple(expected.tolist()), statistic, p)
