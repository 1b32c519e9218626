"""Computes cross-encoder scores of a user's next candidates before the user asks for a feed."""

from __future__ import annotations

from feedrank.engine.serving.pipeline import Reading
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import QueryVectors


def precompute_scores(snapshot: ServingSnapshot, user: str, lock: Reading) -> int:
    """Precompute the cross-encoder scores of a user's next candidates; return how many pairs were scored.

    lock: that of the state; it is not held while candidates are selected and scored.
    """
    if snapshot.pipeline.reranker is None:
        return 0
    with lock:
        resolved = snapshot.resolve(snapshot.high_watermark_ms / 1000, RecommendationRequest(user), QueryVectors())
    candidates = snapshot.pipeline.recall(resolved, reading=lock)
    return snapshot.pipeline.reranker.precompute(resolved, candidates.rows)
