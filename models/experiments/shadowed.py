"""What shadows reported, put together: how far an arm's lists are from those shown, and what they take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.experiments.shadows import EDGES_MS


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


def shadowed(arm: str, reports: Iterable[Mapping[str, Any]]) -> Shadowed:
    """Of the reports of one arm, of whatever processes."""
    own = [one for one in reports if one.get("arm") == arm]
    feeds = sum(int(one.get("feeds", 0)) for one in own)

    def mean(name: str) -> float:
        return sum(float(one.get(name, 0)) for one in own) / feeds if feeds else math.nan

    counts = np.sum([one["ms"] for one in own], axis=0) if own else np.zeros(len(EDGES_MS) + 1)
    return Shadowed(
        arm, feeds, mean("overlap"), mean("first"), mean("tau"),
        _moments([one["scores"] for one in own]), _moments([one["shown_scores"] for one in own]),
        _within(counts, 0.5), _within(counts, 0.95),
        sum(int(one.get("dropped", 0)) for one in own), sum(int(one.get("failed", 0)) for one in own),
    )  # fmt: skip


def _moments(sums: list[list[float]]) -> tuple[float, float]:
    count, total, squares = np.sum(sums, axis=0).tolist() if sums else (0, 0, 0)
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
