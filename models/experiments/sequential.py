"""Always-valid inference: intervals and p-values that hold at every look, however often and until whenever one looks.

A mixture of likelihood ratios over effects drawn from a normal of variance tau2 is a martingale in the information
1/V, so it passes 1/alpha with a probability of alpha at most. With V from data this holds as units become many; a
guard waits until they are. Sources: Robbins 1970; Johari et al., Peeking at A/B Tests, KDD 2017, and Always Valid
Inference, Operations Research 2022; Waudby-Smith et al., Time-uniform central limit theory and asymptotic confidence
sequences, Annals of Statistics 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.experiments.lift import NOTHING, Span, welch
from models.experiments.moments import Counts, Floats, Moments, Pair, looks, pair
from models.experiments.outcomes import Metric, Outcomes

LEAST_UNITS = 50
"""Units that each arm must have before anything is said."""
LEAST_ACTIVE = 25
"""Units with anything in the numerator, such as clicks, that each arm must have."""


@dataclass(frozen=True, eq=False, slots=True)
class Sequence:
    """One metric of one arm against the first, at L looks. NaN: nothing may be said yet, or there is no such number."""

    metric: str
    arm: str
    alpha: float
    tau2: float
    """The variance of the mixture, fixed at the first look that counts; NaN: there was none. Of effects relative to the
    first arm's value, so that a metric that grows with time, such as clicks a unit, keeps its scale; of differences
    where that value is ever 0 or less."""
    day: Counts
    """(L,)"""
    units: Counts
    """(L, 2) of the first arm and of this one."""
    ripe: NDArray[np.bool_]
    """(L,) whether enough units are in."""
    estimate: Floats
    """(L,) this arm less the first."""
    variance: Floats
    """(L,) of the estimate, clustered by unit."""
    low: Floats
    """(L,)"""
    high: Floats
    """(L,)"""
    relative: Floats
    """(L,) this arm over the first, less 1."""
    relative_low: Floats
    """(L,)"""
    relative_high: Floats
    """(L,)"""
    p: Floats
    """(L,) always valid: the least until then; 1 before the first look that counts."""
    fixed_low: Floats
    """(L,) the t-test's interval, which is right at one look only, for contrast."""
    fixed_high: Floats
    """(L,)"""
    fixed_p: Floats
    """(L,)"""

    def at(self, look: int) -> Sequence:
        """As it was at a look, from 0."""
        told: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        cut = {name: value[: look + 1] for name, value in told.items() if isinstance(value, np.ndarray)}
        return Sequence(**{**told, **cut})

    @property
    def last(self) -> Span:
        """The difference at the last look."""
        return NOTHING if not len(self.day) else Span(*(float(one[-1]) for one in (self.estimate, self.low, self.high)))

    @property
    def last_relative(self) -> Span:
        """The relative lift at the last look."""
        columns = self.relative, self.relative_low, self.relative_high
        return NOTHING if not len(self.day) else Span(*(float(one[-1]) for one in columns))


def sequences(
    outcomes: Outcomes,
    metric: Metric,
    *,
    planned_units: float,
    alpha: float = 0.05,
    cuped: bool = False,
    least_units: int = LEAST_UNITS,
    least_active: int = LEAST_ACTIVE,
) -> tuple[Sequence, ...]:
    """Each arm against the first at the end of each day. planned_units: of all arms together."""
    moments = looks(outcomes, metric, cuped=cuped)
    least = {"least_units": least_units, "least_active": least_active}
    return sequences_of(moments, metric.name, planned_units=planned_units, alpha=alpha, **least)


def sequences_of(
    moments: Moments,
    metric: str,
    *,
    planned_units: float,
    alpha: float = 0.05,
    least_units: int = LEAST_UNITS,
    least_active: int = LEAST_ACTIVE,
) -> tuple[Sequence, ...]:
    """The same from moments."""
    if not 0 < alpha < 1 or planned_units <= 0:
        raise ValueError(f"found alpha {alpha} and {planned_units} planned units; expected 0 < alpha < 1 and units > 0")
    share = moments.count.sum(axis=1) / planned_units
    guard = least_units, least_active
    return tuple(
        _sequence(pair(moments, arm), moments, metric, arm, share, alpha, guard) for arm in range(1, len(moments.arms))
    )


