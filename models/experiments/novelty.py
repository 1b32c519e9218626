"""Tests for a novelty effect: the lift of each day alone, and the slope through them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from feedrank.models.experiments.lift import NOTHING, Span, welch
from feedrank.models.experiments.moments import (
    Counts,
    Floats,
    Moments,
    Pair,
    column,
    columns_of,
    daily,
    day_bounds,
    final,
    over,
    pair,
    summed,
    unit_values,
)
from feedrank.models.experiments.outcomes import Metric, Outcomes

LEAST_DAYS = 4
"""Days with both arms that the slope needs."""
Trend = Literal["fading", "growing", "steady", "not known"]


@dataclass(frozen=True, eq=False, slots=True)
class Novelty:
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
    slope: Span
    """Change of the relative lift per day."""
    p: float
    """Two-sided p-value of a slope of 0; NaN for fewer than `MIN_DAYS` days."""
    trend: Trend
    """fading: the slope is significant and opposite to the lift of all days; growing: it has the same sign."""


def novelty(outcomes: Outcomes, metric: Metric, *, alpha: float = 0.05) -> tuple[Novelty, ...]:
    """Compute each arm's lift over the control by day, and its trend.

    The slope is fitted by weighted least squares; a day is weighted by the harmonic mean of the arms' units. Days share
    returning units, so the variance is clustered: the sum over units of the squared total that a unit adds on all days
    (Liang & Zeger 1986).
    """
    by_day, whole = daily(outcomes, metric), final(outcomes, metric)
    return tuple(_novelty(outcomes, metric, by_day, whole, arm, alpha) for arm in range(1, len(outcomes.arms)))


def _novelty(outcomes: Outcomes, metric: Metric, by_day: Moments, whole: Moments, arm: int, alpha: float) -> Novelty:
    comparison = pair(by_day, arm)
    overall = pair(whole, arm)
    control_value = float(overall.value[-1, 0]) if len(whole.day) else math.nan
    control_value = control_value if control_value > 0 else math.nan
    half, _ = welch(comparison.difference, comparison.variance, comparison.units, alpha)
    relative = comparison.difference / control_value
    slope, p = _slope(outcomes, metric, comparison, by_day.day, arm, control_value, alpha)
    trend: Trend = "not known" if math.isnan(p) else "steady"
    if p < alpha:
        trend = "growing" if slope.value * float(overall.difference[-1]) > 0 else "fading"
    return Novelty(
        metric.name, outcomes.arms[arm], by_day.day, comparison.units, relative, relative - half / control_value,
        relative + half / control_value, slope, p, trend,
    )  # fmt: skip


def _slope(
    outcomes: Outcomes, metric: Metric, beside: Pair, day: Counts, arm: int, base: float, alpha: float
) -> tuple[Span, float]:
    is_known = np.isfinite(beside.difference) & (beside.units.min(axis=1) >= 2)
    if is_known.sum() < LEAST_DAYS or math.isnan(base):
        return NOTHING, math.nan
    units = beside.units.astype(np.float64)
    weight = np.where(is_known, over(units.prod(axis=1), units.sum(axis=1)), 0.0)
    centered = day - (weight * day).sum() / weight.sum()
    day_weights = weight * centered / (weight * centered**2).sum()  # of each day's difference
    estimate = float((day_weights * np.where(is_known, beside.difference, 0.0)).sum())
    variance, degrees = _variance(outcomes, metric, beside, day_weights, arm)
    if variance <= 0:
        return Span(estimate / base, math.nan, math.nan), math.nan
    standard_error = math.sqrt(variance)
    half = float(special.stdtrit(degrees, 1 - alpha / 2)) * standard_error
    p = 2 * float(special.stdtr(degrees, -abs(estimate) / standard_error))
    return Span(estimate / base, (estimate - half) / base, (estimate + half) / base), p


def _variance(outcomes: Outcomes, metric: Metric, beside: Pair, share: Floats, arm: int) -> tuple[float, int]:
    """The slope's variance, and its degrees of freedom: units with rows, less one per arm."""
    columns = [column(outcomes, name) for name in columns_of(metric)]
    n = len(outcomes.arm_of)
    added, seen = np.zeros(n), np.zeros(n, np.bool_)
    for day, rows in day_bounds(outcomes):
        if share[day] == 0:
            continue
        totals = np.stack([summed(outcomes.unit[rows], values[rows], n) for values in columns])
        here = np.unique(outcomes.unit[rows])
        values = unit_values(metric, totals[:, here], len(here))
        is_known = ~np.isnan(values[0])
        values, here = values[:, is_known], here[is_known]
        for index, code in enumerate((0, arm)):
            in_arm = outcomes.arm_of[here] == code
            x, y = values[:, in_arm]
            added[here[in_arm]] += share[day] * (x - beside.value[day, index] * y) / y.sum()
            seen[here[in_arm]] = True
    counts = np.bincount(outcomes.arm_of[seen], minlength=len(outcomes.arms))[[0, arm]]
    sums = summed(outcomes.arm_of, added**2, len(outcomes.arms))[[0, arm]]
    if counts.min() < 2:
        return 0.0, 1
    return float((sums * counts / (counts - 1)).sum()), int(counts.sum()) - 2
