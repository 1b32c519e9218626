"""The delta method and its power, as tea_tasting computes them from aggregates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from models.experiments.moments import Moments

if TYPE_CHECKING:
    from tea_tasting.aggr import Aggregates

_NAMES = ("numerator", "denominator", "numerator_before", "denominator_before")


class Compared(NamedTuple):
    """Two values, what is between them with bounds, and how surprising that is if they are equal."""

    control: float
    value: float
    difference: tuple[float, float, float]
    """Estimate, low, high."""
    ratio: tuple[float, float, float]
    """value / control - 1; its interval is that of a logarithm."""
    p: float


def compare(moments: Moments, look: int, arm: int, *, alpha: float) -> Compared:
    """An arm against the first, two-sided, with Welch's degrees of freedom and, where there is one, the covariate.

    Both arms need two units and values above 0. Raises ImportError that names the extra where tea_tasting is missing.
    Source: Deng et al., Applying the Delta Method in Metric Analytics, KDD 2018.
    """
    tt = _tea_tasting()
    metric = tt.RatioOfMeans(*_NAMES[: moments.mean.shape[2]], confidence_level=1 - alpha)
    found = metric.analyze_aggregates(_aggregates(moments, look, 0), _aggregates(moments, look, arm))
    return Compared(
        float(found.control),
        float(found.treatment),
        (float(found.effect_size), float(found.effect_size_ci_lower), float(found.effect_size_ci_upper)),
        (float(found.rel_effect_size), float(found.rel_effect_size_ci_lower), float(found.rel_effect_size_ci_upper)),
        float(found.pvalue),
    )


def units_for(difference: float, variance: float, *, ratio: float, alpha: float, power: float) -> int:
    """Units of two arms together, the second `ratio` times the first, to find a difference at a fixed horizon.

    variance: of one unit. By the normal distribution: with t, a power is NaN at large numbers of units.
    """
    tt, aggregates = _tea_tasting(), _aggregates_class()
    if variance <= 0 or difference == 0 or not math.isfinite(variance * difference):
        raise ValueError(f"found a difference of {difference} and a variance of {variance}; expected both above 0")
    metric = tt.Mean(
        "x", effect_size=abs(difference), ratio=ratio, alpha=alpha, power=power, use_t=False, equal_var=True
    )
    if difference**2 > variance:  # the library looks for 4 units or more
        return 4
    found = metric.solve_power_from_aggregates(aggregates(2, {"x": 1.0}, {"x": variance}), "n_obs")
    return int(found[0].n_obs)


def _tea_tasting() -> Any:
    try:
        import tea_tasting
    except ImportError as problem:
        raise ImportError("reading an experiment needs tea_tasting: pip install 'feedrank[experiments]'") from problem
    return tea_tasting


def _aggregates_class() -> type[Aggregates]:
    import tea_tasting.aggr

    found: type[Aggregates] = tea_tasting.aggr.Aggregates
    return found


def _aggregates(moments: Moments, look: int, arm: int) -> Aggregates:
    mean, covariance = moments.mean[look, arm], moments.covariance[look, arm]
    names = _NAMES[: len(mean)]
    return _aggregates_class()(
        int(moments.count[look, arm]),
        dict(zip(names, mean.tolist(), strict=True)),
        {name: float(covariance[i, i]) for i, name in enumerate(names)},
        {(names[i], names[j]): float(covariance[i, j]) for i in range(len(names)) for j in range(i)},
    )
