"""The feature builder computes the feature matrix of a batch. It is the only place where features are made.

A feature family is a function of the batch that returns named columns. Position and ids are never features. A missing
value is NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace
from feedrank.engine.types import Batch, Matrix, Scores, Vector
from feedrank.features import custom_counters
from feedrank.features.counters import SMOOTHING, rates
from feedrank.features.item_model import ItemModel
from feedrank.features.late_interaction import MAX_HISTORY_ITEMS, maxsim_scores
from feedrank.features.listwise import gap_to_best, group_percentile, group_zscore
from feedrank.features.state import StateSpec
from feedrank.features.user_affinity import TOP_K, category_scores, item_item_scores, stat_distances, vector_scores

VECTOR_DECAYS = (0.7, 0.93, 1.0)
"""Decays of the user profile vectors: weight of an interaction relative to the next more recent one."""
ITEM_ITEM_DECAYS, ITEM_ITEM_DEPTHS = (1.0, 0.7, 0.93), (1, 15, 40)
ITEM_ITEM_SUFFIXES = ("latest", "decay0.7", "decay0.93")
RECENT_DECAY = 0.8
"""The decay of families that use a single decay."""
BM25_TITLES = 10
"""Number of latest titles that form the BM25 query of a request without a query."""
LISTWISE_FEATURES = (
    "recall_score", "bm25", "text_decay1", "text_max", "text_top5_mean", "content_decay0.93", "content_decay1",
    "content_top5_mean", "cca_decay1", "cca_decay0.93", "ctr_1h", "ctr_24h", "impressions_1h", "item_age_h",
    "category_lift", "popularity_pre_log", "popularity_all", "item_clicks_over_expected_all", "maxsim_max",
    "maxsim_mean", "maxsim_query",
)  # fmt: skip
"""Columns whose z-score within the request is a listwise feature as well."""
CROSS_ENCODER = "cross_encoder"
"""Key of the cross-encoder in `ItemModel.model_digests`."""
Columns = dict[str, Scores]


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """[features] Which feature families the matrix has."""

    families: tuple[str, ...] = (
        "recall", "bm25", "similarity", "late_interaction", "cross_encoder", "item_item", "rates", "recency",
        "categories", "item_stats", "custom_counters", "user", "listwise",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in self.families:
            if name not in FAMILIES:
                raise ValueError(f"no feature family {name!r}; there are {', '.join(FAMILIES)}")


class FeatureBuilder:
    """Builds the feature matrix of a batch from its behavioural state and from the item model."""

    def __init__(
        self, item_model: ItemModel, spec: StateSpec, settings: FeatureSettings | None = None,
        category_shares: Vector | None = None,
    ) -> None:  # fmt: skip
        """Create the builder of an item model.

        category_shares: shares that the ranker was trained with, if items were added since; None: those of the
        catalogue.
        """
        self.item_model = item_model
        self.spec = spec
        self.settings = settings or FeatureSettings()
        shares = _category_shares(item_model.catalogue)
        if category_shares is not None:
            shares[: len(category_shares)] = category_shares
        self.category_shares = shares
        self._names = tuple(self.columns(_empty_batch(spec)))

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        return self._names

    @property
    def fingerprint(self) -> str:
        """Digest of the ordered feature names and of all settings that change feature values."""
        inputs = [
            self._names,
            self.spec.half_lives_h,
            self.spec.history_length,
            VECTOR_DECAYS,
            ITEM_ITEM_DECAYS,
            ITEM_ITEM_DEPTHS,
            RECENT_DECAY,
            BM25_TITLES,
            MAX_HISTORY_ITEMS,
            SMOOTHING,
            TOP_K,
            [asdict(counter) for counter in self.spec.counters],
            sorted(self.item_model.model_digests.items()),
        ]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]

    def columns(self, batch: Batch) -> Columns:
        """Compute the columns: feature name -> (N,) float32, in column order.

        Raises ValueError if two features have the same name.
        """
        columns: Columns = {}
        for family in self.settings.families:
            added = FAMILIES[family](self, batch, columns)
            if duplicates := columns.keys() & added.keys():
                raise ValueError(f"two features are named {', '.join(sorted(duplicates))}; rename one, or its counter")
            columns |= added
        return columns

    def matrix(self, batch: Batch) -> Matrix:
        """Compute the feature matrix: (N, F) float32, NaN where a value is missing."""
        columns = self.columns(batch)
        out = np.empty((len(batch.rows), len(columns)), np.float32)
        for i, column in enumerate(columns.values()):
            out[:, i] = column
        out[batch.rows < 0] = np.nan  # an unknown item has no features
        return out

    def set_cross_encoder_features(self, matrix: Matrix, batch: Batch) -> None:
        """Overwrite the cross-encoder columns of a matrix with the batch's scores; other columns stay."""
        for name, column in _cross_encoder(self, batch, {}).items():
            matrix[:, self._names.index(name)] = np.where(batch.rows >= 0, column, np.nan)


