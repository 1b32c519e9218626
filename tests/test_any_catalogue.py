"""Any catalogue and log: degenerate ones, thousands of categories, long lists, and rankings above LightGBM's limit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import toyworld
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.truth.degenerate import worlds
from benchmarks.truth.degenerate_runs import EXTRAS, run_extra, run_world
from feedrank.api.compose import text_signals
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import InteractionEvent
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix
from feedrank.features.bm25 import TermWeights
from feedrank.features.custom_counters import CounterSpec
from feedrank.features.item_model import ItemModel
from feedrank.features.replay import PointInTimeQueries
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.evaluation.metrics import Ideal
from feedrank.models.items import item_model as item_model_module
from feedrank.models.items import seeded_svd
from feedrank.models.items.category_factors import MAX_FLAGS, RANK, category_inputs, fit_category_factors
from feedrank.models.items.cold_start import ColdStartExtender
from feedrank.models.items.collaborative_views import eigen_factors, item_cosine
from feedrank.models.items.content_views import cca_view, center, predicted_cf_factors
from feedrank.models.items.item_model import ItemSettings, fit_item_views
from feedrank.models.items.seeded_svd import truncated_eigen
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training import group_limit
from feedrank.models.training.dataset import LabeledGroups
from feedrank.models.training.folds import VALIDATION_FOLD, user_folds
from feedrank.models.training.group_limit import MAX_GROUP_ROWS, GroupLimit
from feedrank.models.training.position_bias import capture_position_biases
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings

START = 1_700_000_000_000


# --- degenerate catalogues and logs


@pytest.mark.parametrize("number", range(0, 300, 25))
def test_a_degenerate_catalogue_or_log_gives_a_feed_or_a_reason(number: int, tmp_path: Path) -> None:
    world = list(worlds(number + 1))[number]
    faults = run_world(world, tmp_path / "home")
    faults += run_extra(world, tmp_path / "home", number // 25 % len(EXTRAS))
    assert not faults, "\n".join(map(str, faults))


def test_the_worlds_are_the_same_each_time_and_have_every_value() -> None:
    drawn = list(worlds(40))
    assert drawn == list(worlds(40))
    assert {len(world.items) for world in drawn} >= {0, 1, 2, 3}
    assert not all(world.log for world in drawn)


class OneText:
    """Stands for the default embedder where no item has a text: it gives all of them the vector of the empty text."""

    digest = "one text"

    def __init__(self, *_: object) -> None:
        self._vector = unit_rows(np.random.default_rng(3).normal(size=(1, 384)).astype(np.float32))

    def encode(self, texts: list[str], _: object = None) -> Matrix:
        return np.repeat(self._vector, len(texts), axis=0)


@pytest.mark.parametrize("embedder", ["none", "default"])
def test_ids_alone_give_a_feed_by_behaviour(embedder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three groups of ten items without any field; each user has six items of one group."""
    dice = np.random.default_rng(0)
    events = [
        {"event": "item", "id": f"i{row}", "timestamp": START, "item": f"i{row}", "fields": []} for row in range(30)
    ]
    events += [
        {"event": "interaction", "id": f"e{user}-{step}", "timestamp": START + (6 * user + step) * 1_000,
         "item": f"i{10 * (user % 3) + row}", "type": "click", "user": f"u{user}"}
        for user in range(40)
        for step, row in enumerate(dice.permutation(10)[:6].tolist())
    ]  # fmt: skip
    monkeypatch.setattr(text_signals, "SentenceEmbedder", OneText)
    (tmp_path / "feedrank.toml").write_text("" if embedder == "default" else '[embedder]\nmodel = "none"\n')
    feedrank(tmp_path, "import", toyworld.write(tmp_path / "log.jsonl", events))
    feedrank(tmp_path, "index")
    for user in range(3):
        feed = json.loads(feedrank(tmp_path, "recommend", "--user", f"u{user}", "--json"))["items"]
        assert {int(entry["id"][1:]) // 10 for entry in feed[:4]} == {user}


def test_one_text_for_all_items_is_no_difference_between_them() -> None:
    text = np.repeat(unit_rows(np.random.default_rng(1).normal(size=(1, 384)).astype(np.float32)), 30, axis=0)
    assert not center(text).any()
    text[7] = -text[7]
    centered = center(text)
    assert np.linalg.norm(centered, axis=1) == pytest.approx(np.ones(30), abs=1e-5)
    assert centered[7] @ centered[0] == pytest.approx(-1, abs=1e-5)


def histories(rows: list[list[int]], values: float = np.nan) -> UserHistories:
    """Histories of users as lists of item rows."""
    items = np.array([row for user in rows for row in user], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in rows])]).astype(np.int64)
    times = np.arange(len(items), dtype=np.float64)
    return UserHistories.plain(offsets, items, times, np.full(len(items), values), np.arange(len(items)))


