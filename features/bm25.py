"""BM25 scores a request's candidates against its query, and against the titles of the user's latest items.

The weights of items with one field equal those of rank-bm25's BM25Okapi with a positive idf; several fields give BM25F
(Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009). They are stored by item: a request sums a few
hundred numbers and reads no Python dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.retrieval.retrievers import eligibility_mask
from feedrank.engine.types import UNKNOWN_ROW, Batch, Candidates, Offsets, ResolvedRequest, Rows, Scores, empty_rows
from feedrank.features.jit import jit
from feedrank.features.term_counts import (
    K1,
    CorpusStatistics,
    WeightedTerms,
    analyse_fields,
    count_terms,
    fit_statistics,
    weigh,
)
from feedrank.features.text_analyser import TextAnalyser, TextSettings

DOCUMENT = "document"
"""The field name of texts that have no fields."""


@dataclass(frozen=True, eq=False, slots=True)
class TermWeights:
    """Sparse BM25 weights of all (item, term) pairs that occur; a BM25 score is a sum of them."""

    terms: Vocabulary
    term_codes: NDArray[np.int32]
    """Term codes of all items, flattened."""
    weights: NDArray[np.float32]
    """Score that one occurrence of the term in a query adds to the item, aligned with `term_codes`."""
    term_counts: NDArray[np.float32]
    """Term frequency in the item, over all fields, aligned with `term_codes`."""
    offsets: Offsets
    """(n + 1,) bounds of each item's terms in `term_codes`."""
    fields: tuple[str, ...]
    """Names of the item fields that were read."""
    statistics: CorpusStatistics
    """What the weights of items that are added later depend on."""
    analyser: TextAnalyser
    """Splits items and queries into terms."""
    n_items: NDArray[np.int64] = field(init=False)
    """(terms,) number of items that have the term; 0 for a term of texts that were changed since."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_items", np.bincount(self.term_codes, minlength=len(self.terms)))

    @classmethod
    def fit(
        cls, documents: Sequence[str] | Mapping[str, Sequence[str]], settings: TextSettings | None = None
    ) -> TermWeights:
        """Fit the weights on the items' texts.

        documents: (n,) texts, or field name -> (n,) texts. Raises ValueError if the settings name another field.
        """
        by_field = documents if isinstance(documents, Mapping) else {DOCUMENT: documents}
        analyser = TextAnalyser(settings)
        if unknown := analyser.settings.field_names - by_field.keys():
            raise ValueError(f"found settings of {', '.join(sorted(unknown))}, expected one of {', '.join(by_field)}")
        codes: dict[str, int] = {}
        fields = analyse_fields(analyser, by_field, codes)
        counts = count_terms(fields)
        statistics = fit_statistics(fields, counts, len(codes))
        return cls(Vocabulary(codes), *weigh(fields, counts, statistics), tuple(by_field), statistics, analyser)

    def weigh_new(self, documents: Mapping[str, Sequence[str]]) -> tuple[Vocabulary, WeightedTerms]:
        """Weigh texts that were not fitted on; return them, and a vocabulary with their terms.

        The idf and the mean lengths are the fitted ones. A new term has the idf of a term of one item. The vocabulary
        is a new one if there are new terms, so that requests can go on reading the old one.
        """
        local: dict[str, int] = {}
        fields = analyse_fields(self.analyser, {name: documents[name] for name in self.fields}, local)
        codes, vocabulary = self.terms.rows(list(local)), self.terms
        if new := [term for term, code in zip(local, codes.tolist(), strict=True) if code == UNKNOWN_ROW]:
            vocabulary = deepcopy(vocabulary)
            codes[codes == UNKNOWN_ROW] = [vocabulary.add(term) for term in new]
        fields = [field.recoded(codes) for field in fields]
        return vocabulary, weigh(fields, count_terms(fields), self.statistics)

    @property
    def fingerprint(self) -> list[object]:
        """Return what decides the weights besides the items: the fields and the analyser with its settings."""
        return [self.fields, K1, self.analyser.fingerprint]

    def encode_query(self, text: str) -> NDArray[np.int32]:
        """Return the term codes of a text, with repeats; terms that no item has are dropped."""
        if not text:
            return empty_rows()
        codes = self.terms.rows(self.analyser.query(text, self._has))
        codes = codes[codes >= 0]
        return np.asarray(codes[self.n_items[codes] > 0], np.int32)

    def _has(self, term: str) -> bool:
        """Return whether an item has this term."""
        code = self.terms.row(term)
        return code != UNKNOWN_ROW and self.n_items[code] > 0

    def query_scores(self, batch: Batch) -> Scores:
        """Return (N,) BM25 scores of the candidates for the query; NaN if there is none, or no item has its words."""
        if not batch.queries:
            return np.full(len(batch.rows), np.nan, np.float32)
        return self._scores(batch, [self.encode_query(text) for text in batch.queries], batch.history[:, :0])

    def title_scores(self, batch: Batch, n_titles: int) -> Scores:
        """Return (N,) BM25 scores of the candidates for the user's latest `n_titles` items; NaN without a history."""
        return self._scores(batch, [empty_rows()] * len(batch.at), batch.history[:, :n_titles])

    def _scores(self, batch: Batch, queries: Sequence[NDArray[np.int32]], history: Rows) -> Scores:
        bounds = np.concatenate([[0], np.cumsum([len(query) for query in queries])]).astype(np.int64)
        out = np.full(len(batch.rows), np.nan, np.float32)
        flat = np.concatenate([np.empty(0, np.int32), *queries]).astype(np.int32)
        _score_batch(
            self.term_codes, self.weights, self.term_counts, self.offsets, len(self.terms),
            batch.rows, batch.offsets, history, flat, bounds, out,
        )  # fmt: skip
        return out