def mixture_variance(variance: float, share: float, alpha: float) -> float:
    """tau2 that makes the interval narrowest when all planned units are in.

    variance: V of the estimate at a look with `share` of them. Source: Waudby-Smith et al. 2024, section B.2.
    """
    rate = -2 * math.log(alpha)
    return variance * share * (rate + math.log(rate + 1))


def multiplier(variance: Floats, tau2: float, alpha: float) -> Floats:
    """How many standard errors the boundary is from the estimate: sqrt((V + tau2)/tau2 log((V + tau2)/(V alpha^2)))."""
    made: Floats = np.sqrt((variance + tau2) / tau2 * np.log((variance + tau2) / (variance * alpha**2)))
    return made


def log_ratio(estimate: Floats, variance: Floats, tau2: float) -> Floats:
    """The logarithm of the mixture likelihood ratio Lambda of an effect against none."""
    made: Floats = 0.5 * np.log(variance / (variance + tau2)) + estimate**2 * tau2 / (2 * variance * (variance + tau2))
    return made


def fieller(beside: Pair, multiplier: Floats) -> tuple[Floats, Floats]:
    """(L,) bounds of value / control - 1: all ratios r with |value - r control| within so many standard errors of it.

    It excludes 0 just where the interval of the difference does. NaN where the first arm may itself be 0.
    Source: Fieller, Some Problems in Interval Estimation, 1954.
    """
    first, other = beside.value.T
    k = multiplier**2
    a, b, c = first**2 - k * beside.variance[:, 0], first * other, other**2 - k * beside.variance[:, 1]
    inside = b**2 - a * c
    known = np.isfinite(inside) & (a > 0) & (first > 0) & (inside >= 0)
    root, a = np.sqrt(np.where(known, inside, 0.0)), np.where(known, a, 1.0)
    return np.where(known, (b - root) / a - 1, np.nan), np.where(known, (b + root) / a - 1, np.nan)


def _sequence(
    beside: Pair, moments: Moments, metric: str, arm: int, share: Floats, alpha: float, guard: tuple[int, int]
) -> Sequence:
    estimate, variance = beside.difference, beside.spread
    ripe = (beside.units.min(axis=1) >= max(guard[0], 2)) & (beside.active.min(axis=1) >= guard[1])
    ripe &= np.isfinite(estimate) & np.isfinite(variance)
    ripe &= np.where(ripe, variance, 0.0) > 0
    first, other = beside.value.T
    scale = np.where(ripe, first, 1.0)
    scale = scale if (scale > 0).all() else np.ones(len(scale))
    safe = np.where(ripe, variance, 1.0) / scale**2
    tau2 = math.nan
    if ripe.any():
        at = int(np.argmax(ripe))
        tau2 = mixture_variance(float(safe[at]), float(share[at]), alpha)
    mixture = tau2 if ripe.any() else 1.0
    z = np.where(ripe, multiplier(safe, mixture, alpha), np.nan)
    half = z * np.sqrt(np.where(ripe, variance, 1.0))
    surprise = np.where(ripe, -log_ratio(np.where(ripe, estimate, 0.0) / scale, safe, mixture), 0.0)
    p = np.exp(np.minimum(np.minimum.accumulate(surprise), 0.0)) if len(surprise) else surprise
    relative_low, relative_high = fieller(beside, z)
    good = np.isfinite(first) & np.isfinite(other) & (first > 0)
    relative = np.divide(other, first, out=np.full(len(first), np.nan), where=good) - 1
    fixed_half, fixed_p = welch(estimate, beside.variance, beside.units, alpha)
    return Sequence(
        metric, moments.arms[arm], alpha, tau2, moments.day, beside.units, ripe, estimate, variance,
        estimate - half, estimate + half, relative, relative_low, relative_high, p,
        estimate - fixed_half, estimate + fixed_half, fixed_p,
    )  # fmt: skip
