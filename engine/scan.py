"""Search of a whole catalogue in two looks: all items in a few dimensions, then the nearest of these in all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.indexes import ExactIndex, Metric
from engine.protocols import WholeIndex
from engine.space import unit_rows
from engine.types import Matrix, Rows, Scores, Vector

FEW = 5_000
"""Items that are looked at in all dimensions at once."""
DIMENSIONS = 64
KEPT, LEAST = 10, 1_000
"""Rows that are looked at in all dimensions: so many for each one that is asked for, and so many at least."""
SAMPLE = 20_000
"""Vectors that the axes are made of at most."""


@dataclass(frozen=True, eq=False, slots=True)
class ScanIndex:
    """Filter and refine: nearly exact, at about an eighth of what brute force reads.

    The few dimensions are the principal ones of the vectors' second moment, so that inner products lose as little as
    can be. Source of the scheme: Faloutsos et al., Fast Subsequence Matching in Time-Series Databases, SIGMOD 1994;
    there the first look has a bound and nothing is missed, here it has none, and how much is found was measured.
    """

    exact: ExactIndex
    """The second look."""
    axes: Matrix
    """(d, DIMENSIONS or fewer) orthonormal."""
    short: Matrix
    """(n, DIMENSIONS or fewer) the vectors along the axes."""
    squares: Scores
    """(n,) squared lengths of the vectors; (0,) where the metric does not need them."""

    @classmethod
    def of(cls, vectors: Matrix, metric: Metric = "dot") -> ScanIndex:
        """Over (n, d) vectors."""
        sample = vectors[:: max(1, len(vectors) // SAMPLE)].astype(np.float32)
        if metric == "cosine":
            sample = unit_rows(sample)
        axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :DIMENSIONS]
        return cls._along(np.ascontiguousarray(axes, np.float32), vectors, metric)

    @classmethod
    def _along(cls, axes: Matrix, vectors: Matrix, metric: Metric) -> ScanIndex:
        exact = ExactIndex(vectors, metric)
        squares = np.einsum("nd,nd->n", vectors, vectors) if metric == "euclidean" else np.empty(0)
        return cls(exact, axes, exact.vectors @ axes, np.asarray(squares, np.float32))

    def over(self, vectors: Matrix) -> ScanIndex:
        """Over other vectors, such as these and those of new items, along the same axes."""
        return self if vectors is self.exact.vectors else self._along(self.axes, vectors, self.exact.metric)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """About the k best rows, best first, ties by row."""
        return self.exact.search_within(self._kept(self._glance(self.short, self.squares, vector), k), vector, k)

    def search_within(self, rows: Rows, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """About the k best of the given rows, best first, ties by place."""
        if len(rows) <= _most(k):
            return self.exact.search_within(rows, vector, k)
        if len(rows) * 4 > len(self.short):  # looking at all costs less than copying most of them out
            seen = self._glance(self.short, self.squares, vector)[rows]
        else:
            seen = self._glance(self.short[rows], self.squares[rows] if len(self.squares) else self.squares, vector)
        return self.exact.search_within(rows[self._kept(seen, k)], vector, k)

    def _glance(self, short: Matrix, squares: Scores, vector: Vector) -> Scores:
        """What orders rows as their scores do, but for what the axes leave out."""
        found = short @ (vector @ self.axes)
        return np.asarray(2 * found - squares if len(squares) else found, np.float32)

    def _kept(self, seen: Scores, k: int) -> Rows:
        most = _most(k)
        if len(seen) <= most:
            return np.arange(len(seen), dtype=np.int32)
        return np.sort(np.argpartition(-seen, most)[:most]).astype(np.int32)


def _most(k: int) -> int:
    return max(KEPT * k, LEAST)


def whole_index(vectors: Matrix, metric: Metric, before: WholeIndex | None = None) -> WholeIndex:
    """What looks at all (n, d) vectors; where there are few, by brute force. before: of most of the same vectors."""
    if len(vectors) <= FEW:
        return ExactIndex(vectors, metric)
    return before.over(vectors) if isinstance(before, ScanIndex) else ScanIndex.of(vectors, metric)
