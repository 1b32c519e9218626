"""The PCA filter-and-refine index against brute force, and with the shipped checks."""

from __future__ import annotations

import numpy as np
import pytest

from feedrank.engine.retrieval.indexes import ExactIndex, Metric
from feedrank.engine.retrieval.pca_index import (
    BRUTE_FORCE_UP_TO,
    PCA_DIMENSIONS,
    REFINE_FACTOR,
    PcaRefineIndex,
    build_scannable_index,
)
from feedrank.engine.testing import check_vector_index
from feedrank.engine.types import Matrix

METRICS: tuple[Metric, ...] = ("cosine", "euclidean", "dot")
RANDOM = np.random.default_rng(3)


def spread(n: int, dimensions: int) -> Matrix:
    """Vectors whose variance falls from axis to axis, as with embeddings, rotated so that no axis is a coordinate."""
    turn, _ = np.linalg.qr(RANDOM.normal(size=(dimensions, dimensions)))
    vectors = RANDOM.normal(size=(n, dimensions)) * np.geomspace(1, 0.1, dimensions)
    return (vectors @ turn).astype(np.float32)


VECTORS = spread(12_000, 256)
QUERIES = VECTORS[:: len(VECTORS) // 20] + RANDOM.normal(size=(20, 256)).astype(np.float32) * np.float32(0.1)

pytestmark = pytest.mark.parametrize("metric", METRICS)


def test_the_shipped_checks(metric: Metric) -> None:
    check_vector_index(lambda vectors: PcaRefineIndex.from_vectors(vectors, metric))


def test_few_dimensions_are_not_projected(metric: Metric) -> None:
    narrow = np.ascontiguousarray(VECTORS[:, :PCA_DIMENSIONS])
    scan, exact = PcaRefineIndex.from_vectors(narrow, metric), ExactIndex(narrow, metric)
    for query in QUERIES:
        for k in (1, 100, 5_000):
            rows, scores = scan.search(query[:PCA_DIMENSIONS], k)
            best, wanted = exact.search(query[:PCA_DIMENSIONS], k)
            assert rows.tolist() == best.tolist()
            np.testing.assert_allclose(scores, wanted, rtol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.2, 0.01])
def test_recall_is_high_in_any_subset(metric: Metric, share: float) -> None:
    scan, exact = PcaRefineIndex.from_vectors(VECTORS, metric), ExactIndex(VECTORS, metric)
    part = np.flatnonzero(RANDOM.random(len(VECTORS)) < share).astype(np.int32)
    found = []
    for query in QUERIES:
        rows, scores = scan.search_subset(part, query, 100)
        best, _ = exact.search_subset(part, query, 100)
        assert len(rows) == len(set(rows.tolist())) == 100
        assert set(rows.tolist()) <= set(part.tolist())
        assert np.all(np.diff(scores) <= 0)
        found.append(np.isin(best, rows).mean())
    assert np.mean(found) > (0.97 if len(part) > REFINE_FACTOR * 100 else 0.9999)


def test_items_added_later_are_found(metric: Metric) -> None:
    first = build_scannable_index(VECTORS[:10_000], metric)
    assert isinstance(first, PcaRefineIndex)
    later = build_scannable_index(VECTORS, metric, first)
    assert isinstance(later, PcaRefineIndex)
    assert later.axes is first.axes
    exact = ExactIndex(VECTORS, metric)
    for row in (9_999, 10_000, 11_999):
        rows, scores = later.search(VECTORS[row], 10)
        best, wanted = exact.search(VECTORS[row], 10)
        assert rows.tolist() == best.tolist()
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)
    assert isinstance(build_scannable_index(VECTORS[:BRUTE_FORCE_UP_TO], metric, first), ExactIndex)


def test_the_projection_is_cached_for_the_same_vectors(metric: Metric) -> None:
    scan = PcaRefineIndex.from_vectors(VECTORS, metric)
    assert (scan.with_vectors(VECTORS) is scan) == (metric != "cosine")  # which scales them first
