"""Makes the ranking of one request with one pipeline: candidates in order, cut to the items to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.retrieval.diversity import diversify
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.fallback import FallbackChain
from feedrank.engine.serving.ranking_record import RankingJob, RankingRecord
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot, embed_query
from feedrank.engine.types import Matrix, QueryVectors, Ranking, Scores

OnRanked = Callable[[Matrix, Scores], None]
"""Called with the (N, F) features and (N,) scores of all candidates of a ranking."""


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request in no experiment: one pipeline ranks it. `AssignedRequest` has the same methods."""

    ranking_id: str
    request: RecommendationRequest
    snapshot: ServingSnapshot

    def embed_queries(self, budget: LatencyBudget) -> dict[str, QueryVectors]:
        """Encode the query. Slow: call it without the lock."""
        return {"": embed_query(self.snapshot, self.request, budget)}

    def rank(
        self, timestamp: int, vectors: dict[str, QueryVectors], chain: FallbackChain, budget: LatencyBudget,
        on_ranked: OnRanked,
    ) -> RankingRecord:  # fmt: skip
        """Rank the candidates and keep the items to show. timestamp: epoch milliseconds."""
        resolved = self.snapshot.resolve(timestamp / 1000, self.request, vectors[""])
        job = RankingJob(self.ranking_id, timestamp, self.request, resolved, self.snapshot, self.snapshot.pipeline)
        level, ranking = rank_candidates(job, chain, budget, on_ranked)
        return RankingRecord.from_ranking(job, level, ranking.take(select_items(job, ranking, budget)))


def rank_candidates(
    job: RankingJob, chain: FallbackChain, budget: LatencyBudget, on_ranked: OnRanked
) -> tuple[str, Ranking]:
    """Return the fallback level that succeeded and its ranking of all candidates."""
    explicit = None if job.request.items is None else job.snapshot.catalogue.ids.rows(job.request.items)
    level, ranking = chain.run(job.snapshot, job.resolved, budget, explicit, job.pipeline)
    on_ranked(ranking.features, ranking.scores)
    return level, ranking


def select_items(job: RankingJob, ranking: Ranking, budget: LatencyBudget) -> NDArray[np.int64]:
    """(n,) indices into the ranking of the items to show: the best ones, diversified if the request asks for it."""
    request = job.request
    if not (request.diversity.weight or request.diversity.per_category):
        return np.arange(min(request.n, len(ranking.order)))
    indices = diversify(
        ranking.rows, ranking.scores, request.n, request.diversity, job.snapshot.catalogue, job.snapshot.item_vectors
    )
    budget.record("diversity")
    return indices
