"""Listwise features compare a candidate with the other candidates of its request (its group)."""

from __future__ import annotations

from functools import cache

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch, Matrix, Offsets, Scores
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.jit import jit

LISTWISE_FEATURES = (
    "recall_score", "bm25", "text_decay1", "text_max", "text_top5_mean", "content_decay0.93", "content_decay1",
    "content_top5_mean", "cca_decay1", "cca_decay0.93", "ctr_1h", "ctr_24h", "impressions_1h", "item_age_h",
    "category_lift", "popularity_pre_log", "popularity_all", "item_clicks_over_expected_all", "maxsim_max",
    "maxsim_mean", "maxsim_query",
)  # fmt: skip
"""Columns whose z-score within the request is a listwise feature as well."""


def listwise(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute listwise features: z-scores of columns within the request."""
    names = [name for name in LISTWISE_FEATURES if name in inputs.columns]
    if not names:
        return {}
    columns = np.stack([inputs.columns[name] for name in names], axis=1).astype(np.float32)
    z_scores = group_zscore(columns, batch.offsets)
    return {z_score_feature(name): z_scores[:, i] for i, name in enumerate(names)}


@cache
def z_score_feature(name: str) -> Feature:
    """Return the record of the z-score of a feature."""
    return Feature(
        f"{name}_z", "listwise", f"Z-score of {name} among the candidates of the request; 0 if all are equal.",
        "standard deviations", f"{name} is missing",
    )  # fmt: skip


def group_zscore(columns: Matrix, offsets: Offsets) -> Matrix:
    """Compute (N, C) z-scores within each group: 0 if all values of a group are equal; NaN stays NaN."""
    out = np.full(columns.shape, np.nan, np.float32)
    _group_zscore(columns, offsets, out)
    return out


def group_percentile(column: Matrix, offsets: Offsets) -> Matrix:
    """Compute the (N,) share of the group's values that are higher: 0 is the best, below 1; NaN stays NaN."""
    out = np.full(len(column), np.nan, np.float32)
    _group_percentile(column, offsets, out)
    return out


def gap_to_best(column: Scores, offsets: Offsets) -> Scores:
    """Compute the (N,) difference to the highest value of the group, at most 0; NaN stays NaN."""
    out = np.full(len(column), np.nan, np.float32)
    _gap_to_best(column, offsets, out)
    return out


@jit
def _gap_to_best(column: Scores, offsets: Offsets, out: Scores) -> None:
    for group in range(len(offsets) - 1):
        best = np.float32(-np.inf)
        for i in range(offsets[group], offsets[group + 1]):
            if column[i] > best:
                best = column[i]
        for i in range(offsets[group], offsets[group + 1]):
            out[i] = column[i] - best


@jit
def _group_zscore(columns: Matrix, offsets: Offsets, out: Matrix) -> None:
    for group in range(len(offsets) - 1):
        for c in range(columns.shape[1]):
            count, total = 0, 0.0
            for i in range(offsets[group], offsets[group + 1]):
                value = columns[i, c]
                if not np.isnan(value):
                    count += 1
                    total += value
            if count == 0:
                continue
            mean = total / count
            # second pass: the one-pass formula loses precision if the deviation is small
            squares = 0.0
            for i in range(offsets[group], offsets[group + 1]):
                value = columns[i, c]
                if not np.isnan(value):
                    squares += (value - mean) ** 2
            deviation = np.sqrt(squares / count)
            for i in range(offsets[group], offsets[group + 1]):
                value = columns[i, c]
                if not np.isnan(value):
                    out[i, c] = (value - mean) / deviation if deviation > 1e-6 else 0.0


@jit
def _group_percentile(column: Matrix, offsets: Offsets, out: Matrix) -> None:
    for group in range(len(offsets) - 1):
        start, stop = offsets[group], offsets[group + 1]
        order = np.argsort(-column[start:stop], kind="mergesort")
        count = np.count_nonzero(~np.isnan(column[start:stop]))
        higher = 0
        for i in range(stop - start):
            value = column[start + order[i]]
            if np.isnan(value):
                continue
            if i > 0 and column[start + order[i - 1]] != value:
                higher = i
            out[start + order[i]] = higher / count
