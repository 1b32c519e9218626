"""What shadows reported, put together: how far an arm's lists are from those shown, and what they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.experiments.shadows import EDGES_MS, Tally


@dataclass(frozen=True, slots=True)
class Shadowed:
    """One arm beside the one that was shown; NaN where nothing was reported."""

    arm: str
    feeds: int
    overlap: float
    """Mean share of the items shown that the arm would have shown too."""
    same_first: float
    """Share of feeds with the same first item."""
    tau: float
    """Mean rank correlation (Kendall) of its scores with the order shown."""
    score: tuple[float, float]
    """Mean and standard deviation of its scores of what was shown."""
    shown_score: tuple[float, float]
    """The same of the scores that it was shown with."""
    p50_ms: float
    """What its list took, the upper edge of the count that half of the feeds are within."""
    p95_ms: float
    dropped: int
    """Feeds that there was no time for."""
    failed: int

    @property
    def said(self) -> str:
        """In a sentence."""
        if not self.feeds:
            return f"{self.arm}: nothing was seen yet"
        return (
            f"{self.arm}: {self.overlap:.1%} of the items shown are its own choice too, the first one in"
            f" {self.same_first:.1%} of {self.feeds:,} feeds; rank correlation {self.tau:+.2f};"
            f" scores of what was shown {self.score[0]:.3g} (deviation {self.score[1]:.3g}), shown with"
            f" {self.shown_score[0]:.3g} ({self.shown_score[1]:.3g});"
            f" half of its lists took at most {self.p50_ms:g} ms, 95 % at most {self.p95_ms:g} ms;"
            f" {self.dropped:,} feeds dropped, {self.failed:,} failed"
        )


def shadowed(arm: str, sums: Mapping[str, Any] | None) -> Shadowed:
    """Of what was reported of an arm, summed over all reports; None: nothing was."""
    told: Mapping[str, Any] = sums or Tally().body()
    feeds = int(told["feeds"])

    def mean(name: str) -> float:
        return float(told[name]) / feeds if feeds else math.nan

    return Shadowed(
        arm, feeds, mean("overlap"), mean("first"), mean("tau"), _moments(told["scores"]),
        _moments(told["shown_scores"]), _within(told["ms"], 0.5), _within(told["ms"], 0.95),
        int(told.get("dropped", 0)), int(told["failed"]),
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
    place = int(np.searchsorted(np.cumsum(counts), share * total))
    return EDGES_MS[place] if place < len(EDGES_MS) else math.inf
