"""Fallbacks if ranking fails, in order, so that a request still gets a list.

full pipeline -> no neural features -> most popular items, alternating categories -> last successful list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from feedrank.engine.retrieval.retrievers import eligible
from feedrank.engine.serving.deadline import Watch
from feedrank.engine.serving.pipeline import Pipeline, given_candidates
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.engine.types import Candidates, Ranking, Request, Rows, in_found_order

FULL, NO_NEURAL, POPULAR, LAST_GOOD = "full", "no_neural", "popular", "last_good"
"""The levels of the fallback chain."""
_log = logging.getLogger(__name__)


class Ladder:
    """Tries the levels in order until one succeeds; keeps the last successful list."""

    def __init__(self) -> None:
        self._last: Candidates | None = None
        self._of: Live | None = None

    def run(
        self, live: Live, request: Request, watch: Watch, given: Rows | None, pipeline: Pipeline | None = None
    ) -> tuple[str, Ranking]:
        """Return the first level that succeeds and its ranking; errors of the others are logged.

        explicit: (n,) rows to rank instead of recalled candidates. pipeline: the snapshot's own by default. Raises
        RuntimeError if every level fails.
        """
        for level, build_ranking in self._steps(live, pipeline or live.pipeline, request, watch, given):
            try:
                ranking = build_ranking()
            except Exception:  # a worse list is better than none, whatever the error
                _log.exception("ranking failed at fallback level %r; trying the next level", level)
                watch.skip(level)
                continue
            if level == FULL and given is None and len(ranking.order):
                self._last, self._of = Candidates(ranking.rows, ranking.scores, LAST_GOOD), live
            return level, ranking
        raise RuntimeError("every fallback level failed and no earlier list is available; see the logged exceptions")

    def _steps(
        self, live: Live, pipeline: Pipeline, request: Request, watch: Watch, given: Rows | None
    ) -> Iterator[tuple[str, Callable[[], Ranking]]]:
        """Yield (level, function that builds its ranking)."""
        yield FULL, lambda: pipeline.run(request, watch, given)
        without_reranker = replace(pipeline, rescoring=None)
        without_embeddings = replace(request, query_vector=None, query_tokens=None)
        yield NO_NEURAL, lambda: without_reranker.run(without_embeddings, watch, given)
        n_features = len(pipeline.featurizer.names)
        if given is not None:
            yield POPULAR, lambda: in_found_order(given_candidates(given), n_features)
            return
        yield POPULAR, lambda: in_found_order(_by_category(live, request), n_features)
        last = self._last
        if last is not None and self._of is live:
            yield LAST_GOOD, lambda: in_found_order(_that_pass(last, live, request), n_features)


def _by_category(live: Live, request: Request) -> Candidates:
    """Return the most popular items, alternating first categories, starting with that of the most popular item."""
    popular = live.pipeline.popular
    if popular is None:
        raise RuntimeError("the pipeline has no retriever of popular items")
    candidates = popular.retrieve(request, live.pipeline.candidates)
    codes = live.catalogue.first_categories(candidates.rows)
    rank_in_category = np.zeros(len(codes), np.int64)
    for code in np.unique(codes).tolist():
        members = np.flatnonzero(codes == code)
        rank_in_category[members] = np.arange(len(members))
    order = np.argsort(rank_in_category, kind="stable")
    return Candidates(candidates.rows[order], candidates.scores[order], POPULAR)


def _that_pass(last: Candidates, live: Live, request: Request) -> Candidates:
    """Return the items of the last successful list that pass the request's filters."""
    mask = eligible(live.catalogue, request)
    passing = np.ones(len(last.rows), np.bool_) if mask is None else mask[last.rows]
    return Candidates(last.rows[passing], last.scores[passing], LAST_GOOD)
