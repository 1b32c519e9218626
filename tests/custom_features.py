"""Custom feature families for tests of `[features] extra`: a valid one, and some that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch
from feedrank.features.families.family import Columns, FamilyInputs

TITLE_LENGTH = Feature("title_length", "title", "Number of characters of the item's title.", "characters", "never")
TITLE_AGE = Feature("title_age", "title", "Characters of the title for each hour of the item's age.", "per hour", "new")


def title(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute the length of the title, alone and over the item's age."""
    lengths = np.array([len(text) for text in inputs.item_model.catalogue.titles], np.float32)[batch.rows]
    return {TITLE_LENGTH: lengths, TITLE_AGE: lengths / (inputs.columns["item_age_h"] + np.float32(1))}


def _length(name: str, family: str = "other") -> Feature:
    return Feature(name, family, "Number of characters.", "characters", "never")


def ones(batch: Batch) -> Any:
    return np.ones(len(batch.rows), np.float32)


def taken_name(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("bm25"): ones(batch)}


def taken_family(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length", "bm25"): ones(batch)}


def other_title(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length", "title"): ones(batch)}


def no_record(batch: Batch, _: FamilyInputs) -> Any:
    return {"length": ones(batch)}


def no_dict(batch: Batch, _: FamilyInputs) -> Any:
    return ones(batch)


def wrong_shape(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): np.ones((len(batch.rows), 1), np.float32)}


def wrong_dtype(batch: Batch, _: FamilyInputs) -> Any:
    return {_length("length"): np.ones(len(batch.rows))}


def fails(batch: Batch, _: FamilyInputs) -> Columns:
    raise KeyError("price")


def moody(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): ones(batch)} | ({_length("width"): ones(batch)} if len(batch.rows) else {})


# --- what only `check_feature_family` finds


def of_all_requests(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): np.full(len(batch.rows), batch.item_age.sum(), np.float32)}


def of_the_order(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): (batch.request_index > 0).astype(np.float32)}


def of_the_size(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): np.full(len(batch.rows), len(batch.at) > 500, np.float32)}


def of_chance(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): np.random.default_rng().random(len(batch.rows)).astype(np.float32)}


def infinite(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): np.full(len(batch.rows), np.inf, np.float32)}


def changes_its_input(batch: Batch, _: FamilyInputs) -> Columns:
    batch.impressions[:] += 1
    return {_length("length"): ones(batch)}


def changes_columns(batch: Batch, inputs: FamilyInputs) -> Columns:
    inputs.columns["bm25"][:] = 0
    return {_length("length"): ones(batch)}


def two_families(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): ones(batch), _length("width", "another"): ones(batch)}


def one_name_twice(batch: Batch, _: FamilyInputs) -> Columns:
    return {_length("length"): ones(batch), Feature("length", "other", "Other.", "other", "never"): ones(batch)}