@given(
    st.integers(0, 4), st.integers(0, 3), st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=4), st.booleans()
)
def test_the_item_model_of_few_items_is_finite(
    n_items: int, width: int, users: list[list[int]], same_category: bool
) -> None:
    catalogue = Catalogue.from_items({f"i{i}": {"category": "all"} if same_category else {} for i in range(n_items)})
    text = np.ones((n_items, width), np.float32) / np.float32(np.sqrt(max(width, 1)))
    known = histories([[row for row in user if row < n_items] for user in users], 1e300)
    model = fit_item_views(catalogue, text, TermWeights.fit(catalogue.documents()), known, ItemSettings())
    arrays = [model.space.item_side, model.space.user_side, *model.item_stats.values()]
    arrays += [side for pair in model.vectors.values() for side in pair]
    arrays += [matrix.values for matrix in model.item_item.values()]
    for array in arrays:
        assert not np.isinf(array).any()
    assert all(np.isfinite(array).all() for array in arrays if array.ndim == 2)


def test_a_crawler_does_not_fill_the_co_occurrence_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue.from_items({f"i{i}": {} for i in range(300)})
    text, terms = np.zeros((300, 0), np.float32), TermWeights.fit(catalogue.documents())
    monkeypatch.setattr(item_model_module, "MAX_COSINE_HISTORY", 20)
    model = fit_item_views(catalogue, text, terms, histories([list(range(300)), [3, 5]]), ItemSettings(ease_items=0))
    matrix = model.item_item["cooccurrence"]
    rows = np.repeat(np.arange(300), np.diff(matrix.offsets))
    assert len(rows) == 20 * 19 + 2
    assert set(rows.tolist()) == {3, 5, *range(280, 300)}


def pairs_of_clicks(n_items: int = 2_000, n_users: int = 1_000) -> UserHistories:
    """Users with two random items each, so that their co-occurrences have hundreds of equal eigenvalues."""
    dice = np.random.default_rng(1)
    return histories([dice.choice(n_items, 2, replace=False).tolist() for _ in range(n_users)])


def test_a_log_of_users_with_two_items_has_an_item_model() -> None:
    catalogue, known = Catalogue.from_items({f"i{i}": {} for i in range(2_000)}), pairs_of_clicks()
    text, terms = np.zeros((2_000, 0), np.float32), TermWeights.fit([""] * 2_000)
    model = fit_item_views(catalogue, text, terms, known, ItemSettings(ease_items=0))
    again = fit_item_views(catalogue, text, terms, known, ItemSettings(ease_items=0))
    assert np.array_equal(model.space.item_side, again.space.item_side)
    assert np.isfinite(model.space.item_side).all()
    seen = np.bincount(known.items, minlength=2_000) > 0
    assert not model.space.item_side[~seen].any()
    assert np.linalg.norm(model.space.item_side[seen], axis=1).min() > 0
    partners = known.items.reshape(-1, 2)
    score = np.einsum("ij,ij->i", model.space.user_side[partners[:, 0]], model.space.item_side[partners[:, 1]])
    others = model.space.user_side[partners[:, 0]] @ model.space.item_side[seen].T
    assert score.mean() > others.mean() + 5 * others.std() / np.sqrt(len(score))


@pytest.mark.parametrize("rank", [8, 64])
def test_factors_of_many_equal_eigenvalues_are_eigenvectors(rank: int) -> None:
    known = pairs_of_clicks()
    matrix = item_cosine(known.user, known.items, 2_000, 1_000).astype(np.float64)
    values, vectors = truncated_eigen(matrix, rank, 7)
    assert np.abs(vectors.T @ vectors - np.eye(rank)).max() < 1e-6
    assert np.abs(matrix @ vectors - vectors * values).max() < 1e-4
    assert values[-1] == pytest.approx(float(np.linalg.eigvalsh(matrix.toarray())[-1]), rel=1e-5)


def test_factors_that_do_not_converge_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = pairs_of_clicks()
    matrix = item_cosine(known.user, known.items, 2_000, 1_000)
    monkeypatch.setattr(seeded_svd, "MAX_RESTARTS", 2)
    with pytest.raises(ValueError, match="none of 8 factors of 2,000 items converged"):
        eigen_factors(matrix, 8, 7)
    monkeypatch.setattr(seeded_svd, "TOLERANCE", 1e-3)
    factors = eigen_factors(matrix, 100, 7)
    assert factors.shape == (2_000, 100)
    n_converged = int(factors.any(axis=0).sum())
    assert 0 < n_converged < 100
    assert f"{n_converged} of 100 factors of 2000 items converged" in caplog.text


