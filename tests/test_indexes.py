"""Vector indexes: the exact one against numpy, Annoy against the exact one, and both with the shipped checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feedrank.engine.retrieval.indexes import AnnoyIndex, ExactIndex, Metric, SegmentedIndex
from feedrank.engine.testing import check_vector_index, toy_vectors
from feedrank.engine.types import Matrix, Vector

METRICS: tuple[Metric, ...] = ("cosine", "euclidean", "dot")
FORMULA: dict[str, Callable[[Matrix, Vector], np.ndarray]] = {
    "cosine": lambda x, q: x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q),
    "euclidean": lambda x, q: -np.linalg.norm(x - q, axis=1),
    "dot": lambda x, q: x @ q,
}
VECTORS = np.random.default_rng(1).normal(size=(3_000, 32)).astype(np.float32)
QUERIES = np.random.default_rng(2).normal(size=(20, 32)).astype(np.float32)

pytestmark = pytest.mark.parametrize("metric", METRICS)


@pytest.fixture(scope="module")
def forests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AnnoyIndex]:
    folder = tmp_path_factory.mktemp("forests")
    return {metric: AnnoyIndex.build(folder / f"{metric}.ann", VECTORS, metric) for metric in METRICS}


def test_the_shipped_checks(metric: Metric, tmp_path: Path) -> None:
    check_vector_index(lambda vectors: ExactIndex(vectors, metric))
    check_vector_index(lambda vectors: AnnoyIndex.build(tmp_path / "toy.ann", vectors, metric))

    def in_two_parts(vectors: Matrix) -> SegmentedIndex:
        return SegmentedIndex(ExactIndex(vectors[:40], metric), vectors[40:], 40, metric)

    check_vector_index(in_two_parts)


def test_exact_is_brute_force(metric: Metric) -> None:
    index = ExactIndex(VECTORS, metric)
    for query in QUERIES:
        truth = FORMULA[metric](VECTORS.astype(np.float64), query.astype(np.float64))
        for k in (1, 100, 1_000, 3_000, 5_000):
            rows, scores = index.search(query, k)
            assert len(rows) == min(k, 3_000)
            np.testing.assert_allclose(truth[rows], np.sort(truth)[::-1][:k], atol=1e-5)
            np.testing.assert_allclose(scores, truth[rows], atol=1e-4)
            assert np.all(np.diff(scores) <= 0)


def test_exact_within_some_rows(metric: Metric) -> None:
    index = ExactIndex(VECTORS, metric)
    for size in (0, 1, 40, 2_900):
        rows = np.sort(np.random.default_rng(size).choice(3_000, size, replace=False)).astype(np.int32)
        found, scores = index.search_subset(rows, QUERIES[0], 50)
        truth = FORMULA[metric](VECTORS[rows], QUERIES[0])
        assert found.tolist() == rows[np.argsort(-truth, kind="stable")][:50].tolist()
        np.testing.assert_allclose(scores, np.sort(truth)[::-1][:50], atol=1e-4)


def test_ties_go_by_row(metric: Metric) -> None:
    same = np.ones((30, 4), np.float32)
    rows, _ = ExactIndex(same, metric).search(same[0], 7)
    assert rows.tolist() == list(range(7))


def test_annoy_has_high_recall(metric: Metric, forests: dict[str, AnnoyIndex]) -> None:
    exact = ExactIndex(VECTORS, metric)
    shares = []
    for query in QUERIES:
        rows, scores = forests[metric].search(query, 100)
        best, _ = exact.search(query, 100)
        assert len(set(rows.tolist())) == 100
        shares.append(len(np.intersect1d(rows, best)) / 100)
        np.testing.assert_allclose(scores, FORMULA[metric](VECTORS[rows], query), atol=1e-4)
        assert np.all(np.diff(scores) <= 1e-5)
    assert np.mean(shares) >= 0.95


def test_annoy_returns_k_rows_or_all(metric: Metric, forests: dict[str, AnnoyIndex]) -> None:
    for k in (1, 1_000, 3_000, 10_000):
        rows, scores = forests[metric].search(QUERIES[0], k)
        assert len(np.unique(rows)) == len(rows) == len(scores) == min(k, 3_000)


def test_annoy_loaded_gives_the_same(metric: Metric, forests: dict[str, AnnoyIndex], tmp_path: Path) -> None:
    built = AnnoyIndex.build(tmp_path / "a.ann", VECTORS, metric, trees=10, search_k_factor=2, seed=5)
    loaded = AnnoyIndex.load(tmp_path / "a.ann")
    assert (loaded.metric, loaded.search_k_factor) == (metric, 2)
    for query in QUERIES:
        for found, expected in zip(loaded.search(query, 50), built.search(query, 50), strict=True):
            assert np.array_equal(found, expected)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.ann", "a.json"]


def test_the_same_seed_gives_the_same_bytes(metric: Metric, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        AnnoyIndex.build(tmp_path / f"{name}.ann", VECTORS[:500], metric, trees=5, seed=seed)
    a, b, c = ((tmp_path / f"{name}.ann").read_bytes() for name in "abc")
    assert a == b != c


def test_non_finite_vectors_are_refused(metric: Metric, tmp_path: Path) -> None:
    for spoilt in (np.nan, np.inf):
        vectors = toy_vectors()
        vectors[7, 2] = spoilt
        with pytest.raises(ValueError, match="NaN or infinity"):
            ExactIndex(vectors, metric)
        with pytest.raises(ValueError, match="NaN or infinity"):
            AnnoyIndex.build(tmp_path / "a.ann", vectors, metric)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_metric_and_an_absent_file_are_refused(metric: Metric, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"'{metric}ish', expected one of cosine, euclidean, dot"):
        ExactIndex(VECTORS, metric + "ish")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected one of cosine, euclidean, dot"):
        AnnoyIndex.build(tmp_path / "a.ann", VECTORS, "manhattan")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"found no index at .*; build it with"):
        AnnoyIndex.load(tmp_path / "a.ann")
