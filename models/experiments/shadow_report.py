"""Sums up shadow reports: how an arm's rankings differ from those that were shown, and its latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedrank.engine.experiments.shadows import EDGES_MS, Tally


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Compares a shadow arm with the rankings that were shown; NaN: nothing was reported."""

    arm: str
    feeds: int
    overlap: float
    """Mean share of the shown items that the arm would have shown too."""
    same_first: float
    """Share of feeds with the same top item."""
    tau: float
    """Mean Kendall rank correlation of the arm's scores with the order shown."""
    score: tuple[float, float]
    """Mean and standard deviation of the arm's scores of the shown items."""
    shown_score: tuple[float, float]
    """Mean and standard deviation of the scores that the items were shown with."""
    p50_ms: float
    """Median latency of the arm's ranking, as the upper edge of its histogram bin."""
    p95_ms: float
    """The same for the 95th percentile."""
    dropped: int
    """Feeds that were dropped for lack of time."""
    failed: int

    @property
    def said(self) -> str:
        """A sentence that sums up the comparison."""
        if not self.feeds:
            return f"{self.arm}: there is no shadow report yet"
        return (
            f"{self.arm}: {self.overlap:.1%} of the shown items overlap, the top item is the same in"
            f" {self.same_first:.1%} of {self.feeds:,} feeds; Kendall's tau {self.tau:+.2f};"
            f" scores of the shown items {self.score[0]:.3g} (standard deviation {self.score[1]:.3g}), served scores"
            f" {self.shown_score[0]:.3g} ({self.shown_score[1]:.3g});"
            f" latency p50 <= {self.p50_ms:g} ms, p95 <= {self.p95_ms:g} ms;"
            f" {self.dropped:,} feeds dropped, {self.failed:,} failed"
        )


def shadowed(arm: str, sums: Mapping[str, Any] | None) -> Shadowed:
    """Compute the report of an arm from its shadow reports, summed over all of them; None: there is none yet."""
    totals: Mapping[str, Any] = sums or Tally().body()
    feeds = int(totals["feeds"])

    def mean(name: str) -> float:
        return float(totals[name]) / feeds if feeds else math.nan

    return Shadowed(
        arm, feeds, mean("overlap"), mean("first"), mean("tau"), _moments(totals["scores"]),
        _moments(totals["shown_scores"]), _within(totals["ms"], 0.5), _within(totals["ms"], 0.95),
        int(totals.get("dropped", 0)), int(totals["failed"]),
    )  # fmt: skip


def _moments(sums: Sequence[float]) -> tuple[float, float]:
    count, total, squares = sums
    if not count:
        return math.nan, math.nan
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean**2, 0.0))


def _within(counts: Any, share: float) -> float:
    total = float(np.sum(counts))
    if not total:
        return math.nan
    bin_index = int(np.searchsorted(np.cumsum(counts), share * total))
    return EDGES_MS[bin_index] if bin_index < len(EDGES_MS) else math.inf
