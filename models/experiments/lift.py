"""How far each arm is from the first: values, differences, intervals, and what earlier behaviour explains of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.experiments.delta import compare
from models.experiments.moments import Floats, Moments, columns_of, final, over, pair, unit_values
from models.experiments.outcomes import Metric, Outcomes

_CELLS = 1 << 21
"""How many drawn units are held at a time."""
_UNKNOWN = float("nan")
_ROUNDING = 1e-12
"""A variance is told from rounding above this share of the numbers that it was computed from."""


@dataclass(frozen=True, slots=True)
class Span:
    """An estimate with its interval; NaN: not known."""

    value: float
    low: float
    high: float

    def turned(self) -> Span:
        """The other way round, for a metric of which less is better."""
        return Span(-self.value, -self.high, -self.low)


NOTHING = Span(_UNKNOWN, _UNKNOWN, _UNKNOWN)


@dataclass(frozen=True, slots=True)
class Lift:
    """One metric of one arm against the first arm."""

    metric: str
    arm: str
    control: float
    """The metric of the first arm; less what a covariate explains, so a little other for each arm."""
    value: float
    """The metric of this arm."""
    units: tuple[int, int]
    """Of the first arm, and of this one."""
    absolute: Span
    """value - control"""
    relative: Span
    """value / control - 1"""
    p: float
    """Two-sided, for one look at a time that was fixed beforehand."""
    variance_saved: float
    """The share of the variance that earlier behaviour explains; NaN without it."""
    said: str
    """Why a number is missing or wide; empty where nothing is to be said."""


def lifts(outcomes: Outcomes, metric: Metric, *, alpha: float = 0.05, cuped: bool = False) -> tuple[Lift, ...]:
    """Each arm against the first by the delta method over units, for one look at a fixed time.

    cuped: take off what the same columns before the experiment explain. Source: Deng et al., KDD 2018 and WSDM 2013.
    """
    return lifts_of(final(outcomes, metric, cuped=cuped), metric.name, alpha=alpha)


def lifts_of(moments: Moments, metric: str, *, alpha: float = 0.05, look: int = -1) -> tuple[Lift, ...]:
    """The same from moments, at one of their looks."""
    return tuple(_lift(moments, metric, arm, look, alpha) for arm in range(1, len(moments.arms)))


def welch(difference: Floats, variance: Floats, count: NDArray[np.int64], alpha: float) -> tuple[Floats, Floats]:
    """(L,) half widths and two-sided p by Student's t with Welch's degrees of freedom, from (L,) differences, (L, 2)
    variances of both estimates and (L, 2) units. NaN without two units each, or without any variance. Welch 1947.
    """
    spread = variance.sum(axis=1)
    freedom = over(spread**2, (over(variance**2, count - 1.0)).sum(axis=1))
    known = np.isfinite(freedom) & (spread > 0)
    spread, freedom = np.where(known, spread, 1.0), np.where(known, freedom, 1.0)
    half = special.stdtrit(freedom, 1 - alpha / 2) * np.sqrt(spread)
    p = 2 * special.stdtr(freedom, -np.abs(np.where(known, difference, 0.0)) / np.sqrt(spread))
    return np.where(known, half, np.nan), np.where(known, p, np.nan)


def bootstrapped(
    outcomes: Outcomes, metric: Metric, *, seed: int, resamples: int = 2000, alpha: float = 0.05
) -> tuple[Lift, ...]:
    """Each arm against the first, with percentile intervals when the units of each arm are drawn again.

    It assumes less than the delta method does, and takes longer: a draw a unit and resample. p is twice the smaller
    share of resamples on either side of no difference. Source: Efron & Tibshirani 1993, chapters 13 and 16.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more, and 1,000 or more for an interval to hold still")
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
    """plain: without what the library adds, as the bootstrap needs values alone."""
    name = moments.arms[arm]
    if not len(moments.day):
        return Lift(
            metric, name, _UNKNOWN, _UNKNOWN, (0, 0), NOTHING, NOTHING, _UNKNOWN, _UNKNOWN, "nobody was shown it"
        )
    beside = pair(moments, arm)
    first, other = beside.value[look].tolist()
    units = int(beside.units[look, 0]), int(beside.units[look, 1])
    difference, spread = float(beside.difference[look]), float(beside.spread[look])
    relative = other / first - 1 if first > 0 else _UNKNOWN
    before = float(beside.plain[look].sum())
    saved = 1 - spread / before if moments.mean.shape[2] > 2 and before > 0 else _UNKNOWN
    size = max(first**2, other**2, float(beside.plain[look].max()))
    varies = spread > _ROUNDING * size
    words = _words(beside.units[look].tolist(), first, other, beside.variance[look].tolist(), varies)
    absolute, ratio, p = Span(difference, _UNKNOWN, _UNKNOWN), Span(relative, _UNKNOWN, _UNKNOWN), _UNKNOWN
    if min(units) >= 2 and spread > 0 and not plain:
        if varies and min(first, other) > 0 and spread < min(first, other) ** 2:
            found = compare(moments, look, arm, alpha=alpha)
            absolute, ratio, p = Span(*found.difference), Span(*found.ratio), found.p
        else:  # a logarithm, or a root of rounding, would be of nothing: the difference alone
            at = slice(look, None) if look == -1 else slice(look, look + 1)
            half, surprise = welch(beside.difference[at], beside.variance[at], beside.units[at], alpha)
            absolute, p = Span(difference, difference - float(half[0]), difference + float(half[0])), float(surprise[0])
    return Lift(metric, name, first, other, units, absolute, ratio, p, saved, words)


