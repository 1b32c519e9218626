"""Diagnoses whether a log supports a candidate: effective sample size, largest weights, and items never shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.models.off_policy.intervals import mean_standard_error
from feedrank.models.off_policy.log import BanditLog, Clusters, Floats, cluster_codes
from feedrank.models.off_policy.policies import Policy

_LARGEST_COUNT = 5


@dataclass(frozen=True, slots=True)
class SupportLimits:
    """Holds the limits beyond which an estimate is refused; 0, 1 or inf switches a limit off."""

    min_ess: float = 100.0
    """Minimum effective sample size."""
    min_rewarded_ess: float = 10.0
    """Minimum effective number of rewarded rows: with fewer, intervals are unreliable; with none, their width is 0."""
    max_unsupported_mass: float = 0.01
    """Maximum share of the candidate's probability mass on items that the log never showed."""
    max_mean_deviation: float = 4.0
    """Maximum distance of the mean weight from 1, in standard errors."""
    max_row_share: float = 0.05
    """Maximum share of the weight on one row."""
    max_cluster_share: float = 0.1
    """Maximum share of the weight on one cluster."""
    max_lost_weight: float = 0.2
    """Maximum share of the weight that clipping may remove."""


@dataclass(frozen=True, slots=True)
class SupportDiagnostics:
    """Holds diagnostics of a candidate's importance weights on a log."""

    rows: int
    clusters: int
    ess: float
    """Kish's effective sample size of the weights as used: the log is worth this many on-policy rows."""
    rewarded_ess: float
    """The effective number of rewarded rows: the same for weight x reward."""
    mean_weight: float
    """The mean of the unclipped weights; its expectation is 1 if the log can show all that the candidate shows."""
    mean_weight_error: float
    """The standard error of that mean."""
    largest_shares: tuple[float, ...]
    """The shares of the largest weights, up to five."""
    largest_cluster_share: float
    """The share of the cluster with the most weight."""
    unsupported_by_position: tuple[float, ...]
    """By position: share of the candidate's probability mass on items that the log never showed there; empty: unknown.
    """
    unsupported_mass: float
    """The same over all rows; 0 if unknown."""
    lost_weight: float
    """The share of the weight that clipping removed."""

    @property
    def overlap_summary(self) -> str:
        """A sentence that sums up the diagnostics."""
        share = self.ess / self.rows
        quality = next(word for bound, word in _OVERLAP_WORDS if share >= bound)
        summary = f"{quality} overlap: {self.rows:,} rows, effective sample size {self.ess:,.0f} ({100 * share:.1f} %)"
        summary += (
            f", mean weight {self.mean_weight:.3f} +- {self.mean_weight_error:.3f}, largest weight"
            f" {_percent(self.largest_shares[0])}"
        )
        if self.unsupported_by_position:
            summary += f", {_percent(self.unsupported_mass)} of the candidate's mass on items never shown"
        return summary

    def refusal_reason(self, limits: SupportLimits) -> str | None:
        """Say why an estimate should be refused, and what to do; None: all limits are met."""
        deviation = abs(self.mean_weight - 1)
        checks = [
            (
                self.ess < limits.min_ess,
                f"the effective sample size of {self.rows:,} rows is {self.ess:.1f}, expected"
                f" {limits.min_ess:g} or more: log "
                "more rows, or choose a candidate closer to the logging policy",
            ),
            (
                self.rewarded_ess < limits.min_rewarded_ess,
                f"the effective number of rewarded rows is {self.rewarded_ess:.1f}, expected"
                f" {limits.min_rewarded_ess:g} or more: log "
                "more rows, or choose a more frequent reward",
            ),
            (
                self.unsupported_mass > limits.max_unsupported_mass,
                f"{_percent(self.unsupported_mass)} of the candidate's mass is on items that the log never showed, "
                f"expected at most {_percent(limits.max_unsupported_mass)}: let the logging policy explore these items",
            ),
            (
                deviation > limits.max_mean_deviation * self.mean_weight_error + 1e-9,
                f"the mean weight is {self.mean_weight:.3f} +- {self.mean_weight_error:.3f}, expected"
                " 1: the propensities are not those "
                "by which items were drawn, or the log can't show all that the candidate shows",
            ),
            (
                self.largest_shares[0] > limits.max_row_share,
                f"one row has {_percent(self.largest_shares[0])} of the weight, expected at most"
                f" {_percent(limits.max_row_share)}: clip "
                "the weights, or log more rows",
            ),
            (
                self.largest_cluster_share > limits.max_cluster_share,
                f"one cluster has {_percent(self.largest_cluster_share)} of the weight, expected at most "
                f"{_percent(limits.max_cluster_share)}: clip the weights, or log more clusters",
            ),
            (
                self.lost_weight > limits.max_lost_weight,
                f"clipping removed {_percent(self.lost_weight)} of the weight, expected at most"
                f" {_percent(limits.max_lost_weight)}: set a "
                "higher threshold, or log with more exploration",
            ),
        ]
        return "; ".join(reason for is_exceeded, reason in checks if is_exceeded) or None


