"""The text relevance families score items against the request's query, or against the user's latest items."""

from __future__ import annotations

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.families.listwise import gap_to_best
from feedrank.features.item_model import CROSS_ENCODER
from feedrank.features.late_interaction import MAX_HISTORY_ITEMS, maxsim_scores

BM25_TITLES = 10
"""Number of latest titles that form the BM25 query of the user."""
BM25 = Feature(
    "bm25", "bm25", f"BM25 score of the item's text for the texts of the user's latest {BM25_TITLES} items.",
    "BM25 score", "the user has no history",
)  # fmt: skip
BM25_QUERY = Feature(
    "bm25_query", "bm25", "BM25 score of the item's text for the query.", "BM25 score",
    "the request has no query, or no item has a word of it",
)  # fmt: skip
_NO_TOKENS = f"the candidate has no text, or none of the user's latest {MAX_HISTORY_ITEMS} items has"
LATE_INTERACTION_FEATURES = tuple(
    Feature(f"maxsim_{tag}", "late_interaction", f"{sentence}.", "mean cosine of tokens, -1 to 1", missing)
    for tag, sentence, missing in (
        ("latest", "MaxSim of the tokens of the user's latest item with those of the candidate",
         "the candidate or the user's latest item has no text"),
        ("max", f"Highest MaxSim of the candidate with one of the user's latest {MAX_HISTORY_ITEMS} items", _NO_TOKENS),
        ("mean", f"Mean MaxSim of the candidate with the user's latest {MAX_HISTORY_ITEMS} items", _NO_TOKENS),
        ("query", "MaxSim of the tokens of the query with those of the candidate",
         "the request has no query, or the candidate has no text"),
    )
)  # fmt: skip
_NOT_SCORED = "the pair is not in the score cache, and the item is not among the best of the first-stage ranker"
CROSS_ENCODER_FEATURES = (
    Feature(
        "ce_score", "cross_encoder",
        "Score of the cross-encoder for the item's text and the query, or the user's latest titles without a query.",
        "model score", _NOT_SCORED,
    ),
    Feature(
        "ce_gap", "cross_encoder", "Cross-encoder score minus the highest one of the request.",
        "model score, at most 0", _NOT_SCORED,
    ),
)  # fmt: skip


def bm25(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute the BM25 scores of the latest items and of the query."""
    weights = inputs.item_model.term_weights
    return {BM25: weights.title_scores(batch, BM25_TITLES), BM25_QUERY: weights.query_scores(batch)}


def late_interaction(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute late-interaction (MaxSim) scores; no columns if the item model has no token vectors."""
    tokens = inputs.item_model.token_vectors
    if tokens is None:
        return {}
    return dict(zip(LATE_INTERACTION_FEATURES, maxsim_scores(tokens, batch).T, strict=True))


def cross_encoder(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute the cross-encoder score and its gap to the best of the request; no columns without a model."""
    if CROSS_ENCODER not in inputs.item_model.model_digests:
        return {}
    scores = batch.cross_encoder_scores
    if not len(scores):
        scores = np.full(len(batch.rows), np.nan, np.float32)
    return dict(zip(CROSS_ENCODER_FEATURES, (scores, gap_to_best(scores, batch.offsets)), strict=True))
