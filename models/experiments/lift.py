"""Computes the lift of each arm over the control: values, differences, confidence intervals and CUPED."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from feedrank.models.experiments.delta import compare
from feedrank.models.experiments.moments import Floats, Moments, columns_of, final, over, pair, unit_values
from feedrank.models.experiments.outcomes import Metric, Outcomes

_CELLS = 1 << 21
"""Bootstrap draws held in memory at a time."""
_UNKNOWN = float("nan")
_ROUNDING = 1e-12
"""A variance below this share of the numbers that it was computed from is taken for a rounding error."""


@dataclass(frozen=True, slots=True)
class Span:
    """Holds an estimate with its confidence interval; NaN: unknown."""

    value: float
    low: float
    high: float

    def turned(self) -> Span:
        """Return the interval with its sign reversed, for a metric where lower is better."""
        return Span(-self.value, -self.high, -self.low)


NOTHING = Span(_UNKNOWN, _UNKNOWN, _UNKNOWN)


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
    absolute: Span
    """value - control"""
    relative: Span
    """value / control - 1"""
    p: float
    """Two-sided p-value at a fixed horizon: for one look at a time that was set beforehand."""
    variance_saved: float
    """Share of the variance that CUPED removes; NaN without CUPED."""
    said: str
    """Says why a number is missing or an interval wide; empty: nothing is."""


def lifts(outcomes: Outcomes, metric: Metric, *, alpha: float = 0.05, cuped: bool = False) -> tuple[Lift, ...]:
    """Compute each arm's lift over the control by the delta method over units, for one look at a fixed horizon.

    cuped: adjust for the same columns before the experiment. Sources: Deng et al., KDD 2018 (delta method) and WSDM
    2013 (CUPED).
    """
    return lifts_of(final(outcomes, metric, cuped=cuped), metric.name, alpha=alpha)


def lifts_of(moments: Moments, metric: str, *, alpha: float = 0.05, look: int = -1) -> tuple[Lift, ...]:
    """Compute `lifts` from moments, at one of their looks."""
    return tuple(_lift(moments, metric, arm, look, alpha) for arm in range(1, len(moments.arms)))


def welch(difference: Floats, variance: Floats, count: NDArray[np.int64], alpha: float) -> tuple[Floats, Floats]:
    """Compute half-widths and two-sided p-values by Student's t with Welch's degrees of freedom, both (L,).

    difference: (L,). variance: (L, 2) of both estimates. count: (L, 2) units. NaN with fewer than two units in an arm,
    or without any variance. Source: Welch 1947.
    """
    spread = variance.sum(axis=1)
    freedom = over(spread**2, (over(variance**2, count - 1.0)).sum(axis=1))
    is_known = np.isfinite(freedom) & (spread > 0)
    spread, freedom = np.where(is_known, spread, 1.0), np.where(is_known, freedom, 1.0)
    half = special.stdtrit(freedom, 1 - alpha / 2) * np.sqrt(spread)
    p = 2 * special.stdtr(freedom, -np.abs(np.where(is_known, difference, 0.0)) / np.sqrt(spread))
    return np.where(is_known, half, np.nan), np.where(is_known, p, np.nan)


def bootstrapped(
    outcomes: Outcomes, metric: Metric, *, seed: int, resamples: int = 2000, alpha: float = 0.05
) -> tuple[Lift, ...]:
    """Compute each arm's lift over the control with percentile intervals of a bootstrap over units.

    It assumes less than the delta method does, and takes longer: one draw per unit and resample. p is twice the smaller
    share of resamples on either side of no difference. Raises ValueError for fewer than 1 resample. Source: Efron &
    Tibshirani 1993, chapters 13 and 16.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more; a stable interval takes 1,000 or more")
    moments = final(outcomes, metric)
    values, arm_of = _values(outcomes, metric)
    drawn = [
        _resampled(values[:, arm_of == arm], np.random.default_rng([seed, arm]), resamples)
        for arm in range(len(outcomes.arms))
    ]
    return tuple(
        _bootstrap(_lift(moments, metric.name, arm, -1, alpha, plain=True), drawn[0], drawn[arm], alpha)
        for arm in range(1, len(outcomes.arms))
    )


