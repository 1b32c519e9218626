"""What interleaved lists say: which ranker's items people click, when both stand in the same list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.experiments.collecting import DAY_S, Shown
from models.experiments.sequential import log_ratio, mixture_variance, multiplier

LEAST_UNITS = 50
"""Units with a click on either ranker's items, before anything is said."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Preference:
    """One arm against the first, over rankings in which either was clicked, at L looks. NaN: too few units yet."""

    arm: str
    first: str
    day: NDArray[np.int32]
    """(L,)"""
    wins: NDArray[np.int64]
    """(L,) rankings whose clicks this arm has more of."""
    losses: NDArray[np.int64]
    ties: NDArray[np.int64]
    rankings: NDArray[np.int64]
    """(L,) all that were shown."""
    preference: Floats
    """(L,) clicks on what it brought less those on what the first brought, over both, -1 to 1; 0: neither is preferred.
    """
    low: Floats
    """(L,) always valid."""
    high: Floats
    p: Floats
    """(L,) always valid: the least until then."""
    fixed_p: Floats
    """(L,) right at one look only, for contrast."""


def preferences(
    shown: Shown, arms: Sequence[str], started: float, planned_units: int, alpha: float = 0.05
) -> tuple[Preference, ...]:
    """Each arm against the first at the end of each day; alpha is shared among the arms. Units are what may repeat.

    Sources: Radlinski et al. 2008 and Chapelle et al. 2012 for the credit; the interval as in `sequential`.
    """
    within = shown.unit >= 0
    day = np.floor((shown.at[within] - started) / DAY_S).astype(np.int32)
    credit, unit = shown.credit[within], shown.unit[within]
    share = alpha / max(len(arms) - 1, 1)
    return tuple(
        preference(credit[:, arm], credit[:, 0], unit, day, (arms[arm], arms[0]), planned_units, share)
        for arm in range(1, len(arms))
    )


def preference(
    own: Floats, other: Floats, unit: NDArray[np.int32], day: NDArray[np.int32], names: tuple[str, str],
    planned_units: int, alpha: float,
) -> Preference:  # fmt: skip
    """Of R rankings: what either arm is credited with, their units and days. names: of the arm and of the first."""
    both, gain = own + other, own - other
    counted = both > 0
    days = np.unique(day)
    rows: list[tuple[float, ...]] = []
    tau2, least = math.nan, 1.0
    for last in days.tolist():
        now = counted & (day <= last)
        value, variance, units = clustered(gain[now], both[now], unit[now])
        wins, losses = int((gain[now] > 0).sum()), int((gain[now] < 0).sum())
        counts = (wins, losses, int(now.sum()) - wins - losses, int((day <= last).sum()))
        if units < LEAST_UNITS or not variance > 0:
            rows.append((*counts, value, math.nan, math.nan, least, math.nan))
            continue
        if math.isnan(tau2):
            tau2 = mixture_variance(variance, units / planned_units, alpha)
        at = np.array([variance])
        half = float(multiplier(at, tau2, alpha)[0]) * math.sqrt(variance)
        least = min(least, math.exp(min(-float(log_ratio(np.array([value]), at, tau2)[0]), 0.0)))
        fixed = 2 * float(special.ndtr(-abs(value) / math.sqrt(variance)))
        rows.append((*counts, value, value - half, value + half, least, fixed))
    table = np.array(rows, np.float64).reshape(-1, 9)
    whole = table[:, :4].astype(np.int64)
    return Preference(names[0], names[1], days.astype(np.int32), *whole.T, *table[:, 4:].T)


def clustered(above: Floats, below: Floats, cluster: NDArray[np.int32]) -> tuple[float, float, int]:
    """sum(above) / sum(below), its variance where rows of one cluster go together, and the number of clusters.

    The delta method for a ratio of sums (Deng et al., Applying the Delta Method in Metric Analytics, 2018).
    """
    codes, index = np.unique(cluster, return_inverse=True)
    n, total = len(codes), float(below.sum())
    if not total:
        return math.nan, math.nan, n
    ratio = float(above.sum()) / total
    rest = np.bincount(index, above - ratio * below, minlength=n)
    return ratio, math.nan if n < 2 else float(n / (n - 1) * np.sum(rest**2) / total**2), n


def said(one: Preference) -> str:
    """The last look in a sentence."""
    if not len(one.day):
        return f"nothing was shown yet of {one.arm} and {one.first} in one list"
    wins, losses, ties = int(one.wins[-1]), int(one.losses[-1]), int(one.ties[-1])
    counts = f"{wins:,} lists won, {losses:,} lost, {ties:,} even, of {int(one.rankings[-1]):,} shown"
    low, high = float(one.low[-1]), float(one.high[-1])
    if math.isnan(low):
        return f"{one.arm} against {one.first}: {counts}; too few units with clicks to say more"
    span = f"preference {one.preference[-1]:+.3f} [{low:+.3f}, {high:+.3f}]"
    word = "is preferred to" if low > 0 else "is surely worse than" if high < 0 else "is not told from"
    return f"{one.arm} {word} {one.first}: {span}, {counts}"
