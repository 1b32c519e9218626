"""Drift: how far a feature's values have moved from those that a ranker was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import Matrix
from models.files import written_aside

BINS = 10
SAMPLE = 20_000
"""Rows that a sketch is made of, at most."""
_LEAST = 1e-4
"""The share that an empty bin is taken to have."""
MODERATE, LARGE = 0.1, 0.25
"""Customary readings of the index: below the first a feature is stable, above the second it is another one."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Each feature's distribution: bounds of its tenths, and the share of rows in each, missing values last."""

    edges: dict[str, list[float]]
    shares: dict[str, list[float]]

    @classmethod
    def of(cls, matrix: Matrix, names: Sequence[str]) -> Sketch:
        """From (N, F) feature rows."""
        edges: dict[str, list[float]] = {}
        shares: dict[str, list[float]] = {}
        for column, name in enumerate(names):
            values = matrix[:, column]
            known = values[np.isfinite(values)].astype(np.float64)
            inner = np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]) if len(known) else np.empty(0)
            edges[name] = np.unique(inner).tolist()
            shares[name] = _shares(values, edges[name]).tolist()
        return cls(edges, shares)

    def drift(self, matrix: Matrix, names: Sequence[str]) -> dict[str, float]:
        """Feature -> population stability index of new rows against the sketch; features new to it are left out.

        PSI = sum over bins of (new - old) ln(new / old), in nats (Siddiqi, Credit Risk Scorecards, 2006).
        """
        found: dict[str, float] = {}
        for column, name in enumerate(names):
            if name in self.edges:
                new = np.maximum(_shares(matrix[:, column], self.edges[name]), _LEAST)
                old = np.maximum(np.array(self.shares[name]), _LEAST)
                found[name] = float(((new - old) * np.log(new / old)).sum())
        return found

    def save(self, path: Path) -> None:
        """Write as JSON."""
        with written_aside(path) as aside:
            aside.write_text(json.dumps({"edges": self.edges, "shares": self.shares}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Sketch:
        """Read what `save` wrote."""
        body = json.loads(path.read_text())
        return cls(body["edges"], body["shares"])


def sample(parts: Sequence[Any], seed: int) -> Matrix:
    """At most SAMPLE rows of some matrices (in memory or not), drawn without replacement."""
    sizes = [len(part) for part in parts]
    total = sum(sizes)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLE])
    rows, start = [], 0
    for part, size in zip(parts, sizes, strict=True):
        own = chosen[(chosen >= start) & (chosen < start + size)] - start
        rows.append(part[own])
        start += size
    return np.concatenate(rows)


def _shares(values: NDArray[np.float32], edges: list[float]) -> NDArray[np.float64]:
    known = np.isfinite(values)
    places = np.searchsorted(np.array(edges), values[known].astype(np.float64), side="left")
    counts = np.append(np.bincount(places, minlength=len(edges) + 1), np.count_nonzero(~known))
    return counts / max(len(values), 1)
