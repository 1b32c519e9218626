"""Weights cut off at a threshold that is chosen by rule and kept on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.off_policy.intervals import mean_error
from models.off_policy.log import Clusters, Floats

Rule = Literal["mse", "slope"]
_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Of the weights: thresholds to choose among."""


@dataclass(frozen=True, slots=True)
class Clipping:
    """Where weights were cut off, what that took away, and why there."""

    threshold: float
    """Weights above it became it; inf: none was cut."""
    clipped: int
    """How many weights that were."""
    lost: float
    """The share of all weight that was cut away."""
    bias: float
    """What it did to the value, by the log itself: value as clipped less value as it was; 0 in truth where nothing is
    lost."""
    reason: str


def clip(
    weights: Floats,
    residual: Floats,
    rule: Rule | float,
    cluster: Clusters | None = None,
    *,
    most_lost: float = 1.0,
) -> tuple[Floats, Clipping]:
    """(N,) or (N, M) the clipped weights, and the record.

    weights, residual: (N,), or (N, M) for a sum over M; residual is what the weights multiply: the reward, or what it
    is above a mean. cluster: (N,). rule: a threshold, or by which one is chosen among the unclipped weights and eight
    quantiles of them, without those that cut away more than the share `most_lost` of the weight (of any
    of M).

    `mse`: the least squared bias, as the log shows it, plus variance (after Wang, Agarwal & Dudik 2017, who bound the
    bias by the largest reward, which for clicks never lets anything be clipped).
    `slope`: the lowest threshold whose estimate agrees with all above it within their intervals (Su, Srinath &
    Krishnamurthy 2020).
    """
    if isinstance(rule, str):
        if rule not in _RULES:
            raise ValueError(f"no clipping rule is called {rule!r}; there are {', '.join(_RULES)}, or give a number")
        thresholds = np.unique(np.quantile(weights, _QUANTILES))
        thresholds = np.append(thresholds[(thresholds > 0) & (thresholds < weights.max())], np.inf)[::-1]
        cut = [np.minimum(weights, threshold) for threshold in thresholds]
        cut = [each for each in cut if np.all(each.sum(axis=0) >= (1 - most_lost) * weights.sum(axis=0))]
        gains = [_by_row(each * residual) for each in cut]
        values = np.array([float(each.mean()) for each in gains])
        errors = np.array([mean_error(each, cluster) for each in gains])
        best, why = _RULES[rule](values, errors)
        threshold = float(thresholds[best])
        reason = f"{why}, of {len(cut)} thresholds from {thresholds[len(cut) - 1]:.4g} to none"
    elif not rule > 0:
        raise ValueError(f"the clipping threshold is {rule}; expected above 0, or inf for none")
    else:
        threshold, reason = float(rule), "given"
    kept = np.minimum(weights, threshold)
    total = float(weights.sum())
    lost = 1 - float(kept.sum()) / total if total > 0 else 0.0
    bias = float(_by_row((kept - weights) * residual).mean())
    return kept, Clipping(threshold, int(np.sum(weights > threshold)), max(lost, 0.0), bias, reason)


def _by_row(values: Floats) -> Floats:
    return values if values.ndim == 1 else values.sum(axis=1)


def _mse(values: Floats, errors: Floats) -> tuple[int, str]:
    error = (values - values[0]) ** 2 + errors**2
    best = int(np.argmin(error))
    return best, f"mse: least squared bias plus variance, {error[best]:.3g} against {error[0]:.3g} unclipped"


def _slope(values: Floats, errors: Floats) -> tuple[int, str]:
    widths = 1.96 * errors
    best = 0
    for i in range(1, len(values)):
        if np.any(np.abs(values[i] - values[:i]) > widths[i] + (np.sqrt(6) - 1) * widths[:i]):
            break
        best = i
    return best, "slope: the lowest whose estimate agrees with all above it"


_RULES: dict[str, Callable[[Floats, Floats], tuple[int, str]]] = {"mse": _mse, "slope": _slope}
"""Rule -> which of the thresholds, highest first, and why; from their (T,) values and standard errors."""
