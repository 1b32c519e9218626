"""The second phase: a signal that is too dear for every candidate.

A cross-encoder's scores come from a cache where it knows them; of the candidates that a cheap first order puts on top,
the others are scored now; the rest stay NaN, as they did in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.protocols import Featurizer, PairScorer, Ranker, ScoreCache
from engine.types import Batch, Matrix, Request, Rows, Scores
from engine.watch import Watch, no_watch

STEP = 15
"""Pairs that a request in a hurry has scored before it looks at the time again."""
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
        done = self._score(text, batch.rows, scores, top[np.isnan(scores[top])], watch)
        if len(done):
            self.cache.add(text, batch.rows[done], scores[done])
            featurizer.set_pairs(matrix, replace(batch, pair_scores=scores))
            watch.count("pairs_live", len(done))
        watch.count("pairs_none", int(np.count_nonzero(np.isnan(scores))))
        return matrix, scores

    def _score(self, text: str, rows: Rows, scores: Scores, top: NDArray[np.intp], watch: Watch) -> NDArray[np.intp]:
        """Fill in the scores at these places as far as there is time; where that was.

        In a hurry a part at a time, and fewer where the machine turns out to be slower by then.
        """
        wanted = timely = watch.fits("pairs", len(top), "rank", "journal")
        step, first = wanted if watch.left == np.inf else STEP, 0
        while timely:
            part = top[first : first + min(step, timely)]
            scores[part] = self.scorer.score([text] * len(part), rows[part])
            watch.mark("pairs", len(part))
            first += len(part)
            timely = watch.fits("pairs", wanted - first, "rank", "journal")
        if first < len(top):
            watch.skip("pairs")
        return top[:first]

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
