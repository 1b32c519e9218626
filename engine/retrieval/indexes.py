"""Provides vector indexes: Annoy, exact brute force, and a combination of both. Scores are similarities.

Higher is better. cosine: the cosine. dot: the inner product. euclidean: the negative distance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from annoy import AnnoyIndex as Annoy
from numpy.typing import NDArray

from feedrank.engine.protocols import VectorIndex
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, Rows, Scores, Vector, empty_rows

Metric = Literal["cosine", "euclidean", "dot"]
_ANNOY_METRICS: dict[str, Literal["angular", "euclidean", "dot"]] = {
    "cosine": "angular",
    "euclidean": "euclidean",
    "dot": "dot",
}


class ExactIndex:
    """Searches all vectors, or a subset of rows, by brute force."""

    def __init__(self, vectors: Matrix, metric: Metric = "cosine") -> None:
        """vectors: (n, d). Raises ValueError for an unknown metric, NaN or infinity."""
        _check_vectors(vectors, metric)
        self.metric = metric
        self.vectors = unit_rows(vectors) if metric == "cosine" else np.asarray(vectors, np.float32)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return the k best rows (k,), best first, ties by row, and their scores."""
        return _top_k(np.arange(len(self.vectors), dtype=np.int32), self._scores(self.vectors, vector), k)

    def search_subset(self, rows: Rows, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return the k best of the given rows, best first, ties in the given order, and their scores."""
        if len(rows) * 4 > len(self.vectors):  # scoring all rows is cheaper than copying most of them
            return _top_k(rows, self._scores(self.vectors, vector)[rows], k)
        return _top_k(rows, self._scores(self.vectors[rows], vector), k)

    def _scores(self, vectors: Matrix, vector: Vector) -> Scores:
        if self.metric == "euclidean":
            return np.asarray(-np.sqrt(np.square(vectors - vector).sum(axis=1)), np.float32)
        length = float(np.linalg.norm(vector)) if self.metric == "cosine" else 1.0
        return np.asarray(vectors @ (vector / np.float32(length or 1.0)), np.float32)


class AnnoyIndex:
    """Finds approximate nearest neighbours with Annoy: one memory-mapped file that processes share."""

    def __init__(self, path: Path, dimensions: int, metric: Metric, search_k_factor: int) -> None:
        """Open an index file; `load` also reads its settings. search_k_factor: see `build`."""
        self.metric = metric
        self.search_k_factor = search_k_factor
        self._index = Annoy(dimensions, _ANNOY_METRICS[metric])
        self._index.load(str(path))
        self._path = path
        self.trees = self._index.get_n_trees()

    @classmethod
    def build(
        cls,
        path: Path,
        vectors: Matrix,
        metric: Metric = "cosine",
        trees: int = 50,
        search_k_factor: int = 4,
        seed: int = 0,
        report_progress: Callable[[str], None] = lambda _: None,
    ) -> AnnoyIndex:
        """Build the index of (n, d) vectors, write it to `path` atomically, and open it.

        The build settings are written to a .json file next to it. trees: more trees give higher recall and a larger
        file. search_k_factor: Annoy's search_k (nodes inspected in a search) is trees x k x this. The same seed gives
        the same bytes. Raises ValueError for an unknown metric, NaN or infinity.
        """
        _check_vectors(vectors, metric)
        index = Annoy(vectors.shape[1], _ANNOY_METRICS[metric])
        index.set_seed(seed or 1)  # Annoy treats 0 as "no seed"
        for row, vector in enumerate(vectors):
            index.add_item(row, vector)
        report_progress(f"building {trees} trees over {len(vectors):,} vectors")
        index.build(trees, n_jobs=1)  # one job, so that the same seed gives the same bytes
        temporary = path.with_name(path.name + ".tmp")
        index.save(str(temporary))
        index.unload()
        settings = {
            "dimensions": vectors.shape[1], "items": len(vectors), "metric": metric, "trees": trees,
            "search_k_factor": search_k_factor, "seed": seed,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(settings, indent=1) + "\n")
        os.replace(temporary, path)
        return cls(path, vectors.shape[1], metric, search_k_factor)

    @classmethod
    def load(cls, path: Path) -> AnnoyIndex:
        """Open an index file with the .json settings next to it. Raises FileNotFoundError if one is missing."""
        settings_path = path.with_suffix(".json")
        if not (path.is_file() and settings_path.is_file()):
            raise FileNotFoundError(
                f"found no index at {path} with {settings_path.name} next to it; build it with `feedrank index`"
            )
        settings = json.loads(settings_path.read_text())
        return cls(path, settings["dimensions"], settings["metric"], settings["search_k_factor"])

    def check(self, vectors: Matrix, rows: Sequence[int]) -> None:
        """Raise ValueError if the file does not hold (n, d) vectors, or has nodes that lead out of it.

        The vectors of some rows are compared. Annoy follows the nodes without looking, so a wrong one ends the process.
        """
        n_found = self._index.get_n_items()
        if (n_found, self._index.f) != vectors.shape:
            raise ValueError(f"found {n_found} vectors of {self._index.f} dimensions, expected {vectors.shape}")
        for row in rows:
            if not np.array_equal(np.array(self._index.get_item_vector(row), np.float32), vectors[row]):
                raise ValueError(f"found another vector of the item in row {row} than the item model has")
        if n_found:
            _check_nodes(np.memmap(self._path, np.int32, "r"), n_found, self._index.f, self.metric)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return about the k best rows, best first, and their scores."""
        nodes = self.trees * k * self.search_k_factor
        rows, distances = self._index.get_nns_by_vector(vector, k, nodes, include_distances=True)
        scores = np.asarray(distances, np.float32)
        if self.metric == "cosine":
            scores = np.float32(1) - scores * scores / np.float32(2)
        elif self.metric == "euclidean":
            scores = -scores
        return np.array(rows, np.int32), scores


class SegmentedIndex:
    """Combines an index with a brute-force search over items added after it was built."""

    def __init__(self, index: VectorIndex, new_vectors: Matrix, first_row: int, metric: Metric) -> None:
        """new_vectors: (m, d) vectors of rows first_row to first_row + m - 1."""
        self._index, self._first_row = index, first_row
        self._new_items = ExactIndex(new_vectors, metric)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return about the k best rows of both parts, best first, and their scores."""
        rows, scores = self._index.search(vector, k)
        new_rows, new_scores = self._new_items.search(vector, k)
        rows = np.concatenate([rows, new_rows + np.int32(self._first_row)])
        scores = np.concatenate([scores, new_scores])
        best = np.argsort(-scores, kind="stable")[:k]
        return rows[best], scores[best]


def _check_nodes(words: NDArray[np.int32], n_items: int, dimensions: int, metric: Metric) -> None:
    """Check the nodes of an Annoy file: the number of items below a node, then its children or a list of its items."""
    head = 3 if metric == "cosine" else 4
    if len(words) % (head + dimensions):
        raise ValueError(f"found {4 * len(words):,} bytes, expected whole nodes of {dimensions} dimensions")
    first = 2 if metric == "euclidean" else 1
    nodes = words.reshape(-1, head + dimensions)[n_items:]
    below, columns = nodes[:, 0], nodes[:, first:]
    is_list = below <= columns.shape[1]
    listed = columns[is_list][np.arange(columns.shape[1]) < below[is_list, None]]
    children, limits = columns[~is_list, :2], n_items + np.flatnonzero(~is_list)[:, None]  # a node follows its children
    if (below < 1).any() or (below > n_items).any() or ((listed < 0) | (listed >= n_items)).any():
        raise ValueError("found a node of items that are not there")
    if ((children < 0) | (children >= limits)).any():
        raise ValueError("found a node whose children do not come before it")


def _check_vectors(vectors: Matrix, metric: str) -> None:
    if metric not in _ANNOY_METRICS:
        raise ValueError(f"found the metric {metric!r}, expected one of {', '.join(_ANNOY_METRICS)}")
    if not np.isfinite(vectors).all():
        raise ValueError("found vectors with NaN or infinity, expected a finite vector for every item")


def _top_k(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    if not len(rows) or k <= 0:
        return empty_rows(), np.empty(0, np.float32)
    top = np.arange(len(scores))
    if k < len(scores):
        # keep all rows that tie with the k-th score, so that ties do not depend on the partition
        top = np.flatnonzero(scores >= -np.partition(-scores, k - 1)[k - 1])
    top = top[np.argsort(-scores[top], kind="stable")][:k]
    return rows[top], scores[top]
