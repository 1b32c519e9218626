"""BM25 scores a request's candidates against its query, or against the titles of the user's latest items.

The weights equal those of rank-bm25's BM25Okapi (Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009).
They are stored by item: a request sums a few hundred numbers and reads no Python dicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.retrieval.retrievers import eligibility_mask
from feedrank.engine.types import Batch, Candidates, Offsets, ResolvedRequest, Rows, Scores, empty_rows
from feedrank.features.jit import jit

_WORD = re.compile(r"\w+")


def tokenize(text: str) -> list[str]:
    """Split a text into lower-cased tokens: runs of letters, digits and underscores."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, eq=False, slots=True)
class TermWeights:
    """Sparse BM25 weights of all (item, term) pairs that occur; a BM25 score is a sum of them."""

    terms: Vocabulary
    term_codes: NDArray[np.int32]
    """Term codes of all items, flattened."""
    weights: NDArray[np.float32]
    """Score that one occurrence of the term in a query adds to the item, aligned with `term_codes`."""
    term_counts: NDArray[np.float32]
    """Term frequency in the item, aligned with `term_codes`."""
    offsets: Offsets
    """(n + 1,) bounds of each item's terms in `term_codes`."""

    @classmethod
    def fit(cls, documents: Sequence[str], k1: float = 1.5, b: float = 0.75) -> TermWeights:
        """Fit the weights on the items' texts; k1 and b are the parameters of the paper."""
        corpus = [tokenize(document) for document in documents]
        if not any(corpus):
            return cls(Vocabulary(), *_empty_arrays(len(corpus)))
        model = BM25Okapi(corpus, k1=k1, b=b)
        terms = Vocabulary(model.idf)
        codes: list[int] = []
        counts: list[int] = []
        bounds = [0]
        for frequencies in model.doc_freqs:
            codes += [terms.row(term) for term in frequencies]
            counts += frequencies.values()
            bounds.append(len(codes))
        offsets = np.array(bounds, np.int64)
        frequency = np.array(counts, np.float64)
        idf = np.array([model.idf[term] for term in terms])[codes]
        length = np.repeat(np.array(model.doc_len, np.float64), np.diff(offsets))
        weights = idf * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * length / model.avgdl))
        return cls(terms, np.array(codes, np.int32), weights.astype(np.float32), frequency.astype(np.float32), offsets)

    def encode_query(self, text: str) -> NDArray[np.int32]:
        """Return the term codes of a text, with repeats; words that no item has are dropped."""
        codes = self.terms.rows(tokenize(text))
        in_vocabulary: NDArray[np.int32] = codes[codes >= 0]
        return in_vocabulary

    def scores(self, batch: Batch, n_titles: int) -> Scores:
        """Score candidates against the request's query, or against the titles of the latest `n_titles` interactions.

        Returns (N,) BM25 scores, NaN where a request has neither query nor history.
        """
        queries = [self.encode_query(text) for text in batch.queries] or [np.empty(0, np.int32)] * len(batch.at)
        bounds = np.concatenate([[0], np.cumsum([len(query) for query in queries])]).astype(np.int64)
        out = np.full(len(batch.rows), np.nan, np.float32)
        flat = np.concatenate([np.empty(0, np.int32), *queries]).astype(np.int32)
        _score_batch(
            self.term_codes, self.weights, self.term_counts, self.offsets, len(self.terms),
            batch.rows, batch.offsets, batch.history[:, :n_titles], flat, bounds, out,
        )  # fmt: skip
        return out


class Bm25Retriever:
    """Retrieves the items with the best BM25 score for a query; none without a query, or if the query is embedded."""

    name = "bm25"

    def __init__(self, catalogue: Catalogue, term_weights: TermWeights) -> None:
        self._catalogue, self._term_weights = catalogue, term_weights

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return at most k items that pass the filters and share a term with the query, best first."""
        codes = self._term_weights.encode_query(request.query) if request.query_vector is None else empty_rows()
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


def _empty_arrays(n: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], Offsets]:
    empty = np.empty(0, np.float32)
    return np.empty(0, np.int32), empty, empty, np.zeros(n + 1, np.int64)
