"""Represents an estimate as a sum of ratios of means, a form that gives all estimators the same error and bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.models.off_policy.log import Floats


@dataclass(frozen=True, eq=False, slots=True)
class RatioEstimate:
    """Holds an estimate: the sum over M of mean(numerator) / mean(denominator); a plain mean has denominators of 1.

    Raises ValueError if the shapes differ, or if a denominator has a mean of 0.
    """

    numerator: Floats
    """(N, M)"""
    denominator: Floats
    """(N, M)"""

    def __post_init__(self) -> None:
        if self.numerator.ndim != 2 or self.numerator.shape != self.denominator.shape:
            raise ValueError(
                f"the numerator has shape {self.numerator.shape}, the denominator"
                f" {self.denominator.shape}; expected (N, M) twice"
            )
        if not np.all(self.denominator.mean(axis=0) > 0):
            raise ValueError("all weights are 0: the candidate never shows what the log shows; use another log")

    @property
    def value(self) -> float:
        """The estimate."""
        return float((self.numerator.mean(axis=0) / self.denominator.mean(axis=0)).sum())

    @property
    def influence(self) -> Floats:
        """(N,) influence values: the first-order effect of each row on the value; their sum is 0. Hampel 1974."""
        scale = self.denominator.mean(axis=0)
        influence: Floats = ((self.numerator - self.denominator * (self.numerator.mean(axis=0) / scale)) / scale).sum(
            axis=1
        )
        return influence


def mean_estimate(values: Floats) -> RatioEstimate:
    """Build the estimate that is the mean of (N,) values."""
    return RatioEstimate(values[:, None], np.ones((len(values), 1)))
