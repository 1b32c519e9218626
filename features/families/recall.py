"""The recall family compares candidates with the user vector of embedding recall."""

from __future__ import annotations

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.families.listwise import group_percentile

_NO_HISTORY = "the user has no history"
RECALL_SCORE = Feature(
    "recall_score", "recall", "Dot product of the item vector with the user vector of embedding recall.",
    "dot product", _NO_HISTORY,
)  # fmt: skip
RECALL_PCT = Feature(
    "recall_pct", "recall", "Share of the request's candidates that have a higher recall score.",
    "share, 0 (best) to below 1", _NO_HISTORY,
)  # fmt: skip


def recall(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute the recall score (dot product) and its percentile within the request."""
    space = inputs.item_model.space
    scores = np.full(len(batch.rows), np.nan, np.float32)
    for request in range(len(batch.at)):
        rows = slice(int(batch.offsets[request]), int(batch.offsets[request + 1]))
        user = space.user_vector(batch.history[request])
        if user.any():
            # einsum, not BLAS: bits do not depend on the batch size
            scores[rows] = np.einsum("nd,d->n", space.item_side[batch.rows[rows]], user, optimize=False)
    scores[batch.rows < 0] = np.nan  # row -1 would read the last item's vector
    return {RECALL_SCORE: scores, RECALL_PCT: group_percentile(scores, batch.offsets)}
