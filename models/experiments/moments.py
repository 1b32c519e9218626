"""Computes the counts, means and covariances of each arm's units, which are all that the delta method needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows
from feedrank.models.experiments.outcomes import Metric, Outcomes

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Holds the moments of A arms at L looks, over K variables of a unit.

    The variables are the numerator and the denominator (1 if the metric has none) and, with a covariate, both as they
    were before the experiment.
    """

    arms: tuple[str, ...]
    day: Counts
    """(L,)"""
    count: Counts
    """(L, A) units."""
    converting: Counts
    """(L, A) units whose numerator is not 0."""
    mean: Floats
    """(L, A, K); NaN: there is no unit."""
    covariance: Floats
    """(L, A, K, K) with n - 1; NaN: there are fewer than two units."""


@dataclass(frozen=True, eq=False, slots=True)
class ArmComparison:
    """Holds the values of the control and of one other arm at L looks, with their variances. NaN: unknown."""

    units: Counts
    """(L, 2) of the control and of the other arm."""
    converting: Counts
    """(L, 2)"""
    value: Floats
    """(L, 2)"""
    variance: Floats
    """(L, 2) of `value`, not of a unit."""
    unadjusted_variance: Floats
    """(L, 2) variance without CUPED."""

    @property
    def difference(self) -> Floats:
        """(L,) the other arm's value less the control's."""
        difference: Floats = self.value[:, 1] - self.value[:, 0]
        return difference

    @property
    def difference_variance(self) -> Floats:
        """(L,) the variance of the difference."""
        variance: Floats = self.variance.sum(axis=1)
        return variance


def safe_divide(numerator: NDArray[np.floating[Any]], denominator: NDArray[np.floating[Any]]) -> Floats:
    """Divide, with NaN for x / 0 and wherever an operand is not finite."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    is_defined = np.broadcast_to(np.isfinite(numerator) & np.isfinite(denominator) & (denominator != 0), shape)
    ratio: Floats = np.divide(numerator, denominator, out=np.full(shape, np.nan), where=is_defined)
    return ratio


def sum_by_index(index: Rows, values: NDArray[Any], size: int) -> Floats:
    """(size,) sums of the values at each index."""
    return np.asarray(np.bincount(index, values, minlength=size), np.float64)


def final_moments(outcomes: Outcomes, metric: Metric, *, cuped: bool = False) -> Moments:
    """Compute the moments at one look, at the end."""
    return _compute_moments(
        outcomes, metric, [0, len(outcomes.unit)], [max(outcomes.days - 1, 0)], cuped, cumulative=True
    )


def cumulative_moments(outcomes: Outcomes, metric: Metric, *, cuped: bool = False) -> Moments:
    """Compute the moments at the end of each day, over all rows until then."""
    return _compute_moments(outcomes, metric, _day_offsets(outcomes), range(outcomes.days), cuped, cumulative=True)


def daily_moments(outcomes: Outcomes, metric: Metric) -> Moments:
    """Compute the moments of each day alone."""
    return _compute_moments(outcomes, metric, _day_offsets(outcomes), range(outcomes.days), False, cumulative=False)


def moments_from_counts(arms: Sequence[str], clicks: Counts, impressions: Counts) -> Moments:
    """Compute the moments of A arms at one look from totals: each impression is a unit that is clicked or not."""
    count = np.asarray(impressions, np.int64)
    rate = safe_divide(np.asarray(clicks, np.float64), count.astype(np.float64))
    mean = np.stack([rate, np.ones(len(count))], axis=1)
    covariance = np.zeros((len(count), 2, 2))
    covariance[:, 0, 0] = safe_divide(rate * (1 - rate) * count, count - 1.0)
    day = np.zeros(1, np.int64)
    return Moments(tuple(arms), day, count[None], np.asarray(clicks, np.int64)[None], mean[None], covariance[None])


def compare_to_control(moments: Moments, arm: int) -> ArmComparison:
    """Compare an arm with the control: values by the delta method, adjusted for the covariate if there is one.

    The covariate's coefficient is estimated on both arms together. Sources: Deng et al., Applying the Delta Method in
    Metric Analytics, KDD 2018; Deng et al., Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data (CUPED), WSDM 2013.
    """
    chosen = [0, arm]
    units, mean, covariance = moments.count[:, chosen], moments.mean[:, chosen], moments.covariance[:, chosen]
    n = units.astype(np.float64)
    value, spread = _ratio_moments(mean, covariance, 0, 0)
    unadjusted = safe_divide(spread, n)
    if mean.shape[2] > 2:
        pooled = _pooled_moments(n, mean, covariance)
        before, before_spread = _ratio_moments(mean, covariance, 2, 2)
        pooled_before, pooled_before_spread = _ratio_moments(*pooled, 2, 2)
        coefficient = safe_divide(_ratio_moments(*pooled, 0, 2)[1], pooled_before_spread)
        coefficient = np.where(np.isfinite(coefficient), coefficient, 0.0)  # a constant covariate
        is_known = np.isfinite(pooled_before)
        value = np.where(is_known, value - coefficient * np.where(is_known, before - pooled_before, 0.0), value)
        spread = spread + coefficient**2 * np.nan_to_num(before_spread)
        spread = spread - 2 * coefficient * np.nan_to_num(_ratio_moments(mean, covariance, 0, 2)[1])
    return ArmComparison(
        units, moments.converting[:, chosen], value, safe_divide(np.maximum(spread, 0.0), n), unadjusted
    )


def unit_values(metric: Metric, totals: Floats, n_units: int) -> Floats:
    """(2, n) numerator and denominator of n units, from (1 or 2, n) totals; NaN: the unit's ratio is undefined."""
    if len(totals) == 1:
        return np.stack([totals[0], np.ones(n_units)])
    return np.stack([safe_divide(totals[0], totals[1]), np.ones(n_units)]) if metric.per_unit else totals


