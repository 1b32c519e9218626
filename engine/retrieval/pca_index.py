"""Searches all vectors in two steps: a PCA pre-filter, then exact scores of the best rows (filter and refine)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.engine.protocols import WholeIndex
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.retrieval.indexes import ExactIndex, Metric
from feedrank.engine.types import Matrix, Rows, Scores, Vector

FEW = 5_000
"""Up to this many items, brute force is used instead."""
DIMENSIONS = 64
"""Dimensions of the pre-filter."""
KEPT, LEAST = 10, 1_000
"""For k results, max(REFINE_FACTOR x k, MIN_REFINED) rows get exact scores."""
SAMPLE = 20_000
"""Maximum number of vectors from which the axes are computed."""


@dataclass(frozen=True, eq=False, slots=True)
class ScanIndex:
    """A filter-and-refine index: nearly exact, and reads about an eighth of the data that brute force reads.

    The filter scores vectors projected to the principal axes of their (uncentred) second moment, which keeps inner
    products as well as possible. Source: Faloutsos et al., Fast Subsequence Matching in Time-Series Databases, SIGMOD
    1994. Their filter has a lower bound and misses nothing; this one has none, and its recall was measured.
    """

    exact: ExactIndex
    """Exact index of the refine step."""
    axes: Matrix
    """(d, PCA_DIMENSIONS or fewer) orthonormal columns."""
    short: Matrix
    """(n, PCA_DIMENSIONS or fewer) the vectors projected to the axes."""
    squares: Scores
    """(n,) squared norms of the vectors; (0,) if the metric does not need them."""

    @classmethod
    def of(cls, vectors: Matrix, metric: Metric = "dot") -> ScanIndex:
        """Build the index of (n, d) vectors. Raises ValueError for an unknown metric, NaN or infinity."""
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
        """Build an index of other vectors with the same axes, such as these vectors and those of new items."""
        return self if vectors is self.exact.vectors else self._along(self.axes, vectors, self.exact.metric)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return about the k best rows, best first, ties by row, and their scores."""
        return self.exact.search_within(self._kept(self._glance(self.short, self.squares, vector), k), vector, k)

    def search_within(self, rows: Rows, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return about the k best of the given rows, best first, ties in the given order, and their scores."""
        if len(rows) <= _most(k):
            return self.exact.search_within(rows, vector, k)
        if len(rows) * 4 > len(self.short):  # scoring all rows is cheaper than copying most of them
            coarse = self._glance(self.short, self.squares, vector)[rows]
        else:
            squares = self.squares[rows] if len(self.squares) else self.squares
            coarse = self._glance(self.short[rows], squares, vector)
        return self.exact.search_within(rows[self._kept(coarse, k)], vector, k)

    def _glance(self, short: Matrix, squares: Scores, vector: Vector) -> Scores:
        """Return approximate scores (len(projected),), up to a monotone transform."""
        products = short @ (vector @ self.axes)
        return np.asarray(2 * products - squares if len(squares) else products, np.float32)

    def _kept(self, seen: Scores, k: int) -> Rows:
        most = _most(k)
        if len(seen) <= most:
            return np.arange(len(seen), dtype=np.int32)
        return np.sort(np.argpartition(-seen, most)[:most]).astype(np.int32)


def _most(k: int) -> int:
    return max(KEPT * k, LEAST)


def whole_index(vectors: Matrix, metric: Metric, before: WholeIndex | None = None) -> WholeIndex:
    """Build an index that scans all (n, d) vectors; by brute force up to `BRUTE_FORCE_UP_TO` of them.

    previous: an index of mostly the same vectors, whose axes are reused. Raises ValueError for NaN or infinity.
    """
    if len(vectors) <= FEW:
        return ExactIndex(vectors, metric)
    return before.over(vectors) if isinstance(before, ScanIndex) else ScanIndex.of(vectors, metric)
