"""The ranking pipeline: recall, features and ranker, and the levels that it falls back to where one of them fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.protocols import Featurizer, Ranker, Retriever, State
from feedrank.engine.retrieval.retrievers import eligibility_mask
from feedrank.engine.serving.deadline import LatencyBudget, unlimited_budget
from feedrank.engine.serving.reranking import CrossEncoderReranker
from feedrank.engine.types import Batch, Candidates, Ranking, ResolvedRequest, Rows, in_recall_order

EXPLICIT = "explicit"
"""The `source` of candidates that the caller lists explicitly."""
FULL, NO_NEURAL, POPULAR, LAST_GOOD = "full", "no_neural", "popular", "last_good"
"""The levels of the fallback chain."""
Reading: TypeAlias = AbstractContextManager[object]
"""Held while the state is read; it raises StateChangedError if the state can't be read as of the request any more."""
UNSHARED: Reading = nullcontext()
"""For a state that no other thread changes."""
_log = logging.getLogger(__name__)


class StateChangedError(RuntimeError):
    """Raised if what a request was resolved from has changed before its candidates' state was read."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A retriever, a featurizer and a ranker that belong together; each arm of an experiment runs one."""

    retriever: Retriever
    state: State
    featurizer: Featurizer
    ranker: Ranker
    n_candidates: int = 100
    """How many candidates recall returns."""
    bundle: str = ""
    """The name of the bundle it was built from."""
    reranker: CrossEncoderReranker | None = None
    """The cross-encoder stage; None: there is none."""
    popular: Retriever | None = None
    """Retrieves popular items as of the state, where the retriever returns none or ranking fails."""

    def run(
        self, request: ResolvedRequest, budget: LatencyBudget | None = None, explicit: Rows | None = None,
        reading: Reading = UNSHARED,
    ) -> Ranking:  # fmt: skip
        """Rank all candidates of a request.

        explicit: (n,) rows to rank instead of what recall returns. reading: held while the state is read, and not for
        recall, features and ranking. If the budget has no time for ranking, the candidates stay in recall order.
        """
        budget = budget or unlimited_budget()
        if explicit is None:
            candidates = self.retriever.retrieve(request, self.n_candidates)
            budget.record("recall")
        else:
            candidates = explicit_candidates(explicit)
        with reading:
            if explicit is None and self.popular is not None and not len(candidates.rows):
                candidates = self.popular.retrieve(request, self.n_candidates)
            has_time = budget.has_time_for("features", "rank", "journal", units=len(candidates.rows))
            batch = self.state.read([request], [candidates.rows]) if has_time else None
        if batch is None:
            budget.skip("rank")
            return in_recall_order(candidates, len(self.featurizer.names))
        return self.rank(request, batch, candidates, budget)

    def recall(self, request: ResolvedRequest, n: int | None = None, reading: Reading = UNSHARED) -> Candidates:
        """Return n candidates of a request, n_candidates by default; popular items where the retriever finds none.

        reading: held while the state is read, which only popular items need.
        """
        n = n or self.n_candidates
        candidates = self.retriever.retrieve(request, n)
        if len(candidates.rows) or self.popular is None:
            return candidates
        with reading:
            return self.popular.retrieve(request, n)

    def rank(
        self, request: ResolvedRequest, batch: Batch, candidates: Candidates, budget: LatencyBudget | None = None
    ) -> Ranking:
        """Rank candidates with the state in `batch`, which was read for them."""
        budget = budget or unlimited_budget()
        if self.reranker is None:
            matrix = self.featurizer.matrix(batch)
            budget.record("features", len(candidates.rows))
            cross_encoder_scores = batch.cross_encoder_scores
        else:
            matrix, cross_encoder_scores = self.reranker.matrix(request, batch, self.featurizer, budget)
        scores = self.ranker.score(matrix)
        order = np.argsort(-scores, kind="stable")
        budget.record("rank")
        return Ranking(candidates, order, scores[order], matrix[order], cross_encoder_scores)


