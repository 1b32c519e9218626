"""Analyses interleaving: which ranker's items users prefer to click when one list mixes the items of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from feedrank.models.experiments.confidence_sequence import boundary_multiplier, log_likelihood_ratio, mixing_variance
from feedrank.models.experiments.outcome_collection import DAY_S, Impressions

MIN_CLICKED_UNITS = 50
"""Units with a credited click that are needed before an interval is given."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Preference:
    """Compares one arm with the control over rankings with credited clicks, at L looks. NaN: too few units yet."""

    arm: str
    control: str
    day: NDArray[np.int32]
    """(L,)"""
    wins: NDArray[np.int64]
    """(L,) rankings in which this arm has more click credit than the control."""
    losses: NDArray[np.int64]
    """(L,)"""
    ties: NDArray[np.int64]
    """(L,)"""
    rankings: NDArray[np.int64]
    """(L,) all rankings that were shown, with and without clicks."""
    preference: Floats
    """(L,) (arm's credit - control's credit) / (sum of both), from -1 to 1; 0: no preference."""
    low: Floats
    """(L,) bound of the confidence sequence (always valid)."""
    high: Floats
    """(L,)"""
    p: Floats
    """(L,) always-valid p-value: the minimum so far."""
    fixed_p: Floats
    """(L,) fixed-horizon p-value, valid at one look only; for comparison."""


def preferences(
    impressions: Impressions, arms: Sequence[str], started: float, planned_units: int, alpha: float = 0.05
) -> tuple[Preference, ...]:
    """Compare each arm with the control at the end of each day; alpha is shared among the arms.

    started: unix seconds. Rankings are clustered by unit. The credit is that of Radlinski et al. 2008 and Chapelle et
    al. 2012; the interval is a confidence sequence as in `confidence_sequence`.
    """
    in_experiment = impressions.unit >= 0
    day = np.floor((impressions.at[in_experiment] - started) / DAY_S).astype(np.int32)
    credit, unit = impressions.credit[in_experiment], impressions.unit[in_experiment]
    alpha_per_arm = alpha / max(len(arms) - 1, 1)
    return tuple(
        preference(credit[:, arm], credit[:, 0], unit, day, (arms[arm], arms[0]), planned_units, alpha_per_arm)
        for arm in range(1, len(arms))
    )


def preference(
    arm_credit: Floats, control_credit: Floats, unit: NDArray[np.int32], day: NDArray[np.int32], names: tuple[str, str],
    planned_units: int, alpha: float,
) -> Preference:  # fmt: skip
    """Compare one arm with the control over R rankings.

    arm_credit, control_credit: (R,) credited clicks. unit, day: (R,). names: of the arm and of the control.
    """
    total, difference = arm_credit + control_credit, arm_credit - control_credit
    has_credit = total > 0
    days = np.unique(day)
    rows: list[tuple[float, ...]] = []
    tau2, min_p = math.nan, 1.0
    for last in days.tolist():
        so_far = has_credit & (day <= last)
        value, variance, units = clustered_ratio(difference[so_far], total[so_far], unit[so_far])
        wins, losses = int((difference[so_far] > 0).sum()), int((difference[so_far] < 0).sum())
        counts = (wins, losses, int(so_far.sum()) - wins - losses, int((day <= last).sum()))
        if units < MIN_CLICKED_UNITS or not variance > 0:
            rows.append((*counts, value, math.nan, math.nan, min_p, math.nan))
            continue
        if math.isnan(tau2):
            tau2 = mixing_variance(variance, units / planned_units, alpha)
        variances = np.array([variance])
        half = float(boundary_multiplier(variances, tau2, alpha)[0]) * math.sqrt(variance)
        min_p = min(min_p, math.exp(min(-float(log_likelihood_ratio(np.array([value]), variances, tau2)[0]), 0.0)))
        fixed = 2 * float(special.ndtr(-abs(value) / math.sqrt(variance)))
        rows.append((*counts, value, value - half, value + half, min_p, fixed))
    table = np.array(rows, np.float64).reshape(-1, 9)
    integers = table[:, :4].astype(np.int64)
    return Preference(names[0], names[1], days.astype(np.int32), *integers.T, *table[:, 4:].T)


def clustered_ratio(numerator: Floats, denominator: Floats, cluster: NDArray[np.int32]) -> tuple[float, float, int]:
    """Compute sum(numerator) / sum(denominator), its variance clustered by `cluster`, and the number of clusters.

    Uses the delta method for a ratio of sums (Deng et al., Applying the Delta Method in Metric Analytics, 2018).
    """
    codes, index = np.unique(cluster, return_inverse=True)
    n, total = len(codes), float(denominator.sum())
    if not total:
        return math.nan, math.nan, n
    ratio = float(numerator.sum()) / total
    residual = np.bincount(index, numerator - ratio * denominator, minlength=n)
    return ratio, math.nan if n < 2 else float(n / (n - 1) * np.sum(residual**2) / total**2), n


def summary_sentence(preference: Preference) -> str:
    """Return a sentence that sums up the last look."""
    if not len(preference.day):
        return f"no interleaved ranking of {preference.arm} and {preference.control} was shown yet"
    wins, losses, ties = int(preference.wins[-1]), int(preference.losses[-1]), int(preference.ties[-1])
    counts = f"{wins:,} wins, {losses:,} losses, {ties:,} ties in {int(preference.rankings[-1]):,} rankings"
    low, high = float(preference.low[-1]), float(preference.high[-1])
    if math.isnan(low):
        return (
            f"{preference.arm} against {preference.control}: {counts}; there are too few units with"
            " clicks for an interval"
        )
    interval = f"preference {preference.preference[-1]:+.3f} [{low:+.3f}, {high:+.3f}]"
    if low > 0:
        relation = "is preferred to"
    elif high < 0:
        relation = "is less preferred than"
    else:
        relation = "does not differ significantly from"
    return f"{preference.arm} {relation} {preference.control}: {interval}, {counts}"
