"""Computes the lift of each arm over the control: values, differences, confidence intervals and CUPED."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from feedrank.models.experiments.delta import delta_method_test
from feedrank.models.experiments.moments import (
    Floats,
    Moments,
    compare_to_control,
    final_moments,
    metric_columns,
    safe_divide,
    unit_values,
)
from feedrank.models.experiments.outcomes import Metric, Outcomes

_MAX_DRAWS_IN_MEMORY = 1 << 21
"""Bootstrap draws held in memory at a time."""
_NAN = float("nan")
_ROUNDING_ERROR = 1e-12
"""A variance below this share of the numbers that it was computed from is taken for a rounding error."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds an estimate with its confidence interval; NaN: unknown."""

    value: float
    low: float
    high: float

    def negated(self) -> Interval:
        """Return the interval with its sign reversed, for a metric where lower is better."""
        return Interval(-self.value, -self.high, -self.low)


UNKNOWN_INTERVAL = Interval(_NAN, _NAN, _NAN)


@dataclass(frozen=True, slots=True)
class Lift:
    """Holds the lift of one metric of one arm over the control (the first arm)."""

    metric: str
    arm: str
    control: float
    """The control's metric; with CUPED it is adjusted, so it differs a little from arm to arm."""
    value: float
    """This arm's metric."""
    units: tuple[int, int]
    """Units of the control and of this arm."""
    absolute: Interval
    """value - control"""
    relative: Interval
    """value / control - 1"""
    p: float
    """Two-sided p-value at a fixed horizon: for one look at a time that was set beforehand."""
    variance_reduction: float
    """Share of the variance that CUPED removes; NaN without CUPED."""
    note: str
    """Says why a number is missing or an interval wide; empty: nothing is."""


def lifts(outcomes: Outcomes, metric: Metric, *, alpha: float = 0.05, cuped: bool = False) -> tuple[Lift, ...]:
    """Compute each arm's lift over the control by the delta method over units, for one look at a fixed horizon.

    cuped: adjust for the same columns before the experiment. Sources: Deng et al., KDD 2018 (delta method) and WSDM
    2013 (CUPED).
    """
    return lifts_from_moments(final_moments(outcomes, metric, cuped=cuped), metric.name, alpha=alpha)


def lifts_from_moments(moments: Moments, metric: str, *, alpha: float = 0.05, look: int = -1) -> tuple[Lift, ...]:
    """Compute `lifts` from moments, at one of their looks."""
    return tuple(_lift(moments, metric, arm, look, alpha) for arm in range(1, len(moments.arms)))


def welch_interval(
    difference: Floats, variance: Floats, count: NDArray[np.int64], alpha: float
) -> tuple[Floats, Floats]:
    """Compute half-widths and two-sided p-values by Student's t with Welch's degrees of freedom, both (L,).

    difference: (L,). variance: (L, 2) of both estimates. count: (L, 2) units. NaN with fewer than two units in an arm,
    or without any variance. Source: Welch 1947.
    """
    spread = variance.sum(axis=1)
    freedom = safe_divide(spread**2, (safe_divide(variance**2, count - 1.0)).sum(axis=1))
    is_known = np.isfinite(freedom) & (spread > 0)
    spread, freedom = np.where(is_known, spread, 1.0), np.where(is_known, freedom, 1.0)
    half = special.stdtrit(freedom, 1 - alpha / 2) * np.sqrt(spread)
    p = 2 * special.stdtr(freedom, -np.abs(np.where(is_known, difference, 0.0)) / np.sqrt(spread))
    return np.where(is_known, half, np.nan), np.where(is_known, p, np.nan)


