"""The ranking pipeline: recall, features, ranker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.engine.protocols import Featurizer, Ranker, Retriever, State
from feedrank.engine.serving.deadline import LatencyBudget, unlimited_budget
from feedrank.engine.serving.reranking import CrossEncoderReranker
from feedrank.engine.types import Batch, Candidates, Ranking, ResolvedRequest, Rows, in_recall_order

EXPLICIT = "explicit"
"""The `source` of candidates that the caller lists explicitly."""


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
    """Retrieves popular items, the fallback where ranking fails."""

    def run(
        self, request: ResolvedRequest, budget: LatencyBudget | None = None, explicit: Rows | None = None
    ) -> Ranking:
        """Rank all candidates of a request.

        explicit: (n,) rows to rank instead of what recall returns. If the budget has no time for ranking, the
        candidates stay in recall order.
        """
        budget = budget or unlimited_budget()
        if explicit is None:
            candidates = self.retriever.retrieve(request, self.n_candidates)
            budget.record("recall")
        else:
            candidates = explicit_candidates(explicit)
        if not budget.has_time_for("features", "rank", "journal", units=len(candidates.rows)):
            budget.skip("rank")
            return in_recall_order(candidates, len(self.featurizer.names))
        return self.rank(request, self.state.read([request], [candidates.rows]), candidates, budget)

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
