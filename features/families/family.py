"""A feature family is a function of a batch and of the family inputs that returns columns by their records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch, Scores, Vector
from feedrank.features.item_model import ItemModel
from feedrank.features.state_spec import StateSpec

Columns: TypeAlias = dict[Feature, Scores]
"""Record -> (N,) float32 column, in column order. The record is the key, so neither can be without the other."""


@dataclass(frozen=True, eq=False, slots=True)
class FamilyInputs:
    """What a feature family may read besides the batch. A family must not change any of it."""

    item_model: ItemModel
    spec: StateSpec
    """What the behavioural state stores: half-lives, history length and custom counters."""
    category_shares: Vector
    """(categories,) share of each category in the catalogue that the ranker was trained with."""
    columns: Mapping[str, Scores]
    """Feature name -> (N,) column of the families before this one, without the cross-encoder's, which come later."""


FamilyFunction: TypeAlias = Callable[[Batch, FamilyInputs], Columns]
"""Computes the columns of a batch: the same records for every batch, and for each request the same bits in any batch.

A missing value is NaN. Position and ids are never features.
"""