def _recall(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute the recall score (dot product) and its percentile within the request."""
    space = builder.item_model.space
    scores = np.full(len(batch.rows), np.nan, np.float32)
    for request in range(len(batch.at)):
        rows = slice(int(batch.offsets[request]), int(batch.offsets[request + 1]))
        user = space.user_vector(batch.history[request])
        if user.any():
            # einsum, not BLAS: bits do not depend on the batch size
            scores[rows] = np.einsum("nd,d->n", space.item_side[batch.rows[rows]], user, optimize=False)
    scores[batch.rows < 0] = np.nan  # row -1 would read the last item's vector
    return {"recall_score": scores, "recall_pct": group_percentile(scores, batch.offsets)}


def _bm25(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute the BM25 score of the query or of the latest titles."""
    return {"bm25": builder.item_model.term_weights.scores(batch, BM25_TITLES)}


def _similarity(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute cosines between candidates and the user's history, per view, and between candidates and the query."""
    columns: Columns = {}
    for name, vectors in builder.item_model.vectors.items():
        tags = [f"decay{decay:g}" for decay in VECTOR_DECAYS] + ["latest", "max", "top5_mean"]
        columns |= _named_columns(f"{name}_", tags, vector_scores(vectors, batch, VECTOR_DECAYS))
    columns["query_cosine"] = _query_cosine(builder.item_model.space, batch)
    return columns


def _late_interaction(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute late-interaction (MaxSim) scores; no columns if the item model has no token vectors."""
    tokens = builder.item_model.token_vectors
    return (
        {}
        if tokens is None
        else _named_columns("maxsim_", ["latest", "max", "mean", "query"], maxsim_scores(tokens, batch))
    )


def _cross_encoder(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute the cross-encoder score and its gap to the best of the request; no columns without a model."""
    if CROSS_ENCODER not in builder.item_model.model_digests:
        return {}
    scores = (
        batch.cross_encoder_scores if len(batch.cross_encoder_scores) else np.full(len(batch.rows), np.nan, np.float32)
    )
    return _named_columns("ce_", ["score", "gap"], np.stack([scores, gap_to_best(scores, batch.offsets)], axis=1))


def _item_item(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute item-item scores: decayed sums of matrix entries over the user's history."""
    columns: Columns = {}
    for name, matrix in builder.item_model.item_item.items():
        columns |= _named_columns(
            f"{name}_i2i_", ITEM_ITEM_SUFFIXES, item_item_scores(matrix, batch, ITEM_ITEM_DECAYS, ITEM_ITEM_DEPTHS)
        )
    return columns


def _rates(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute popularity, impressions and click-through rates from the decayed counters."""
    return rates(batch, builder.spec)


def _recency(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute item age, time since the item's last interaction, and the user's recent impressions of the item."""
    published = np.where(batch.rows >= 0, builder.item_model.catalogue.published[batch.rows], np.nan)
    return {
        "item_age_h": batch.item_age / np.float32(3600),
        "since_interaction_h": batch.since_interaction / np.float32(3600),
        "since_published_h": ((batch.at[batch.request_index] - published) / 3600).astype(np.float32),
        "recent_impressions": batch.impressions,
    }


def _categories(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute the user's affinity to the candidate's categories."""
    catalogue = builder.item_model.catalogue
    affinity = category_scores(
        catalogue.category_codes, catalogue.category_offsets, builder.category_shares, batch, RECENT_DECAY
    )
    return _named_columns("category_", ["share", "recent", "lift"], affinity)


def _item_stats(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute each item statistic and its distance to the mean over the user's history."""
    columns: Columns = {}
    for name, values in builder.item_model.item_stats.items():
        columns |= _named_columns(name, ["", "_distance"], stat_distances(values, batch, RECENT_DECAY))
    return columns


def _custom_counters(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """Compute the features of the counters that the config declares."""
    return custom_counters.counter_features(batch, builder.spec.counters)


def _user(_: FeatureBuilder, batch: Batch, __: Columns) -> Columns:
    """Compute features of the user and of the request; all candidates of a request have the same values."""
    since = (batch.at - batch.history_at[:, 0]) / 60 if batch.history_at.shape[1] else np.full(len(batch.at), np.nan)
    span = batch.history_at[:, :1] - batch.history_at[:, 9:10] if batch.history_at.shape[1] > 9 else None
    values = {
        "n_interactions": np.log1p(batch.interaction_count),
        "user_since_interaction_min": since,
        "last10_span": np.full(len(batch.at), np.nan) if span is None else np.log1p(np.maximum(span[:, 0], 0)),
        "candidates": np.log(np.maximum(np.diff(batch.offsets), 1)),
    }
    groups = batch.request_index
    return {name: column.astype(np.float32)[groups] for name, column in values.items()}


def _listwise(_: FeatureBuilder, batch: Batch, columns: Columns) -> Columns:
    """Compute listwise features: z-scores of columns within the request."""
    names = [name for name in LISTWISE_FEATURES if name in columns]
    if not names:
        return {}
    z_scores = group_zscore(np.stack([columns[name] for name in names], axis=1).astype(np.float32), batch.offsets)
    return _named_columns("", [f"{name}_z" for name in names], z_scores)


FAMILIES: dict[str, Callable[[FeatureBuilder, Batch, Columns], Columns]] = {
    "recall": _recall,
    "bm25": _bm25,
    "similarity": _similarity,
    "late_interaction": _late_interaction,
    "cross_encoder": _cross_encoder,
    "item_item": _item_item,
    "rates": _rates,
    "recency": _recency,
    "categories": _categories,
    "item_stats": _item_stats,
    "custom_counters": _custom_counters,
    "user": _user,
    "listwise": _listwise,
}


def _named_columns(prefix: str, suffixes: Iterable[str], values: Matrix) -> Columns:
    return {f"{prefix}{tag}": values[:, i] for i, tag in enumerate(suffixes)}


def _query_cosine(space: EmbeddingSpace, batch: Batch) -> Scores:
    """Compute the (N,) cosine between the request's query vector and the candidate; NaN without a query."""
    if batch.query_vectors is None:
        return np.full(len(batch.rows), np.nan, np.float32)
    block = space.block("text")
    targets = space.item_side[batch.rows, block.slice] / np.float32(np.sqrt(block.weight))
    scores: Scores = np.einsum("nd,nd->n", targets, batch.query_vectors[batch.request_index], optimize=False)
    return scores


def _category_shares(catalogue: Catalogue) -> Vector:
    """Compute the (categories,) share of each category in the catalogue; an item's weight is split evenly."""
    sizes = np.diff(catalogue.category_offsets)
    weights = np.repeat(1 / np.maximum(sizes, 1), sizes)
    shares = np.bincount(catalogue.category_codes, weights, len(catalogue.categories))
    return np.asarray(shares / max(shares.sum(), 1), np.float32)


def _empty_batch(spec: StateSpec) -> Batch:
    """Build a batch of one request without candidates, to compute the feature names."""
    empty = np.empty(0, np.float32)
    return Batch(
        at=np.zeros(1),
        rows=np.empty(0, np.int32),
        offsets=np.zeros(2, np.int64),
        history=np.full((1, spec.history_length), -1, np.int32),
        history_at=np.full((1, spec.history_length), np.nan),
        interaction_count=np.zeros(1, np.int64),
        impressions=empty,
        item_age=empty,
        since_interaction=empty,
        counters=np.empty((0, spec.width), np.float32),
        custom_counters=np.empty((0, custom_counters.n_columns(spec.counters)), np.float32),
    )
