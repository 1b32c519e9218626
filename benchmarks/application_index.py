"""A vector index of an application's own that takes a second to build."""

from __future__ import annotations

import time

import numpy as np

from feedrank.engine.types import Matrix, Rows, Scores, Vector

BUILD_S = 1.0


class SlowToBuild:
    """An exact index by inner product."""

    def __init__(self, vectors: Matrix, metric: str) -> None:
        """Build the index of (n, d) vectors."""
        time.sleep(BUILD_S)
        self._vectors = np.array(vectors)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return the k best rows and their scores, best first."""
        scores = self._vectors @ vector
        best = np.argsort(-scores, kind="stable")[:k]
        return best.astype(np.int32), scores[best]
