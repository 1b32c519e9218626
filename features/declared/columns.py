"""Computes the columns of declared features, each by its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.types import Offsets
from feedrank.features.declared import count_columns, diversity_columns, match_columns, value_columns, vector_columns
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, Values, record
from feedrank.features.families.listwise import group_percentile, group_zscore

KINDS: Mapping[str, Callable[[DeclaredBatch, DeclaredFeature], NamedColumns]] = {
    "number": value_columns.number_columns,
    "numbers": value_columns.numbers_columns,
    "boolean": value_columns.boolean_columns,
    "category": value_columns.category_columns,
    "list": value_columns.list_columns,
    "vector": vector_columns.vector_columns,
    "word_count": value_columns.word_count_columns,
    "item_age": value_columns.item_age_columns,
    "local_time": value_columns.local_time_columns,
    "user_agent": value_columns.category_columns,
    "referer": value_columns.category_columns,
    "count": count_columns.count_columns,
    "rate": count_columns.rate_columns,
    "interacted_with": count_columns.interacted_with_columns,
    "distance": value_columns.distance_columns,
    "match": match_columns.match_columns,
    "diversity": diversity_columns.diversity_columns,
    "random": value_columns.random_columns,
}
"""Kind of a declared feature -> the function that computes its columns."""


def compute(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the columns of a feature, then their standings among the candidates of each request."""
    columns = KINDS[feature.kind](batch, feature)
    if feature.fallback:
        others = KINDS[feature.kind](batch, replace(feature, from_=feature.fallback, fallback=""))
        columns = [
            (of, np.where(np.isnan(column), other, column))
            for (of, column), (_, other) in zip(columns, others, strict=True)
        ]
    standings = [
        (_standing(of.name, standing), _within(column, batch.batch.offsets, standing))
        for of, column in columns
        for standing in feature.within
    ]
    return columns + standings


def _within(column: Values, offsets: Offsets, standing: str) -> Values:
    values = column.astype(np.float32)
    if standing == "minmax":
        return _minmax(column, offsets)
    found = group_zscore(values[:, None], offsets)[:, 0] if standing == "z" else group_percentile(values, offsets)
    return found.astype(np.float64)


def _minmax(column: Values, offsets: Offsets) -> Values:
    """Scale each request's values to 0 for the least and 1 for the greatest; NaN where all are equal."""
    sizes = np.diff(offsets)
    starts = offsets[:-1][sizes > 0]
    if not len(starts):
        return column
    least, greatest = (np.repeat(extreme.reduceat(column, starts), sizes[sizes > 0]) for extreme in (np.fmin, np.fmax))
    return np.where(greatest > least, (column - least) / np.where(greatest > least, greatest - least, 1), np.nan)


@cache
def _standing(name: str, standing: str) -> Feature:
    if standing == "z":
        sentence, unit = f"Z-score of {name} among the candidates of the request.", "standard deviations"
    else:
        sentence, unit = f"Share of the request's candidates with a greater {name}.", "share, 0 to 1"
    return record(f"{name}_{standing}", sentence, unit, f"{name} is missing")