def _lift(moments: Moments, metric: str, arm: int, look: int, alpha: float, *, plain: bool = False) -> Lift:
    """Compute one lift. values_only: skip intervals and p-value, since the bootstrap makes its own."""
    name = moments.arms[arm]
    if not len(moments.day):
        return Lift(
            metric, name, _UNKNOWN, _UNKNOWN, (0, 0), NOTHING, NOTHING, _UNKNOWN, _UNKNOWN, "no unit was shown this arm"
        )
    comparison = pair(moments, arm)
    control, treatment = comparison.value[look].tolist()
    units = int(comparison.units[look, 0]), int(comparison.units[look, 1])
    difference, spread = float(comparison.difference[look]), float(comparison.spread[look])
    relative = treatment / control - 1 if control > 0 else _UNKNOWN
    unadjusted = float(comparison.plain[look].sum())
    saved = 1 - spread / unadjusted if moments.mean.shape[2] > 2 and unadjusted > 0 else _UNKNOWN
    size = max(control**2, treatment**2, float(comparison.plain[look].max()))
    varies = spread > _ROUNDING * size
    note = _words(comparison.units[look].tolist(), control, treatment, comparison.variance[look].tolist(), varies)
    absolute, ratio, p = Span(difference, _UNKNOWN, _UNKNOWN), Span(relative, _UNKNOWN, _UNKNOWN), _UNKNOWN
    if min(units) >= 2 and spread > 0 and not plain:
        if varies and min(control, treatment) > 0 and spread < min(control, treatment) ** 2:
            test = compare(moments, look, arm, alpha=alpha)
            absolute, ratio, p = Span(*test.difference), Span(*test.ratio), test.p
        else:  # the logarithm of 0, or the root of a rounding error, means nothing: give the difference alone
            at = slice(look, None) if look == -1 else slice(look, look + 1)
            half, p_value = welch(comparison.difference[at], comparison.variance[at], comparison.units[at], alpha)
            absolute, p = Span(difference, difference - float(half[0]), difference + float(half[0])), float(p_value[0])
    return Lift(metric, name, control, treatment, units, absolute, ratio, p, saved, note)


def _words(units: list[int], first: float, other: float, variance: list[float], varies: bool) -> str:
    for n, arm in zip(units, ("the control", "this arm"), strict=True):
        if not n:
            return f"no units in {arm}"
    if min(units) < 2:
        return "an arm has one unit: its variance is unknown"
    if math.isnan(first) or math.isnan(other):
        return "the denominator is 0"
    if first == 0 == other:
        return "the metric is 0 in both arms"
    if first == 0:
        return "the metric is 0 in the control: there is no relative lift"
    if other == 0:
        return "the metric is 0 in this arm: its variance is unknown"
    if sum(variance) <= 0:
        return "the variance is 0: there is no interval"
    if not varies:
        return "the variance is lost in rounding: the relative lift has no interval"
    if first < 0 or other < 0:
        return "the metric is below 0: the relative lift has no interval"
    return "few units: the interval is wide" if min(units) < 30 else ""


def _values(outcomes: Outcomes, metric: Metric) -> tuple[Floats, NDArray[np.int32]]:
    """(2, n) numerators and denominators of the units that have both, and (n,) their arms."""
    totals = np.stack([outcomes.per_unit(name) for name in columns_of(metric)])
    seen = ~np.isnan(totals[0])
    values = unit_values(metric, totals[:, seen], int(seen.sum()))
    is_known = ~np.isnan(values[0])
    return values[:, is_known], outcomes.arm_of[seen][is_known]


def _resampled(values: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """(resamples,) values of an arm whose (2, n) units are drawn with replacement; NaN: no value."""
    n = values.shape[1]
    sums = np.zeros((2, resamples))
    if n:
        step = max(1, _CELLS // n)
        for start in range(0, resamples, step):
            drawn = generator.integers(n, size=(min(step, resamples - start), n), dtype=np.int32)
            sums[:, start : start + step] = values[0][drawn].sum(axis=1), values[1][drawn].sum(axis=1)
    return over(sums[0], sums[1])


def _bootstrap(lift: Lift, first: Floats, other: Floats, alpha: float) -> Lift:
    differences, relative_lifts = other - first, over(other, np.where(first > 0, first, np.nan)) - 1
    absolute, relative = (
        _percentiles(lift.absolute.value, differences, alpha),
        _percentiles(lift.relative.value, relative_lifts, alpha),
    )
    if min(lift.units) < 2 or math.isnan(absolute.low):
        absolute, relative = (
            Span(lift.absolute.value, _UNKNOWN, _UNKNOWN),
            Span(lift.relative.value, _UNKNOWN, _UNKNOWN),
        )
    below, above = np.sum(differences <= 0), np.sum(differences >= 0)
    p = _UNKNOWN if math.isnan(absolute.low) else min(1.0, 2 * float(min(below, above) + 1) / (len(differences) + 1))
    return replace(lift, absolute=absolute, relative=relative, p=p)


def _percentiles(value: float, drawn: Floats, alpha: float) -> Span:
    """The percentile interval; its bounds are NaN if one resample in ten or more has no value."""
    kept = drawn[~np.isnan(drawn)]
    if len(kept) < 0.9 * len(drawn):
        return Span(value, _UNKNOWN, _UNKNOWN)
    low, high = np.quantile(kept, [alpha / 2, 1 - alpha / 2]).tolist()
    return Span(value, low, high)
