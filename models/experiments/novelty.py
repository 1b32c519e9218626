"""Whether an effect fades: the lift of each day by itself, and the slope through them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from models.experiments.lift import NOTHING, Span, welch
from models.experiments.moments import (
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
from models.experiments.outcomes import Metric, Outcomes

LEAST_DAYS = 4
"""Days with both arms that a slope needs."""
Trend = Literal["fading", "growing", "steady", "not known"]


@dataclass(frozen=True, eq=False, slots=True)
class Novelty:
    """One metric of one arm against the first, over D days of which each has its own rows alone."""

    metric: str
    arm: str
    day: Counts
    """(D,)"""
    units: Counts
    """(D, 2) of the first arm and of this one."""
    relative: Floats
    """(D,) the day's difference over the first arm's value of all days; NaN where an arm has none."""
    low: Floats
    """(D,)"""
    high: Floats
    """(D,)"""
    slope: Span
    """What the relative lift gains a day."""
    p: float
    """Two-sided, of no slope; NaN for fewer than `LEAST_DAYS` days."""
    trend: Trend
    """fading: the slope is sure, and goes against the lift of all days; growing: along with it."""


def novelty(outcomes: Outcomes, metric: Metric, *, alpha: float = 0.05) -> tuple[Novelty, ...]:
    """Each arm against the first, day by day.

    The slope is that of least squares, a day weighing as its units do. Days share units that come back, so its variance
    is the sum over units of the square of all that a unit adds to it on any day (Liang & Zeger 1986).
    """
    by_day, whole = daily(outcomes, metric), final(outcomes, metric)
    return tuple(_novelty(outcomes, metric, by_day, whole, arm, alpha) for arm in range(1, len(outcomes.arms)))


def _novelty(outcomes: Outcomes, metric: Metric, by_day: Moments, whole: Moments, arm: int, alpha: float) -> Novelty:
    beside = pair(by_day, arm)
    overall = pair(whole, arm)
    base = float(overall.value[-1, 0]) if len(whole.day) else math.nan
    base = base if base > 0 else math.nan
    half, _ = welch(beside.difference, beside.variance, beside.units, alpha)
    relative = beside.difference / base
    slope, p = _slope(outcomes, metric, beside, by_day.day, arm, base, alpha)
    trend: Trend = "not known" if math.isnan(p) else "steady"
    if p < alpha:
        trend = "growing" if slope.value * float(overall.difference[-1]) > 0 else "fading"
    return Novelty(
        metric.name, outcomes.arms[arm], by_day.day, beside.units, relative, relative - half / base,
        relative + half / base, slope, p, trend,
    )  # fmt: skip


def _slope(
    outcomes: Outcomes, metric: Metric, beside: Pair, day: Counts, arm: int, base: float, alpha: float
) -> tuple[Span, float]:
    known = np.isfinite(beside.difference) & (beside.units.min(axis=1) >= 2)
    if known.sum() < LEAST_DAYS or math.isnan(base):
        return NOTHING, math.nan
    units = beside.units.astype(np.float64)
    weight = np.where(known, over(units.prod(axis=1), units.sum(axis=1)), 0.0)
    away = day - (weight * day).sum() / weight.sum()
    share = weight * away / (weight * away**2).sum()  # of each day's difference in the slope
    estimate = float((share * np.where(known, beside.difference, 0.0)).sum())
    variance, freedom = _variance(outcomes, metric, beside, share, arm)
    if variance <= 0:
        return Span(estimate / base, math.nan, math.nan), math.nan
    error = math.sqrt(variance)
    half = float(special.stdtrit(freedom, 1 - alpha / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(estimate) / error))
    return Span(estimate / base, (estimate - half) / base, (estimate + half) / base), p


def _variance(outcomes: Outcomes, metric: Metric, beside: Pair, share: Floats, arm: int) -> tuple[float, int]:
    """Of the slope, and its degrees of freedom: units that were there, less one an arm."""
    columns = [column(outcomes, name) for name in columns_of(metric)]
    n = len(outcomes.arm_of)
    added, there = np.zeros(n), np.zeros(n, np.bool_)
    for day, rows in day_bounds(outcomes):
        if share[day] == 0:
            continue
        totals = np.stack([summed(outcomes.unit[rows], one[rows], n) for one in columns])
        here = np.unique(outcomes.unit[rows])
        values = unit_values(metric, totals[:, here], len(here))
        known = ~np.isnan(values[0])
        values, here = values[:, known], here[known]
        for place, which in enumerate((0, arm)):
            mine = outcomes.arm_of[here] == which
            x, y = values[:, mine]
            added[here[mine]] += share[day] * (x - beside.value[day, place] * y) / y.sum()
            there[here[mine]] = True
    counts = np.bincount(outcomes.arm_of[there], minlength=len(outcomes.arms))[[0, arm]]
    sums = summed(outcomes.arm_of, added**2, len(outcomes.arms))[[0, arm]]
    if counts.min() < 2:
        return 0.0, 1
    return float((sums * counts / (counts - 1)).sum()), int(counts.sum()) - 2
