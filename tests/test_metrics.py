"""Ranking metrics: known values, properties, and agreement with scikit-learn and LightGBM's gain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from feedrank.models.evaluation.metrics import (
    Ideal,
    Measure,
    auc,
    average_precision,
    evaluate,
    hit_rate,
    mean,
    ndcg,
    order,
    recall,
    reciprocal_rank,
)

ALL = ("ndcg", "ndcg@3", "hr@3", "recall@3", "mrr", "mrr@2", "map", "map@3")
label_lists = st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=6)


def column(groups, dtype=np.int64):
    """Lists of groups as a flattened column and its offsets."""
    sizes = [len(group) for group in groups]
    flat = [value for group in groups for value in group]
    return np.array(flat, dtype), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def test_values_worked_out_by_hand():
    # Three groups: relevant at ranks 2 and 3 of 4; nothing relevant; nothing listed.
    labels, offsets = column([[0, 1, 2, 0], [0, 0], []])
    relevant = np.array([3, 1, 1])
    got = evaluate(
        ("ndcg@3", "hr@1", "hr@2", "recall@2", "recall@9", "mrr", "map", "map@2"), labels, offsets, relevant=relevant
    )
    dcg = 1 / np.log2(3) + 2 / np.log2(4)
    ideal = 2 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)  # what is not listed counts as label 1
    expected = {
        "ndcg@3": dcg / ideal,
        "hr@1": 0,
        "hr@2": 1,
        "recall@2": 1 / 3,
        "recall@9": 2 / 3,
        "mrr": 1 / 2,
        "map": (1 / 2 + 2 / 3) / 3,
        "map@2": (1 / 2) / 3,
    }
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], [value, 0, 0], err_msg=name)


def test_auc_by_hand():
    labels, offsets = column([[1, 0, 1, 0], [1, 1], [0], [], [1, 0]])
    scores = np.array([3, 2, 2, 1, 5, 4, 1, 7, 7], np.float32)
    np.testing.assert_array_equal(auc(labels, scores, offsets), [3.5 / 4, np.nan, np.nan, np.nan, 0.5])
    assert mean(auc(labels, scores, offsets)) == ((3.5 / 4 + 0.5) / 2, 3)


def test_a_nan_score_is_the_lowest_for_auc():
    labels, offsets = column([[1, 0], [0, 1]])
    np.testing.assert_array_equal(auc(labels, np.array([np.nan, 1.0, np.nan, 1.0]), offsets), [0.0, 1.0])


def test_the_mean_leaves_nan_out_and_counts_it():
    assert mean(np.array([0.5, np.nan, 1.0])) == (0.75, 1)
    value, left_out = mean(np.array([np.nan]))
    assert np.isnan(value)
    assert left_out == 1
    assert np.isnan(mean(np.empty(0))[0])


def test_order_is_best_first_with_stable_ties_and_nan_last():
    scores = np.array([1, np.nan, 3, 1, -np.inf, 0, 2, 2], np.float32)
    offsets = np.array([0, 5, 5, 8])
    assert order(scores, offsets).tolist() == [2, 0, 3, 4, 1, 6, 7, 5]
    assert order(np.empty(0), np.array([0])).tolist() == []


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.5, np.inf, -np.inf, np.nan]), max_size=7), max_size=5))
def test_order_equals_a_stable_sort_of_each_group(groups):
    scores, offsets = column(groups, np.float64)
    expected = [
        row
        for start, end in pairwise(offsets.tolist())
        for row in sorted(range(start, end), key=lambda row: (np.isnan(scores[row]), -scores[row]))
    ]
    assert order(scores, offsets).tolist() == expected


@given(label_lists)
def test_every_value_lies_between_0_and_1(groups):
    labels, offsets = column(groups)
    unlisted = np.arange(len(groups)) % 3
    relevant = np.array([sum(x > 0 for x in group) for group in groups], np.int64) + unlisted
    for gain in ("linear", "exponential"):
        for name, values in evaluate(ALL, labels, offsets, relevant=relevant, gain=gain).items():
            assert values.shape == (len(groups),), name
            assert np.all((values >= 0) & (values <= 1 + 1e-12)), name


@given(label_lists)
def test_the_perfect_order_scores_1_and_nothing_relevant_scores_0(groups):
    labels, offsets = column([sorted(group, reverse=True) for group in groups])
    has = np.array([any(group) for group in groups], float)
    for name, values in evaluate(("ndcg", "ndcg@2", "hr@1", "mrr", "map", "recall@8"), labels, offsets).items():
        np.testing.assert_allclose(values, has, err_msg=name)


@given(label_lists, st.integers(0, 5))
def test_irrelevant_items_at_the_end_change_nothing(groups, more):
    before = evaluate(ALL, *column(groups))
    after = evaluate(ALL, *column([[*group, *[0] * more] for group in groups]))
    for name in ALL:
        np.testing.assert_allclose(after[name], before[name], err_msg=name)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.data())
def test_a_swap_that_lifts_the_better_item_lifts_ndcg(labels, data):
    low, high = sorted(data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=2, max_size=2, unique=True)))
    assume(labels[low] < labels[high])
    better = list(labels)
    better[low], better[high] = labels[high], labels[low]
    values = ndcg(*column([labels, better]))
    assert values[1] > values[0]
    for k in range(1, len(labels) + 1):
        worse_at_k, better_at_k = ndcg(*column([labels, better]), k)
        assert better_at_k >= worse_at_k


@given(label_lists)
def test_a_batch_equals_its_groups_one_by_one(groups):
    batch = evaluate(ALL, *column(groups))
    for g, group in enumerate(groups):
        for name, values in evaluate(ALL, *column([group])).items():
            np.testing.assert_allclose(values[0], batch[name][g], err_msg=name)


@given(label_lists, st.integers(0, 4))
def test_ideal_labels_and_counts_agree_where_labels_are_binary(groups, unlisted):
    binary = [[int(label > 0) for label in group] for group in groups]
    counts = np.array([sum(group) + unlisted for group in binary], np.int64)
    ideal = Ideal(*column([[*reversed(group), 0, *[1] * unlisted] for group in binary]))
    by_count, by_label = (evaluate(ALL, *column(binary), relevant=relevant) for relevant in (counts, ideal))
    for name in ALL:
        np.testing.assert_allclose(by_count[name], by_label[name], err_msg=name)


def test_a_graded_ideal_includes_unlisted_items():
    labels, offsets = column([[1]])
    ideal = Ideal(*column([[0, 1, 3]]))
    best = 3 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg(labels, offsets, relevant=ideal), 1 / best)
    best = 7 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg(labels, offsets, relevant=ideal, gain="exponential"), 1 / best)
    np.testing.assert_allclose(ndcg(labels, offsets, 1, relevant=ideal), 1 / 3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_agrees_with_scikit_learn(labels, k, seed):
    generator = np.random.default_rng(seed)
    scores = generator.permutation(len(labels)).astype(np.float64)
    truth = np.array(labels)
    by = order(scores, np.array([0, len(labels)]))
    ordered, offsets = truth[by], np.array([0, len(labels)])
    for gain, gains in (("linear", truth), ("exponential", 2.0**truth - 1)):
        np.testing.assert_allclose(ndcg(ordered, offsets, k, gain=gain), ndcg_score([gains], [scores], k=k), atol=1e-12)
    if truth.any():
        np.testing.assert_allclose(average_precision(ordered, offsets), average_precision_score(truth > 0, scores))
    tied = generator.integers(0, 4, len(labels)).astype(np.float32)
    if 0 < (truth > 0).sum() < len(truth):
        np.testing.assert_allclose(auc(truth, tied, offsets), roc_auc_score(truth > 0, tied))
    else:
        assert np.isnan(auc(truth, tied, offsets)).all()


def test_many_groups_of_auc_agree_with_scikit_learn():
    generator = np.random.default_rng(3)
    sizes = generator.integers(0, 30, 60)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    labels, scores = generator.integers(0, 2, offsets[-1]), generator.integers(0, 6, offsets[-1]) / 4
    values = auc(labels, scores, offsets)
    for g, (start, end) in enumerate(pairwise(offsets.tolist())):
        part = labels[start:end]
        if len(set(part.tolist())) == 2:
            np.testing.assert_allclose(values[g], roc_auc_score(part, scores[start:end]))
        else:
            assert np.isnan(values[g])


def test_negative_labels_gain_nothing_and_booleans_are_labels():
    offsets = np.array([0, 3])
    np.testing.assert_allclose(ndcg(np.array([-2, 1, -1]), offsets), 1 / np.log2(3))
    np.testing.assert_allclose(hit_rate(np.array([False, True, False]), offsets, 2), 1)
    np.testing.assert_allclose(ndcg(np.array([False, True, False]), offsets), 1 / np.log2(3))


def test_no_group_at_all():
    for name, values in evaluate((*ALL, "auc"), *column([]), scores=np.empty(0)).items():
        assert values.shape == (0,), name


@pytest.mark.parametrize("name", [*ALL, "auc", "recall@100"])
def test_a_measure_is_parsed_from_its_name(name):
    assert str(Measure.parse(name)) == name
    assert Measure.parse(f" {name.upper()} ") == Measure.parse(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("precision@5", r"'precision@5'; there are ndcg\[@k\], hr@k, recall@k, mrr\[@k\], map\[@k\], auc"),
        ("", "there are ndcg"),
        ("ndcg@", "no cut-off"),
        ("ndcg@ten", "'ten' is no cut-off"),
        ("ndcg@-1", "'-1' is no cut-off"),
        ("ndcg@0", "1 or more"),
        ("hr", "such as hr@10"),
        ("auc@10", "write auc"),
    ],
)
def test_an_unknown_measure_lists_the_known_ones(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        Measure.parse(name)


@pytest.mark.parametrize("offsets", [[], [0], [0, 2], [1, 3], [0, 4, 3]])
def test_offsets_must_span_the_rows(offsets):
    with pytest.raises(ValueError, match="number of rows, 3"):
        reciprocal_rank(np.ones(3), np.array(offsets, np.int64))


def test_other_errors_say_what_to_do():
    labels, offsets = column([[1, 1], [0]])
    with pytest.raises(ValueError, match="group 0 lists 2 relevant rows but relevant says 1"):
        recall(labels, offsets, 5, relevant=np.array([1, 1]))
    with pytest.raises(ValueError, match="for 3 groups, but the offsets bound 2"):
        recall(labels, offsets, 5, relevant=np.array([2, 1, 1]))
    with pytest.raises(ValueError, match="pass scores="):
        evaluate(["auc"], labels, offsets)
    with pytest.raises(ValueError, match="one score a row"):
        auc(labels, np.ones(2), offsets)
    with pytest.raises(ValueError, match="1 or more"):
        hit_rate(labels, offsets, 0)
    with pytest.raises(ValueError, match="label 3, but gains for the labels 0 to 2 only"):
        ndcg(np.array([1, 3]), np.array([0, 2]), gain=[0, 1, 5])
    with pytest.raises(ValueError, match="pass the labels as an Ideal"):
        evaluate(["map"], labels, offsets, relevant=np.array([2, 1]), level=2)
    with pytest.raises(ValueError, match="relevance level is 0; expected above 0"):
        evaluate(["map"], labels, offsets, level=0)
    with pytest.raises(ValueError, match="'linear', 'exponential' or a list of gains"):
        ndcg(labels, offsets, gain="square")
