"""Term counts by document and field, and the BM25F weights that follow from them.

BM25F (Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009, section 3.3.3) divides the count of a term in
a field by the field's relative length, adds the fields up by their weights, and saturates the sum. With one field it
is BM25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from feedrank.engine.types import Offsets
from feedrank.features.text_analyser import LENGTH_NORMALISATION, DocumentTerms, TextAnalyser

K1 = 1.5
"""Saturation of term counts: k1 of BM25."""
_CODE_BITS = 32
_CODE_MASK = (1 << _CODE_BITS) - 1


class PositiveBm25(BM25Okapi):  # type: ignore[misc]  # rank-bm25 has no types
    """BM25Okapi of rank-bm25 whose idf is above 0, also for words that more than half of the documents have.

    The mean length is that of the documents with a word.
    """

    def __init__(self, corpus: Sequence[Sequence[str]], k1: float = K1, b: float = LENGTH_NORMALISATION) -> None:
        super().__init__(corpus, k1=k1, b=b)
        self.avgdl = mean_length(np.array(self.doc_len))

    @classmethod
    def from_counts(cls, n_documents: int, counts: Mapping[Any, int]) -> PositiveBm25:
        """Compute the idf alone. counts: term -> number of documents that have it."""
        model = cls.__new__(cls)
        model.corpus_size = n_documents
        model._calc_idf(counts)
        return model

    def _calc_idf(self, nd: Mapping[Any, int]) -> None:
        n = self.corpus_size
        self.idf = {term: math.log(1 + (n - count + 0.5) / (count + 0.5)) for term, count in nd.items()}


def mean_length(lengths: NDArray[np.int64]) -> float:
    """Return the mean length of the documents that have a word; 1 if none has."""
    return float(lengths[lengths > 0].mean()) if np.any(lengths > 0) else 1.0


class FieldTerms(NamedTuple):
    """The terms of one field of all documents, with the settings of the field."""

    weight: float
    b: float
    terms: DocumentTerms

    def recoded(self, codes: NDArray[np.int32]) -> FieldTerms:
        """Return the same terms with other codes. codes: new code by old code."""
        return self._replace(terms=self.terms._replace(codes=codes[self.terms.codes].astype(np.int64)))


class TermCounts(NamedTuple):
    """The distinct terms of each document."""

    n_documents: int
    keys: NDArray[np.int64]
    """Document and term code in one number, ascending."""
    first: NDArray[np.int64]
    """Index of the first occurrence of each key, in the occurrences of all fields."""
    inverse: NDArray[np.int64]
    """Index of the key of each occurrence."""
    counts: NDArray[np.int64]
    """Number of occurrences of each key."""


@dataclass(frozen=True, eq=False, slots=True)
class CorpusStatistics:
    """What the weights of a document depend on besides its own terms; fitted once, and kept for items added later."""

    idf: NDArray[np.float64]
    """(terms,) idf of each term at the fit; terms that were added later have `new_term_idf`."""
    mean_lengths: NDArray[np.float64]
    """(fields,) mean length of the field in words, among documents that have it."""
    n_documents: int
    """Number of documents at the fit."""

    @property
    def new_term_idf(self) -> float:
        """The idf of a term that no document had at the fit, as if one had."""
        return float(PositiveBm25.from_counts(max(self.n_documents, 1), {0: 1}).idf[0])

    def idf_of(self, codes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the idf of term codes."""
        fitted = np.minimum(codes, max(len(self.idf) - 1, 0))
        known = self.idf[fitted] if len(self.idf) else np.zeros(len(codes))
        return np.where(codes < len(self.idf), known, self.new_term_idf)


class WeightedTerms(NamedTuple):
    """Distinct terms of each document, in the order of their first occurrence, flattened."""

    codes: NDArray[np.int32]
    weights: NDArray[np.float32]
    counts: NDArray[np.float32]
    offsets: Offsets


def analyse_fields(
    analyser: TextAnalyser, documents: Mapping[str, Sequence[str]], codes: dict[str, int]
) -> list[FieldTerms]:
    """Analyse the fields of documents, with the weights and length normalisations of the settings.

    codes: term -> code; new terms are added.
    """
    weights, normalisation = analyser.settings.field_weights, analyser.settings.length_normalisation
    return [
        FieldTerms(
            weights.get(name, 1.0), normalisation.get(name, LENGTH_NORMALISATION), analyser.documents(texts, codes)
        )
        for name, texts in documents.items()
    ]


def count_terms(fields: Sequence[FieldTerms]) -> TermCounts:
    """Count the terms of each document over all fields."""
    documents = [np.repeat(np.arange(len(field.terms.sizes)), field.terms.sizes) for field in fields]
    keys = [owners << _CODE_BITS | field.terms.codes for owners, field in zip(documents, fields, strict=True)]
    n = len(fields[0].terms.sizes) if fields else 0
    return TermCounts(n, *np.unique(np.concatenate([np.empty(0, np.int64), *keys]), True, True, True))


def fit_statistics(fields: Sequence[FieldTerms], counts: TermCounts, n_terms: int) -> CorpusStatistics:
    """Fit the statistics of a corpus whose term codes are below `n_terms`."""
    n_holding = np.bincount(counts.keys & _CODE_MASK, minlength=n_terms)
    idf = PositiveBm25.from_counts(counts.n_documents, dict(enumerate(n_holding.tolist()))).idf
    lengths = [mean_length(field.terms.lengths) for field in fields]
    return CorpusStatistics(np.array(list(idf.values()), np.float64), np.array(lengths, np.float64), counts.n_documents)


def weigh(fields: Sequence[FieldTerms], counts: TermCounts, statistics: CorpusStatistics) -> WeightedTerms:
    """Compute the BM25F weights of documents; terms are in the order of their first occurrence."""
    shares = [np.empty(0)]
    for field, mean in zip(fields, statistics.mean_lengths.tolist(), strict=True):
        relative = 1 - field.b + field.b * field.terms.lengths / mean
        shares.append(np.repeat(field.weight / np.maximum(relative, 1e-9), field.terms.sizes))
    documents = counts.keys >> _CODE_BITS
    order = np.lexsort((counts.first, documents))  # not by code: codes depend on which items were added before
    codes = (counts.keys[order] & _CODE_MASK).astype(np.int32)
    frequency = np.bincount(counts.inverse, np.concatenate(shares), len(counts.keys))[order]
    weights = statistics.idf_of(codes) * frequency * (K1 + 1) / (frequency + K1)
    offsets = np.searchsorted(documents, np.arange(counts.n_documents + 1)).astype(np.int64)
    return WeightedTerms(codes, weights.astype(np.float32), counts.counts[order].astype(np.float32), offsets)
