"""How sure an estimate is: intervals from influence values or from resamples, with rows of a cluster kept together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from models.off_policy.log import Clusters, Codes, Floats, groups
from models.off_policy.ratios import Ratios

Kind = Literal["skewed", "normal", "bootstrap"]
_CELLS = 1 << 21
"""How many draws are held at a time: 16 MB."""
MOST_DRAWN = 20_000
"""Above so many clusters the bootstrap draws bundles of clusters."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the value lies at the level that was asked for."""

    low: float
    high: float
    error: float
    """The standard error."""
    clusters: int
    """Independent units: clusters, or rows where there is none."""


def normal(ratios: Ratios, cluster: Clusters | None = None, *, level: float = 0.95) -> Interval:
    """value +- t error, with as many degrees of freedom as there are clusters less one.

    The error is that of the influence values, summed in each cluster (Liang & Zeger 1986); it is the delta method where
    the estimate is a ratio. cluster: (N,).
    """
    value, error, _, units = _moments(ratios, cluster)
    half = error * _t(level, units)
    return Interval(value - half, value + half, error, units)


def skewed(ratios: Ratios, cluster: Clusters | None = None, *, level: float = 0.95) -> Interval:
    """As `normal`, with both ends moved for the skewness of the influence values.

    Few clicks with large weights make an estimate that is too low look too sure: the plain interval then misses above
    more often than below. Source: Hall 1992, On the removal of skewness by transformation.
    """
    value, error, skewness, units = _moments(ratios, cluster)
    x = _t(level, units)
    a = skewness / np.sqrt(units)
    return Interval(value - error * _hall(x, a), value - error * _hall(-x, a), error, units)


def bootstrap(
    ratios: Ratios, cluster: Clusters | None = None, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """The percentile interval when clusters are drawn again with replacement.

    What a reward model predicts is held fixed. Above `MOST_DRAWN` clusters random bundles of them are drawn. Source:
    Efron & Tibshirani 1993, chapter 13; clusters: Davison & Hinkley 1997, section 3.8.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more, and 1,000 or more for an interval to hold still")
    tail = _tail(level)
    generator = np.random.default_rng(seed)
    codes, units = groups(cluster, len(ratios.above))
    columns = np.concatenate((ratios.above, ratios.below), axis=1)
    parts = ratios.above.shape[1]
    sums = columns if cluster is None else _sums(columns, codes, units)
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    # How often each of few values is drawn is multinomial, so a million rows cost no more than a thousand.
    few = 8 * len(distinct) <= units
    if few:
        sums = distinct
    elif units > MOST_DRAWN:
        sums = _sums(sums, generator.permutation(units) % MOST_DRAWN, MOST_DRAWN)
    drawn = len(sums)
    step = max(1, _CELLS // drawn)
    values = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            times = generator.multinomial(units, counts / units, size)
        else:
            rows = generator.integers(drawn, size=(size, drawn)) + np.arange(size)[:, None] * drawn
            times = np.bincount(rows.ravel(), minlength=size * drawn).reshape(size, drawn)
        totals = times.astype(np.float64) @ sums
        # A resample in which all weights are 0 says nothing, which is not the same as 0.
        below = np.where(totals[:, parts:] > 0, totals[:, parts:], np.nan)
        values[start : start + size] = (totals[:, :parts] / below).sum(axis=1)
    low, high = np.nanquantile(values, [1 - tail, tail]).tolist()
    return Interval(low, high, float(np.nanstd(values)), units)


INTERVALS: dict[Kind, Callable[[Ratios, Clusters | None, float, int], Interval]] = {
    "skewed": lambda ratios, cluster, level, seed: skewed(ratios, cluster, level=level),
    "normal": lambda ratios, cluster, level, seed: normal(ratios, cluster, level=level),
    "bootstrap": lambda ratios, cluster, level, seed: bootstrap(ratios, cluster, level=level, seed=seed),
}
"""Kind -> the interval of (estimate, clusters, level, seed)."""


def mean_error(values: Floats, cluster: Clusters | None = None) -> float:
    """The standard error of the mean of (N,) values, with clusters kept together."""
    centred = values - values.mean()
    codes, units = groups(cluster, len(values))
    return _error(_sums(centred[:, None], codes, units)[:, 0], len(values))


def _moments(ratios: Ratios, cluster: Clusters | None) -> tuple[float, float, float, int]:
    """Value, standard error, skewness of the sums of clusters, clusters."""
    influence = ratios.influence
    codes, units = groups(cluster, len(influence))
    sums = influence if cluster is None else _sums(influence[:, None], codes, units)[:, 0]
    spread = float(np.sqrt(np.mean(sums**2)))
    skewness = float(np.mean(sums**3)) / spread**3 if spread > 0 else 0.0
    return ratios.value, _error(sums, len(influence)), skewness, units


def _error(sums: Floats, rows: int) -> float:
    units = len(sums)
    return float(np.sqrt(np.sum(sums**2) * units / max(units - 1, 1)) / rows)


def _hall(x: float, a: float) -> float:
    """The t whose transform is x: t + a t^2 / 3 + a^2 t^3 / 27 + a / 6 = x, where a is skewness / sqrt(n)."""
    if abs(a) < 1e-6:
        return x
    return float(3 / a * (np.cbrt(1 + a * (x - a / 6)) - 1))


def _sums(columns: Floats, codes: Codes, units: int) -> Floats:
    """(units, M) sums of (N, M) columns."""
    return np.stack([np.bincount(codes, weights=column, minlength=units) for column in columns.T], axis=1)


def _t(level: float, units: int) -> float:
    return float(stdtrit(max(units - 1, 1), _tail(level)))


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a share between 0 and 1, such as 0.95")
    return (1 + level) / 2
