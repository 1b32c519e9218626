"""An estimate as a sum of ratios of means: the form in which its error and its resamples are the same few lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.off_policy.log import Floats


@dataclass(frozen=True, eq=False, slots=True)
class Ratios:
    """The value is the sum over M of mean(above) / mean(below); a plain mean has ones below.

    Raises ValueError where the shapes differ, or where nothing is below.
    """

    above: Floats
    """(N, M)"""
    below: Floats
    """(N, M)"""

    def __post_init__(self) -> None:
        if self.above.ndim != 2 or self.above.shape != self.below.shape:
            raise ValueError(f"above is {self.above.shape} and below {self.below.shape}; expected both to be (N, M)")
        if not np.all(self.below.mean(axis=0) > 0):
            raise ValueError("all weights are 0: the candidate never shows what the log shows, so nothing can be said")

    @property
    def value(self) -> float:
        """The estimate."""
        return float((self.above.mean(axis=0) / self.below.mean(axis=0)).sum())

    @property
    def influence(self) -> Floats:
        """(N,) what each row adds to the value, to first order; their sum is 0. Source: Hampel 1974."""
        below = self.below.mean(axis=0)
        each: Floats = ((self.above - self.below * (self.above.mean(axis=0) / below)) / below).sum(axis=1)
        return each


def mean(values: Floats) -> Ratios:
    """Of (N,) values: their mean."""
    return Ratios(values[:, None], np.ones((len(values), 1)))
