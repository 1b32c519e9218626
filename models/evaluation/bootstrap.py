"""Bootstrap confidence intervals of a mean over groups, for one method and for paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.models.evaluation.metrics import Values

_MAX_CELLS = 1 << 20
"""Maximum number of draws in memory at a time (8 MB)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of per-group values with its bootstrap percentile interval; all NaN if there is no group."""

    mean: float
    low: float
    high: float
    groups: int
    """Number of groups with a value."""
    skipped: int
    """Number of groups left out because their value is NaN."""


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """The mean of paired differences with its bootstrap interval."""

    one_sided_p: float
    """Share of resamples with a mean difference <= 0, a one-sided p-value: near 0, the first is better."""


def interval(values: Values, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Return the percentile bootstrap interval of the mean of (G,) values; groups are resampled with replacement.

    One group gives an interval of width 0, which carries no information. Raises ValueError for a level outside (0, 1)
    or less than one resample. Source: Efron & Tibshirani 1993, chapter 13.
    """
    valid = values[~np.isnan(values)]
    means = _resampled_means(valid, seed, resamples)
    mean, low, high = _percentile_bounds(valid, means, level)
    return Interval(mean, low, high, len(valid), len(values) - len(valid))


def difference(first: Values, second: Values, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Difference:
    """Return the paired bootstrap interval of mean(first - second) over the same (G,) groups.

    A group with NaN in either is left out. Raises ValueError if the shapes differ. Source: Efron & Tibshirani 1993;
    Sakai 2006 for pairs of systems over the same topics (he tests with a studentised statistic shifted to the null;
    this uses the percentiles of the difference itself).
    """
    if first.shape != second.shape:
        raise ValueError(
            f"found {len(first)} and {len(second)} groups; a paired bootstrap needs the same groups in the same order"
        )
    differences = first - second
    valid = differences[~np.isnan(differences)]
    means = _resampled_means(valid, seed, resamples)
    mean, low, high = _percentile_bounds(valid, means, level)
    # A sum that is zero in exact arithmetic must not count as better because of rounding.
    rounding = 1e-12 * float(np.abs(valid).max(initial=0.0))
    one_sided_p = float(np.mean(means <= rounding)) if len(valid) else float("nan")
    return Difference(mean, low, high, len(valid), len(differences) - len(valid), one_sided_p)


def _percentile_bounds(values: Values, means: Values, level: float) -> tuple[float, float, float]:
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a share between 0 and 1, such as 0.95")
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    mean = float(values.mean())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return mean, min(low, mean), max(high, mean)  # rounding could order them wrongly if all values are equal


def _resampled_means(values: Values, seed: int, resamples: int) -> Values:
    """Return (resamples,) means of bootstrap samples of the values."""
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected at least 1, and at least 1,000 for a stable interval")
    n = len(values)
    if not n:
        return np.empty(0)
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    # Hits and ranks take few distinct values. Their draw counts are multinomial, so a million groups cost no more than
    # a hundred. If values hardly repeat, drawing rows is cheaper.
    few = 8 * len(distinct) <= n
    step = max(1, _MAX_CELLS // (len(distinct) if few else n))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            drawn: NDArray[np.int64] = generator.multinomial(n, counts / n, size)
            means[start : start + size] = drawn @ distinct / n
        else:
            means[start : start + size] = values[generator.integers(n, size=(size, n))].mean(axis=1)
    return means