_OVERLAP_WORDS = ((0.5, "good"), (0.2, "fair"), (0.05, "poor"), (0.0, "very poor"))
"""Minimum of effective sample size / rows -> the quality of the overlap."""


def diagnose(
    weights: Floats,
    contributions: Floats,
    cluster: Clusters | None = None,
    *,
    unclipped_weights: Floats | None = None,
    unsupported_by_position: Floats | None = None,
    unsupported_mass: float = 0.0,
) -> SupportDiagnostics:
    """Compute the diagnostics of a candidate's weights.

    weights: (N,) as used. contributions: (N,) weighted rewards. unclipped_weights: (N,); None: they are `weights`.
    unsupported_by_position, unsupported_mass: of `find_unsupported_mass`.
    """
    unclipped_weights = weights if unclipped_weights is None else unclipped_weights
    codes, units = cluster_codes(cluster, len(weights))
    total, before = float(weights.sum()), float(unclipped_weights.sum())
    shares = weights / total if total > 0 else np.zeros(len(weights))
    largest_cluster = np.bincount(codes, weights=shares, minlength=units).max()
    return SupportDiagnostics(
        rows=len(weights),
        clusters=units,
        ess=effective_sample_size(weights),
        rewarded_ess=effective_sample_size(contributions),
        mean_weight=float(unclipped_weights.mean()),
        mean_weight_error=mean_standard_error(unclipped_weights, cluster),
        largest_shares=tuple(np.sort(shares)[::-1][:_LARGEST_COUNT].tolist()),
        largest_cluster_share=float(largest_cluster),
        unsupported_by_position=() if unsupported_by_position is None else tuple(unsupported_by_position.tolist()),
        unsupported_mass=unsupported_mass,
        lost_weight=max(0.0, 1 - total / before) if before > 0 else 0.0,
    )


def effective_sample_size(weights: Floats) -> float:
    """Compute the effective sample size (sum |w|)^2 / sum w^2, from 0 to N. Source: Kish 1965."""
    squares = float(np.sum(weights**2))
    return float(np.sum(np.abs(weights)) ** 2) / squares if squares > 0 else 0.0


def find_unsupported_mass(
    log: BanditLog, policy: Policy, logging_probabilities: Floats | None = None
) -> tuple[Floats, float]:
    """Find the share of a candidate's probability mass on items that the log could never show.

    Returns (P,) the share by position, NaN for positions without rows, and the share over all rows.
    logging_probabilities: (P, A) of the logging policy; None: an item counts as possible at a position if the log has a
    row of it there, so a short log makes rare items look impossible.
    """
    positions = int(log.position.max()) + 1
    if logging_probabilities is None:
        logging_probabilities = np.zeros((positions, policy.n_items))
        logging_probabilities[log.position, log.action] = 1.0
    probabilities = policy.row_probabilities(log)
    mass = np.where(logging_probabilities[log.position] > 0, 0.0, probabilities).sum(axis=1)
    rows = np.bincount(log.position, minlength=positions)
    sums = np.bincount(log.position, weights=mass, minlength=positions)
    return np.divide(sums, rows, out=np.full(positions, np.nan), where=rows > 0), float(mass.mean())


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
