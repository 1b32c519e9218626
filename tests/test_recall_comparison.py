"""The comparison of a ranker with recall order: nDCG as everywhere, and no profit from the choice of a round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.models.evaluation.bootstrap import Difference
from feedrank.models.evaluation.metrics import ndcg, order
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker_warnings import recall_warnings
from feedrank.models.training.recall_comparison import RecallComparison, mean_gain

NAMES = ("other", "recall_score")


def groups_of(sizes: list[int], highest: int, dice: np.random.Generator) -> QueryGroups:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    matrix = dice.integers(0, 5, (int(offsets[-1]), 2)).astype(np.float32)
    matrix[dice.random(matrix.shape) < 0.1] = np.nan
    return QueryGroups(matrix, dice.integers(0, highest + 1, len(matrix)).astype(np.float32), offsets)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=30), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_one_round_is_measured_as_everywhere(sizes: list[int], highest: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    groups = groups_of(sizes, highest, dice)
    comparison = RecallComparison.from_features(groups, NAMES, "exponential")
    has_positive = np.array([bool((groups.labels[a:b] > 0).any()) for a, b in zip(groups.offsets, groups.offsets[1:])])  # noqa: B905
    if has_positive.sum() < 2:
        assert comparison is None
        return
    assert comparison is not None
    scores = dice.integers(0, 4, len(groups.labels)).astype(np.float64)
    comparison.observe(scores)
    recall = np.nan_to_num(np.asarray(groups.matrix[:])[:, 1], nan=-np.inf)
    for found, column in zip(comparison.values, (scores.astype(np.float32), recall), strict=True):
        expected = ndcg(groups.labels[order(column, groups.offsets)], groups.offsets, 10, gain="exponential")
        assert found == pytest.approx(expected[has_positive])
    assert RecallComparison.from_features(groups, ("other",) * 2, "exponential") is None


def test_the_best_of_many_rounds_of_chance_is_no_gain() -> None:
    dice = np.random.default_rng(0)
    groups = groups_of([10] * 400, 1, dice)
    comparison = RecallComparison.from_features(groups, NAMES, "exponential")
    assert comparison is not None
    best, recall = 0.0, np.nan_to_num(np.asarray(groups.matrix[:])[:, 1], nan=-np.inf)
    for _ in range(200):
        scores = dice.random(len(groups.labels))
        comparison.observe(scores)
        values = ndcg(groups.labels[order(scores.astype(np.float32), groups.offsets)], groups.offsets, 10)
        best = max(best, float(np.nanmean(values)))
    gain = mean_gain([comparison], 7)
    assert gain is not None
    assert gain.low < 0 < gain.high
    by_choice = best - float(np.nanmean(ndcg(groups.labels[order(recall, groups.offsets)], groups.offsets, 10)))
    assert by_choice > 1.5 * abs(gain.mean), "which the choice of the round would have promised"


def test_inverse_propensities_count_each_click_by_its_position() -> None:
    offsets = np.array([0, 2, 4], np.int64)
    matrix = np.array([[0, 2], [0, 1], [0, 2], [0, 1]], np.float32)  # recall shows the first row of both groups first
    groups = QueryGroups(matrix, np.array([1, 0, 0, 1], np.float32), offsets)
    comparison = RecallComparison.from_features(groups, NAMES, "exponential")
    assert comparison is not None
    comparison.weight(np.array([1.0, 0.0, 0.0, 4.0]))  # a click on the second position is worth four
    comparison.observe(np.array([0.0, 1.0, 0.0, 1.0]))
    gain = mean_gain([comparison], 7)
    assert gain is not None
    assert gain.mean > 0, "a ranker that finds what is rarely seen beats one that repeats what was shown"


def test_what_is_said_of_a_gain() -> None:
    assert recall_warnings(None) == ()
    assert recall_warnings(Difference(0.1, 0.05, 0.2, 100, 0, 0.0)) == ()
    assert "not clearly better" in recall_warnings(Difference(0.1, 0.05, 0.2, 5, 0, 0.0))[0], "of 5 groups"
    assert "not clearly better" in recall_warnings(Difference(0.1, -0.05, 0.2, 100, 0, 0.0))[0]
    assert "no better" in recall_warnings(Difference(0.0, -0.05, 0.2, 100, 0, 0.0))[0]
