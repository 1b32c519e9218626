"""Fallbacks if ranking fails, in order, so that a request still gets a list.

full pipeline -> no neural features -> most popular items, alternating categories -> last successful list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from feedrank.engine.retrieval.retrievers import eligibility_mask
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.pipeline import Pipeline, explicit_candidates
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import Candidates, Ranking, ResolvedRequest, Rows, in_recall_order

FULL, NO_NEURAL, POPULAR, LAST_GOOD = "full", "no_neural", "popular", "last_good"
"""The levels of the fallback chain."""
_log = logging.getLogger(__name__)


class FallbackChain:
    """Tries the levels in order until one succeeds; keeps the last successful list."""

    def __init__(self) -> None:
        self._last_good: Candidates | None = None
        self._last_good_snapshot: ServingSnapshot | None = None

    def run(
        self,
        snapshot: ServingSnapshot,
        request: ResolvedRequest,
        budget: LatencyBudget,
        explicit: Rows | None,
        pipeline: Pipeline | None = None,
    ) -> tuple[str, Ranking]:
        """Return the first level that succeeds and its ranking; errors of the others are logged.

        explicit: (n,) rows to rank instead of recalled candidates. pipeline: the snapshot's own by default. Raises
        RuntimeError if every level fails.
        """
        for level, build_ranking in self._levels(snapshot, pipeline or snapshot.pipeline, request, budget, explicit):
            try:
                ranking = build_ranking()
            except Exception:  # a worse list is better than none, whatever the error
                _log.exception("ranking failed at fallback level %r; trying the next level", level)
                budget.skip(level)
                continue
            if level == FULL and explicit is None and len(ranking.order):
                self._last_good, self._last_good_snapshot = (
                    Candidates(ranking.rows, ranking.scores, LAST_GOOD),
                    snapshot,
                )
            return level, ranking
        raise RuntimeError("every fallback level failed and no earlier list is available; see the logged exceptions")

    def _levels(
        self,
        snapshot: ServingSnapshot,
        pipeline: Pipeline,
        request: ResolvedRequest,
        budget: LatencyBudget,
        explicit: Rows | None,
    ) -> Iterator[tuple[str, Callable[[], Ranking]]]:
        """Yield (level, function that builds its ranking)."""
        yield FULL, lambda: pipeline.run(request, budget, explicit)
        without_reranker = replace(pipeline, reranker=None)
        without_embeddings = replace(request, query_vector=None, query_tokens=None)
        yield NO_NEURAL, lambda: without_reranker.run(without_embeddings, budget, explicit)
        n_features = len(pipeline.featurizer.names)
        if explicit is not None:
            yield POPULAR, lambda: in_recall_order(explicit_candidates(explicit), n_features)
            return
        yield POPULAR, lambda: in_recall_order(_popular_by_category(snapshot, request), n_features)
        last = self._last_good
        if last is not None and self._last_good_snapshot is snapshot:
            yield LAST_GOOD, lambda: in_recall_order(_eligible_last_good(last, snapshot, request), n_features)


def _popular_by_category(snapshot: ServingSnapshot, request: ResolvedRequest) -> Candidates:
    """Return the most popular items, alternating first categories, starting with that of the most popular item."""
    popular = snapshot.pipeline.popular
    if popular is None:
        raise RuntimeError("the pipeline has no retriever of popular items")
    candidates = popular.retrieve(request, snapshot.pipeline.n_candidates)
    codes = snapshot.catalogue.first_categories(candidates.rows)
    rank_in_category = np.zeros(len(codes), np.int64)
    for code in np.unique(codes).tolist():
        members = np.flatnonzero(codes == code)
        rank_in_category[members] = np.arange(len(members))
    order = np.argsort(rank_in_category, kind="stable")
    return Candidates(candidates.rows[order], candidates.scores[order], POPULAR)


def _eligible_last_good(last: Candidates, snapshot: ServingSnapshot, request: ResolvedRequest) -> Candidates:
    """Return the items of the last successful list that pass the request's filters."""
    mask = eligibility_mask(snapshot.catalogue, request)
    passing = np.ones(len(last.rows), np.bool_) if mask is None else mask[last.rows]
    return Candidates(last.rows[passing], last.scores[passing], LAST_GOOD)
