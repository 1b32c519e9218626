"""BM25: our weights by item against the scores of rank-bm25, and a case computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.engine.types import UNKNOWN_ROW, Batch
from feedrank.features.bm25 import TermWeights
from feedrank.features.term_counts import PositiveBm25
from feedrank.features.text_analyser import TextAnalyser, TextSettings

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
    reference = PositiveBm25([document.split() for document in documents])
    some = st.lists(st.integers(0, len(documents) - 1), max_size=6)
    rows, history = data.draw(some), data.draw(some)
    of_query = terms.query_scores(batch(rows, history, query))
    if known := [word for word in query.split() if word in reference.idf]:
        np.testing.assert_allclose(of_query, reference.get_batch_scores(known, rows) if rows else [], atol=1e-4)
    else:
        assert np.isnan(of_query).all()
    of_titles = terms.title_scores(batch(rows, history, query), LATEST)
    words = [word for row in history[:LATEST] for word in documents[row].split()]
    if not history:
        assert np.isnan(of_titles).all()
    elif rows:
        np.testing.assert_allclose(of_titles, reference.get_batch_scores(words, rows), atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(documents=DOCUMENTS)
def test_every_word_counts_in_favour_of_its_items(documents: list[str]) -> None:
    """The idf is positive, and falls with the number of items that have the word."""
    terms = TermWeights.fit(documents)
    held = {word: sum(word in document.split() for document in documents) for word in terms.terms}
    idf = dict(zip(terms.terms, terms.statistics.idf.tolist(), strict=True))
    assert (terms.weights > 0).all()
    assert all((idf[one] < idf[other]) == (held[one] > held[other]) for one in held for other in held)


def test_a_case_computed_by_hand() -> None:
    terms = TermWeights.fit(["red shoe", "blue shoe shoe hat", "green", "blue hat"])
    # "red" is in one of four texts; the mean length is 9 / 4, that of the first text is 2, and k1 = 1.5, b = 0.75
    once = math.log(1 + 3.5 / 1.5) * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 2 / 2.25))
    found = terms.query_scores(batch([0, 1, UNKNOWN_ROW], [], "RED, red! unheard-of"))
    assert found[:2] == pytest.approx([2 * once, 0], abs=1e-6)
    assert np.isnan(found[2])


def test_fields_computed_by_hand() -> None:
    """BM25F: the counts of the fields, each by its own length, are added up by their weights before saturation."""
    chosen = TextSettings(field_weights={"title": 3.0}, length_normalisation={"title": 0.5})
    fields = {"title": ["red shoe", "hat", ""], "text": ["", "red red coat", "a b c d e f g h i"]}
    terms = TermWeights.fit(fields, chosen)
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    title = 3 * 1 / (0.5 + 0.5 * 2 / 1.5)  # of the two items with a title, the mean length is 1.5
    text = 2 / (0.25 + 0.75 * 3 / 6)
    expected = [idf * frequency * 2.5 / (frequency + 1.5) for frequency in (title, text)] + [0]
    assert terms.query_scores(batch([0, 1, 2], [], "red")) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="found settings of brand, expected one of title, text"):
        TermWeights.fit(fields, TextSettings(field_weights={"brand": 2.0}))


def test_a_word_that_half_the_items_have_finds_them() -> None:
    terms = TermWeights.fit(["windy day in london", "windy nights in athens", "hello there friend", "weather report"])
    scores = terms.query_scores(batch([0, 1, 2, 3], [], "windy"))
    assert scores[0] == scores[1] > 0 == scores[2] == scores[3]


def test_without_query_and_history_there_is_no_score() -> None:
    terms = TermWeights.fit(["red", "blue"])
    assert np.isnan(terms.query_scores(batch([0, 1], [0], None))).all()
    assert np.isnan(terms.query_scores(batch([0, 1], [0], "unheard-of"))).all()
    assert np.isnan(terms.title_scores(batch([0, 1], [], "red"), LATEST)).all()
    assert not np.isnan(terms.title_scores(batch([0, 1], [0], None), LATEST)).any()
    assert np.isnan(terms.query_scores(batch([0], [], "red"))).tolist() == [False]


@pytest.mark.parametrize("documents", [[], ["", "..."]])
def test_items_without_words(documents: list[str]) -> None:
    terms = TermWeights.fit(documents)
    assert len(terms.offsets) == len(documents) + 1
    rows = list(range(len(documents)))
    assert np.isnan(terms.query_scores(batch(rows, [], "red"))).all()
    # items that come later bring the first words
    vocabulary, items = terms.weigh_new({"document": ["red", "blue"]})
    assert list(vocabulary) == ["red", "blue"]
    assert (items.weights > 0).all()


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
    for score in (terms.query_scores, lambda batch: terms.title_scores(batch, LATEST)):
        np.testing.assert_array_equal(score(both), np.concatenate([score(one), score(other)]))


@settings(deadline=None, max_examples=40)
@given(before=DOCUMENTS, added=st.lists(st.sampled_from(["red", "red coat", "new", "newer new", ""]), min_size=1))
def test_new_texts_get_the_same_weights_in_any_order(before: list[str], added: list[str]) -> None:
    terms = TermWeights.fit(before)

    def weighed(texts: list[str]) -> dict[str, list[tuple[str, float]]]:
        vocabulary, items = terms.weigh_new({"document": texts})
        pairs = list(zip(vocabulary.names(items.codes), items.weights.tolist(), strict=True))
        bounds = items.offsets.tolist()
        return {text: pairs[bounds[i] : bounds[i + 1]] for i, text in enumerate(texts)}

    assert weighed(added) == weighed(added[::-1])
    assert list(terms.terms) == list(TermWeights.fit(before).terms), "a vocabulary that serves does not change"
    assert weighed(before) == {
        text: list(
            zip(
                terms.terms.names(terms.term_codes[terms.offsets[i] : terms.offsets[i + 1]]),
                terms.weights[terms.offsets[i] : terms.offsets[i + 1]].tolist(),
                strict=True,
            )
        )
        for i, text in enumerate(before)
    }


def test_the_analyser_counts_for_the_fingerprint() -> None:
    plain, english = TermWeights.fit(["x"]), TermWeights.fit(["x"], TextSettings(language="english"))
    assert plain.fingerprint == TermWeights.fit(["y"]).fingerprint != english.fingerprint
    assert plain.fingerprint != TermWeights.fit({"title": ["x"]}).fingerprint
    assert TextAnalyser().fingerprint == TextAnalyser(TextSettings()).fingerprint
