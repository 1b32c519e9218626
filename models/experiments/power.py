"""Computes the sample size: the units, impressions and days that a test needs to detect a lift of a given size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from feedrank.models.experiments.confidence_sequence import mixture_variance, multiplier
from feedrank.models.experiments.delta import units_for
from feedrank.models.experiments.moments import final
from feedrank.models.experiments.outcomes import Metric, Outcomes


@dataclass(frozen=True, slots=True)
class Size:
    """Holds the required size of a test."""

    units: tuple[int, ...]
    """Units of each arm."""
    impressions: float
    """Impressions of all arms together; NaN: the number per unit is unknown."""
    days: float
    """Days until that many units have come; NaN: the number per day is unknown."""


@dataclass(frozen=True, slots=True)
class Need:
    """Reports the sample size that a lift needs."""

    lift: float
    """The minimum detectable effect, as a relative lift."""
    value: float
    """The control's metric."""
    variance: float
    """The variance of one unit's contribution to the metric."""
    alpha: float
    power: float
    fixed: Size
    """For a fixed horizon: one look at the end."""
    sequential: Size
    """For always-valid inference: looks at any time. This is the maximum; such a lift is mostly detected before."""


def need(
    value: float,
    variance: float,
    *,
    lift: float,
    alpha: float = 0.05,
    power: float = 0.8,
    weights: Sequence[float] = (1.0, 1.0),
    impressions_per_unit: float = math.nan,
    units_per_day: float = math.nan,
) -> Need:
    """Compute the sample size from the control's metric and the variance of a unit.

    baseline, variance: with impressions as units, a click rate p has the variance p (1 - p). mde: a relative lift.
    weights: of each arm, the control first; alpha is shared among the other arms (Bonferroni), and the one with the
    least weight sets the size. units_per_day: new units over all arms. `RequiredSample.days` is at least 1, and too
    high if returning units lower the variance. Raises ValueError for numbers out of range.
    """
    _check(value, variance, lift, alpha, power, weights)
    alpha_per_arm = alpha / (len(weights) - 1)
    ratio = min(weights[1:]) / weights[0]
    difference = abs(lift) * value
    fixed = units_for(difference, variance, ratio=ratio, alpha=alpha_per_arm, power=power)
    standard_errors = boundary(alpha_per_arm) + float(special.ndtri(power))
    sequential = standard_errors**2 * variance * (1 + ratio) * (1 + 1 / ratio) / difference**2
    sizes = (
        _size(units / (1 + ratio) / weights[0], weights, impressions_per_unit, units_per_day)
        for units in (float(fixed), sequential)
    )
    return Need(lift, value, variance, alpha, power, *sizes)


def need_of(
    outcomes: Outcomes,
    metric: Metric,
    *,
    lift: float,
    alpha: float = 0.05,
    power: float = 0.8,
    weights: Sequence[float] = (),
    units_per_day: float = math.nan,
) -> Need | None:
    """Compute the sample size from the control's outcomes so far; None if they have no variance yet.

    units_per_day: by default all units seen over the days of the outcomes. weights: equal by default.
    """
    moments = final(outcomes, metric)
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
    return need(
        value, variance, lift=lift, alpha=alpha, power=power, weights=weights or (1.0,) * len(outcomes.arms),
        impressions_per_unit=impressions_per_unit, units_per_day=new_units_per_day,
    )  # fmt: skip


def boundary(alpha: float) -> float:
    """Standard errors from the estimate to the always-valid boundary once all planned units are in; 3.03 at 5 %."""
    return float(multiplier(np.ones(1), mixture_variance(1.0, 1.0, alpha), alpha)[0])


def _size(scale: float, weights: Sequence[float], impressions_per_unit: float, units_per_day: float) -> Size:
    units = tuple(max(2, math.ceil(scale * weight - 1e-9)) for weight in weights)
    total = sum(units)
    days = math.ceil(total / units_per_day) if units_per_day > 0 else math.nan
    return Size(units, total * impressions_per_unit, float(days))


def _check(value: float, variance: float, lift: float, alpha: float, power: float, weights: Sequence[float]) -> None:
    if not (value > 0 and variance > 0 and lift != 0):
        raise ValueError(
            f"found baseline {value}, variance {variance} and mde {lift}; expected baseline and variance above 0 and "
            "an mde that is not 0"
        )
    if not (0 < alpha < 1 and alpha < power < 1):
        raise ValueError(f"found alpha {alpha} and power {power}; expected shares, such as 0.05 and 0.8")
    if len(weights) < 2 or min(weights) <= 0:
        raise ValueError(f"found weights {tuple(weights)}; expected one above 0 for each of 2 or more arms")
