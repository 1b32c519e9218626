"""Conformance check for feature families: records, shapes, and the same bits in any batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.feature import Feature
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import UNKNOWN_ROW, Batch, ResolvedRequest, Rows
from feedrank.features.builder import FeatureBuilder
from feedrank.features.families.extra import load_extra_families
from feedrank.features.families.family import Columns, FamilyFunction, FamilyInputs
from feedrank.features.families.registry import FAMILIES
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.item_model import ItemModel
from feedrank.features.sample_item_model import sample_item_model
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec

N_ITEMS = 60
N_USERS = 12
START = 1_700_000_000
"""Unix seconds of the first event of the sample log."""
MANY_REQUESTS = 600
"""Requests of the large batch, with some 24,000 candidates."""


def check_feature_family(
    family: FamilyFunction | str, item_model: ItemModel | None = None, spec: StateSpec | None = None
) -> None:
    """Check that a feature family gives float32 columns with records, and each request the same bits in any batch.

    family: the function, or its path as in the config: "package.module:function". item_model: by default a sample with
    made-up values; it must have text vectors of the embedding space of the same size. spec: by default that of the
    config. Raises AssertionError with what was found and expected.
    """
    if isinstance(family, str):
        family = load_extra_families([family])[family]
    item_model, spec = item_model or sample_item_model(N_ITEMS), spec or StateSpec()
    state = _sample_state(item_model, spec)
    builder = FeatureBuilder(item_model, spec, FeatureSettings(_families_before(family)), None)
    check = _FamilyCheck(family, builder)
    requests, candidates = _sample_requests(item_model, state, 13)
    batch = _read(state, requests, candidates)
    expected = check.columns(batch, "a batch of 13 requests")
    features = list(expected)
    _check_records(features)
    for name, other in (
        ("the same batch again", batch),
        ("a batch without candidates", _read(state, requests[:1], [candidates[0][:0]])),
        ("a batch without requests", _read(state, [], [])),
        ("a batch without queries", replace(batch, queries=(), query_vectors=None, query_tokens=())),
        ("a batch without cross-encoder scores", replace(batch, cross_encoder_scores=np.empty(0, np.float32))),
    ):
        found = check.columns(other, name)
        _check(list(found) == features, f"features of {name}: found {_names(found)}, expected {_names(expected)}")
        if other is batch:
            _check_same_bits(found, expected, slice(None), f"{name}; a family must not be random or remember anything")
    bounds = batch.offsets.tolist()
    for index, (first, stop) in enumerate(pairwise(bounds)):
        alone = check.columns(_read(state, requests[index : index + 1], candidates[index : index + 1]), "one request")
        reason = (
            f"request {index} alone, not in a batch; a family must not mix the requests of a batch, nor use BLAS "
            "(@, np.dot), whose last bits depend on the size"
        )
        _check_same_bits(alone, expected, slice(first, stop), reason)
    order = np.random.default_rng(3).permutation(len(requests)).tolist()
    shuffled = _read(state, [requests[index] for index in order], [candidates[index] for index in order])
    found = check.columns(shuffled, "a batch in another order")
    for index, (first, stop) in zip(order, pairwise(shuffled.offsets.tolist()), strict=True):
        part = {feature: column[first:stop] for feature, column in found.items()}
        reason = f"request {index} in a batch in another order; a family must not depend on the order of requests"
        _check_same_bits(part, expected, slice(bounds[index], bounds[index + 1]), reason)
    _check_many(check, state, requests, candidates, expected)


class _FamilyCheck:
    """Computes columns of a family and checks what holds for every batch."""

    def __init__(self, family: FamilyFunction, builder: FeatureBuilder) -> None:
        """builder: of the families before this one."""
        self._family, self._builder = family, builder

    def columns(self, batch: Batch, context: str) -> Columns:
        """Compute the columns of a batch. Raises AssertionError."""
        builder, before = self._builder, copy.deepcopy(batch)
        earlier = {
            feature.name: column
            for name, columns in builder.family_columns(batch)
            for feature, column in columns.items()
            if name != "cross_encoder"
        }
        given = {name: column.copy() for name, column in earlier.items()}
        inputs = FamilyInputs(builder.item_model, builder.spec, builder.category_shares, earlier)
        columns = self._family(batch, inputs)
        _check(isinstance(columns, dict), f"{context}: found a {type(columns).__name__}, expected a dict by Feature")
        for feature, column in columns.items():
            _check(isinstance(feature, Feature), f"{context}: found the key {feature!r}, expected a Feature record")
            kind = (getattr(column, "dtype", type(column)), getattr(column, "shape", None))
            wanted = (np.dtype(np.float32), batch.rows.shape)
            _check(kind == wanted, f"{feature.name} of {context}: found dtype and shape {kind}, expected {wanted}")
            finite = not np.isinf(column[batch.rows >= 0]).any()
            _check(finite, f"{feature.name} of {context}: found an infinite value; expected numbers or NaN for missing")
        for field in fields(batch):
            same = _equal(getattr(batch, field.name), getattr(before, field.name))
            _check(same, f"{context}: the family changed batch.{field.name}; it must not change its input")
        _check(
            earlier.keys() == given.keys() and all(_equal(earlier[name], given[name]) for name in given),
            f"{context}: the family changed the columns of other families; it must not change its input",
        )
        return columns


def _check_many(
    check: _FamilyCheck, state: BehaviouralState, requests: Sequence[ResolvedRequest], candidates: Sequence[Rows],
    expected: Columns,
) -> None:  # fmt: skip
    """Check that requests have the same bits in a large batch."""
    copies = MANY_REQUESTS // len(requests)
    large = _read(state, list(requests) * copies, list(candidates) * copies)
    context = f"a batch of {len(large.at):,} requests and {len(large.rows):,} candidates"
    found, size = check.columns(large, context), len(next(iter(expected.values()), ()))
    for repeat in range(copies):
        part = {feature: column[repeat * size : (repeat + 1) * size] for feature, column in found.items()}
        reason = f"requests in {context}; use sums in a fixed order (np.einsum with optimize=False), not BLAS"
        _check_same_bits(part, expected, slice(None), reason)


def _check_records(features: Sequence[Feature]) -> None:
    names = [feature.name for feature in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    _check(not twice, f"found two records named {', '.join(twice)}, expected a name for each")
    families = sorted({feature.family for feature in features})
    _check(len(families) <= 1, f"found records of the families {', '.join(families)}, expected one family")
    for feature in features:
        _check(feature.sentence.endswith("."), f"{feature.name}: found {feature.sentence!r}, expected a full sentence")


def _check_same_bits(found: Columns, expected: Columns, rows: slice, context: str) -> None:
    _check(list(found) == list(expected), f"{context}: found {_names(found)}, expected {_names(expected)}")
    for feature, column in found.items():
        other = expected[feature][rows]
        if not np.array_equal(column, other, equal_nan=True):
            at = int(np.flatnonzero((column != other) & ~(np.isnan(column) & np.isnan(other)))[0])
            _check(False, f"{feature.name}: found {column[at]}, expected the same bits as {other[at]} for {context}")


def _families_before(family: FamilyFunction) -> tuple[str, ...]:
    """Return the built-in families whose columns the family may read: those before it, or all of them."""
    names = tuple(FAMILIES)
    return next((names[:index] for index, name in enumerate(names) if FAMILIES[name] is family), names)


def _sample_state(item_model: ItemModel, spec: StateSpec) -> BehaviouralState:
    """Replay a sample log of rankings and interactions; the last two items have no events."""
    random, ids = np.random.default_rng(5), list(item_model.catalogue.ids)
    active = max(len(ids) - 2, 1)
    events: list[Event] = []
    for n in range(600):
        at, user = (START + n * 60) * 1_000, f"user {random.integers(0, N_USERS)}"
        if n % 3:
            item = ids[random.integers(0, active)]
            kind = "hide" if n % 5 == 0 else ("click", "rating")[n % 2]
            events.append(InteractionEvent(f"c{n}", at, item, kind, None, user, value=4.0))
        else:
            shown = tuple(ids[row] for row in random.permutation(active)[:8])
            events.append(RankingEvent(f"r{n}", at, shown, user))
    state = BehaviouralState(item_model.catalogue, spec)
    state.advance(events_to_table(events, item_model.catalogue.ids))
    return state


def _sample_requests(
    item_model: ItemModel, state: BehaviouralState, count: int
) -> tuple[list[ResolvedRequest], list[Rows]]:
    """Return requests with and without a user, a history and a query; none to 100 candidates each, some unknown."""
    random, n_items = np.random.default_rng(6), len(item_model.catalogue)
    block = item_model.space.block("text")
    requests, candidates = [], []
    for n, size in enumerate((10, 1, 40, 0, 7, 33, 2, 100, 3, 17, 5, 64, 31)[:count]):
        user = UNKNOWN_ROW if n % 4 == 3 else int(random.integers(0, N_USERS + 2))  # the last two have no history
        history, times = state.history(user)
        query = ("", "red shoe", "unheard-of")[n % 3]
        vector = unit_rows(random.normal(size=(1, block.stop - block.start)).astype(np.float32))[0] if query else None
        tokens = None
        if query and item_model.token_vectors is not None and item_model.token_vectors.projection is None:
            tokens = unit_rows(random.normal(size=(4, item_model.token_vectors.values.shape[1])).astype(np.float32))
        at = float(START + 40_000 + n)
        requests.append(ResolvedRequest(at, user, history, times, history, query, vector, tokens))
        candidates.append(random.integers(UNKNOWN_ROW if n % 2 else 0, n_items, size).astype(np.int32))
    return requests, candidates


def _read(state: BehaviouralState, requests: Sequence[ResolvedRequest], candidates: Sequence[Rows]) -> Batch:
    """Read a batch and give each (request, item) pair a cross-encoder score; some have none."""
    batch = state.read(requests, candidates)
    scores = np.sin(batch.at[batch.request_index] * (batch.rows + 1.5)).astype(np.float32)
    scores[batch.rows % 3 == 0] = np.nan
    return replace(batch, cross_encoder_scores=scores)


def _names(columns: Columns) -> str:
    return ", ".join(feature.name for feature in columns) or "no features"


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, np.ndarray) and isinstance(expected, np.ndarray):
        floats = np.issubdtype(found.dtype, np.floating)
        return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=bool(floats))
    if isinstance(found, tuple) and isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(_equal, found, expected))
    return bool(found == expected)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
