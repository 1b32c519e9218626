"""Retrievers, which select the candidates of a request from the whole catalogue (recall)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.protocols import Retriever, ScannableIndex, VectorIndex
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace
from feedrank.engine.types import UNKNOWN_ROW, Candidates, Filters, ResolvedRequest, Rows, Scores, Vector, empty_rows

MAX_CANDIDATES = 1_000
"""Largest number of candidates of a request."""
FUSION_RANK = 60
"""Constant of reciprocal rank fusion: how slowly lower ranks count less."""


def eligibility_mask(catalogue: Catalogue, request: ResolvedRequest) -> NDArray[np.bool_] | None:
    """Return the mask (n,) of items that pass the request's filters; None if all items pass."""
    filters = request.filters
    banned = np.concatenate(
        [
            filters.deny,
            catalogue.hidden_rows,
            empty_rows() if filters.include_seen else request.interacted,
            empty_rows() if filters.include_disliked else request.disliked,
        ]
    )
    banned = banned[banned != UNKNOWN_ROW]
    if filters.allow is None and filters.categories is None:
        if not len(banned):
            return None
        mask = np.ones(len(catalogue.ids), np.bool_)
    else:
        mask = np.zeros(len(catalogue.ids), np.bool_)
        mask[_allowed_rows(catalogue, filters)] = True
    mask[banned] = False
    return mask


class EmbeddingRetriever:
    """Retrieves the items nearest to the user vector, the query vector, or a weighted sum of both."""

    name = "embedding"

    def __init__(
        self,
        catalogue: Catalogue,
        space: EmbeddingSpace,
        exact_index: ScannableIndex,
        index: VectorIndex | None = None,
        query_weight: float = 0.7,
    ) -> None:
        """Store the indexes of the item vectors.

        index: searched first, unless too few items pass the filters. query_weight: weight of the query vector, 0 to 1.
        """
        self._catalogue = catalogue
        self._space = space
        self._exact_index = exact_index
        self._index = index
        self._query_weight = query_weight

    def request_vector(self, request: ResolvedRequest) -> Vector:
        """Return the vector (d,) of a request; zeros if it has neither a known history nor a query."""
        user_vector = self._space.user_vector(request.history)
        if request.query_vector is None:
            return user_vector
        query_vector = self._space.query_vector(request.query_vector)
        if not user_vector.any():
            return query_vector
        return query_vector * np.float32(self._query_weight) + user_vector * np.float32(1 - self._query_weight)

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return the k nearest items that pass the filters, or all of them; none if the request vector is zero."""
        vector = self.request_vector(request)
        if not vector.any():
            return Candidates(empty_rows(), np.empty(0, np.float32), self.name)
        rows, scores = self._search(vector, eligibility_mask(self._catalogue, request), k)
        return Candidates(rows, scores, self.name)

    def _search(self, vector: Vector, mask: NDArray[np.bool_] | None, k: int) -> tuple[Rows, Scores]:
        if mask is None:
            return (self._exact_index if self._index is None else self._index).search(vector, k)
        if self._index is not None:
            passing = int(np.count_nonzero(mask))
            wanted = min(k, passing)
            # Search deeper until enough results pass the filters. Beyond this depth an exact search of the items that
            # pass is cheaper.
            depth = k + len(mask) - passing
            while wanted and depth <= max(2 * k, len(mask) // 8):
                rows, scores = self._index.search(vector, depth)
                passed = mask[rows]
                if np.count_nonzero(passed) >= wanted:
                    return rows[passed][:k], scores[passed][:k]
                depth *= 2
        return self._exact_index.search_subset(np.flatnonzero(mask).astype(np.int32), vector, k)


class HybridRetriever:
    """Retrieves for a query by its words, and by its embedding if it has one; none without a query.

    Both lists are merged by reciprocal rank fusion (Cormack, Clarke & Buettcher, 2009).
    """

    name = "hybrid"

    def __init__(self, by_words: Retriever, by_embedding: Retriever) -> None:
        self._by_words, self._by_embedding = by_words, by_embedding

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return at most k items, best first; the source and the scores are those of a list that is alone."""
        if not request.query:
            return Candidates(empty_rows(), np.empty(0, np.float32), self.name)
        words = self._by_words.retrieve(request, k)
        if request.query_vector is None:
            return words
        vectors = self._by_embedding.retrieve(request, k)
        if not len(words.rows) or not len(vectors.rows):
            return vectors if len(vectors.rows) else words
        rows = np.concatenate([vectors.rows, words.rows])
        ranks = np.concatenate([np.arange(len(vectors.rows)), np.arange(len(words.rows))])
        distinct, first, group = np.unique(rows, return_index=True, return_inverse=True)
        scores = np.bincount(group, 1 / (FUSION_RANK + 1 + ranks))
        best = np.lexsort((first, -scores))[:k]
        return Candidates(distinct[best], scores[best].astype(np.float32), self.name)


class PopularRetriever:
    """Retrieves the most popular items at the time of the request; for unknown users, and as a baseline."""

    name = "popular"

    def __init__(self, catalogue: Catalogue, popularity: Callable[[float], Scores]) -> None:
        """popularity: maps unix seconds to one score per item, (n,), and maybe of more items after them."""
        self._catalogue = catalogue
        self._popularity = popularity

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return the k most popular items that pass the filters, ties by row."""
        scores = self._popularity(request.at)[: len(self._catalogue.ids)]
        mask = eligibility_mask(self._catalogue, request)
        rows = np.arange(len(scores), dtype=np.int32) if mask is None else np.flatnonzero(mask).astype(np.int32)
        best = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return Candidates(best, scores[best].astype(np.float32), self.name)


class FallbackRetriever:
    """Tries retrievers in order, and uses the first one that returns candidates."""

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self._retrievers = tuple(retrievers)

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return the candidates of the first retriever that has any, else an empty list from the last one.

        Raises ValueError if k is not 1 to `MAX_CANDIDATES`.
        """
        if not 0 < k <= MAX_CANDIDATES:
            raise ValueError(f"found k = {k} candidates, expected 1 to {MAX_CANDIDATES}")
        for retriever in self._retrievers[:-1]:
            candidates = retriever.retrieve(request, k)
            if len(candidates.rows):
                return candidates
        return self._retrievers[-1].retrieve(request, k)


def _allowed_rows(catalogue: Catalogue, filters: Filters) -> Rows:
    if filters.categories is None:
        if filters.allow is None:
            return empty_rows()
        allowed: Rows = filters.allow[filters.allow != UNKNOWN_ROW]
        return allowed
    members = catalogue.rows_in_categories(filters.categories)
    return members if filters.allow is None else np.intersect1d(members, filters.allow).astype(np.int32)
