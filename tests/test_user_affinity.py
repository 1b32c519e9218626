"""User-item features against slow references, and the builder: a batch equals its requests bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import UNKNOWN_ROW, Batch, Matrix, ResolvedRequest
from feedrank.features.bm25 import TermWeights
from feedrank.features.builder import FeatureBuilder
from feedrank.features.families.history import category_scores, item_item_scores, stat_distances
from feedrank.features.families.registry import FAMILIES
from feedrank.features.families.similarity import TOP_K, vector_scores
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.item_model import ItemItemMatrix, ItemModel, UserItemVectors
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.items.item_model import ItemSettings, fit_item_views
from feedrank.models.items.user_histories import UserHistories

ITEMS = 12
RANDOM = np.random.default_rng(8)
SOURCES = unit_rows(RANDOM.normal(size=(ITEMS, 20)).astype(np.float32))
TARGETS = unit_rows(RANDOM.normal(size=(ITEMS, 20)).astype(np.float32))
SOURCES[3] = TARGETS[4] = 0
DENSE = RANDOM.normal(size=(ITEMS, ITEMS)).astype(np.float32) * (RANDOM.random((ITEMS, ITEMS)) < 0.4)
CATEGORIES = [[], [0], [0, 1], [2], [1, 2], [0, 1, 2], [3], [], [0], [1], [2, 3], [0]]

HISTORIES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=8), min_size=1, max_size=4)
CANDIDATES = st.lists(st.integers(UNKNOWN_ROW, ITEMS - 1), max_size=5)


def batch_of(histories: list[list[int]], candidates: list[list[int]], depth: int = 8) -> Batch:
    sizes = [len(rows) for rows in candidates]
    n, requests = sum(sizes), len(histories)
    return Batch(
        at=np.zeros(requests),
        rows=np.array([row for rows in candidates for row in rows], np.int32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        history=np.array([[*history, *[UNKNOWN_ROW] * depth][:depth] for history in histories], np.int32),
        history_at=np.full((requests, depth), np.nan),
        interaction_count=np.zeros(requests, np.int64),
        impressions=np.zeros(n, np.float32),
        item_age=np.zeros(n, np.float32),
        since_interaction=np.zeros(n, np.float32),
        counters=np.zeros((n, 1), np.float32),
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    histories = draw(HISTORIES)
    return batch_of(histories, [draw(CANDIDATES) for _ in histories])


def candidates_and_histories(batch: Batch) -> list[tuple[int, list[int]]]:
    """(candidate, history of its user, latest first) of each row."""
    histories = [[row for row in rows if row != UNKNOWN_ROW] for rows in batch.history.tolist()]
    return [(int(row), histories[group]) for row, group in zip(batch.rows, batch.request_index, strict=True)]


def close(found: Matrix, expected: list[list[float]]) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected, np.float64).reshape(found.shape), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(batch=batches())
def test_user_item_vector_scores(batch: Batch) -> None:
    decays, expected = (0.7, 1.0), []
    for row, history in candidates_and_histories(batch):
        if not history or row == UNKNOWN_ROW:
            expected.append([np.nan] * 5)
            continue
        line = []
        for decay in decays:
            profile = sum(decay**age * SOURCES[item].astype(np.float64) for age, item in enumerate(history))
            length = np.linalg.norm(profile)
            line.append(profile @ TARGETS[row] / length if length > 0 else np.nan)
        each = [float(SOURCES[item] @ TARGETS[row]) for item in history]
        best = sorted(each, reverse=True)[:TOP_K]
        expected.append([*line, each[0], best[0], sum(best) / len(best)])
    close(vector_scores(UserItemVectors(SOURCES, TARGETS), batch, decays), expected)


@settings(deadline=None, max_examples=60)
@given(batch=batches())
def test_item_item_scores(batch: Batch) -> None:
    filled = DENSE != 0
    table = ItemItemMatrix(
        np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64),
        np.nonzero(filled)[1].astype(np.int32),
        DENSE[filled],
    )
    decays, depths = (1.0, 0.5, 0.9), (1, 3, 40)
    expected = [
        [
            sum(decay**age * float(DENSE[item, row]) for age, item in enumerate(history[:depth]))
            if history and row != UNKNOWN_ROW
            else np.nan
            for decay, depth in zip(decays, depths, strict=True)
        ]
        for row, history in candidates_and_histories(batch)
    ]
    close(item_item_scores(table, batch, decays, depths), expected)


@settings(deadline=None, max_examples=60)
@given(batch=batches())
def test_category_scores(batch: Batch) -> None:
    codes = np.array([code for names in CATEGORIES for code in names], np.int32)
    bounds = np.concatenate([[0], np.cumsum([len(names) for names in CATEGORIES])]).astype(np.int64)
    shares = np.array([0.4, 0.3, 0.3, 0.0], np.float32)
    decay, expected = 0.8, []
    for row, history in candidates_and_histories(batch):
        if not history or row == UNKNOWN_ROW or not CATEGORIES[row]:
            expected.append([np.nan] * 3)
            continue
        plain, recent = np.zeros(4), np.zeros(4)
        for age, item in enumerate(history):
            for code in CATEGORIES[item]:
                plain[code] += 1 / len(CATEGORIES[item])
                recent[code] += decay**age / len(CATEGORIES[item])
        of, total = CATEGORIES[row], len(history)
        usual = np.maximum(shares, 1e-6)
        expected.append(
            [
                float(np.mean([plain[code] / total for code in of])),
                float(np.mean([recent[code] / sum(decay**age for age in range(total)) for code in of])),
                float(np.mean([np.log((plain[code] + 5 * usual[code]) / (total + 5) / usual[code]) for code in of])),
            ]
        )
    close(category_scores(codes, bounds, shares, batch, decay), expected)


@settings(deadline=None, max_examples=60)
@given(batch=batches())
def test_distances(batch: Batch) -> None:
    values = np.array([np.nan, 1, 2, 3, np.nan, 5, 6, 7, 8, 9, 10, 11], np.float32)
    decay, expected = 0.8, []
    for row, history in candidates_and_histories(batch):
        own = values[row] if row != UNKNOWN_ROW else np.nan
        known = [(decay**age, values[item]) for age, item in enumerate(history) if values[item] == values[item]]
        mean = sum(w * v for w, v in known) / sum(w for w, _ in known) if known else np.nan
        expected.append([own, own - mean])
    close(stat_distances(values, batch, decay), expected)


# --- the builder ---------------------------------------------------------------------------------------------------

SPEC = StateSpec(half_lives_h=(1.0, 24.0, 168.0, float("inf")), history_length=20)
USERS = 15
START = 1_700_000_000_000


@pytest.fixture(scope="module")
def world() -> tuple[ItemModel, BehaviouralState]:
    """An item model fitted on random histories, and a state of the same events."""
    random = np.random.default_rng(5)
    names = ["red", "green", "blue", "shoe", "hat", "coat"]
    items = {
        f"i{row}": {
            "title": " ".join(random.choice(names, 3)),
            "category": [f"c{code}" for code in random.integers(0, 4, row % 3)],
            "published": float(START - row * 10**9) if row % 4 else "",
        }
        for row in range(40)
    }
    catalogue = Catalogue.from_items(items)
    events: list[Event] = []
    for n in range(500):
        at, user = START + n * 60_000, f"u{random.integers(0, USERS)}"
        if n % 3 == 0:
            shown = [f"i{row}" for row in random.permutation(40)[:8]]
            events.append(RankingEvent(f"r{n}", at, tuple(shown), user))
        else:
            item = f"i{random.integers(0, 38)}"  # the last two have no interactions
            kind, value = "hide" if n % 10 == 1 else "rating", float(random.integers(1, 6))
            events.append(InteractionEvent(f"c{n}", at, item, kind, None, user, value=value))
    log = events_to_table(events, catalogue.ids)
    text = unit_rows(random.normal(size=(40, 16)).astype(np.float32))
    terms = TermWeights.fit(catalogue.documents())
    settings_ = ItemSettings(cooccurrence_rank=6, transition_rank=6, ease_items=20, neighbours=15)
    state = BehaviouralState(catalogue, SPEC)
    state.advance(log)
    return fit_item_views(catalogue, text, terms, UserHistories.from_log(log), settings_), state


def requests_of(world: tuple[ItemModel, BehaviouralState]) -> tuple[list[ResolvedRequest], list[np.ndarray]]:
    """Users with and without a history, with and without a query; candidates from none to all, some unknown."""
    _, state = world
    random = np.random.default_rng(6)
    requests, candidates = [], []
    for n, size in enumerate([10, 1, 40, 0, 7, 33, 2, 100, 3, 17, 5, 64, 31]):
        user = int(random.integers(UNKNOWN_ROW, USERS))
        history, times = state.history(user)
        query = ("", "red shoe", "unheard-of")[n % 3]
        vector = unit_rows(random.normal(size=(1, 16)).astype(np.float32))[0] if query else None
        at = START / 1000 + 40_000 + n
        requests.append(ResolvedRequest(at, user, history, times, history, query, vector))
        candidates.append(random.integers(UNKNOWN_ROW if n % 2 else 0, 40, size).astype(np.int32))
    return requests, candidates


@pytest.mark.parametrize("with_queries", [False, True])
def test_a_batch_is_its_requests_bit_for_bit(world: tuple[ItemModel, BehaviouralState], with_queries: bool) -> None:
    item_model, state = world
    builder = FeatureBuilder(item_model, SPEC)
    requests, candidates = requests_of(world)
    if not with_queries:
        requests = [replace(request, query="", query_vector=None) for request in requests]
    together = builder.matrix(state.read(requests, candidates))
    alone = [builder.matrix(state.read([one], [rows])) for one, rows in zip(requests, candidates, strict=True)]
    assert together.shape == (sum(map(len, candidates)), len(builder.names))
    assert together.dtype == np.float32
    stacked = np.concatenate(alone)
    differ = [
        name for position, name in enumerate(builder.names)
        if not np.array_equal(together[:, position], stacked[:, position], equal_nan=True)
    ]  # fmt: skip
    assert differ == []
    assert np.isnan(together[np.concatenate(candidates) == UNKNOWN_ROW]).all()
    assert not np.isinf(together).any()
    # every column but those of a query has values for some user
    silent = {name for position, name in enumerate(builder.names) if np.isnan(together[:, position]).all()}
    assert silent == (set() if with_queries else {"bm25_query", "query_cosine"})


def test_an_unknown_candidate_changes_nothing_for_the_others(world: tuple[ItemModel, BehaviouralState]) -> None:
    item_model, state = world
    builder = FeatureBuilder(item_model, SPEC)
    history, times = state.history(1)
    request = ResolvedRequest(START / 1000 + 40_000, 1, history, times, history)
    known = np.arange(20, dtype=np.int32)
    alone = builder.matrix(state.read([request], [known]))
    among = builder.matrix(state.read([request], [np.insert(known, 7, UNKNOWN_ROW)]))
    differ = np.any((np.delete(among, 7, axis=0) != alone) & ~np.isnan(alone), axis=0)
    assert [builder.names[position] for position in np.flatnonzero(differ)] == ["candidates"]


def test_no_two_features_share_a_name(world: tuple[ItemModel, BehaviouralState]) -> None:
    item_model, _ = world
    builder = FeatureBuilder(item_model, SPEC)
    assert len(set(builder.names)) == len(builder.names)
    # a view and a table of the same name keep their own columns
    assert {"transition", "cooccurrence"} <= item_model.vectors.keys() & item_model.item_item.keys()
    for name in item_model.vectors:
        assert {f"{name}_{tag}" for tag in ("decay0.7", "decay0.93", "decay1", "latest", "max", "top5_mean")} <= set(
            builder.names
        )
    for name in item_model.item_item:
        assert {f"{name}_i2i_{tag}" for tag in ("latest", "decay0.7", "decay0.93")} <= set(builder.names)
    crossing = replace(item_model, item_stats={"bm25": np.zeros(40, np.float32)})
    with pytest.raises(ValueError, match="two features are named bm25"):
        FeatureBuilder(crossing, SPEC)


def test_the_fingerprint_is_of_the_spec_and_the_families(world: tuple[ItemModel, BehaviouralState]) -> None:
    item_model, _ = world
    builders = [
        FeatureBuilder(item_model, SPEC),
        FeatureBuilder(item_model, replace(SPEC, history_length=21)),
        FeatureBuilder(item_model, replace(SPEC, half_lives_h=(1.0, 24.0, 168.0))),
        FeatureBuilder(item_model, SPEC, FeatureSettings(tuple(FAMILIES)[:-1])),
        FeatureBuilder(item_model, SPEC, FeatureSettings(("bm25", "recall"))),
        FeatureBuilder(item_model, SPEC, FeatureSettings(("recall", "bm25"))),
    ]
    assert len({builder.fingerprint for builder in builders}) == len(builders)
    assert FeatureBuilder(item_model, SPEC).fingerprint == builders[0].fingerprint
    with pytest.raises(ValueError, match="no feature family 'horoscope'; there are recall, bm25"):
        FeatureSettings(("horoscope",))


def test_an_item_model_of_another_size_is_refused(world: tuple[ItemModel, BehaviouralState]) -> None:
    with pytest.raises(ValueError, match="item stat mean_value has 3 rows for 40 items"):
        replace(world[0], item_stats={"mean_value": np.zeros(3, np.float32)})
