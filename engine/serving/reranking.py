"""The second ranking stage: cross-encoder scores, which are too slow for every candidate.

Cached scores are used for all candidates. Of the top candidates of a cheap first-stage ranker, those that are not
cached are scored during the request. The rest stay NaN, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.protocols import Featurizer, PairScorer, Ranker, ScoreCache
from feedrank.engine.serving.deadline import Watch, no_watch
from feedrank.engine.types import Batch, Matrix, Request, Rows, Scores

STEP = 15
"""(text, item) pairs that a request with a deadline scores before it checks the time again."""
TITLES = 3
"""How many of the latest titles replace a missing query."""


@dataclass(frozen=True, slots=True)
class Rescoring:
    """Fills in the cross-encoder scores of a request's candidates."""

    first: Ranker
    """The cheap ranker that selects the candidates to score; it is trained without cross-encoder scores."""
    scorer: PairScorer
    cache: ScoreCache
    titles: Sequence[str]
    """(n,) titles of all items; those of the latest interactions replace a missing query."""
    best: int = 30
    """How many of the first-stage top candidates are scored during a request; 0: cached scores only."""

    def matrix(
        self, request: Request, batch: Batch, featurizer: Featurizer, watch: Watch | None = None
    ) -> tuple[Matrix, Scores]:
        """Compute the (N, F) features with cross-encoder columns, and the (N,) cross-encoder scores (NaN: none)."""
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
        scored = self._score(text, batch.rows, scores, top[np.isnan(scores[top])], watch)
        if len(scored):
            self.cache.add(text, batch.rows[scored], scores[scored])
            featurizer.set_pairs(matrix, replace(batch, pair_scores=scores))
            watch.count("pairs_live", len(scored))
        watch.count("pairs_none", int(np.count_nonzero(np.isnan(scores))))
        return matrix, scores

    def _score(self, text: str, rows: Rows, scores: Scores, top: NDArray[np.intp], watch: Watch) -> NDArray[np.intp]:
        """Score the candidates at these indices in place while the budget lasts; return the indices that were scored.

        With a deadline they are scored in chunks, and the affordable number is estimated again after each chunk.
        """
        wanted = affordable = watch.fits("pairs", len(top), "rank", "journal")
        chunk_size, n_scored = wanted if watch.left == np.inf else STEP, 0
        while affordable:
            chunk = top[n_scored : n_scored + min(chunk_size, affordable)]
            scores[chunk] = self.scorer.score([text] * len(chunk), rows[chunk])
            watch.mark("pairs", len(chunk))
            n_scored += len(chunk)
            affordable = watch.fits("pairs", wanted - n_scored, "rank", "journal")
        if n_scored < len(top):
            watch.skip("pairs")
        return top[:n_scored]

    def prepare(self, request: Request, rows: Rows) -> int:
        """Score the request's pairs that are not cached and cache them for the next request; return how many."""
        text = request_text(request.query, request.history, self.titles)
        if not text:
            return 0
        missing = rows[np.isnan(self.cache.scores(text, rows))]
        if len(missing):
            self.cache.add(text, missing, self.scorer.score([text] * len(missing), missing))
        return len(missing)


def request_text(query: str, history: Rows, titles: Sequence[str], most: int = TITLES) -> str:
    """Return the query or, without one, the latest titles, latest first, joined by '; '; empty if there are none."""
    if query:
        return query
    latest_titles = (titles[row] for row in history[:most].tolist() if row >= 0)
    return "; ".join(title for title in latest_titles if title)