def _words(units: list[int], first: float, other: float, variance: list[float], varies: bool) -> str:
    for n, who in zip(units, ("the first arm", "this arm"), strict=True):
        if not n:
            return f"no units in {who}"
    if min(units) < 2:
        return "one unit alone has no spread"
    if math.isnan(first) or math.isnan(other):
        return "nothing to divide by"
    if first == 0 == other:
        return "nothing happened in either arm"
    if first == 0:
        return "nothing happened in the first arm: there is no relative lift"
    if other == 0:
        return "nothing happened in this arm: how far it varies is not known"
    if sum(variance) <= 0:
        return "all units are alike: there is no interval"
    if not varies:
        return "by how much units differ is lost in rounding: the relative lift has no interval"
    if first < 0 or other < 0:
        return "a value is below 0: the relative lift has no interval"
    return "few units: a wide interval" if min(units) < 30 else ""


def _values(outcomes: Outcomes, metric: Metric) -> tuple[Floats, NDArray[np.int32]]:
    """(2, n) numerators and denominators of the units that have them, with their arms."""
    totals = np.stack([outcomes.per_unit(name) for name in columns_of(metric)])
    seen = ~np.isnan(totals[0])
    values = unit_values(metric, totals[:, seen], int(seen.sum()))
    known = ~np.isnan(values[0])
    return values[:, known], outcomes.arm_of[seen][known]


def _resampled(values: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """(resamples,) values of an arm whose (2, n) units are drawn with replacement; NaN where there is none."""
    n = values.shape[1]
    sums = np.zeros((2, resamples))
    if n:
        step = max(1, _CELLS // n)
        for start in range(0, resamples, step):
            drawn = generator.integers(n, size=(min(step, resamples - start), n), dtype=np.int32)
            sums[:, start : start + step] = values[0][drawn].sum(axis=1), values[1][drawn].sum(axis=1)
    return over(sums[0], sums[1])


def _bootstrap(lift: Lift, first: Floats, other: Floats, alpha: float) -> Lift:
    gaps, ratios = other - first, over(other, np.where(first > 0, first, np.nan)) - 1
    absolute, relative = (
        _percentiles(lift.absolute.value, gaps, alpha),
        _percentiles(lift.relative.value, ratios, alpha),
    )
    if min(lift.units) < 2 or math.isnan(absolute.low):
        absolute, relative = (
            Span(lift.absolute.value, _UNKNOWN, _UNKNOWN),
            Span(lift.relative.value, _UNKNOWN, _UNKNOWN),
        )
    below, above = np.sum(gaps <= 0), np.sum(gaps >= 0)
    p = _UNKNOWN if math.isnan(absolute.low) else min(1.0, 2 * float(min(below, above) + 1) / (len(gaps) + 1))
    return replace(lift, absolute=absolute, relative=relative, p=p)


def _percentiles(value: float, drawn: Floats, alpha: float) -> Span:
    """NaN bounds where a resample in ten or more has no value."""
    kept = drawn[~np.isnan(drawn)]
    if len(kept) < 0.9 * len(drawn):
        return Span(value, _UNKNOWN, _UNKNOWN)
    low, high = np.quantile(kept, [alpha / 2, 1 - alpha / 2]).tolist()
    return Span(value, low, high)
