"""The item-to-item matrices against slow references, and their factors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.models.items.category_factors import category_inputs
from feedrank.models.items.collaborative_views import (
    ease,
    eigen_factors,
    item_cosine,
    slist,
    svd_factors,
    transition_matrix,
)
from feedrank.models.items.content_views import cca_view, center, predicted_cf_factors
from feedrank.models.items.user_histories import UserHistories

USERS, ITEMS = 40, 12


@pytest.fixture(scope="module")
def histories() -> UserHistories:
    """Users with 0 to 14 random interactions, some with the same item twice."""
    dice = np.random.default_rng(3)
    sizes = dice.integers(0, 15, USERS)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(offsets[-1])
    return UserHistories.plain(
        offsets=offsets,
        items=dice.integers(0, ITEMS, total).astype(np.int32),
        at=np.arange(total, dtype=np.float64),
        values=np.full(total, np.nan),
        interaction=np.arange(total),
    )


def users_by_items(histories: UserHistories) -> NDArray[np.float64]:
    interacted = np.zeros((USERS, ITEMS))
    interacted[histories.user, histories.items] = 1
    return interacted


def test_cooccurrence_is_the_cosine_of_the_items_users(histories: UserHistories) -> None:
    columns = users_by_items(histories)
    lengths = np.linalg.norm(columns, axis=0)
    expected = columns.T @ columns / np.outer(lengths, lengths)
    np.fill_diagonal(expected, 0)
    found = item_cosine(histories.user, histories.items, ITEMS, USERS).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_transitions_count_the_next_items_of_a_history(histories: UserHistories, flat: bool) -> None:
    counts = np.zeros((ITEMS, ITEMS))
    for user in range(USERS):
        items = histories.items[histories.offsets[user] : histories.offsets[user + 1]]
        for i in range(len(items)):
            for step in range(1, 5):
                if i + step < len(items):
                    counts[items[i], items[i + step]] += 1 if flat else 1 / step
    expected = counts / np.sqrt(np.outer(counts.sum(axis=1) + 7, counts.sum(axis=0) + 7))
    np.testing.assert_allclose(transition_matrix(histories, ITEMS, 4, 7.0, flat).toarray(), expected, atol=1e-6)


def test_ease_solves_the_ridge_regression_of_each_item_on_the_others(histories: UserHistories) -> None:
    columns = users_by_items(histories)
    found = ease(histories, ITEMS, max_items=ITEMS, ridge=5.0).toarray()
    assert not np.diag(found).any()
    for item in range(ITEMS):
        others = np.arange(ITEMS) != item
        inputs = columns[:, others]
        expected = np.linalg.solve(inputs.T @ inputs + 5 * np.eye(ITEMS - 1), inputs.T @ columns[:, item])
        np.testing.assert_allclose(found[others, item], expected, atol=1e-4)


def test_only_the_most_popular_items_get_linear_weights(histories: UserHistories) -> None:
    counts = np.bincount(histories.items, minlength=ITEMS)
    most = np.sort(np.argsort(-counts, kind="stable")[:5])
    for matrix in (ease(histories, ITEMS, max_items=5), slist(histories, ITEMS, max_items=5)):
        rows, columns = matrix.nonzero()
        assert set(rows) | set(columns) <= set(most.tolist())


def test_slist_finds_the_walk() -> None:
    walk = np.tile(np.arange(ITEMS, dtype=np.int32), 30)
    length = len(walk)
    whole = UserHistories.plain(
        np.array([0, length]), walk, np.arange(length, dtype=float), np.full(length, np.nan), np.arange(length)
    )
    found = slist(whole, ITEMS, max_items=ITEMS, ridge=1.0).toarray()
    assert (found.argmax(axis=1) == (np.arange(ITEMS) + 1) % ITEMS).all()


def test_factors_of_full_rank_give_the_matrix_back(histories: UserHistories) -> None:
    onward = transition_matrix(histories, ITEMS, 4, 7.0)
    sources, targets = svd_factors(onward, ITEMS - 1, seed=1)
    assert np.abs(sources @ targets.T - onward.toarray()).max() < 0.05
    again = svd_factors(onward, ITEMS - 1, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip((sources, targets), again, strict=True))
    together = item_cosine(histories.user, histories.items, ITEMS, USERS)
    values = np.maximum(np.linalg.eigvalsh(together.toarray())[::-1][:3], 0)
    found = (eigen_factors(together, 3, seed=1) ** 2).sum(axis=0)
    np.testing.assert_allclose(np.sort(found)[::-1], values, rtol=1e-4)


def test_no_interactions_give_empty_views() -> None:
    nothing = UserHistories.plain(
        np.zeros(1, np.int64), *(np.empty(0, kind) for kind in (np.int32, float, float, np.int64))
    )
    assert not transition_matrix(nothing, ITEMS, 4, 7.0).nnz
    assert not svd_factors(transition_matrix(nothing, ITEMS, 4, 7.0), 3, 1)[0].any()
    assert not ease(nothing, ITEMS, 5).nnz
    assert not slist(nothing, ITEMS, 5).nnz


def test_content_views_place_an_item_without_interactions_by_its_text() -> None:
    """Two kinds of texts, users who keep to one: an item without interactions is near its kind."""
    dice = np.random.default_rng(5)
    kinds = np.arange(ITEMS) % 2
    text = unit_rows((np.eye(6)[kinds] + 0.1 * dice.standard_normal((ITEMS, 6))).astype(np.float32))
    catalogue = Catalogue.from_items({str(item): {"title": str(item)} for item in range(ITEMS)})
    interacted = [
        dice.permutation(np.flatnonzero((kinds == user % 2) & (np.arange(ITEMS) < 10))) for user in range(USERS)
    ]
    total = sum(map(len, interacted))
    histories = UserHistories.plain(
        np.concatenate([[0], np.cumsum([len(items) for items in interacted])]),
        np.concatenate(interacted).astype(np.int32),
        np.arange(total, dtype=float), np.full(total, np.nan), np.arange(total),
    )  # fmt: skip
    factors = eigen_factors(item_cosine(histories.user, histories.items, ITEMS, USERS), 2, seed=1)
    vectors = center(text)
    for sources, targets in (
        cca_view(vectors, category_inputs(catalogue, None), histories),
        (predicted_cf_factors(vectors, category_inputs(catalogue, None), factors, histories),) * 2,
    ):
        for cold in (10, 11):
            scores = sources[:10] @ targets[cold]
            same = kinds[:10] == kinds[cold]
            assert scores[same].min() > scores[~same].max()
