"""Whether the arms got the units that they should have: where they did not, no number of the test can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALARM = 0.001
"""The p-value below which something is broken."""
LEAST_EXPECTED = 5
"""Units that each arm should have for the chi-square distribution to hold; below that there is no alarm."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Units of each arm beside what the weights say."""

    arms: tuple[str, ...]
    units: tuple[int, ...]
    expected: tuple[float, ...]
    statistic: float
    """Chi-square; NaN where there are too few units."""
    p: float

    @property
    def alarm(self) -> bool:
        """Whether the split is broken."""
        return self.p < ALARM


def sample_ratio(units: NDArray[np.int64], weights: Sequence[float] = (), arms: Sequence[str] = ()) -> SampleRatio:
    """The chi-square test of (A,) units against weights, equal where there are none.

    Source: Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019.
    """
    share = np.array(weights if len(weights) else [1.0] * len(units), np.float64)
    if len(share) != len(units) or len(units) < 2 or not (share > 0).all():
        raise ValueError(
            f"found weights {share.tolist()} for {len(units)} arms; expected one above 0 for each of 2 or more"
        )
    names = tuple(arms) if len(arms) else tuple(str(n) for n in range(len(units)))
    expected = units.sum() * share / share.sum()
    if expected.min() < LEAST_EXPECTED:
        statistic = p = math.nan
    else:
        statistic = float(((units - expected) ** 2 / expected).sum())
        p = float(special.chdtrc(len(units) - 1, statistic))
    return SampleRatio(names, tuple(units.tolist()), tuple(expected.tolist()), statistic, p)
