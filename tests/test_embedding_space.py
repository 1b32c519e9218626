"""The embedding space: user vectors against a slow reference, query vectors, and items without interactions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.retrieval.embedding_space import EmbeddingSpace, build_embedding_space, unit_rows
from feedrank.engine.types import UNKNOWN_ROW, Matrix, Vector

ITEMS = 9
WEIGHTS = {"text": 1.0, "cooccurrence": 2.0, "transition": 1.0}


def toy_space(decay: float = 0.8, depth: int = 4) -> EmbeddingSpace:
    random = np.random.default_rng(3)

    def view(width: int) -> Matrix:
        rows = unit_rows(random.normal(size=(ITEMS, width)).astype(np.float32))
        rows[-1] = 0  # an item without any data
        return rows

    text, together = view(5), view(3)
    sides = {"text": (text, text), "cooccurrence": (together, together), "transition": (view(4), view(4))}
    return build_embedding_space(sides, WEIGHTS, decay, depth)


def reference_user_vector(space: EmbeddingSpace, history: list[int]) -> Vector:
    """Compute a user vector a number at a time: each block is the decayed sum, scaled to the length sqrt(weight)."""
    known = [row for row in history[: space.history_length] if row != UNKNOWN_ROW]
    vector = np.zeros(space.dimensions)
    for view in space.blocks:
        for d in range(view.start, view.stop):
            vector[d] = sum(space.decay**age * float(space.user_side[row, d]) for age, row in enumerate(known))
        length = math.sqrt(sum(vector[d] ** 2 for d in range(view.start, view.stop)))
        if length:
            vector[view.slice] *= math.sqrt(view.weight) / length
    return vector.astype(np.float32)


@given(
    history=st.lists(st.integers(UNKNOWN_ROW, ITEMS - 1), max_size=8), decay=st.floats(0.1, 1), depth=st.integers(1, 6)
)
def test_a_user_vector_is_the_decayed_sum_of_its_interactions(history: list[int], decay: float, depth: int) -> None:
    space = toy_space(decay, depth)
    found = space.user_vector(np.array(history, np.int32))
    np.testing.assert_allclose(found, reference_user_vector(space, history), atol=1e-5)
    assert found.dtype == np.float32


def test_embedding_blocks_are_shares_of_the_dot_product() -> None:
    space = toy_space()
    assert [(view.name, view.start, view.stop, view.weight) for view in space.blocks] == [
        ("text", 0, 5, 0.25),
        ("cooccurrence", 5, 8, 0.5),
        ("transition", 8, 12, 0.25),
    ]
    for view in space.blocks:
        lengths = np.linalg.norm(space.item_side[:-1, view.slice], axis=1)
        np.testing.assert_allclose(lengths, math.sqrt(view.weight), rtol=1e-5)
    user_vector = space.user_vector(np.array([2, 5], np.int32))
    np.testing.assert_allclose(
        space.scores(user_vector, np.arange(3, dtype=np.int32)), space.item_side[:3] @ user_vector, atol=1e-6
    )
    with pytest.raises(KeyError, match="found no block 'pictures'; there are text, cooccurrence, transition"):
        space.block("pictures")


def test_a_query_scores_items_by_the_cosine_of_the_texts() -> None:
    space = toy_space()
    text = np.array([0, 3, 0, 4, 0], np.float32)
    vector = space.query_vector(text)
    view = space.block("text")
    known = np.flatnonzero(np.linalg.norm(space.item_side[:, view.slice], axis=1) > 0)
    items = space.item_side[known][:, view.slice]
    cosines = items @ text / 5 / np.linalg.norm(items, axis=1)
    np.testing.assert_allclose(space.scores(vector, known.astype(np.int32)), cosines, atol=1e-5)
    assert not vector[5:].any()
    assert not space.query_vector(np.zeros(5, np.float32)).any()


@pytest.mark.parametrize("history", [[], [UNKNOWN_ROW], [UNKNOWN_ROW] * 5, [ITEMS - 1], [ITEMS - 1, UNKNOWN_ROW]])
def test_an_unknown_user_or_item_has_zero_scores(history: list[int]) -> None:
    vector = toy_space().user_vector(np.array(history, np.int32))
    assert vector.shape == (12,)
    assert not vector.any()


def test_a_space_that_does_not_fit_is_refused() -> None:
    space = toy_space()
    with pytest.raises(ValueError, match="decay is 0; expected more than 0"):
        EmbeddingSpace(space.blocks, space.item_side, space.user_side, 0)
    with pytest.raises(ValueError, match=r"item_side \(9, 11\)"):
        EmbeddingSpace(space.blocks, space.item_side[:, :-1], space.user_side, 0.5)
