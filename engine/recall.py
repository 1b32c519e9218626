"""Recall: from the whole catalogue to the candidates of one request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.protocols import Retriever, VectorIndex, WholeIndex
from engine.space import Space
from engine.types import NOBODY, Candidates, Filters, Request, Rows, Scores, Vector, no_rows

MAX_CANDIDATES = 1_000


def eligible(catalogue: Catalogue, request: Request) -> NDArray[np.bool_] | None:
    """(n,) True where the request's filters let an item through; None where they let all through."""
    filters = request.filters
    banned = np.concatenate([filters.deny, catalogue.hidden_rows, no_rows() if filters.seen else request.touched])
    banned = banned[banned != NOBODY]
    if filters.allow is None and filters.categories is None:
        if not len(banned):
            return None
        mask = np.ones(len(catalogue), np.bool_)
    else:
        mask = np.zeros(len(catalogue), np.bool_)
        mask[_allowed(catalogue, filters)] = True
    mask[banned] = False
    return mask


class EmbeddingRetriever:
    """The nearest items to the request's vector: the person's, or the query's, or a mix of both."""

    name = "embedding"

    def __init__(
        self,
        catalogue: Catalogue,
        space: Space,
        whole: WholeIndex,
        index: VectorIndex | None = None,
        query_share: float = 0.7,
    ) -> None:
        """index: asked first, where there is one, unless the filters leave too little for it."""
        self._catalogue = catalogue
        self._space = space
        self._whole = whole
        self._index = index
        self._query_share = query_share

    def vector(self, request: Request) -> Vector:
        """The request's vector (d,); zeros where neither a person's history nor a query says anything."""
        person = self._space.person(request.history)
        if request.query_vector is None:
            return person
        query = self._space.query(request.query_vector)
        if not person.any():
            return query
        return query * np.float32(self._query_share) + person * np.float32(1 - self._query_share)

    def retrieve(self, request: Request, k: int) -> Candidates:
        """The k nearest items that the filters let through, or all there are; none for an unknown stranger."""
        vector = self.vector(request)
        if not vector.any():
            return Candidates(no_rows(), np.empty(0, np.float32), self.name)
        rows, scores = self._search(vector, eligible(self._catalogue, request), k)
        return Candidates(rows, scores, self.name)

    def _search(self, vector: Vector, mask: NDArray[np.bool_] | None, k: int) -> tuple[Rows, Scores]:
        if mask is None:
            return (self._index or self._whole).search(vector, k)
        if self._index is not None:
            passing = int(np.count_nonzero(mask))
            wanted = min(k, passing)
            # Past this many, asking the index for what the filters will drop costs more than looking at all that pass.
            reach = k + len(mask) - passing
            while wanted and reach <= max(2 * k, len(mask) // 8):
                rows, scores = self._index.search(vector, reach)
                kept = mask[rows]
                if np.count_nonzero(kept) >= wanted:
                    return rows[kept][:k], scores[kept][:k]
                reach *= 2
        return self._whole.search_within(np.flatnonzero(mask).astype(np.int32), vector, k)


class PopularRetriever:
    """The items with the highest popularity as of now: the feed of a stranger, and a baseline."""

    name = "popular"

    def __init__(self, catalogue: Catalogue, popularity: Callable[[float], Scores]) -> None:
        """popularity: unix seconds -> (n,) one score an item."""
        self._catalogue = catalogue
        self._popularity = popularity

    def retrieve(self, request: Request, k: int) -> Candidates:
        """The k most popular items that the filters let through, ties by row."""
        scores = self._popularity(request.at)
        mask = eligible(self._catalogue, request)
        rows = np.arange(len(scores), dtype=np.int32) if mask is None else np.flatnonzero(mask).astype(np.int32)
        best = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return Candidates(best, scores[best].astype(np.float32), self.name)


class FirstOf:
    """The first retriever that finds anything at all."""

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self._retrievers = tuple(retrievers)

    def retrieve(self, request: Request, k: int) -> Candidates:
        """The candidates of the first retriever that has some; the last one's, empty or not."""
        if not 0 < k <= MAX_CANDIDATES:
            raise ValueError(f"asked for {k} candidates; expected 1 to {MAX_CANDIDATES}")
        for retriever in self._retrievers[:-1]:
            candidates = retriever.retrieve(request, k)
            if len(candidates.rows):
                return candidates
        return self._retrievers[-1].retrieve(request, k)


def _allowed(catalogue: Catalogue, filters: Filters) -> Rows:
    if filters.categories is None:
        if filters.allow is None:
            return no_rows()
        known: Rows = filters.allow[filters.allow != NOBODY]
        return known
    members = catalogue.in_categories(filters.categories)
    return members if filters.allow is None else np.intersect1d(members, filters.allow).astype(np.int32)
