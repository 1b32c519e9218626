"""BM25 of candidates against a text or against a person's recent titles, scored for the candidates alone.

The weights are those of rank-bm25's BM25Okapi (Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009);
they are laid out by item, so that a request adds up a few hundred numbers rather than visiting Python dicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from engine.catalogue import Catalogue
from engine.ids import Ids
from engine.recall import eligible
from engine.types import Batch, Candidates, Offsets, Request, Rows, Scores, no_rows
from features.compiled import compiled

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, eq=False, slots=True)
class TermWeights:
    """BM25 weights of every (item, term) pair that occurs; sums of them are BM25 scores."""

    terms: Ids
    codes: NDArray[np.int32]
    """Term codes of all items, flattened."""
    weights: NDArray[np.float32]
    """What one occurrence of the term in a query adds to the item's score, aligned with `codes`."""
    counts: NDArray[np.float32]
    """How often the term occurs in the item, aligned with `codes`."""
    offsets: Offsets
    """(n + 1,) bounds of each item's terms."""

    @classmethod
    def fit(cls, documents: Sequence[str], k1: float = 1.5, b: float = 0.75) -> TermWeights:
        """From the items' texts; k1 and b as in the paper."""
        corpus = [words(document) for document in documents]
        if not any(corpus):
            return cls(Ids(), *_nothing(len(corpus)))
        model = BM25Okapi(corpus, k1=k1, b=b)
        terms = Ids(model.idf)
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

    def query(self, text: str) -> NDArray[np.int32]:
        """Codes of the text's words that some item has, repeated as they are in the text."""
        rows = self.terms.rows(words(text))
        known: NDArray[np.int32] = rows[rows >= 0]
        return known

    def scores(self, batch: Batch, latest: int) -> Scores:
        """(N,) BM25 of each candidate for its request's text, or for the titles of its person's `latest` touches.

        NaN where there is neither.
        """
        queries = [self.query(text) for text in batch.queries] or [np.empty(0, np.int32)] * len(batch.at)
        bounds = np.concatenate([[0], np.cumsum([len(query) for query in queries])]).astype(np.int64)
        out = np.full(len(batch.rows), np.nan, np.float32)
        flat = np.concatenate([np.empty(0, np.int32), *queries]).astype(np.int32)
        _score(
            self.codes, self.weights, self.counts, self.offsets, len(self.terms),
            batch.rows, batch.offsets, batch.history[:, :latest], flat, bounds, out,
        )  # fmt: skip
        return out


class Bm25Retriever:
    """The items whose words answer a request's text best; nothing for a request without one, or that is embedded."""

    name = "bm25"

    def __init__(self, catalogue: Catalogue, terms: TermWeights) -> None:
        self._catalogue, self._terms = catalogue, terms

    def retrieve(self, request: Request, k: int) -> Candidates:
        """At most k items that the filters let through and that have a word of the text, best first."""
        asked = self._terms.query(request.query) if request.query_vector is None else no_rows()
        if not len(asked):
            return Candidates(no_rows(), np.empty(0, np.float32), self.name)
        weights = np.bincount(asked, minlength=len(self._terms.terms)).astype(np.float32)
        scores = np.zeros(len(self._catalogue), np.float32)
        _sum(self._terms.codes, self._terms.weights, self._terms.offsets, weights, scores)
        mask = eligible(self._catalogue, request)
        rows = np.flatnonzero(scores > 0 if mask is None else (scores > 0) & mask).astype(np.int32)
        best = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return Candidates(best, scores[best], self.name)


@compiled
def _sum(
    codes: NDArray[np.int32], weights: NDArray[np.float32], offsets: Offsets, asked: NDArray[np.float32], out: Scores
) -> None:
    for row in range(len(out)):
        for place in range(offsets[row], offsets[row + 1]):
            out[row] += weights[place] * asked[codes[place]]


@compiled
def _score(
    codes: NDArray[np.int32], weights: NDArray[np.float32], counts: NDArray[np.float32], offsets: Offsets, n_terms: int,
    rows: Rows, bounds: Offsets, history: Rows, queries: NDArray[np.int32], query_bounds: Offsets, out: Scores,
) -> None:  # fmt: skip
    asked = np.zeros(n_terms, np.float32)
    for request in range(len(bounds) - 1):
        start, stop = query_bounds[request], query_bounds[request + 1]
        for place in range(start, stop):
            asked[queries[place]] += 1
        some = stop > start
        for row in history[request] if not some else history[request, :0]:
            if row >= 0:
                some = True
                for place in range(offsets[row], offsets[row + 1]):
                    asked[codes[place]] += counts[place]
        for place in range(bounds[request], bounds[request + 1]):
            row = rows[place]
            if some and row >= 0:
                score = np.float32(0)
                for term in range(offsets[row], offsets[row + 1]):
                    score += weights[term] * asked[codes[term]]
                out[place] = score
        for place in range(start, stop):
            asked[queries[place]] = 0
        for row in history[request]:
            if row >= 0:
                for place in range(offsets[row], offsets[row + 1]):
                    asked[codes[place]] = 0


def _nothing(n: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], Offsets]:
    empty = np.empty(0, np.float32)
    return np.empty(0, np.int32), empty, empty, np.zeros(n + 1, np.int64)
