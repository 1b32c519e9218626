"""How sure a mean over groups is: bootstrap intervals, alone and in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import Values

_CELLS = 1 << 20
"""How many draws are held at a time: 8 MB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of per-group values with its percentile interval; all NaN where there was no group."""

    mean: float
    low: float
    high: float
    groups: int
    """How many groups had a value."""
    skipped: int
    """How many were left out because theirs was NaN."""


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """The mean of paired differences, with its interval."""

    not_better: float
    """The share of resamples whose mean difference is <= 0: near 0 the first is better, near 1 it is not."""


def interval(values: Values, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """The percentile interval of the mean of (G,) values when groups are drawn again with replacement.

    One group gives an interval of width 0, which says nothing. Source: Efron & Tibshirani 1993, chapter 13.
    """
    kept = values[~np.isnan(values)]
    means = _means(kept, seed, resamples)
    mean, low, high = _bounds(kept, means, level)
    return Interval(mean, low, high, len(kept), len(values) - len(kept))


def difference(first: Values, second: Values, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Difference:
    """The interval of mean(first - second) over the same (G,) groups, drawn in pairs; NaN in either leaves a group out.

    Source: Efron & Tibshirani 1993; Sakai 2006 for pairs of systems over the same topics (he tests with a studentised
    statistic shifted to the null; this reads the percentiles of the difference itself).
    """
    if first.shape != second.shape:
        raise ValueError(
            f"{len(first)} groups against {len(second)}: pairs must be of the same groups in the same order"
        )
    gaps = first - second
    kept = gaps[~np.isnan(gaps)]
    means = _means(kept, seed, resamples)
    mean, low, high = _bounds(kept, means, level)
    # A sum that is zero in exact arithmetic must not count as better because of its rounding.
    rounding = 1e-12 * float(np.abs(kept).max(initial=0.0))
    share = float(np.mean(means <= rounding)) if len(kept) else float("nan")
    return Difference(mean, low, high, len(kept), len(gaps) - len(kept), share)


def _bounds(kept: Values, means: Values, level: float) -> tuple[float, float, float]:
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a share between 0 and 1, such as 0.95")
    if not len(kept):
        return float("nan"), float("nan"), float("nan")
    mean = float(kept.mean())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return mean, min(low, mean), max(high, mean)  # where all values are equal, rounding could part them


def _means(kept: Values, seed: int, resamples: int) -> Values:
    """(resamples,) means of as many values as there are, drawn with replacement."""
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more, and 1,000 or more for an interval to hold still")
    n = len(kept)
    if not n:
        return np.empty(0)
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(kept, return_counts=True)
    # Hits, ranks and the like take few values. How often each is drawn is multinomial, so a million groups cost no more
    # than a hundred; where values hardly repeat, drawing rows is the cheaper of the two.
    few = 8 * len(distinct) <= n
    step = max(1, _CELLS // (len(distinct) if few else n))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            drawn: NDArray[np.int64] = generator.multinomial(n, counts / n, size)
            means[start : start + size] = drawn @ distinct / n
        else:
            means[start : start + size] = kept[generator.integers(n, size=(size, n))].mean(axis=1)
    return means
