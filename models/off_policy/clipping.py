"""Clips importance weights at a threshold, which a rule chooses, and records the effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from feedrank.models.off_policy.intervals import mean_standard_error
from feedrank.models.off_policy.log import Clusters, Floats

ClippingRule = Literal["mse", "slope"]
_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Quantiles of the weights that are tried as thresholds."""


@dataclass(frozen=True, slots=True)
class Clipping:
    """Records a clipping: the threshold, its effect and the reason for it."""

    threshold: float
    """Weights above it were set to it; inf: none was clipped."""
    clipped: int
    """The number of clipped weights."""
    lost_weight: float
    """The share of the total weight that clipping removed."""
    bias: float
    """The bias estimated from the log: clipped value less unclipped value."""
    reason: str
    """Why this threshold was chosen."""


def clip(
    weights: Floats,
    residual: Floats,
    rule: ClippingRule | float,
    cluster: Clusters | None = None,
    *,
    max_lost_weight: float = 1.0,
) -> tuple[Floats, Clipping]:
    """Clip the weights; returns the clipped weights, (N,) or (N, M), and the record.

    weights, residual: (N,), or (N, M) for a sum over M. residual is the factor that the weights multiply: the reward,
    or the reward less a mean. cluster: (N,). rule: a threshold, or the name of a rule. A rule chooses among no clipping
    and eight quantiles of the weights, without those that remove more than the share `max_lost_weight` of the weight
    (of any of M). Raises ValueError for an unknown rule or a threshold of 0 or less.

    `mse`: minimises squared bias, as estimated from the log, plus variance (after Wang, Agarwal & Dudik 2017, who bound
    the bias by the largest reward; for clicks that bound never allows any clipping).
    `slope`: the lowest threshold whose estimate agrees with those of all higher thresholds within their intervals (Su,
    Srinath & Krishnamurthy 2020).
    """
    if isinstance(rule, str):
        if rule not in _RULES:
            raise ValueError(f"no clipping rule is called {rule!r}; expected {', '.join(_RULES)}, or a number")
        thresholds = np.unique(np.quantile(weights, _QUANTILES))
        thresholds = np.append(thresholds[(thresholds > 0) & (thresholds < weights.max())], np.inf)[::-1]
        candidates = [np.minimum(weights, threshold) for threshold in thresholds]
        candidates = [
            clipped
            for clipped in candidates
            if np.all(clipped.sum(axis=0) >= (1 - max_lost_weight) * weights.sum(axis=0))
        ]
        contributions = [_sum_positions(clipped * residual) for clipped in candidates]
        values = np.array([float(contribution.mean()) for contribution in contributions])
        errors = np.array([mean_standard_error(contribution, cluster) for contribution in contributions])
        best, why = _RULES[rule](values, errors)
        threshold = float(thresholds[best])
        lowest = thresholds[len(candidates) - 1]
        reason = f"{why}; {len(candidates)} thresholds were tried, from {lowest:.4g} to no clipping"
    elif not rule > 0:
        raise ValueError(f"the clipping threshold is {rule}; expected above 0, or inf for none")
    else:
        threshold, reason = float(rule), "given"
    clipped_weights = np.minimum(weights, threshold)
    total = float(weights.sum())
    lost = 1 - float(clipped_weights.sum()) / total if total > 0 else 0.0
    bias = float(_sum_positions((clipped_weights - weights) * residual).mean())
    return clipped_weights, Clipping(threshold, int(np.sum(weights > threshold)), max(lost, 0.0), bias, reason)


def _sum_positions(values: Floats) -> Floats:
    return values if values.ndim == 1 else values.sum(axis=1)


def _mse(values: Floats, errors: Floats) -> tuple[int, str]:
    error = (values - values[0]) ** 2 + errors**2
    best = int(np.argmin(error))
    return best, f"mse: lowest squared bias plus variance, {error[best]:.3g}; unclipped {error[0]:.3g}"


def _slope(values: Floats, errors: Floats) -> tuple[int, str]:
    widths = 1.96 * errors
    best = 0
    for i in range(1, len(values)):
        if np.any(np.abs(values[i] - values[:i]) > widths[i] + (np.sqrt(6) - 1) * widths[:i]):
            break
        best = i
    return best, "slope: the lowest threshold whose estimate agrees with all higher ones"


_RULES: dict[str, Callable[[Floats, Floats], tuple[int, str]]] = {"mse": _mse, "slope": _slope}
"""Rule -> function of (T,) values and standard errors, highest threshold first, to the chosen index and the reason."""
