"""Retrievers: every filter against a brute-force reference, unknown users, and the mix of user and query vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace, build_embedding_space, unit_rows
from feedrank.engine.retrieval.indexes import AnnoyIndex, ExactIndex
from feedrank.engine.retrieval.retrievers import MAX_CANDIDATES, EmbeddingRetriever, FallbackRetriever, PopularRetriever
from feedrank.engine.testing import TOY_ITEMS, check_retriever, toy_catalogue, toy_vectors
from feedrank.engine.types import UNKNOWN_ROW, Filters, ResolvedRequest, Rows, Scores, Vector

ITEMS, CATEGORIES = 120, 5
RANDOM = np.random.default_rng(4)
VECTORS = unit_rows(RANDOM.normal(size=(ITEMS, 8)).astype(np.float32))
MEMBERS = [sorted({int(c) for c in RANDOM.integers(0, CATEGORIES, 2)}) for _ in range(ITEMS)]
CATALOGUE = Catalogue.from_items({str(row): {"category": [f"c{c}" for c in MEMBERS[row]]} for row in range(ITEMS)})
SPACE = build_embedding_space({"text": (VECTORS, VECTORS)}, {"text": 1.0}, decay=0.8, history_length=10)
POPULARITY = RANDOM.integers(0, 10, ITEMS).astype(np.float32)

EXACT = ExactIndex(VECTORS)
SOME_ROWS = st.lists(st.integers(UNKNOWN_ROW, ITEMS - 1), max_size=ITEMS * 2)


def rows_of(rows: list[int]) -> Rows:
    return np.array(rows, np.int32)


def codes_of(categories: list[int]) -> Rows:
    return CATALOGUE.categories.rows([f"c{c}" for c in categories])


def retriever(index: ExactIndex | AnnoyIndex = EXACT, query_share: float = 0.7) -> EmbeddingRetriever:
    return EmbeddingRetriever(CATALOGUE, SPACE, EXACT, index, query_share)


def popular() -> PopularRetriever:
    return PopularRetriever(CATALOGUE, lambda at: POPULARITY)


def request(
    history: list[int], seen: bool = True, categories: list[int] | None = None,
    allow: list[int] | None = None, deny: list[int] | None = None, query: Rows | None = None,
) -> ResolvedRequest:  # fmt: skip
    return ResolvedRequest(
        at=0.0,
        history=rows_of(history),
        history_at=np.zeros(len(history)),
        interacted=rows_of(history),
        query_vector=query,
        filters=Filters(
            seen,
            None if categories is None else codes_of(categories),
            None if allow is None else rows_of(allow),
            rows_of(deny or []),
        ),
    )


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> AnnoyIndex:
    return AnnoyIndex.build(tmp_path_factory.mktemp("recall") / "a.ann", VECTORS, trees=20)


@given(
    history=st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=30),
    seen=st.booleans(),
    categories=st.none() | st.lists(st.integers(0, CATEGORIES), max_size=3),
    allow=st.none() | SOME_ROWS,
    deny=SOME_ROWS,
    k=st.sampled_from([1, 5, 30, ITEMS, 1_000]),
)
def test_filters_by_brute_force(
    forest: AnnoyIndex, history: list[int], seen: bool, categories: list[int] | None, allow: list[int] | None,
    deny: list[int], k: int,
) -> None:  # fmt: skip
    filtered_request = request(history, seen, categories, allow, deny)
    passing = [
        row
        for row in range(ITEMS)
        if (seen or row not in history)
        and (categories is None or set(MEMBERS[row]) & set(categories))
        and (allow is None or row in allow)
        and row not in deny
    ]
    nearness = VECTORS @ SPACE.user_vector(filtered_request.history)
    for scored, source in ((nearness, retriever()), (nearness, retriever(forest)), (POPULARITY, popular())):
        found = source.retrieve(filtered_request, k)
        assert len(found.rows) == len(set(found.rows.tolist())) == min(k, len(passing))
        assert set(found.rows.tolist()) <= set(passing)
        best = np.sort(scored[passing])[::-1][:k]
        np.testing.assert_allclose(scored[found.rows], best, atol=1e-5)  # best first, and none better was left out
        np.testing.assert_allclose(found.scores, best, atol=1e-5)
        assert found.source == source.name


def test_a_lossy_index_is_searched_deeper() -> None:
    class LossyIndex:
        """An index that misses every other neighbour."""

        def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
            rows, scores = EXACT.search(vector, k)
            return rows[::2], scores[::2]

    source = EmbeddingRetriever(CATALOGUE, SPACE, EXACT, LossyIndex())
    for k in (5, 10, 40, 119):
        found = source.retrieve(request([3], deny=[8, 9]), k)
        assert len(found.rows) == min(k, ITEMS - 2)
        assert not {8, 9} & set(found.rows.tolist())


def test_the_shipped_checks(tmp_path: Path) -> None:
    vectors = toy_vectors()
    space = build_embedding_space({"text": (vectors, vectors)}, {"text": 1.0}, decay=1.0, history_length=1)

    def build(catalogue: Catalogue, space_of: EmbeddingSpace) -> EmbeddingRetriever:
        forest = AnnoyIndex.build(tmp_path / "toy.ann", vectors)
        return EmbeddingRetriever(catalogue, space_of, ExactIndex(vectors), forest)

    # the user vector is a third of a step beyond the last item, so that no two items are equally near
    steps = np.vstack([vectors[1:], vectors[-1:]])
    beyond = unit_rows(vectors * np.float32(2 / 3) + steps * np.float32(1 / 3))
    shifted = EmbeddingSpace(space.blocks, space.item_side, beyond, space.decay, space.history_length)
    check_retriever(
        lambda catalogue: build(catalogue, shifted),
        lambda request: sorted(range(TOY_ITEMS), key=lambda row: abs(row - min(int(request.history[0]) + 0.33, 59))),
    )
    check_retriever(
        lambda catalogue: PopularRetriever(catalogue, lambda at: -np.arange(TOY_ITEMS, dtype=np.float32)),
        lambda request: range(TOY_ITEMS),
    )
    check_retriever(lambda catalogue: FallbackRetriever([build(catalogue, space)]))


def test_a_check_finds_a_retriever_that_ignores_a_filter() -> None:
    class UnfilteredRetriever:
        def __init__(self, catalogue: Catalogue) -> None:
            self.popular = PopularRetriever(catalogue, lambda at: np.zeros(TOY_ITEMS, np.float32))

        def retrieve(self, request: ResolvedRequest, k: int):  # type: ignore[no-untyped-def]
            return self.popular.retrieve(ResolvedRequest(at=request.at), k)

    with pytest.raises(AssertionError, match="found"):
        check_retriever(UnfilteredRetriever)
    assert len(toy_catalogue()) == TOY_ITEMS


def test_an_unknown_user_gets_the_popular_feed() -> None:
    both = FallbackRetriever([retriever(), popular()])
    unknown_user = request([], deny=[UNKNOWN_ROW])
    assert len(retriever().retrieve(unknown_user, 10).rows) == 0
    found = both.retrieve(unknown_user, 10)
    assert found.source == "popular"
    assert found.rows.tolist() == np.argsort(-POPULARITY, kind="stable")[:10].tolist()
    assert both.retrieve(request([3]), 10).source == "embedding"
    nothing = both.retrieve(request([3], allow=[]), 10)
    assert (nothing.source, len(nothing.rows)) == ("popular", 0)


def test_a_query_and_a_user_vector_are_mixed() -> None:
    query = VECTORS[50] * 3
    user_vector = SPACE.user_vector(rows_of([7, 9]))
    assert np.array_equal(retriever().request_vector(request([], query=query)), SPACE.query_vector(query))
    assert np.array_equal(retriever().request_vector(request([7, 9])), user_vector)
    mixed = retriever(query_share=0.25).request_vector(request([7, 9], query=query))
    np.testing.assert_allclose(mixed, 0.25 * VECTORS[50] + 0.75 * user_vector, atol=1e-6)
    assert retriever().retrieve(request([], query=query), 1).rows.tolist() == [50]
    assert retriever(query_share=1.0).retrieve(request([7], query=query), 1).rows.tolist() == [50]
    assert retriever(query_share=0.0).retrieve(request([7], query=query), 1).rows.tolist() == [7]


@pytest.mark.parametrize("k", [0, -1, MAX_CANDIDATES + 1])
def test_the_candidate_count_is_bounded(k: int) -> None:
    with pytest.raises(ValueError, match=f"found k = {k} candidates, expected 1 to 1000"):
        FallbackRetriever([popular()]).retrieve(request([]), k)
