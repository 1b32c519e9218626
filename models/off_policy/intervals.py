"""Computes confidence intervals of estimates, clustered, from influence values or by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from feedrank.models.off_policy.log import Clusters, Codes, Floats, cluster_codes
from feedrank.models.off_policy.ratio_estimate import RatioEstimate

IntervalKind = Literal["skewed", "normal", "bootstrap"]
_MAX_DRAWS_IN_MEMORY = 1 << 21
"""Bootstrap draws held in memory at a time: 16 MB."""
MAX_BOOTSTRAP_CLUSTERS = 20_000
"""Above this number of clusters the bootstrap draws bundles of clusters."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds a confidence interval with its standard error."""

    low: float
    high: float
    standard_error: float
    """The standard error."""
    clusters: int
    """The number of independent units: clusters, or rows if there are no clusters."""


def normal_interval(ratios: RatioEstimate, cluster: Clusters | None = None, *, level: float = 0.95) -> Interval:
    """Compute value +- t x standard error, with the number of clusters less one as degrees of freedom.

    The error is that of the influence values, summed in each cluster (Liang & Zeger 1986). For a ratio this is the
    delta method. cluster: (N,).
    """
    value, error, _, units = _influence_moments(ratios, cluster)
    half = error * _t_quantile(level, units)
    return Interval(value - half, value + half, error, units)


def skewness_corrected_interval(
    ratios: RatioEstimate, cluster: Clusters | None = None, *, level: float = 0.95
) -> Interval:
    """Compute the interval of `normal_interval`, with both bounds corrected for the skewness of the influence values.

    With few clicks and large weights an estimate that is too low also has too low a standard error, so the normal
    interval lies below the true value more often than above it. Source: Hall 1992, On the removal of skewness by
    transformation.
    """
    value, error, skewness, units = _influence_moments(ratios, cluster)
    x = _t_quantile(level, units)
    a = skewness / np.sqrt(units)
    return Interval(value - error * _hall_transform(x, a), value - error * _hall_transform(-x, a), error, units)


def bootstrap_interval(
    ratios: RatioEstimate, cluster: Clusters | None = None, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Compute the percentile interval of a bootstrap over clusters.

    The predictions of a reward model are held fixed. Above `MAX_BOOTSTRAP_CLUSTERS` clusters random bundles of them are
    drawn. Raises ValueError for fewer than 1 resample. Source: Efron & Tibshirani 1993, chapter 13; clusters: Davison &
    Hinkley 1997, section 3.8.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more; a stable interval takes 1,000 or more")
    tail = _upper_tail(level)
    generator = np.random.default_rng(seed)
    codes, units = cluster_codes(cluster, len(ratios.numerator))
    columns = np.concatenate((ratios.numerator, ratios.denominator), axis=1)
    terms = ratios.numerator.shape[1]
    sums = columns if cluster is None else _cluster_sums(columns, codes, units)
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    # The counts of draws of few distinct values are multinomial, so a million rows cost no more than a thousand.
    has_few_values = 8 * len(distinct) <= units
    if has_few_values:
        sums = distinct
    elif units > MAX_BOOTSTRAP_CLUSTERS:
        sums = _cluster_sums(sums, generator.permutation(units) % MAX_BOOTSTRAP_CLUSTERS, MAX_BOOTSTRAP_CLUSTERS)
    n_units = len(sums)
    step = max(1, _MAX_DRAWS_IN_MEMORY // n_units)
    values = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if has_few_values:
            counts_drawn = generator.multinomial(units, counts / units, size)
        else:
            rows = generator.integers(n_units, size=(size, n_units)) + np.arange(size)[:, None] * n_units
            counts_drawn = np.bincount(rows.ravel(), minlength=size * n_units).reshape(size, n_units)
        totals = counts_drawn.astype(np.float64) @ sums
        # A resample in which all weights are 0 has no value (NaN), which is not a value of 0.
        denominators = np.where(totals[:, terms:] > 0, totals[:, terms:], np.nan)
        values[start : start + size] = (totals[:, :terms] / denominators).sum(axis=1)
    low, high = np.nanquantile(values, [1 - tail, tail]).tolist()
    return Interval(low, high, float(np.nanstd(values)), units)


INTERVALS: dict[IntervalKind, Callable[[RatioEstimate, Clusters | None, float, int], Interval]] = {
    "skewed": lambda ratios, cluster, level, seed: skewness_corrected_interval(ratios, cluster, level=level),
    "normal": lambda ratios, cluster, level, seed: normal_interval(ratios, cluster, level=level),
    "bootstrap": lambda ratios, cluster, level, seed: bootstrap_interval(ratios, cluster, level=level, seed=seed),
}
"""Kind -> function of (estimate, clusters, level, seed) that returns the interval."""


def mean_standard_error(values: Floats, cluster: Clusters | None = None) -> float:
    """Compute the standard error of the mean of (N,) values, clustered."""
    centered = values - values.mean()
    codes, units = cluster_codes(cluster, len(values))
    return _standard_error(_cluster_sums(centered[:, None], codes, units)[:, 0], len(values))


def _influence_moments(ratios: RatioEstimate, cluster: Clusters | None) -> tuple[float, float, float, int]:
    """The value, its standard error, the skewness of the cluster sums, and the number of clusters."""
    influence = ratios.influence
    codes, units = cluster_codes(cluster, len(influence))
    sums = influence if cluster is None else _cluster_sums(influence[:, None], codes, units)[:, 0]
    deviation = float(np.sqrt(np.mean(sums**2)))
    skewness = float(np.mean(sums**3)) / deviation**3 if deviation > 0 else 0.0
    return ratios.value, _standard_error(sums, len(influence)), skewness, units


def _standard_error(sums: Floats, rows: int) -> float:
    units = len(sums)
    return float(np.sqrt(np.sum(sums**2) * units / max(units - 1, 1)) / rows)


def _hall_transform(x: float, a: float) -> float:
    """Solve t + a t^2 / 3 + a^2 t^3 / 27 + a / 6 = x for t, where a is skewness / sqrt(n)."""
    if abs(a) < 1e-6:
        return x
    return float(3 / a * (np.cbrt(1 + a * (x - a / 6)) - 1))


def _cluster_sums(columns: Floats, codes: Codes, units: int) -> Floats:
    """(units, M) sums of (N, M) columns."""
    return np.stack([np.bincount(codes, weights=column, minlength=units) for column in columns.T], axis=1)


def _t_quantile(level: float, units: int) -> float:
    return float(stdtrit(max(units - 1, 1), _upper_tail(level)))


def _upper_tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a share between 0 and 1, such as 0.95")
    return (1 + level) / 2