def bootstrap_lifts(
    outcomes: Outcomes, metric: Metric, *, seed: int, resamples: int = 2000, alpha: float = 0.05
) -> tuple[Lift, ...]:
    """Compute each arm's lift over the control with percentile intervals of a bootstrap over units.

    It assumes less than the delta method does, and takes longer: one draw per unit and resample. p is twice the smaller
    share of resamples on either side of no difference. Raises ValueError for fewer than 1 resample. Source: Efron &
    Tibshirani 1993, chapters 13 and 16.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more; a stable interval takes 1,000 or more")
    moments = final_moments(outcomes, metric)
    values, arm_of = _unit_values(outcomes, metric)
    drawn = [
        _resample(values[:, arm_of == arm], np.random.default_rng([seed, arm]), resamples)
        for arm in range(len(outcomes.arms))
    ]
    return tuple(
        _with_bootstrap_intervals(
            _lift(moments, metric.name, arm, -1, alpha, values_only=True), drawn[0], drawn[arm], alpha
        )
        for arm in range(1, len(outcomes.arms))
    )


def _lift(moments: Moments, metric: str, arm: int, look: int, alpha: float, *, values_only: bool = False) -> Lift:
    """Compute one lift. values_only: skip intervals and p-value, since the bootstrap makes its own."""
    name = moments.arms[arm]
    if not len(moments.day):
        return Lift(
            metric,
            name,
            _NAN,
            _NAN,
            (0, 0),
            UNKNOWN_INTERVAL,
            UNKNOWN_INTERVAL,
            _NAN,
            _NAN,
            "no unit was shown this arm",
        )
    comparison = compare_to_control(moments, arm)
    control, treatment = comparison.value[look].tolist()
    units = int(comparison.units[look, 0]), int(comparison.units[look, 1])
    difference, spread = float(comparison.difference[look]), float(comparison.difference_variance[look])
    relative = treatment / control - 1 if control > 0 else _NAN
    unadjusted = float(comparison.unadjusted_variance[look].sum())
    saved = 1 - spread / unadjusted if moments.mean.shape[2] > 2 and unadjusted > 0 else _NAN
    size = max(control**2, treatment**2, float(comparison.unadjusted_variance[look].max()))
    varies = spread > _ROUNDING_ERROR * size
    note = _explain_missing(
        comparison.units[look].tolist(), control, treatment, comparison.variance[look].tolist(), varies
    )
    absolute, ratio, p = Interval(difference, _NAN, _NAN), Interval(relative, _NAN, _NAN), _NAN
    if min(units) >= 2 and spread > 0 and not values_only:
        if varies and min(control, treatment) > 0 and spread < min(control, treatment) ** 2:
            test = delta_method_test(moments, look, arm, alpha=alpha)
            absolute, ratio, p = Interval(*test.difference), Interval(*test.relative), test.p
        else:  # the logarithm of 0, or the root of a rounding error, means nothing: give the difference alone
            at = slice(look, None) if look == -1 else slice(look, look + 1)
            half, p_value = welch_interval(
                comparison.difference[at], comparison.variance[at], comparison.units[at], alpha
            )
            absolute, p = (
                Interval(difference, difference - float(half[0]), difference + float(half[0])),
                float(p_value[0]),
            )
    return Lift(metric, name, control, treatment, units, absolute, ratio, p, saved, note)


def _explain_missing(units: list[int], control: float, treatment: float, variance: list[float], varies: bool) -> str:
    for n, arm in zip(units, ("the control", "this arm"), strict=True):
        if not n:
            return f"no units in {arm}"
    if min(units) < 2:
        return "an arm has one unit: its variance is unknown"
    if math.isnan(control) or math.isnan(treatment):
        return "the denominator is 0"
    if control == 0 == treatment:
        return "the metric is 0 in both arms"
    if control == 0:
        return "the metric is 0 in the control: there is no relative lift"
    if treatment == 0:
        return "the metric is 0 in this arm: its variance is unknown"
    if sum(variance) <= 0:
        return "the variance is 0: there is no interval"
    if not varies:
        return "the variance is lost in rounding: the relative lift has no interval"
    if control < 0 or treatment < 0:
        return "the metric is below 0: the relative lift has no interval"
    return "few units: the interval is wide" if min(units) < 30 else ""


def _unit_values(outcomes: Outcomes, metric: Metric) -> tuple[Floats, NDArray[np.int32]]:
    """(2, n) numerators and denominators of the units that have both, and (n,) their arms."""
    totals = np.stack([outcomes.unit_totals(name) for name in metric_columns(metric)])
    seen = ~np.isnan(totals[0])
    values = unit_values(metric, totals[:, seen], int(seen.sum()))
    is_known = ~np.isnan(values[0])
    return values[:, is_known], outcomes.arm_of[seen][is_known]


def _resample(values: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """(resamples,) values of an arm whose (2, n) units are drawn with replacement; NaN: no value."""
    n = values.shape[1]
    sums = np.zeros((2, resamples))
    if n:
        step = max(1, _MAX_DRAWS_IN_MEMORY // n)
        for start in range(0, resamples, step):
            drawn = generator.integers(n, size=(min(step, resamples - start), n), dtype=np.int32)
            sums[:, start : start + step] = values[0][drawn].sum(axis=1), values[1][drawn].sum(axis=1)
    return safe_divide(sums[0], sums[1])


def _with_bootstrap_intervals(lift: Lift, control: Floats, treatment: Floats, alpha: float) -> Lift:
    differences, relative_lifts = (
        treatment - control,
        safe_divide(treatment, np.where(control > 0, control, np.nan)) - 1,
    )
    absolute, relative = (
        _percentile_interval(lift.absolute.value, differences, alpha),
        _percentile_interval(lift.relative.value, relative_lifts, alpha),
    )
    if min(lift.units) < 2 or math.isnan(absolute.low):
        absolute, relative = (
            Interval(lift.absolute.value, _NAN, _NAN),
            Interval(lift.relative.value, _NAN, _NAN),
        )
    below, above = np.sum(differences <= 0), np.sum(differences >= 0)
    p = _NAN if math.isnan(absolute.low) else min(1.0, 2 * float(min(below, above) + 1) / (len(differences) + 1))
    return replace(lift, absolute=absolute, relative=relative, p=p)


def _percentile_interval(value: float, drawn: Floats, alpha: float) -> Interval:
    """The percentile interval; its bounds are NaN if one resample in ten or more has no value."""
    kept = drawn[~np.isnan(drawn)]
    if len(kept) < 0.9 * len(drawn):
        return Interval(value, _NAN, _NAN)
    low, high = np.quantile(kept, [alpha / 2, 1 - alpha / 2]).tolist()
    return Interval(value, low, high)
