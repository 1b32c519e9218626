"""Tests for a novelty effect: the lift of each day alone, and the slope through them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from feedrank.models.experiments.lift import UNKNOWN_INTERVAL, Interval, welch_interval
from feedrank.models.experiments.moments import (
    ArmComparison,
    Counts,
    Floats,
    Moments,
    compare_to_control,
    daily_moments,
    day_slices,
    final_moments,
    metric_columns,
    require_column,
    safe_divide,
    sum_by_index,
    unit_values,
)
from feedrank.models.experiments.outcomes import Metric, Outcomes

MIN_DAYS = 4
"""Days with both arms that the slope needs."""
Trend = Literal["fading", "growing", "steady", "unknown"]


@dataclass(frozen=True, eq=False, slots=True)
class NoveltyEffect:
    """Holds the lift of one arm over the control by day, over D days; each day has its own rows alone."""

    metric: str
    arm: str
    day: Counts
    """(D,)"""
    units: Counts
    """(D, 2) of the control and of this arm."""
    relative: Floats
    """(D,) the day's difference over the control's value of all days; NaN: an arm has no units that day."""
    low: Floats
    """(D,)"""
    high: Floats
    """(D,)"""
    slope: Interval
    """Change of the relative lift per day."""
    p: float
    """Two-sided p-value of a slope of 0; NaN for fewer than `MIN_DAYS` days."""
    trend: Trend
    """fading: the slope is significant and opposite to the lift of all days; growing: it has the same sign."""


def novelty_effects(outcomes: Outcomes, metric: Metric, *, alpha: float = 0.05) -> tuple[NoveltyEffect, ...]:
    """Compute each arm's lift over the control by day, and its trend.

    The slope is fitted by weighted least squares; a day is weighted by the harmonic mean of the arms' units. Days share
    returning units, so the variance is clustered: the sum over units of the squared total that a unit adds on all days
    (Liang & Zeger 1986).
    """
    by_day, whole = daily_moments(outcomes, metric), final_moments(outcomes, metric)
    return tuple(_novelty_effect(outcomes, metric, by_day, whole, arm, alpha) for arm in range(1, len(outcomes.arms)))


def _novelty_effect(
    outcomes: Outcomes, metric: Metric, daily: Moments, total: Moments, arm: int, alpha: float
) -> NoveltyEffect:
    comparison = compare_to_control(daily, arm)
    overall = compare_to_control(total, arm)
    control_value = float(overall.value[-1, 0]) if len(total.day) else math.nan
    control_value = control_value if control_value > 0 else math.nan
    half, _ = welch_interval(comparison.difference, comparison.variance, comparison.units, alpha)
    relative = comparison.difference / control_value
    slope, p = _slope(outcomes, metric, comparison, daily.day, arm, control_value, alpha)
    trend: Trend = "unknown" if math.isnan(p) else "steady"
    if p < alpha:
        trend = "growing" if slope.value * float(overall.difference[-1]) > 0 else "fading"
    return NoveltyEffect(
        metric.name, outcomes.arms[arm], daily.day, comparison.units, relative, relative - half / control_value,
        relative + half / control_value, slope, p, trend,
    )  # fmt: skip


def _slope(
    outcomes: Outcomes,
    metric: Metric,
    comparison: ArmComparison,
    day: Counts,
    arm: int,
    control_value: float,
    alpha: float,
) -> tuple[Interval, float]:
    is_known = np.isfinite(comparison.difference) & (comparison.units.min(axis=1) >= 2)
    if is_known.sum() < MIN_DAYS or math.isnan(control_value):
        return UNKNOWN_INTERVAL, math.nan
    units = comparison.units.astype(np.float64)
    weight = np.where(is_known, safe_divide(units.prod(axis=1), units.sum(axis=1)), 0.0)
    centered = day - (weight * day).sum() / weight.sum()
    day_weights = weight * centered / (weight * centered**2).sum()  # of each day's difference
    estimate = float((day_weights * np.where(is_known, comparison.difference, 0.0)).sum())
    variance, degrees = _slope_variance(outcomes, metric, comparison, day_weights, arm)
    if variance <= 0:
        return Interval(estimate / control_value, math.nan, math.nan), math.nan
    standard_error = math.sqrt(variance)
    half = float(special.stdtrit(degrees, 1 - alpha / 2)) * standard_error
    p = 2 * float(special.stdtr(degrees, -abs(estimate) / standard_error))
    return Interval(estimate / control_value, (estimate - half) / control_value, (estimate + half) / control_value), p


def _slope_variance(
    outcomes: Outcomes, metric: Metric, comparison: ArmComparison, day_weight: Floats, arm: int
) -> tuple[float, int]:
    """The slope's variance, and its degrees of freedom: units with rows, less one per arm."""
    columns = [require_column(outcomes, name) for name in metric_columns(metric)]
    n = len(outcomes.arm_of)
    added, seen = np.zeros(n), np.zeros(n, np.bool_)
    for day, rows in day_slices(outcomes):
        if day_weight[day] == 0:
            continue
        totals = np.stack([sum_by_index(outcomes.unit[rows], values[rows], n) for values in columns])
        here = np.unique(outcomes.unit[rows])
        values = unit_values(metric, totals[:, here], len(here))
        is_known = ~np.isnan(values[0])
        values, here = values[:, is_known], here[is_known]
        for index, code in enumerate((0, arm)):
            in_arm = outcomes.arm_of[here] == code
            x, y = values[:, in_arm]
            added[here[in_arm]] += day_weight[day] * (x - comparison.value[day, index] * y) / y.sum()
            seen[here[in_arm]] = True
    counts = np.bincount(outcomes.arm_of[seen], minlength=len(outcomes.arms))[[0, arm]]
    sums = sum_by_index(outcomes.arm_of, added**2, len(outcomes.arms))[[0, arm]]
    if counts.min() < 2:
        return 0.0, 1
    return float((sums * counts / (counts - 1)).sum()), int(counts.sum()) - 2
