"""Diagnoses whether a log supports a candidate: effective sample size, largest weights, and items never shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.models.off_policy.intervals import mean_error
from feedrank.models.off_policy.log import BanditLog, Clusters, Floats, groups
from feedrank.models.off_policy.policies import Policy

_LARGEST = 5


@dataclass(frozen=True, slots=True)
class SupportLimits:
    """Holds the limits beyond which an estimate is refused; 0, 1 or inf switches a limit off."""

    ess: float = 100.0
    """Minimum effective sample size."""
    rewards: float = 10.0
    """Minimum effective number of rewarded rows: with fewer, intervals are unreliable; with none, their width is 0."""
    unsupported: float = 0.01
    """Maximum share of the candidate's probability mass on items that the log never showed."""
    deviations: float = 4.0
    """Maximum distance of the mean weight from 1, in standard errors."""
    row: float = 0.05
    """Maximum share of the weight on one row."""
    cluster: float = 0.1
    """Maximum share of the weight on one cluster."""
    lost: float = 0.2
    """Maximum share of the weight that clipping may remove."""


@dataclass(frozen=True, slots=True)
class Support:
    """Holds diagnostics of a candidate's importance weights on a log."""

    rows: int
    clusters: int
    ess: float
    """Kish's effective sample size of the weights as used: the log is worth this many on-policy rows."""
    rewards: float
    """The effective number of rewarded rows: the same for weight x reward."""
    mean: float
    """The mean of the unclipped weights; its expectation is 1 if the log can show all that the candidate shows."""
    mean_error: float
    """The standard error of that mean."""
    largest: tuple[float, ...]
    """The shares of the largest weights, up to five."""
    cluster: float
    """The share of the cluster with the most weight."""
    unsupported: tuple[float, ...]
    """By position: share of the candidate's probability mass on items that the log never showed there; empty: unknown.
    """
    unsupported_mass: float
    """The same over all rows; 0 if unknown."""
    lost: float
    """The share of the weight that clipping removed."""

    @property
    def overlap(self) -> str:
        """A sentence that sums up the diagnostics."""
        share = self.ess / self.rows
        quality = next(word for bound, word in _WORDS if share >= bound)
        summary = f"{quality} overlap: {self.rows:,} rows, effective sample size {self.ess:,.0f} ({100 * share:.1f} %)"
        summary += f", mean weight {self.mean:.3f} +- {self.mean_error:.3f}, largest weight {_percent(self.largest[0])}"
        if self.unsupported:
            summary += f", {_percent(self.unsupported_mass)} of the candidate's mass on items never shown"
        return summary

    def refusal(self, limits: SupportLimits) -> str | None:
        """Say why an estimate should be refused, and what to do; None: all limits are met."""
        deviation = abs(self.mean - 1)
        checks = [
            (self.ess < limits.ess,
             f"the effective sample size of {self.rows:,} rows is {self.ess:.1f}, expected {limits.ess:g} or more: log "
             "more rows, or choose a candidate closer to the logging policy"),
            (self.rewards < limits.rewards,
             f"the effective number of rewarded rows is {self.rewards:.1f}, expected {limits.rewards:g} or more: log "
             "more rows, or choose a more frequent reward"),
            (self.unsupported_mass > limits.unsupported,
             f"{_percent(self.unsupported_mass)} of the candidate's mass is on items that the log never showed, "
             f"expected at most {_percent(limits.unsupported)}: let the logging policy explore these items"),
            (deviation > limits.deviations * self.mean_error + 1e-9,
             f"the mean weight is {self.mean:.3f} +- {self.mean_error:.3f}, expected 1: the propensities are not those "
             "by which items were drawn, or the log can't show all that the candidate shows"),
            (self.largest[0] > limits.row,
             f"one row has {_percent(self.largest[0])} of the weight, expected at most {_percent(limits.row)}: clip "
             "the weights, or log more rows"),
            (self.cluster > limits.cluster,
             f"one cluster has {_percent(self.cluster)} of the weight, expected at most "
             f"{_percent(limits.cluster)}: clip the weights, or log more clusters"),
            (self.lost > limits.lost,
             f"clipping removed {_percent(self.lost)} of the weight, expected at most {_percent(limits.lost)}: set a "
             "higher threshold, or log with more exploration"),
        ]  # fmt: skip
        return "; ".join(reason for is_exceeded, reason in checks if is_exceeded) or None


_WORDS = ((0.5, "good"), (0.2, "fair"), (0.05, "poor"), (0.0, "very poor"))
"""Minimum of effective sample size / rows -> the quality of the overlap."""


def diagnose(
    weights: Floats,
    gains: Floats,
    cluster: Clusters | None = None,
    *,
    raw: Floats | None = None,
    unsupported: Floats | None = None,
    unsupported_mass: float = 0.0,
) -> Support:
    """Compute the diagnostics of a candidate's weights.

    weights: (N,) as used. contributions: (N,) weighted rewards. unclipped_weights: (N,); None: they are `weights`.
    unsupported_by_position, unsupported_mass: of `find_unsupported_mass`.
    """
    raw = weights if raw is None else raw
    codes, units = groups(cluster, len(weights))
    total, before = float(weights.sum()), float(raw.sum())
    shares = weights / total if total > 0 else np.zeros(len(weights))
    largest_cluster = np.bincount(codes, weights=shares, minlength=units).max()
    return Support(
        rows=len(weights),
        clusters=units,
        ess=effective(weights),
        rewards=effective(gains),
        mean=float(raw.mean()),
        mean_error=mean_error(raw, cluster),
        largest=tuple(np.sort(shares)[::-1][:_LARGEST].tolist()),
        cluster=float(largest_cluster),
        unsupported=() if unsupported is None else tuple(unsupported.tolist()),
        unsupported_mass=unsupported_mass,
        lost=max(0.0, 1 - total / before) if before > 0 else 0.0,
    )


def effective(weights: Floats) -> float:
    """Compute the effective sample size (sum |w|)^2 / sum w^2, from 0 to N. Source: Kish 1965."""
    squares = float(np.sum(weights**2))
    return float(np.sum(np.abs(weights)) ** 2) / squares if squares > 0 else 0.0


def missing(log: BanditLog, policy: Policy, shown: Floats | None = None) -> tuple[Floats, float]:
    """Find the share of a candidate's probability mass on items that the log could never show.

    Returns (P,) the share by position, NaN for positions without rows, and the share over all rows.
    logging_probabilities: (P, A) of the logging policy; None: an item counts as possible at a position if the log has a
    row of it there, so a short log makes rare items look impossible.
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