def explicit_candidates(rows: Rows) -> Candidates:
    """Wrap rows listed by the caller as candidates; their scores (-1, -2, ...) only keep the given order."""
    return Candidates(rows, -np.arange(1, len(rows) + 1, dtype=np.float32), EXPLICIT)


class FallbackChain:
    """Tries the levels in order until one succeeds; keeps the last successful list."""

    def __init__(self) -> None:
        self._last_good: tuple[Candidates, Catalogue] | None = None
        """The last successful list and the catalogue of its rows; one value, as threads replace it at any time."""

    def run(
        self, pipeline: Pipeline, catalogue: Catalogue, request: ResolvedRequest, budget: LatencyBudget,
        explicit: Rows | None = None, reading: Reading = UNSHARED,
    ) -> tuple[str, Ranking]:  # fmt: skip
        """Return the first level that succeeds and its ranking; errors of the others are logged.

        catalogue: that of the pipeline. explicit: (n,) rows to rank instead of recalled candidates. reading: held while
        the state is read. Raises RuntimeError if every level fails, StateChangedError as `reading` does.
        """
        for level, build_ranking in self._levels(pipeline, catalogue, request, budget, explicit, reading):
            try:
                ranking = build_ranking()
            except StateChangedError:  # the ranking starts again
                raise
            except Exception:  # a worse list is better than none, whatever the error
                _log.exception("ranking failed at fallback level %r; trying the next level", level)
                budget.skip(level)
                continue
            if level == FULL and explicit is None and len(ranking.order):
                self._last_good = Candidates(ranking.rows, ranking.scores, LAST_GOOD), catalogue
            return level, ranking
        raise RuntimeError("every fallback level failed and no earlier list is available; see the logged exceptions")

    def _levels(
        self, pipeline: Pipeline, catalogue: Catalogue, request: ResolvedRequest, budget: LatencyBudget,
        explicit: Rows | None, reading: Reading,
    ) -> Iterator[tuple[str, Callable[[], Ranking]]]:  # fmt: skip
        """Yield (level, function that builds its ranking)."""
        yield FULL, lambda: pipeline.run(request, budget, explicit, reading)
        without_reranker = replace(pipeline, reranker=None)
        without_embeddings = replace(request, query_vector=None, query_tokens=None)
        yield NO_NEURAL, lambda: without_reranker.run(without_embeddings, budget, explicit, reading)
        n_features = len(pipeline.featurizer.names)
        if explicit is not None:
            yield POPULAR, lambda: in_recall_order(explicit_candidates(explicit), n_features)
            return
        yield POPULAR, lambda: in_recall_order(_popular_by_category(pipeline, catalogue, request, reading), n_features)
        if (last := self._last_good) is not None and last[1] is catalogue:
            yield LAST_GOOD, lambda: in_recall_order(_eligible_last_good(last[0], catalogue, request), n_features)


def _popular_by_category(
    pipeline: Pipeline, catalogue: Catalogue, request: ResolvedRequest, reading: Reading
) -> Candidates:
    """Return the most popular items, alternating first categories, starting with that of the most popular item."""
    if pipeline.popular is None:
        raise RuntimeError("the pipeline has no retriever of popular items")
    with reading:
        candidates = pipeline.popular.retrieve(request, pipeline.n_candidates)
    codes = catalogue.first_categories(candidates.rows)
    rank_in_category = np.zeros(len(codes), np.int64)
    for code in np.unique(codes).tolist():
        members = np.flatnonzero(codes == code)
        rank_in_category[members] = np.arange(len(members))
    order = np.argsort(rank_in_category, kind="stable")
    return Candidates(candidates.rows[order], candidates.scores[order], POPULAR)


def _eligible_last_good(last: Candidates, catalogue: Catalogue, request: ResolvedRequest) -> Candidates:
    """Return the items of the last successful list that pass the request's filters."""
    mask = eligibility_mask(catalogue, request)
    passing = np.ones(len(last.rows), np.bool_) if mask is None else mask[last.rows]
    return Candidates(last.rows[passing], last.scores[passing], LAST_GOOD)
