"""The kind `match`: how well two fields fit by their values, words, letters, or by BM25."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, Values, record
from feedrank.features.declared.forms import forms_of
from feedrank.features.declared.term_statistics import BM25, TermStatistics
from feedrank.features.jit import jit
from feedrank.features.term_counts import K1
from feedrank.features.text_analyser import LENGTH_NORMALISATION

_NO_STATISTICS = TermStatistics.of(())


def match_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the share of values that two fields share, or the BM25 score of one for the other."""
    (one, pool), (other, other_pool) = (batch.hashes(form) for form in forms_of(feature))
    found = np.full(len(one), np.nan)
    missing = f"there is no {feature.from_} or no {feature.to}"
    if feature.method == BM25:
        known = batch.term_statistics.get(feature.name, _NO_STATISTICS)
        _bm25(one, pool, other, other_pool, known.hashes, known.counts, known.totals, found)
        sentence = f"BM25 score of {feature.to} for the words of {feature.from_}."
        return [(record(feature.name, sentence, "BM25 score", missing), found)]
    _jaccard(one, pool, other, other_pool, found)
    what = {"value": "values", "term": "words", "ngram": f"runs of {feature.n} letters"}[feature.method]
    sentence = f"Share of the {what} of {feature.from_} and {feature.to} that both have."
    return [(record(feature.name, sentence, "share, 0 to 1", missing), found)]


@jit
def _jaccard(
    one: NDArray[np.int64], pool: NDArray[np.int64], other: NDArray[np.int64], other_pool: NDArray[np.int64],
    out: Values,
) -> None:  # fmt: skip
    """Compute the share of shared hashes of two sorted lists of each row; NaN where one is empty."""
    for n in range(len(out)):
        i, stop, j, end = one[n, 0], one[n, 1], other[n, 0], other[n, 1]
        if i == stop or j == end:
            continue
        size, shared = (stop - i) + (end - j), 0
        while i < stop and j < end:
            a, b = pool[i], other_pool[j]
            shared += a == b
            i += a <= b
            j += b <= a
        out[n] = shared / (size - shared)


@jit
def _bm25(
    queries: NDArray[np.int64], pool: NDArray[np.int64], documents: NDArray[np.int64],
    other_pool: NDArray[np.int64], terms: NDArray[np.int64], counts: NDArray[np.int64], totals: Values, out: Values,
) -> None:  # fmt: skip
    """Compute the BM25 score of the document of each row for its query; NaN where one is empty.

    A document is its length, then its hashes, sorted. The weights are those of `term_counts`.
    """
    for n in range(len(out)):
        i, stop, first, end = queries[n, 0], queries[n, 1], documents[n, 0], documents[n, 1]
        if i == stop or first == end:
            continue
        relative_length = other_pool[first] / totals[1]
        saturation = K1 * (1 - LENGTH_NORMALISATION + LENGTH_NORMALISATION * relative_length)
        words, score = other_pool[first + 1 : end], 0.0
        for position in range(i, stop):
            term = pool[position]
            place = np.searchsorted(words, term)
            frequency = 0
            while place < len(words) and words[place] == term:
                frequency += 1
                place += 1
            if frequency:
                known = np.searchsorted(terms, term)
                holding = counts[known] if known < len(terms) and terms[known] == term else 1
                idf = np.log(1 + (max(totals[0], 1) - holding + 0.5) / (holding + 0.5))
                score += idf * frequency * (K1 + 1) / (frequency + saturation)
        out[n] = score
