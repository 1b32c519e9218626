"""Whether a log can answer for a candidate at all: how many rows count, how evenly, and what it never showed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.off_policy.intervals import mean_error
from models.off_policy.log import BanditLog, Clusters, Floats, groups
from models.off_policy.policies import Policy

_LARGEST = 5


@dataclass(frozen=True, slots=True)
class SupportLimits:
    """What a log must have for an estimate to be told; 0, 1 or inf switch a limit off."""

    ess: float = 100.0
    """Least effective sample size."""
    rewards: float = 10.0
    """Least effective number of rewarded rows: with fewer no interval can be trusted, and with none it has no width."""
    unsupported: float = 0.01
    """Most of the candidate's mass that may be on what the log never showed."""
    deviations: float = 4.0
    """Most standard errors that the mean weight may be away from 1."""
    row: float = 0.05
    """Most of the weight that one row may carry."""
    cluster: float = 0.1
    """Most of the weight that one cluster may carry."""
    lost: float = 0.2
    """Most of the weight that may be clipped away."""


@dataclass(frozen=True, slots=True)
class Support:
    """How a candidate's weights lie on a log."""

    rows: int
    clusters: int
    ess: float
    """Kish's effective sample size, of the weights as used: that many rows of the candidate's own would say as much."""
    rewards: float
    """The same of weight x reward: how many rewarded rows there are in effect."""
    mean: float
    """Of the weights before they were clipped; 1 in truth where the log can show all that the candidate shows."""
    mean_error: float
    """Its standard error."""
    largest: tuple[float, ...]
    """The shares of the largest weights, up to five."""
    cluster: float
    """The share of the heaviest cluster."""
    unsupported: tuple[float, ...]
    """By position: the share of the candidate's mass on what the log never showed there; empty: not known."""
    unsupported_mass: float
    """The same over all rows; 0 where it is not known."""
    lost: float
    """The share of the weight that was clipped away."""

    @property
    def overlap(self) -> str:
        """The diagnosis in words."""
        share = self.ess / self.rows
        kind = next(word for bound, word in _WORDS if share >= bound)
        said = f"{kind} overlap: {self.rows:,} rows count as {self.ess:,.0f} ({100 * share:.1f} %)"
        said += (
            f", mean weight {self.mean:.3f} +- {self.mean_error:.3f}, the largest carries {_percent(self.largest[0])}"
        )
        if self.unsupported:
            said += f", {_percent(self.unsupported_mass)} of the candidate's mass was never shown"
        return said

    def refusal(self, limits: SupportLimits) -> str | None:
        """Why no estimate should be told, and what to do; None: nothing speaks against it."""
        away = abs(self.mean - 1)
        faults = [
            (self.ess < limits.ess,
             f"{self.rows:,} rows count as {self.ess:.1f}, expected {limits.ess:g} or more: log more rows, or a "
             "candidate closer to the logging policy"),
            (self.rewards < limits.rewards,
             f"the rewarded rows count as {self.rewards:.1f}, expected {limits.rewards:g} or more: log more rows, or "
             "take a reward that comes more often"),
            (self.unsupported_mass > limits.unsupported,
             f"{_percent(self.unsupported_mass)} of the candidate's mass is on what the log never showed, expected at "
             f"most {_percent(limits.unsupported)}: let the logging policy explore these items"),
            (away > limits.deviations * self.mean_error + 1e-9,
             f"the mean weight is {self.mean:.3f} +- {self.mean_error:.3f}, expected 1: the propensities are not those "
             "by which items were drawn, or the log can't show all that the candidate shows"),
            (self.largest[0] > limits.row,
             f"one row carries {_percent(self.largest[0])} of the weight, expected at most {_percent(limits.row)}: "
             "clip, or log more rows"),
            (self.cluster > limits.cluster,
             f"one cluster carries {_percent(self.cluster)} of the weight, expected at most "
             f"{_percent(limits.cluster)}: clip, or log more clusters"),
            (self.lost > limits.lost,
             f"clipping took {_percent(self.lost)} of the weight, expected at most {_percent(limits.lost)}: set a "
             "higher threshold, or log with more exploration"),
        ]  # fmt: skip
        return "; ".join(why for found, why in faults if found) or None


_WORDS = ((0.5, "good"), (0.2, "fair"), (0.05, "thin"), (0.0, "hardly any"))
"""Least share of rows that count -> what it is called."""


def diagnose(
    weights: Floats,
    gains: Floats,
    cluster: Clusters | None = None,
    *,
    raw: Floats | None = None,
    unsupported: Floats | None = None,
    unsupported_mass: float = 0.0,
) -> Support:
    """weights: (N,) as used. gains: (N,) what each row earns with them. raw: (N,) weights before they were clipped.

    unsupported, unsupported_mass: as `missing` gives them.
    """
    raw = weights if raw is None else raw
    codes, units = groups(cluster, len(weights))
    total, before = float(weights.sum()), float(raw.sum())
    shares = weights / total if total > 0 else np.zeros(len(weights))
    heaviest = np.bincount(codes, weights=shares, minlength=units).max()
    return Support(
        rows=len(weights),
        clusters=units,
        ess=effective(weights),
        rewards=effective(gains),
        mean=float(raw.mean()),
        mean_error=mean_error(raw, cluster),
        largest=tuple(np.sort(shares)[::-1][:_LARGEST].tolist()),
        cluster=float(heaviest),
        unsupported=() if unsupported is None else tuple(unsupported.tolist()),
        unsupported_mass=unsupported_mass,
        lost=max(0.0, 1 - total / before) if before > 0 else 0.0,
    )


def effective(weights: Floats) -> float:
    """(sum |w|)^2 / sum w^2, from 0 to N. Source: Kish 1965."""
    squares = float(np.sum(weights**2))
    return float(np.sum(np.abs(weights)) ** 2) / squares if squares > 0 else 0.0


def missing(log: BanditLog, policy: Policy, shown: Floats | None = None) -> tuple[Floats, float]:
    """(P,) the share of a candidate's mass at each position on what the log never could show, and that of all rows.

    shown: (P, A) the logging policy's probabilities, where they are known; else an item counts as possible at a
    position where the log has a row of it, so a short log makes rare items look impossible. NaN: a position without
    rows.
    """
    positions = int(log.position.max()) + 1
    if shown is None:
        shown = np.zeros((positions, policy.items))
        shown[log.position, log.action] = 1.0
    probabilities = policy.rows(log)
    mass = np.where(shown[log.position] > 0, 0.0, probabilities).sum(axis=1)
    rows = np.bincount(log.position, minlength=positions)
    sums = np.bincount(log.position, weights=mass, minlength=positions)
    return np.divide(sums, rows, out=np.full(positions, np.nan), where=rows > 0), float(mass.mean())


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
