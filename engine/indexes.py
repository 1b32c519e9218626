"""Vector indexes: Annoy, and the exact one that is its reference. Scores are similarities: higher is better.

cosine: the cosine. dot: the inner product. euclidean: minus the distance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from annoy import AnnoyIndex as Annoy

from engine.protocols import VectorIndex
from engine.space import unit_rows
from engine.types import Matrix, Rows, Scores, Vector, no_rows

Metric = Literal["cosine", "euclidean", "dot"]
_ANNOY_METRICS: dict[str, Literal["angular", "euclidean", "dot"]] = {
    "cosine": "angular",
    "euclidean": "euclidean",
    "dot": "dot",
}


class ExactIndex:
    """Brute force over all vectors, or over a subset of rows."""

    def __init__(self, vectors: Matrix, metric: Metric = "cosine") -> None:
        _check(vectors, metric)
        self.metric = metric
        self.vectors = unit_rows(vectors) if metric == "cosine" else np.asarray(vectors, np.float32)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """The k best rows, best first, ties by row."""
        return _best(np.arange(len(self.vectors), dtype=np.int32), self._scores(self.vectors, vector), k)

    def search_within(self, rows: Rows, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """The k best of the given rows, best first, ties by place."""
        if len(rows) * 4 > len(self.vectors):  # scoring all costs less than copying most of them out
            return _best(rows, self._scores(self.vectors, vector)[rows], k)
        return _best(rows, self._scores(self.vectors[rows], vector), k)

    def _scores(self, vectors: Matrix, vector: Vector) -> Scores:
        if self.metric == "euclidean":
            return np.asarray(-np.sqrt(np.square(vectors - vector).sum(axis=1)), np.float32)
        length = float(np.linalg.norm(vector)) if self.metric == "cosine" else 1.0
        return np.asarray(vectors @ (vector / np.float32(length or 1.0)), np.float32)


class AnnoyIndex:
    """Approximate neighbours by a forest of random projections; one file, memory-mapped, shared by processes."""

    def __init__(self, path: Path, dimensions: int, metric: Metric, search_factor: int) -> None:
        self.metric = metric
        self.search_factor = search_factor
        self._index = Annoy(dimensions, _ANNOY_METRICS[metric])
        self._index.load(str(path))
        self.trees = self._index.get_n_trees()

    @classmethod
    def build(
        cls,
        path: Path,
        vectors: Matrix,
        metric: Metric = "cosine",
        trees: int = 50,
        search_factor: int = 4,
        seed: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> AnnoyIndex:
        """Build, write to `path` aside and rename, with the build arguments beside it; then open it.

        trees: more are more exact and larger. search_factor: nodes looked at are trees x k x this.
        """
        _check(vectors, metric)
        index = Annoy(vectors.shape[1], _ANNOY_METRICS[metric])
        index.set_seed(seed or 1)  # Annoy takes 0 for "no seed"
        for row, vector in enumerate(vectors):
            index.add_item(row, vector)
        say(f"building {trees} trees over {len(vectors):,} vectors")
        index.build(trees, n_jobs=1)  # one job: the same seed gives the same bytes
        aside = path.with_name(path.name + ".tmp")
        index.save(str(aside))
        index.unload()
        settings = {
            "dimensions": vectors.shape[1], "items": len(vectors), "metric": metric, "trees": trees,
            "search_factor": search_factor, "seed": seed,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(settings, indent=1) + "\n")
        os.replace(aside, path)
        return cls(path, vectors.shape[1], metric, search_factor)

    @classmethod
    def load(cls, path: Path) -> AnnoyIndex:
        """Open an index by its file; its build arguments stand beside it."""
        beside = path.with_suffix(".json")
        if not (path.is_file() and beside.is_file()):
            raise FileNotFoundError(f"no index at {path} with {beside.name} beside it; build it with `feedrank index`")
        settings = json.loads(beside.read_text())
        return cls(path, settings["dimensions"], settings["metric"], settings["search_factor"])

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """About the k best rows, best first."""
        nodes = self.trees * k * self.search_factor
        rows, distances = self._index.get_nns_by_vector(vector, k, nodes, include_distances=True)
        found = np.asarray(distances, np.float32)
        if self.metric == "cosine":
            found = np.float32(1) - found * found / np.float32(2)
        elif self.metric == "euclidean":
            found = -found
        return np.array(rows, np.int32), found


class SegmentedIndex:
    """An index, and brute force over items that came after it was built: they are found before it is built again."""

    def __init__(self, index: VectorIndex, later: Matrix, first: int, metric: Metric) -> None:
        """later: (k, d) vectors of the rows from `first` on."""
        self._index, self._first = index, first
        self._later = ExactIndex(later, metric)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """About the k best rows of both, best first."""
        rows, scores = self._index.search(vector, k)
        more, theirs = self._later.search(vector, k)
        rows, scores = np.concatenate([rows, more + np.int32(self._first)]), np.concatenate([scores, theirs])
        best = np.argsort(-scores, kind="stable")[:k]
        return rows[best], scores[best]


def _check(vectors: Matrix, metric: str) -> None:
    if metric not in _ANNOY_METRICS:
        raise ValueError(f"metric is {metric!r}; expected one of {', '.join(_ANNOY_METRICS)}")
    if not np.isfinite(vectors).all():
        raise ValueError("the vectors hold NaN or infinity; every item needs a finite vector")


def _best(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    if not len(rows) or k <= 0:
        return no_rows(), np.empty(0, np.float32)
    found = np.arange(len(scores))
    if k < len(scores):
        # all that reach the k-th score, so that the tie rule does not depend on the partition
        found = np.flatnonzero(scores >= -np.partition(-scores, k - 1)[k - 1])
    found = found[np.argsort(-scores[found], kind="stable")][:k]
    return rows[found], scores[found]
