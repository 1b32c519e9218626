"""Feature drift: how far a feature's distribution has moved from the ranker's training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Matrix
from feedrank.models.atomic_files import atomic_write

BINS = 10
MAX_SAMPLE_ROWS = 20_000
"""Maximum number of rows that a histogram is built from."""
_MIN_SHARE = 1e-4
"""Share assigned to an empty bin, as PSI needs a logarithm."""
PSI_MODERATE, PSI_LARGE = 0.1, 0.25
"""Customary PSI thresholds: below the first a feature is stable, above the second it has changed."""


@dataclass(frozen=True, slots=True)
class FeatureHistogram:
    """Each feature's decile edges and the share of rows per bin, missing values last."""

    edges: dict[str, list[float]]
    shares: dict[str, list[float]]

    @classmethod
    def from_matrix(cls, matrix: Matrix, names: Sequence[str]) -> FeatureHistogram:
        """Build the histogram of (N, F) feature rows."""
        edges: dict[str, list[float]] = {}
        shares: dict[str, list[float]] = {}
        for column, name in enumerate(names):
            values = matrix[:, column]
            finite = values[np.isfinite(values)].astype(np.float64)
            inner = np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1]) if len(finite) else np.empty(0)
            edges[name] = np.unique(inner).tolist()
            shares[name] = _bin_shares(values, edges[name]).tolist()
        return cls(edges, shares)

    def psi(self, matrix: Matrix, names: Sequence[str]) -> dict[str, float]:
        """Return feature -> population stability index (PSI) of new (N, F) rows; unknown features are left out.

        PSI = sum over bins of (new - old) ln(new / old), in nats (Siddiqi, Credit Risk Scorecards, 2006).
        """
        psi_by_feature: dict[str, float] = {}
        for column, name in enumerate(names):
            if name in self.edges:
                new = np.maximum(_bin_shares(matrix[:, column], self.edges[name]), _MIN_SHARE)
                old = np.maximum(np.array(self.shares[name]), _MIN_SHARE)
                psi_by_feature[name] = float(((new - old) * np.log(new / old)).sum())
        return psi_by_feature

    def save(self, path: Path) -> None:
        """Write the histogram as JSON."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"edges": self.edges, "shares": self.shares}) + "\n")

    @classmethod
    def load(cls, path: Path) -> FeatureHistogram:
        """Read a histogram that `save` wrote."""
        body = json.loads(path.read_text())
        return cls(body["edges"], body["shares"])


def sample_rows(matrices: Sequence[Any], seed: int) -> Matrix:
    """Draw at most `MAX_SAMPLE_ROWS` rows from matrices, in memory or on disk, without replacement."""
    sizes = [len(part) for part in matrices]
    total = sum(sizes)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:MAX_SAMPLE_ROWS])
    rows, start = [], 0
    for part, size in zip(matrices, sizes, strict=True):
        local = chosen[(chosen >= start) & (chosen < start + size)] - start
        rows.append(part[local])
        start += size
    return np.concatenate(rows)


def _bin_shares(values: NDArray[np.float32], edges: list[float]) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    bins = np.searchsorted(np.array(edges), values[finite].astype(np.float64), side="left")
    counts = np.append(np.bincount(bins, minlength=len(edges) + 1), np.count_nonzero(~finite))
    return counts / max(len(values), 1)
