"""Represents an estimate as a sum of ratios of means, a form that gives all estimators the same error and bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.models.off_policy.log import Floats


@dataclass(frozen=True, eq=False, slots=True)
class Ratios:
    """Holds an estimate: the sum over M of mean(numerator) / mean(denominator); a plain mean has denominators of 1.

    Raises ValueError if the shapes differ, or if a denominator has a mean of 0.
    """

    above: Floats
    """(N, M)"""
    below: Floats
    """(N, M)"""

    def __post_init__(self) -> None:
        if self.above.ndim != 2 or self.above.shape != self.below.shape:
            raise ValueError(
                f"the numerator has shape {self.above.shape}, the denominator {self.below.shape}; expected (N, M) twice"
            )
        if not np.all(self.below.mean(axis=0) > 0):
            raise ValueError("all weights are 0: the candidate never shows what the log shows; use another log")

    @property
    def value(self) -> float:
        """The estimate."""
        return float((self.above.mean(axis=0) / self.below.mean(axis=0)).sum())

    @property
    def influence(self) -> Floats:
        """(N,) influence values: the first-order effect of each row on the value; their sum is 0. Hampel 1974."""
        scale = self.below.mean(axis=0)
        influence: Floats = ((self.above - self.below * (self.above.mean(axis=0) / scale)) / scale).sum(axis=1)
        return influence


def mean(values: Floats) -> Ratios:
    """Build the estimate that is the mean of (N,) values."""
    return Ratios(values[:, None], np.ones((len(values), 1)))