class Bm25Retriever:
    """Retrieves the items with the best BM25 score for a query; none without a query."""

    name = "bm25"

    def __init__(self, catalogue: Catalogue, term_weights: TermWeights) -> None:
        self._catalogue, self._term_weights = catalogue, term_weights

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return at most k items that pass the filters and share a term with the query, best first."""
        codes = self._term_weights.encode_query(request.query)
        if not len(codes):
            return Candidates(empty_rows(), np.empty(0, np.float32), self.name)
        weights = np.bincount(codes, minlength=len(self._term_weights.terms)).astype(np.float32)
        scores = np.zeros(len(self._catalogue), np.float32)
        _score_catalogue(
            self._term_weights.term_codes, self._term_weights.weights, self._term_weights.offsets, weights, scores
        )
        mask = eligibility_mask(self._catalogue, request)
        rows = np.flatnonzero(scores > 0 if mask is None else (scores > 0) & mask).astype(np.int32)
        best = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return Candidates(best, scores[best], self.name)


@jit
def _score_catalogue(
    term_codes: NDArray[np.int32],
    weights: NDArray[np.float32],
    offsets: Offsets,
    query_weights: NDArray[np.float32],
    out: Scores,
) -> None:
    for row in range(len(out)):
        for entry in range(offsets[row], offsets[row + 1]):
            out[row] += weights[entry] * query_weights[term_codes[entry]]


@jit
def _score_batch(
    term_codes: NDArray[np.int32],
    weights: NDArray[np.float32],
    term_counts: NDArray[np.float32],
    offsets: Offsets,
    n_terms: int,
    rows: Rows,
    bounds: Offsets,
    history: Rows,
    queries: NDArray[np.int32],
    query_bounds: Offsets,
    out: Scores,
) -> None:
    query_weights = np.zeros(n_terms, np.float32)
    for request in range(len(bounds) - 1):
        start, stop = query_bounds[request], query_bounds[request + 1]
        for i in range(start, stop):
            query_weights[queries[i]] += 1
        has_terms = stop > start
        for row in history[request] if not has_terms else history[request, :0]:
            if row >= 0:
                has_terms = True
                for entry in range(offsets[row], offsets[row + 1]):
                    query_weights[term_codes[entry]] += term_counts[entry]
        for candidate in range(bounds[request], bounds[request + 1]):
            row = rows[candidate]
            if has_terms and row >= 0:
                score = np.float32(0)
                for entry in range(offsets[row], offsets[row + 1]):
                    score += weights[entry] * query_weights[term_codes[entry]]
                out[candidate] = score
        for i in range(start, stop):
            query_weights[queries[i]] = 0
        for row in history[request]:
            if row >= 0:
                for entry in range(offsets[row], offsets[row + 1]):
                    query_weights[term_codes[entry]] = 0
