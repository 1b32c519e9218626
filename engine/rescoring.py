"""The second phase: a signal that is too dear for every candidate.

A cross-encoder's scores come from a cache where it knows them; of the candidates that a cheap first order puts on top,
the others are scored now; the rest stay NaN, as they did in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.protocols import Featurizer, PairScorer, Ranker, ScoreCache
from engine.types import Batch, Matrix, Request, Rows, Scores
from engine.watch import Watch, no_watch

TITLES = 3
"""Latest titles that stand in for a query."""


@dataclass(frozen=True, slots=True)
class Rescoring:
    """Fills in the pair scores of one request."""

    first: Ranker
    """The cheap order; it was trained without pair scores."""
    scorer: PairScorer
    cache: ScoreCache
    titles: Sequence[str]
    """(n,) of all items: the latest ones stand in for a query."""
    best: int = 30
    """Candidates, those that come first, that are scored in a request."""

    def matrix(
        self, request: Request, batch: Batch, featurizer: Featurizer, watch: Watch | None = None
    ) -> tuple[Matrix, Scores]:
        """(N, F) the request's features, pair scores included, and (N,) these, NaN where there are none."""
        watch = watch or no_watch()
        text = request_text(request.query, request.history, self.titles)
        scores = self.cache.scores(text, batch.rows)
        matrix = featurizer.matrix(replace(batch, pair_scores=scores))
        watch.mark("features", len(batch.rows))
        watch.count("pairs_cache", int(np.count_nonzero(~np.isnan(scores))))
        if not text or not self.best or not np.isnan(scores).any():
            return matrix, scores
        top = np.argsort(-self.first.score(matrix), kind="stable")[: self.best]
        watch.mark("first")
        top = top[np.isnan(scores[top])]
        timely = watch.fits("pairs", len(top), "rank", "journal")
        if timely < len(top):
            watch.skip("pairs")
            top = top[:timely]
        if len(top):
            scores[top] = self.scorer.score([text] * len(top), batch.rows[top])
            self.cache.add(text, batch.rows[top], scores[top])
            featurizer.set_pairs(matrix, replace(batch, pair_scores=scores))
            watch.mark("pairs", len(top))
            watch.count("pairs_live", len(top))
        watch.count("pairs_none", int(np.count_nonzero(np.isnan(scores))))
        return matrix, scores

    def prepare(self, request: Request, rows: Rows) -> int:
        """Score the pairs of a request and items that the cache does not know, for the next time; how many."""
        text = request_text(request.query, request.history, self.titles)
        if not text:
            return 0
        missing = rows[np.isnan(self.cache.scores(text, rows))]
        if len(missing):
            self.cache.add(text, missing, self.scorer.score([text] * len(missing), missing))
        return len(missing)


def request_text(query: str, history: Rows, titles: Sequence[str], most: int = TITLES) -> str:
    """The query, or the latest titles, latest first, joined by '; '; empty where there is neither."""
    if query:
        return query
    named = (titles[row] for row in history[:most].tolist() if row >= 0)
    return "; ".join(title for title in named if title)
