"""How many units, impressions and days a test needs before it can find a lift of a given size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from models.experiments.delta import units_for
from models.experiments.moments import final
from models.experiments.outcomes import Metric, Outcomes
from models.experiments.sequential import mixture_variance, multiplier


@dataclass(frozen=True, slots=True)
class Size:
    """What has to be seen."""

    units: tuple[int, ...]
    """Of each arm."""
    impressions: float
    """Of all arms together; NaN where it is not known how many a unit has."""
    days: float
    """Until so many units have come; NaN where it is not known how many come."""


@dataclass(frozen=True, slots=True)
class Need:
    """What it takes to find a lift."""

    lift: float
    """The least relative lift that is worth finding."""
    value: float
    """The metric of the first arm."""
    variance: float
    """Of a unit's share in it."""
    alpha: float
    power: float
    fixed: Size
    """With one look, at the end."""
    sequential: Size
    """With a look whenever one likes: this many by the latest; where there is such a lift it is mostly found before."""


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
    """From a rate and the variance of a unit: of a click rate p over impressions as units, p (1 - p).

    weights: of each arm, the first is the one compared with; alpha is shared among the others (Bonferroni). A pair of
    arms decides: the other arm that has the least weight. units_per_day: that are new, over all arms. days is at
    least 1, and too high where the same units that come back make the variance smaller.
    """
    _check(value, variance, lift, alpha, power, weights)
    share = alpha / (len(weights) - 1)
    ratio = min(weights[1:]) / weights[0]
    gap = abs(lift) * value
    fixed = units_for(gap, variance, ratio=ratio, alpha=share, power=power)
    sequential = (
        (boundary(share) + float(special.ndtri(power))) ** 2 * variance * (1 + ratio) * (1 + 1 / ratio) / gap**2
    )
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
    """From what the first arm's units did so far; None where that has no variance yet.

    units_per_day: by default all units seen, by the days of the outcomes. weights: by default equal.
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
    each = math.nan if impressions is None else float(impressions.sum() / count.sum())
    arriving = float(count.sum()) / outcomes.days if math.isnan(units_per_day) else units_per_day
    return need(
        value, variance, lift=lift, alpha=alpha, power=power, weights=weights or (1.0,) * len(outcomes.arms),
        impressions_per_unit=each, units_per_day=arriving,
    )  # fmt: skip


def boundary(alpha: float) -> float:
    """Standard errors between an estimate and the always-valid boundary when all planned units are in; 3.03 at 5 %."""
    return float(multiplier(np.ones(1), mixture_variance(1.0, 1.0, alpha), alpha)[0])


def _size(scale: float, weights: Sequence[float], impressions_per_unit: float, units_per_day: float) -> Size:
    units = tuple(max(2, math.ceil(scale * weight - 1e-9)) for weight in weights)
    total = sum(units)
    days = math.ceil(total / units_per_day) if units_per_day > 0 else math.nan
    return Size(units, total * impressions_per_unit, float(days))


def _check(value: float, variance: float, lift: float, alpha: float, power: float, weights: Sequence[float]) -> None:
    if not (value > 0 and variance > 0 and lift != 0):
        raise ValueError(
            f"found value {value}, variance {variance}, lift {lift}; expected the first two above 0, a lift not 0"
        )
    if not (0 < alpha < 1 and alpha < power < 1):
        raise ValueError(f"found alpha {alpha} and power {power}; expected shares, such as 0.05 and 0.8")
    if len(weights) < 2 or min(weights) <= 0:
        raise ValueError(f"found weights {tuple(weights)}; expected one above 0 for each of 2 or more arms")