def metric_columns(metric: Metric) -> list[str]:
    """Return the names of the columns that the metric is made of."""
    return [metric.numerator] if metric.denominator is None else [metric.numerator, metric.denominator]


def require_column(outcomes: Outcomes, name: str) -> Floats:
    """Return the (M,) column of this name. Raises ValueError that lists the names there are."""
    if name not in outcomes.columns:
        raise ValueError(f"found no column {name!r}, expected one of {', '.join(outcomes.columns)}: declare the metric")
    return outcomes.columns[name]


def day_slices(outcomes: Outcomes) -> Iterator[tuple[int, slice]]:
    """Yield each day that has rows, with the slice of its rows; rows are in order of day."""
    bounds = _day_offsets(outcomes)
    for day in range(outcomes.days):
        if bounds[day + 1] > bounds[day]:
            yield day, slice(bounds[day], bounds[day + 1])


def _day_offsets(outcomes: Outcomes) -> list[int]:
    bounds: list[int] = np.searchsorted(outcomes.day, np.arange(outcomes.days + 1)).tolist()
    return bounds


def _ratio_moments(mean: Floats, covariance: Floats, left: int, right: int) -> tuple[Floats, Floats]:
    """The ratio at `left`, and the covariance of its influence values with those of the ratio at `right`."""
    first, second = (
        safe_divide(mean[..., left], mean[..., left + 1]),
        safe_divide(mean[..., right], mean[..., right + 1]),
    )
    product = (
        covariance[..., left, right]
        - covariance[..., left, right + 1] * second
        - covariance[..., left + 1, right] * first
        + covariance[..., left + 1, right + 1] * first * second
    )
    return first, safe_divide(safe_divide(product, mean[..., left + 1]), mean[..., right + 1])


def _pooled_moments(n: Floats, mean: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """(L, 1, K) mean and (L, 1, K, K) covariance of two arms as one sample."""
    total = n.sum(axis=1)
    weight = safe_divide(n, total[:, None])
    grand_mean = (weight[..., None] * mean).sum(axis=1, keepdims=True)
    gap = mean - grand_mean
    within = (covariance * (n - 1)[..., None, None]).sum(axis=1)
    between = (n[..., None, None] * gap[..., :, None] * gap[..., None, :]).sum(axis=1)
    pooled = safe_divide(within + between, np.broadcast_to((total - 1)[:, None, None], within.shape))
    return grand_mean, pooled[:, None]


def _compute_moments(
    outcomes: Outcomes, metric: Metric, bounds: Sequence[int], days: Sequence[int], cuped: bool, *, cumulative: bool
) -> Moments:
    names = metric_columns(metric)
    columns = [require_column(outcomes, name) for name in names]
    n = len(outcomes.arm_of)
    before = _covariate(outcomes, metric, names) if cuped else None
    totals, seen = np.zeros((len(names), n)), np.zeros(n, np.bool_)
    parts = []
    for start, stop in pairwise(bounds):
        if not cumulative:
            totals[:], seen[:] = 0.0, False
        unit = outcomes.unit[start:stop]
        for total, per_row in zip(totals, columns, strict=True):
            total += sum_by_index(unit, per_row[start:stop], n)
        seen[unit] = True
        here = np.flatnonzero(seen)
        values = unit_values(metric, totals[:, here], len(here))
        if before is not None:
            values = np.concatenate([values, before[:, here]])
        is_known = ~np.isnan(values[0])
        parts.append(_arm_moments(values[:, is_known], outcomes.arm_of[here[is_known]], len(outcomes.arms)))
    size, k = len(outcomes.arms), 2 if before is None else 4
    empty = (np.empty((0, size), np.int64),) * 2 + (np.empty((0, size, k)), np.empty((0, size, k, k)))
    count, active, mean, covariance = (np.stack(part) for part in zip(*parts, strict=True)) if parts else empty
    mean[count < 1], covariance[count < 2] = np.nan, np.nan
    return Moments(outcomes.arms, np.array(days, np.int64), count, active, mean, covariance)


def _covariate(outcomes: Outcomes, metric: Metric, names: Sequence[str]) -> Floats | None:
    """(2, U) the covariate; None if the pre-period has no such column, or no unit did anything in it."""
    if any(name not in outcomes.pre_period for name in names):
        return None
    totals = np.stack([np.nan_to_num(outcomes.pre_period[name]) for name in names])
    if not totals[-1].any():
        return None
    values = unit_values(metric, totals, len(outcomes.arm_of))
    if np.isnan(values[0]).any():  # a unit without a pre-period gets the mean
        values[0] = np.where(np.isnan(values[0]), np.nanmean(values[0]), values[0])
    return values


def _arm_moments(values: Floats, arm: NDArray[np.int32], arms: int) -> tuple[Counts, Counts, Floats, Floats]:
    """Count (A,), converting (A,), mean (A, K), covariance (A, K, K) of (K, n) values; 0 if there are too few units."""
    k = len(values)
    count = np.bincount(arm, minlength=arms)
    active = np.bincount(arm[values[0] != 0], minlength=arms)
    mean = np.stack([sum_by_index(arm, variable, arms) for variable in values], axis=1) / np.maximum(count, 1)[:, None]
    centred = values - mean[arm].T
    covariance = np.empty((arms, k, k))
    for i in range(k):
        for j in range(i + 1):
            covariance[:, i, j] = covariance[:, j, i] = sum_by_index(arm, centred[i] * centred[j], arms)
    return count, active, mean, covariance / np.maximum(count - 1, 1)[:, None, None]
