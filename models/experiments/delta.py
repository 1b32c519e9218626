"""Computes the delta method's test and its sample size with tea_tasting, from aggregates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from feedrank.models.experiments.moments import Moments

if TYPE_CHECKING:
    from tea_tasting.aggr import Aggregates

_VARIABLES = ("numerator", "denominator", "numerator_before", "denominator_before")


class DeltaTest(NamedTuple):
    """Holds two means, their difference with a confidence interval, and the p-value."""

    control: float
    value: float
    difference: tuple[float, float, float]
    """Estimate, low, high."""
    relative: tuple[float, float, float]
    """value / control - 1 with low and high, which come from an interval of the logarithm."""
    p: float


def delta_method_test(moments: Moments, look: int, arm: int, *, alpha: float) -> DeltaTest:
    """Compare an arm with the control by a two-sided test, with Welch's degrees of freedom and the covariate, if any.

    Both arms need two units and values above 0. Raises ImportError that names the extra if tea_tasting is missing.
    Source: Deng et al., Applying the Delta Method in Metric Analytics, KDD 2018.
    """
    tt = _tea_tasting()
    metric = tt.RatioOfMeans(*_VARIABLES[: moments.mean.shape[2]], confidence_level=1 - alpha)
    result = metric.analyze_aggregates(_aggregates(moments, look, 0), _aggregates(moments, look, arm))
    return DeltaTest(
        float(result.control),
        float(result.treatment),
        (float(result.effect_size), float(result.effect_size_ci_lower), float(result.effect_size_ci_upper)),
        (float(result.rel_effect_size), float(result.rel_effect_size_ci_lower), float(result.rel_effect_size_ci_upper)),
        float(result.pvalue),
    )


def fixed_horizon_units(difference: float, variance: float, *, ratio: float, alpha: float, power: float) -> int:
    """Compute the total number of units of two arms that a fixed-horizon test needs to detect a difference.

    ratio: size of the second arm over the first. variance: of one unit. Uses the normal distribution, because with
    Student's t the power is NaN at large sample sizes. Raises ValueError if difference or variance is not above 0.
    """
    tt, aggregates = _tea_tasting(), _aggregates_class()
    if variance <= 0 or difference == 0 or not math.isfinite(variance * difference):
        raise ValueError(f"found a difference of {difference} and a variance of {variance}; expected both above 0")
    metric = tt.Mean(
        "x", effect_size=abs(difference), ratio=ratio, alpha=alpha, power=power, use_t=False, equal_var=True
    )
    if difference**2 > variance:  # the library searches from 4 units up
        return 4
    solutions = metric.solve_power_from_aggregates(aggregates(2, {"x": 1.0}, {"x": variance}), "n_obs")
    return int(solutions[0].n_obs)


def _tea_tasting() -> Any:
    try:
        import tea_tasting
    except ImportError as error:
        raise ImportError("an experiment readout needs tea_tasting: pip install 'feedrank[experiments]'") from error
    return tea_tasting


def _aggregates_class() -> type[Aggregates]:
    import tea_tasting.aggr

    aggregates: type[Aggregates] = tea_tasting.aggr.Aggregates
    return aggregates


def _aggregates(moments: Moments, look: int, arm: int) -> Aggregates:
    mean, covariance = moments.mean[look, arm], moments.covariance[look, arm]
    names = _VARIABLES[: len(mean)]
    return _aggregates_class()(
        int(moments.count[look, arm]),
        dict(zip(names, mean.tolist(), strict=True)),
        {name: float(covariance[i, i]) for i, name in enumerate(names)},
        {(names[i], names[j]): float(covariance[i, j]) for i in range(len(names)) for j in range(i)},
    )
