"""BM25: our weights by item against the scores of rank-bm25, and a case computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from feedrank.engine.types import UNKNOWN_ROW, Batch
from feedrank.features.bm25 import TermWeights, tokenize

LATEST = 3
WORDS = st.lists(st.sampled_from(["red", "green", "blue", "shoe", "shoes", "a", "the"]), max_size=6).map(" ".join)
DOCUMENTS = st.lists(WORDS, min_size=1, max_size=8).filter(any)


def batch(rows: list[int], history: list[int], query: str | None, depth: int = 6) -> Batch:
    """One request."""
    n = len(rows)
    padded = [*history, *[UNKNOWN_ROW] * depth][:depth]
    return Batch(
        at=np.zeros(1),
        rows=np.array(rows, np.int32),
        offsets=np.array([0, n]),
        history=np.array([padded], np.int32),
        history_at=np.zeros((1, depth)),
        interaction_count=np.zeros(1, np.int64),
        impressions=np.zeros(n, np.float32),
        item_age=np.zeros(n, np.float32),
        since_interaction=np.zeros(n, np.float32),
        counters=np.zeros((n, 1), np.float32),
        queries=() if query is None else (query,),
    )


@settings(deadline=None, max_examples=60)
@given(documents=DOCUMENTS, query=WORDS, data=st.data())
def test_scores_are_those_of_rank_bm25(documents: list[str], query: str, data: st.DataObject) -> None:
    terms = TermWeights.fit(documents)
    reference = BM25Okapi([tokenize(document) for document in documents])
    some = st.lists(st.integers(0, len(documents) - 1), max_size=6)
    rows, history = data.draw(some), data.draw(some)
    known = [word for word in tokenize(query) if word in reference.idf]
    # without a word that any item has, the titles of the latest items are the query
    query_words = known or [word for row in history[:LATEST] for word in tokenize(documents[row])]
    found = terms.scores(batch(rows, history, query), LATEST)
    if not known and not history:
        assert np.isnan(found).all()
    elif rows:
        np.testing.assert_allclose(found, reference.get_batch_scores(query_words, rows), atol=1e-4)


def test_a_case_computed_by_hand() -> None:
    terms = TermWeights.fit(["red shoe", "blue shoe shoe hat", "green", "blue hat"])
    # idf of "red": ln(3.5 / 1.5); the mean length is 9 / 4, that of the first text is 2, and k1 = 1.5, b = 0.75
    once = math.log(3.5 / 1.5) * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 2 / 2.25))
    found = terms.scores(batch([0, 1, UNKNOWN_ROW], [], "RED, red! unheard-of"), LATEST)
    assert found[:2] == pytest.approx([2 * once, 0], abs=1e-6)
    assert np.isnan(found[2])


def test_without_query_and_history_there_is_no_score() -> None:
    terms = TermWeights.fit(["red", "blue"])
    assert np.isnan(terms.scores(batch([0, 1], [], None), LATEST)).all()
    assert np.isnan(terms.scores(batch([0, 1], [], "unheard-of"), LATEST)).all()
    assert not np.isnan(terms.scores(batch([0, 1], [0], None), LATEST)).any()
    assert np.isnan(terms.scores(batch([0], [], "red"), LATEST)).tolist() == [False]


@pytest.mark.parametrize("documents", [[], ["", "..."]])
def test_items_without_words(documents: list[str]) -> None:
    terms = TermWeights.fit(documents)
    assert len(terms.offsets) == len(documents) + 1
    rows = list(range(len(documents)))
    assert np.isnan(terms.scores(batch(rows, [], "red"), LATEST)).all()


def test_requests_do_not_affect_each_other() -> None:
    terms = TermWeights.fit(["red shoe", "blue hat", "green"])
    one, other = batch([0, 1, 2], [1, 2], None), batch([0, 1, 2], [], "red")
    both = Batch(
        at=np.zeros(2), rows=np.concatenate([one.rows, other.rows]), offsets=np.array([0, 3, 6]),
        history=np.concatenate([one.history, other.history]), history_at=np.zeros((2, 6)),
        interaction_count=np.zeros(2, np.int64), impressions=np.zeros(6, np.float32), item_age=np.zeros(6, np.float32),
        since_interaction=np.zeros(6, np.float32),
        counters=np.zeros((6, 1), np.float32), queries=("", "red"),
    )  # fmt: skip
    expected = np.concatenate([terms.scores(one, LATEST), terms.scores(other, LATEST)])
    assert np.array_equal(terms.scores(both, LATEST), expected)
