"""The second ranking stage: cross-encoder scores, which are too slow for every candidate.

Cached scores are used for all candidates. Of the top candidates of a cheap first-stage ranker, those that are not
cached are scored during the request. The rest stay NaN, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.protocols import CrossEncoderScoreCache, CrossEncoderScorer, Featurizer, Ranker
from feedrank.engine.serving.deadline import LatencyBudget, unlimited_budget
from feedrank.engine.types import Batch, Matrix, ResolvedRequest, Rows, Scores

CHUNK_SIZE = 15
"""(text, item) pairs that a request with a deadline scores before it checks the time again."""
MAX_TITLES = 3
"""How many of the latest titles replace a missing query."""


@dataclass(frozen=True, slots=True)
class CrossEncoderReranker:
    """Fills in the cross-encoder scores of a request's candidates."""

    first_stage: Ranker
    """The cheap ranker that selects the candidates to score; it is trained without cross-encoder scores."""
    scorer: CrossEncoderScorer
    cache: CrossEncoderScoreCache
    titles: Sequence[str]
    """(n,) titles of all items; those of the latest interactions replace a missing query."""
    top_k: int = 30
    """How many of the first-stage top candidates are scored during a request; 0: cached scores only."""

    def matrix(
        self, request: ResolvedRequest, batch: Batch, featurizer: Featurizer, budget: LatencyBudget | None = None
    ) -> tuple[Matrix, Scores]:
        """Compute the (N, F) features with cross-encoder columns, and the (N,) cross-encoder scores (NaN: none)."""
        budget = budget or unlimited_budget()
        text = request_text(request.query, request.history, self.titles)
        scores = self.cache.scores(text, batch.rows)
        matrix = featurizer.matrix(replace(batch, cross_encoder_scores=scores))
        budget.record("features", len(batch.rows))
        budget.count("cross_encoder_cache", int(np.count_nonzero(~np.isnan(scores))))
        if not text or not self.top_k or not np.isnan(scores).any():
            return matrix, scores
        top = np.argsort(-self.first_stage.score(matrix), kind="stable")[: self.top_k]
        budget.record("first_stage")
        scored = self._score_in_budget(text, batch.rows, scores, top[np.isnan(scores[top])], budget)
        if len(scored):
            self.cache.add(text, batch.rows[scored], scores[scored])
            featurizer.set_cross_encoder_features(matrix, replace(batch, cross_encoder_scores=scores))
            budget.count("cross_encoder_live", len(scored))
        budget.count("cross_encoder_missing", int(np.count_nonzero(np.isnan(scores))))
        return matrix, scores

    def _score_in_budget(
        self, text: str, rows: Rows, scores: Scores, top: NDArray[np.intp], budget: LatencyBudget
    ) -> NDArray[np.intp]:
        """Score the candidates at these indices in place while the budget lasts; return the indices that were scored.

        With a deadline they are scored in chunks, and the affordable number is estimated again after each chunk.
        """
        wanted = affordable = budget.units_in_budget("cross_encoder", len(top), "rank", "journal")
        chunk_size, n_scored = wanted if budget.remaining == np.inf else CHUNK_SIZE, 0
        while affordable:
            chunk = top[n_scored : n_scored + min(chunk_size, affordable)]
            scores[chunk] = self.scorer.score([text] * len(chunk), rows[chunk])
            budget.record("cross_encoder", len(chunk))
            n_scored += len(chunk)
            affordable = budget.units_in_budget("cross_encoder", wanted - n_scored, "rank", "journal")
        if n_scored < len(top):
            budget.skip("cross_encoder")
        return top[:n_scored]

    def precompute(self, request: ResolvedRequest, rows: Rows) -> int:
        """Score the request's pairs that are not cached and cache them for the next request; return how many."""
        text = request_text(request.query, request.history, self.titles)
        if not text:
            return 0
        missing = rows[np.isnan(self.cache.scores(text, rows))]
        if len(missing):
            self.cache.add(text, missing, self.scorer.score([text] * len(missing), missing))
        return len(missing)


def request_text(query: str, history: Rows, titles: Sequence[str], max_titles: int = MAX_TITLES) -> str:
    """Return the query or, without one, the latest titles, latest first, joined by '; '; empty if there are none."""
    if query:
        return query
    latest_titles = (titles[row] for row in history[:max_titles].tolist() if row >= 0)
    return "; ".join(title for title in latest_titles if title)
