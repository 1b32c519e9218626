"""Computes confidence sequences and always-valid p-values, which hold at every look, at any number of looks.

A mixture of likelihood ratios over effects drawn from a normal with variance tau2 is a martingale in the information
1/V, so it exceeds 1/alpha with a probability of at most alpha. With V estimated from data this holds asymptotically;
nothing is reported until each arm has a minimum of units. Sources: Robbins 1970; Johari et al., Peeking at A/B Tests,
KDD 2017, and Always Valid Inference, Operations Research 2022; Waudby-Smith et al., Time-uniform central limit theory
and asymptotic confidence sequences, Annals of Statistics 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.experiments.analysis_plan import MIN_CONVERTING_UNITS, MIN_UNITS_FOR_CI
from feedrank.models.experiments.lift import UNKNOWN_INTERVAL, Interval, welch_interval
from feedrank.models.experiments.moments import (
    ArmComparison,
    Counts,
    Floats,
    Moments,
    compare_to_control,
    cumulative_moments,
)
from feedrank.models.experiments.outcomes import Metric, Outcomes


@dataclass(frozen=True, eq=False, slots=True)
class ConfidenceSequence:
    """Holds the confidence sequence of one metric of one arm over the control, at L looks. NaN: too few units yet."""

    metric: str
    arm: str
    alpha: float
    tau2: float
    """The mixing variance, set at the first look with enough data; NaN: there is none. It is the variance of effects
    relative to the control's value, so that a metric that grows with time, such as clicks per unit, keeps its scale; of
    absolute differences if that value is ever 0 or less."""
    day: Counts
    """(L,)"""
    units: Counts
    """(L, 2) of the control and of this arm."""
    enough_data: NDArray[np.bool_]
    """(L,) True if each arm has the minimum of units."""
    estimate: Floats
    """(L,) this arm's value less the control's."""
    variance: Floats
    """(L,) of the estimate, clustered by unit."""
    low: Floats
    """(L,)"""
    high: Floats
    """(L,)"""
    relative: Floats
    """(L,) this arm's value over the control's, less 1."""
    relative_low: Floats
    """(L,)"""
    relative_high: Floats
    """(L,)"""
    p: Floats
    """(L,) always-valid p-value: the minimum so far; 1 before the first look with enough data."""
    fixed_low: Floats
    """(L,) low end of the t-test's interval, valid at one look only (fixed horizon); for comparison."""
    fixed_high: Floats
    """(L,)"""
    fixed_p: Floats
    """(L,)"""

    def up_to_look(self, look: int) -> ConfidenceSequence:
        """Return the sequence as it was at a look; looks count from 0."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        cut = {name: value[: look + 1] for name, value in values.items() if isinstance(value, np.ndarray)}
        return ConfidenceSequence(**{**values, **cut})

    @property
    def last_difference(self) -> Interval:
        """The difference at the last look."""
        columns = self.estimate, self.low, self.high
        return UNKNOWN_INTERVAL if not len(self.day) else Interval(*(float(column[-1]) for column in columns))

    @property
    def last_relative(self) -> Interval:
        """The relative lift at the last look."""
        columns = self.relative, self.relative_low, self.relative_high
        return UNKNOWN_INTERVAL if not len(self.day) else Interval(*(float(column[-1]) for column in columns))


def confidence_sequences(
    outcomes: Outcomes,
    metric: Metric,
    *,
    planned_units: float,
    alpha: float = 0.05,
    cuped: bool = False,
    min_units: int = MIN_UNITS_FOR_CI,
    min_converting_units: int = MIN_CONVERTING_UNITS,
) -> tuple[ConfidenceSequence, ...]:
    """Compute the confidence sequence of each arm over the control, with a look at the end of each day.

    planned_units: of all arms together. Raises ValueError for an alpha outside (0, 1) or planned_units of 0 or less.
    """
    moments = cumulative_moments(outcomes, metric, cuped=cuped)
    return confidence_sequences_from_moments(
        moments, metric.name, planned_units=planned_units, alpha=alpha, min_units=min_units,
        min_converting_units=min_converting_units,
    )  # fmt: skip


def confidence_sequences_from_moments(
    moments: Moments,
    metric: str,
    *,
    planned_units: float,
    alpha: float = 0.05,
    min_units: int = MIN_UNITS_FOR_CI,
    min_converting_units: int = MIN_CONVERTING_UNITS,
) -> tuple[ConfidenceSequence, ...]:
    """Compute `confidence_sequences` from moments."""
    if not 0 < alpha < 1 or planned_units <= 0:
        raise ValueError(f"found alpha {alpha} and {planned_units} planned units; expected 0 < alpha < 1 and units > 0")
    planned_share = moments.count.sum(axis=1) / planned_units
    minimums = min_units, min_converting_units
    return tuple(
        _confidence_sequence(compare_to_control(moments, arm), moments, metric, arm, planned_share, alpha, minimums)
        for arm in range(1, len(moments.arms))
    )


def mixing_variance(variance: float, share: float, alpha: float) -> float:
    """Compute the tau2 that makes the interval narrowest when all planned units are in.

    variance: V of the estimate at a look. share: of the planned units at that look. Source: Waudby-Smith et al. 2024,
    section B.2.
    """
    rate = -2 * math.log(alpha)
    return variance * share * (rate + math.log(rate + 1))


def boundary_multiplier(variance: Floats, tau2: float, alpha: float) -> Floats:
    """Standard errors from estimate to boundary: sqrt((V + tau2)/tau2 log((V + tau2)/(V alpha^2)))."""
    standard_errors: Floats = np.sqrt((variance + tau2) / tau2 * np.log((variance + tau2) / (variance * alpha**2)))
    return standard_errors


def log_likelihood_ratio(estimate: Floats, variance: Floats, tau2: float) -> Floats:
    """The logarithm of the mixture likelihood ratio Lambda of an effect against no effect."""
    ratio: Floats = 0.5 * np.log(variance / (variance + tau2)) + estimate**2 * tau2 / (2 * variance * (variance + tau2))
    return ratio


def fieller_interval(comparison: ArmComparison, standard_errors: Floats) -> tuple[Floats, Floats]:
    """Compute (L,) low and high of value / control - 1.

    The interval holds all ratios r with |value - r control| within that many standard errors. It excludes 0 exactly
    when the interval of the difference does. NaN if the control's value may be 0. Source: Fieller, Some Problems in
    Interval Estimation, 1954.
    """
    control, treatment = comparison.value.T
    k = standard_errors**2
    a, b, c = (
        control**2 - k * comparison.variance[:, 0],
        control * treatment,
        treatment**2 - k * comparison.variance[:, 1],
    )
    discriminant = b**2 - a * c
    is_known = np.isfinite(discriminant) & (a > 0) & (control > 0) & (discriminant >= 0)
    root, a = np.sqrt(np.where(is_known, discriminant, 0.0)), np.where(is_known, a, 1.0)
    return np.where(is_known, (b - root) / a - 1, np.nan), np.where(is_known, (b + root) / a - 1, np.nan)


def _confidence_sequence(
    comparison: ArmComparison,
    moments: Moments,
    metric: str,
    arm: int,
    share: Floats,
    alpha: float,
    minimums: tuple[int, int],
) -> ConfidenceSequence:
    estimate, variance = comparison.difference, comparison.difference_variance
    enough_data = (comparison.units.min(axis=1) >= max(minimums[0], 2)) & (
        comparison.converting.min(axis=1) >= minimums[1]
    )
    enough_data &= np.isfinite(estimate) & np.isfinite(variance)
    enough_data &= np.where(enough_data, variance, 0.0) > 0
    control, treatment = comparison.value.T
    scale = np.where(enough_data, control, 1.0)
    scale = scale if (scale > 0).all() else np.ones(len(scale))
    scaled_variance = np.where(enough_data, variance, 1.0) / scale**2
    tau2 = math.nan
    if enough_data.any():
        first_look = int(np.argmax(enough_data))
        tau2 = mixing_variance(float(scaled_variance[first_look]), float(share[first_look]), alpha)
    mixture = tau2 if enough_data.any() else 1.0
    z = np.where(enough_data, boundary_multiplier(scaled_variance, mixture, alpha), np.nan)
    half = z * np.sqrt(np.where(enough_data, variance, 1.0))
    log_p = np.where(
        enough_data, -log_likelihood_ratio(np.where(enough_data, estimate, 0.0) / scale, scaled_variance, mixture), 0.0
    )
    p = np.exp(np.minimum(np.minimum.accumulate(log_p), 0.0)) if len(log_p) else log_p
    relative_low, relative_high = fieller_interval(comparison, z)
    is_defined = np.isfinite(control) & np.isfinite(treatment) & (control > 0)
    relative = np.divide(treatment, control, out=np.full(len(control), np.nan), where=is_defined) - 1
    fixed_half, fixed_p = welch_interval(estimate, comparison.variance, comparison.units, alpha)
    return ConfidenceSequence(
        metric, moments.arms[arm], alpha, tau2, moments.day, comparison.units, enough_data, estimate, variance,
        estimate - half, estimate + half, relative, relative_low, relative_high, p,
        estimate - fixed_half, estimate + fixed_half, fixed_p,
    )  # fmt: skip