# --- small logs


def test_few_users_are_dealt_to_training_and_validation() -> None:
    for seed in range(20):
        folds = user_folds(np.array([5, 5, 90], np.int32), 100, 4, seed)
        assert {int(folds[5]), int(folds[90])} >= {VALIDATION_FOLD}
        assert folds[5] != folds[90]
    many = np.arange(100, dtype=np.int32)
    assert np.array_equal(user_folds(many, 100, 4, 7), np.random.default_rng(7).permutation(100) % 4)


def test_a_log_of_short_histories_says_how_long_they_are(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
    short = [event for event in toyworld.interactions() if int(event["id"].rpartition("-")[2]) < 4]
    feedrank(tmp_path, "import", toyworld.write(tmp_path / "log.jsonl", toyworld.items() + short))
    for command in ("train", "evaluate", "retrain"):
        message = feedrank(tmp_path, command, code=1)
        assert "the longest history has" in message
        assert "min_history" in message


def test_a_single_row_is_trained_without_a_sample_of_no_row() -> None:
    one = QueryGroups(np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.array([0, 1]))
    ranker = LambdaRanker.train([one], one, ("a", "b"), "f", LambdaRankSettings(rounds=2))
    assert np.isfinite(ranker.score(np.zeros((3, 2), np.float32))).all()


def test_debugging_output_of_lightgbm_ends_with_the_capture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = lgb.Dataset(np.random.default_rng(0).normal(size=(50, 2)), np.arange(50) % 2)
    with capture_position_biases():
        booster = lgb.train({"objective": "regression", "verbosity": 2}, data, 2)
    booster.save_model(tmp_path / "booster.txt")
    capfd.readouterr()
    lgb.Booster(model_file=tmp_path / "booster.txt")
    assert capfd.readouterr().out == ""


# --- many categories


def many_categories(n_items: int = 1_400, n_categories: int = 700) -> ItemModel:
    """Two items a brand; a user keeps to the brands of one of seven kinds, brand modulo seven."""
    catalogue = Catalogue.from_items({f"i{i}": {"category": f"brand {i % n_categories}"} for i in range(n_items)})
    dice = np.random.default_rng(2)
    users = [(7 * dice.integers(0, n_items // 7 - 1, 12) + user % 7).tolist() for user in range(210)]
    known = histories(users)
    text = np.zeros((n_items, 0), np.float32)
    ranks = ItemSettings(ease_items=0, cooccurrence_rank=16, transition_rank=16)
    return fit_item_views(catalogue, text, TermWeights.fit([""] * n_items), known, ranks)


def test_content_views_of_many_categories_are_narrow_and_know_them() -> None:
    model = many_categories()
    assert model.category_factors is not None
    assert model.category_factors.shape == (700, RANK)
    for name, gap in (("content", 0.3), ("cca", 0.04)):
        pair = model.vectors[name]
        assert pair.item_side.shape[1] <= RANK
        scores = pair.user_side[:70] @ pair.item_side[70:700].T
        same_kind = (np.arange(70)[:, None] - np.arange(70, 700)[None]) % 7 == 0
        assert scores[same_kind].mean() > scores[~same_kind].mean() + gap, name


def test_a_few_categories_keep_their_flags() -> None:
    catalogue = Catalogue.from_items({f"i{i}": {"category": f"c{i % MAX_FLAGS}"} for i in range(2 * MAX_FLAGS)})
    known = histories([[0, 1, 2], [3, 4]])
    assert fit_category_factors(catalogue, known, 7) is None
    flags = category_inputs(catalogue, None)
    assert flags.shape == (2 * MAX_FLAGS, MAX_FLAGS)
    assert np.array_equal(np.argmax(flags, axis=1), np.arange(2 * MAX_FLAGS) % MAX_FLAGS)


@pytest.mark.parametrize("users", [[], [[0]], [[0, 1], [1]], [[5, 5, 5], [5], [5]]])
def test_factors_of_categories_without_interactions_are_zero(users: list[list[int]]) -> None:
    catalogue = Catalogue.from_items({f"i{i}": {"category": f"brand {i}"} for i in range(MAX_FLAGS + 10)})
    factors = fit_category_factors(catalogue, histories(users), 7)
    assert factors is not None
    has_interactions = np.zeros(len(factors), np.bool_)
    has_interactions[[row for user in users for row in user]] = True
    assert not factors[~has_interactions].any()
    norms = np.linalg.norm(factors, axis=1)
    assert np.all((norms == 0) | (np.abs(norms - 1) < 1e-5))
    inputs = category_inputs(catalogue, factors)
    vectors = np.zeros((len(catalogue), 0), np.float32)
    views = (predicted_cf_factors(vectors, inputs, np.zeros((len(catalogue), 2), np.float32), histories(users)),
             *cca_view(vectors, inputs, histories(users)))  # fmt: skip
    assert all(np.isfinite(view).all() for view in views)


def test_a_cold_start_item_of_a_known_brand_gets_the_vectors_of_that_brand() -> None:
    model = many_categories()
    new = {"new": {"category": "brand 14"}, "unknown": {"category": "a brand of its own"}}
    grown = ColdStartExtender(model).extend(model, new, np.zeros((2, 0), np.float32), ["", ""])
    for name in ("content", "cca"):
        for side in grown.vectors[name]:
            assert float(side[1_400] @ side[14]) == pytest.approx(1, abs=0.02)


# --- long lists


def test_one_long_list_reserves_no_room_for_all_rows() -> None:
    items = {f"i{row}": {"tags": [f"t{tag}" for tag in range(2_000 if row == 0 else 1)]} for row in range(50)}
    catalogue = Catalogue.from_items(items)
    state = BehaviouralState(catalogue, StateSpec(counters=(CounterSpec("tags", "tags"),)))
    log = [InteractionEvent(f"e{n}", START + n, f"i{n % 50}", "click", None, "u") for n in range(600)]
    state.advance(events_to_table([*log, InteractionEvent("x", START + 600, "unknown", "click")], catalogue.ids))
    assert len(state.arrays()["custom_counters.keys"]) <= 12 * (2_000 + 49)


# --- groups above LightGBM's limit


def labeled(sizes: list[int], clicked: list[int]) -> LabeledGroups:
    """Groups of these sizes, the last rows of each clicked."""
    labels = [np.arange(size) >= size - count for size, count in zip(sizes, clicked, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n, total = len(sizes), int(offsets[-1])
    rows = np.arange(total, dtype=np.int32)
    queries = PointInTimeQueries(np.arange(n), np.zeros(n), np.zeros(n, np.int32), offsets, rows)
    bounds = np.concatenate([[0], np.cumsum(clicked)]).astype(np.int64)
    ideal = Ideal(np.ones(sum(clicked), np.float32), bounds)
    columns = np.concatenate(labels).astype(np.float32)
    return LabeledGroups(queries, columns, ideal, np.arange(sum(clicked)), rows + 1, rows.astype(np.int64))


def test_a_large_group_loses_rows_that_were_not_clicked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_limit, "MAX_GROUP_ROWS", 10)
    groups, limit = labeled([10, 25, 3, 11], [1, 9, 3, 0]), GroupLimit(7)
    cut = limit.cut(groups)
    assert np.diff(cut.queries.offsets).tolist() == [10, 10, 3, 10]
    assert cut.labels.sum() == groups.labels.sum()
    assert np.array_equal(cut.positions, cut.queries.rows + 1)
    assert np.array_equal(cut.impression_index, cut.queries.rows)
    assert np.array_equal(cut.queries.rows, GroupLimit(7).cut(groups).queries.rows)
    alone = GroupLimit(7).cut(groups.select(np.arange(4) == 1))
    assert np.array_equal(alone.queries.rows, cut.queries.rows[10:20])  # whichever groups are cut with it
    (note,) = limit.notes
    assert "2 rankings" in note
    assert "the longest has 25" in note
    assert "16 rows" in note
    assert "none of them clicked" in note
    assert GroupLimit(7).cut(labeled([10, 2], [1, 1])).labels.tolist() == [0.0] * 9 + [1.0, 0.0, 1.0]


def test_more_clicked_items_than_the_limit_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_limit, "MAX_GROUP_ROWS", 10)
    limit = GroupLimit(7)
    cut = limit.cut(labeled([30], [20]))
    assert len(cut.labels) == 10
    assert "clicked rows are left out too" in limit.notes[1]


def test_lightgbm_takes_groups_up_to_the_limit() -> None:
    matrix = np.random.default_rng(0).normal(size=(MAX_GROUP_ROWS, 2)).astype(np.float32)
    labels = (np.arange(MAX_GROUP_ROWS) % 100 == 0).astype(np.float32)
    group = QueryGroups(matrix, labels, np.array([0, MAX_GROUP_ROWS]))
    LambdaRanker.train([group], group, ("a", "b"), "f", LambdaRankSettings(rounds=1))


def test_training_says_what_it_left_out(rankings_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(shutil.copytree(rankings_home, tmp_path / "home", symlinks=True))
    monkeypatch.setattr(group_limit, "MAX_GROUP_ROWS", 5)
    assert "note: 800 rankings with more than 5 items" in feedrank(home, "train", "--promote")
    assert "rows drawn at random are left out of training, none of them clicked" in feedrank(home, "evaluate")
