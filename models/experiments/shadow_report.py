"""Sums up shadow reports: how an arm's rankings differ from those that were shown, and its latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedrank.engine.experiments.shadows import LATENCY_EDGES_MS, ShadowStats


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Compares a shadow arm with the rankings that were shown; NaN: nothing was reported."""

    arm: str
    rankings: int
    overlap: float
    """Mean share of the shown items that the arm would have shown too."""
    same_top_item: float
    """Share of feeds with the same top item."""
    kendall_tau: float
    """Mean Kendall rank correlation of the arm's scores with the order shown."""
    arm_score: tuple[float, float]
    """Mean and standard deviation of the arm's scores of the shown items."""
    served_score: tuple[float, float]
    """Mean and standard deviation of the scores that the items were shown with."""
    p50_ms: float
    """Median latency of the arm's ranking, as the upper edge of its histogram bin."""
    p95_ms: float
    """The same for the 95th percentile."""
    dropped: int
    """Feeds that were dropped for lack of time."""
    failed: int

    @property
    def summary_sentence(self) -> str:
        """A sentence that sums up the comparison."""
        if not self.rankings:
            return f"{self.arm}: there is no shadow report yet"
        return (
            f"{self.arm}: {self.overlap:.1%} of the shown items overlap, the top item is the same in"
            f" {self.same_top_item:.1%} of {self.rankings:,} feeds; Kendall's tau {self.kendall_tau:+.2f};"
            f" scores of the shown items {self.arm_score[0]:.3g} (standard deviation"
            f" {self.arm_score[1]:.3g}), served scores"
            f" {self.served_score[0]:.3g} ({self.served_score[1]:.3g});"
            f" latency p50 <= {self.p50_ms:g} ms, p95 <= {self.p95_ms:g} ms;"
            f" {self.dropped:,} feeds dropped, {self.failed:,} failed"
        )


def shadow_report(arm: str, sums: Mapping[str, Any] | None) -> ShadowReport:
    """Compute the report of an arm from its shadow reports, summed over all of them; None: there is none yet."""
    empty = ShadowStats().to_dict()
    totals: Mapping[str, Any] = {**empty, **(sums or {})}
    for name, value in empty.items():  # a report may come from another version
        if isinstance(value, list) != isinstance(totals[name], list) or (
            isinstance(value, list) and len(value) != len(totals[name])
        ):
            totals = empty
    rankings, latency_counts = int(totals["rankings"]), totals["latency_counts"]

    def mean(name: str) -> float:
        return float(totals[name]) / rankings if rankings else math.nan

    return ShadowReport(
        arm, rankings, mean("overlap"), mean("same_top_item"), mean("kendall_tau"),
        _mean_and_std(totals["arm_scores"]), _mean_and_std(totals["served_scores"]),
        _quantile_ms(latency_counts, 0.5), _quantile_ms(latency_counts, 0.95),
        int(totals.get("dropped", 0)), int(totals["failed"]),
    )  # fmt: skip


def _mean_and_std(sums: Sequence[float]) -> tuple[float, float]:
    count, total, squares = sums
    if not count:
        return math.nan, math.nan
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean**2, 0.0))


def _quantile_ms(counts: Any, share: float) -> float:
    total = float(np.sum(counts))
    if not total:
        return math.nan
    bin_index = int(np.searchsorted(np.cumsum(counts), share * total))
    return LATENCY_EDGES_MS[bin_index] if bin_index < len(LATENCY_EDGES_MS) else math.inf
