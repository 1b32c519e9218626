"""Computes the sample size: the units, impressions and days that a test needs to detect a lift of a given size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from feedrank.models.experiments.confidence_sequence import boundary_multiplier, mixing_variance
from feedrank.models.experiments.delta import fixed_horizon_units
from feedrank.models.experiments.moments import final_moments
from feedrank.models.experiments.outcomes import Metric, Outcomes


@dataclass(frozen=True, slots=True)
class RequiredSample:
    """Holds the required size of a test."""

    units: tuple[int, ...]
    """Units of each arm."""
    impressions: float
    """Impressions of all arms together; NaN: the number per unit is unknown."""
    days: float
    """Days until that many units have come; NaN: the number per day is unknown."""


@dataclass(frozen=True, slots=True)
class SampleSizeReport:
    """Reports the sample size that a lift needs."""

    mde: float
    """The minimum detectable effect, as a relative lift."""
    baseline: float
    """The control's metric."""
    variance: float
    """The variance of one unit's contribution to the metric."""
    alpha: float
    power: float
    fixed_horizon: RequiredSample
    """For a fixed horizon: one look at the end."""
    sequential: RequiredSample
    """For always-valid inference: looks at any time. This is the maximum; such a lift is mostly detected before."""


def required_sample_size(
    baseline: float,
    variance: float,
    *,
    mde: float,
    alpha: float = 0.05,
    power: float = 0.8,
    weights: Sequence[float] = (1.0, 1.0),
    impressions_per_unit: float = math.nan,
    units_per_day: float = math.nan,
) -> SampleSizeReport:
    """Compute the sample size from the control's metric and the variance of a unit.

    baseline, variance: with impressions as units, a click rate p has the variance p (1 - p). mde: a relative lift.
    weights: of each arm, the control first; alpha is shared among the other arms (Bonferroni), and the one with the
    least weight sets the size. units_per_day: new units over all arms. `RequiredSample.days` is at least 1, and too
    high if returning units lower the variance. Raises ValueError for numbers out of range.
    """
    _check_inputs(baseline, variance, mde, alpha, power, weights)
    alpha_per_arm = alpha / (len(weights) - 1)
    ratio = min(weights[1:]) / weights[0]
    difference = abs(mde) * baseline
    fixed = fixed_horizon_units(difference, variance, ratio=ratio, alpha=alpha_per_arm, power=power)
    standard_errors = always_valid_boundary(alpha_per_arm) + float(special.ndtri(power))
    sequential = standard_errors**2 * variance * (1 + ratio) * (1 + 1 / ratio) / difference**2
    sizes = (
        _required_sample(units / (1 + ratio) / weights[0], weights, impressions_per_unit, units_per_day)
        for units in (float(fixed), sequential)
    )
    return SampleSizeReport(mde, baseline, variance, alpha, power, *sizes)


def required_sample_size_from_outcomes(
    outcomes: Outcomes,
    metric: Metric,
    *,
    mde: float,
    alpha: float = 0.05,
    power: float = 0.8,
    weights: Sequence[float] = (),
    units_per_day: float = math.nan,
) -> SampleSizeReport | None:
    """Compute the sample size from the control's outcomes so far; None if they have no variance yet.

    units_per_day: by default all units seen over the days of the outcomes. weights: equal by default.
    """
    moments = final_moments(outcomes, metric)
    count = moments.count[-1]
    mean, covariance = moments.mean[-1, 0], moments.covariance[-1, 0]
    if count[0] < 2 or not mean[0] > 0 or not mean[1] > 0:
        return None
    value = float(mean[0] / mean[1])
    variance = float((covariance[0, 0] - 2 * value * covariance[0, 1] + value**2 * covariance[1, 1]) / mean[1] ** 2)
    if not variance > 0:
        return None
    impressions = outcomes.columns.get("impressions")
    impressions_per_unit = math.nan if impressions is None else float(impressions.sum() / count.sum())
    new_units_per_day = float(count.sum()) / outcomes.days if math.isnan(units_per_day) else units_per_day
    return required_sample_size(
        value, variance, mde=mde, alpha=alpha, power=power, weights=weights or (1.0,) * len(outcomes.arms),
        impressions_per_unit=impressions_per_unit, units_per_day=new_units_per_day,
    )  # fmt: skip


def always_valid_boundary(alpha: float) -> float:
    """Standard errors from the estimate to the always-valid boundary once all planned units are in; 3.03 at 5 %."""
    return float(boundary_multiplier(np.ones(1), mixing_variance(1.0, 1.0, alpha), alpha)[0])


def _required_sample(
    scale: float, weights: Sequence[float], impressions_per_unit: float, units_per_day: float
) -> RequiredSample:
    units = tuple(max(2, math.ceil(scale * weight - 1e-9)) for weight in weights)
    total = sum(units)
    days = math.ceil(total / units_per_day) if units_per_day > 0 else math.nan
    return RequiredSample(units, total * impressions_per_unit, float(days))


def _check_inputs(
    baseline: float, variance: float, mde: float, alpha: float, power: float, weights: Sequence[float]
) -> None:
    if not (baseline > 0 and variance > 0 and mde != 0):
        raise ValueError(
            f"found baseline {baseline}, variance {variance} and mde {mde}; expected baseline and variance above 0 and "
            "an mde that is not 0"
        )
    if not (0 < alpha < 1 and alpha < power < 1):
        raise ValueError(f"found alpha {alpha} and power {power}; expected shares, such as 0.05 and 0.8")
    if len(weights) < 2 or min(weights) <= 0:
        raise ValueError(f"found weights {tuple(weights)}; expected one above 0 for each of 2 or more arms")
