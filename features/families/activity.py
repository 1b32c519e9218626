"""The activity families say how old, how recent and how active the item, the user and the request are."""

from __future__ import annotations

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.kernel import MAX_RECENT_IMPRESSIONS

RECENCY_FEATURES = (
    Feature(
        "item_age_h", "recency", "Time since the item's first impression or interaction in the log.", "hours",
        "the log has neither an impression nor an interaction of the item",
    ),
    Feature(
        "since_interaction_h", "recency", "Time since the last interaction of any user with the item.", "hours",
        "the log has no interaction with the item",
    ),
    Feature(
        "since_published_h", "recency", "Time since the item was published, by its field `published`.", "hours",
        "the item has no field `published`",
    ),
    Feature(
        "recent_impressions", "recency",
        f"Number of times that the user was shown the item, among their latest {MAX_RECENT_IMPRESSIONS} impressions.",
        "count", "never",
    ),
)  # fmt: skip
USER_FEATURES = (
    Feature("n_interactions", "user", "Number of interactions of the user.", "log(1 + count)", "never"),
    Feature(
        "user_since_interaction_min", "user", "Time since the user's last interaction.", "minutes",
        "the user has no history, or the request gave a history without times",
    ),
    Feature(
        "last10_span", "user", "Time between the user's latest interaction and the tenth latest one.",
        "log(1 + seconds)", "the user has fewer than ten interactions, or `history_length` is below 10",
    ),
    Feature("candidates", "user", "Number of candidates of the request.", "log(count)", "never"),
)  # fmt: skip


def recency(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute item age, time since the item's last interaction, and the user's recent impressions of the item."""
    published = np.where(batch.rows >= 0, inputs.item_model.catalogue.published[batch.rows], np.nan)
    columns = (
        batch.item_age / np.float32(3600),
        batch.since_interaction / np.float32(3600),
        ((batch.at[batch.request_index] - published) / 3600).astype(np.float32),
        batch.impressions,
    )
    return dict(zip(RECENCY_FEATURES, columns, strict=True))


def user(batch: Batch, _: FamilyInputs) -> Columns:
    """Compute features of the user and of the request; all candidates of a request have the same values."""
    since = (batch.at - batch.history_at[:, 0]) / 60 if batch.history_at.shape[1] else np.full(len(batch.at), np.nan)
    span = batch.history_at[:, :1] - batch.history_at[:, 9:10] if batch.history_at.shape[1] > 9 else None
    values = (
        np.log1p(batch.interaction_count),
        since,
        np.full(len(batch.at), np.nan) if span is None else np.log1p(np.maximum(span[:, 0], 0)),
        np.log(np.maximum(np.diff(batch.offsets), 1)),
    )
    groups = batch.request_index
    return {feature: value.astype(np.float32)[groups] for feature, value in zip(USER_FEATURES, values, strict=True)}
