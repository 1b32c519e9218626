"""Ranks many requests at one moment, for batch jobs: features and scores are computed for all of them together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import numpy as np

from feedrank.engine.protocols import Ranker
from feedrank.engine.serving.deadline import unlimited_budget
from feedrank.engine.serving.pipeline import FULL, FallbackChain, Pipeline
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import RankingJob, ServingSnapshot, StateReading
from feedrank.engine.types import Matrix, Offsets, QueryVectors, Ranking, ResolvedRequest, Scores

_log = logging.getLogger(__name__)


def rank_batch(
    snapshot: ServingSnapshot, timestamp: int, requests: Sequence[RecommendationRequest], chain: FallbackChain
) -> list[RankingRecord]:
    """Rank the requests, each as if it had come alone at this moment, and cut each list to the items to show.

    timestamp: epoch milliseconds. The requests must have no query and no explicit items. The records have no id and no
    feature rows: nothing of a batch is logged. No other thread may change the state meanwhile.
    """
    budget = unlimited_budget()
    pipeline, reading = snapshot.pipeline, StateReading(snapshot, RecommendationRequest(), nullcontext())
    jobs = [
        RankingJob("", timestamp, request, snapshot.resolve(timestamp / 1000, request, QueryVectors()), snapshot,
                   pipeline, reading)
        for request in requests
    ]  # fmt: skip
    if pipeline.reranker is None:
        try:
            ranked = [(FULL, ranking) for ranking in _run_batch(pipeline, [job.resolved for job in jobs])]
        except Exception:  # one request alone has fallbacks
            _log.exception("a batch of %d requests failed; ranking them one by one", len(jobs))
            ranked = [job.rank_candidates(chain, budget, lambda features, scores: None) for job in jobs]
    else:  # a cross-encoder scores the candidates of one request at a time
        ranked = [job.rank_candidates(chain, budget, lambda features, scores: None) for job in jobs]
    records = []
    for job, (level, ranking) in zip(jobs, ranked, strict=True):
        shown = ranking.take(job.select_items(ranking, budget))
        no_rows = np.empty((0, shown.features.shape[1]), np.float32)
        records.append(RankingRecord.from_ranking(job, level, replace(shown, features=no_rows)))
    return records


def _run_batch(pipeline: Pipeline, requests: Sequence[ResolvedRequest]) -> list[Ranking]:
    """Rank all candidates of each request; the same bits as `Pipeline.run` of each."""
    candidates = [pipeline.recall(request) for request in requests]
    batch = pipeline.state.read(requests, [found.rows for found in candidates])
    matrix = pipeline.featurizer.matrix(batch)
    scores = _score_groups(pipeline.ranker, matrix, batch.offsets)
    rankings = []
    for found, (start, stop) in zip(candidates, pairwise(batch.offsets), strict=True):
        order = np.argsort(-scores[start:stop], kind="stable")
        rankings.append(Ranking(found, order, scores[start:stop][order], matrix[start:stop][order]))
    return rankings


def _score_groups(ranker: Ranker, features: Matrix, offsets: Offsets) -> Scores:
    """(N,) scores of the (N, F) rows of many requests, whose offsets are (R + 1,).

    A ranker may score the rows of many requests at once, by a method `score_groups`; any other one gets the rows of
    one request at a time.
    """
    score_groups = getattr(ranker, "score_groups", None)
    if score_groups is not None:
        return np.asarray(score_groups(features, offsets), np.float32)
    parts = [ranker.score(features[start:stop]) for start, stop in pairwise(offsets)]
    return np.concatenate([np.empty(0, np.float32), *parts])
