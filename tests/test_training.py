"""Training: no model sees the labels it predicts, and the ranker learns the order of the toy world."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_svmlight_file

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.codec import parse
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import InteractionEvent, ItemEvent
from feedrank.engine.events.interaction_types import InteractionType, InteractionTypes
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.features.bm25 import TermWeights
from feedrank.features.builder import FeatureBuilder
from feedrank.models.evaluation.ablation import ablate
from feedrank.models.evaluation.evaluation import leave_last_out, logged_rankings, time_split
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.items.item_model import ItemSettings
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training import item_inputs, parquet_dataset, training
from feedrank.models.training.dataset import build_query_groups, from_rankings
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings
from feedrank.models.training.training import train_from_rankings, train_from_recall
from feedrank.models.training.training_settings import ModelSettings, TrainingSettings

SMALL = ModelSettings(
    items=ItemSettings(cooccurrence_rank=4, transition_rank=16),
    training=TrainingSettings(folds=3, targets_per_user=4, min_history=2, candidates=20),
    ranker=LambdaRankSettings(rounds=30, parameters={"min_data_in_leaf": 5}),
)


def world(events: list[dict[str, Any]]) -> tuple[ItemInputs, EventTable]:
    parsed = [parse(event) for event in events]
    catalogue = Catalogue.from_events(event for event in parsed if isinstance(event, ItemEvent))
    documents = catalogue.documents()
    # no neural part: the views of behaviour and BM25 are enough here
    corpus = ItemInputs(catalogue, np.zeros((len(catalogue), 0), np.float32), TermWeights.fit(documents))
    return corpus, events_to_table(parsed, catalogue.ids)


@pytest.fixture(scope="module")
def walks() -> tuple[ItemInputs, EventTable]:
    return world(toyworld.items() + toyworld.interactions())


@pytest.fixture(scope="module")
def lists() -> tuple[ItemInputs, EventTable]:
    return world(toyworld.items() + toyworld.interactions() + toyworld.rankings(200))


def test_features_of_a_group_never_use_an_item_model_that_saw_its_label(
    walks: tuple[ItemInputs, EventTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, log = walks
    fitted: list[set[int]] = []
    seen_rows: list[set[int]] = []
    fit, ask = item_inputs.fit_item_views, training.from_recall

    def fit_items(*arguments: Any) -> Any:
        fitted.append(set(arguments[3].interaction.tolist()))
        return fit(*arguments)

    def from_recall(log: EventTable, histories: UserHistories, targets: Any, *rest: Any) -> Any:
        seen_rows.append(set(histories.interaction[targets].tolist()))
        return ask(log, histories, targets, *rest)

    monkeypatch.setattr(item_inputs, "fit_item_views", fit_items)
    monkeypatch.setattr(training, "from_recall", from_recall)
    usable = log.interactions.at < np.quantile(log.interactions.at, 0.9)
    train_from_recall(corpus, log, usable, SMALL)
    allowed = set(np.flatnonzero(usable).tolist())
    assert len(seen_rows) == SMALL.training.folds
    for learnt, wanted in zip(fitted, seen_rows, strict=False):
        assert wanted
        assert not learnt & wanted
    assert all(learnt <= allowed for learnt in fitted)
    assert set().union(*seen_rows) <= allowed
    assert fitted[-1] == allowed


def test_rankings_are_learnt_from_in_blocks_of_time(
    lists: tuple[ItemInputs, EventTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, log = lists
    latest: list[float] = []
    fit = item_inputs.fit_item_views

    def fit_items(*arguments: Any) -> Any:
        latest.append(float(arguments[3].at.max(initial=-np.inf)))
        return fit(*arguments)

    monkeypatch.setattr(item_inputs, "fit_item_views", fit_items)
    train_from_rankings(corpus, log, 140, 160, replace(SMALL, training=TrainingSettings(folds=2)))
    starts = log.rankings.at[[0, 70, 140, 160]]
    # the first block sees only interactions before the rankings; a refitted ranker serves with all before the test
    assert latest[0] == -np.inf
    assert all(known < start for known, start in zip(latest[1:], starts[1:], strict=True))


def test_the_same_seed_gives_the_same_ranker(walks: tuple[ItemInputs, EventTable], tmp_path: Path) -> None:
    corpus, log = walks
    usable = np.ones(len(log.interactions), np.bool_)
    texts = []
    for name in ("one", "other"):
        train_from_recall(corpus, log, usable, SMALL).ranker.save(tmp_path / name)
        texts.append((tmp_path / name / "ranker-0.txt").read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("protocol", [leave_last_out, time_split])
def test_the_walk_is_learnt(walks: tuple[ItemInputs, EventTable], protocol: Callable[..., Any]) -> None:
    corpus, log = walks
    compared = protocol(corpus, log, "toy", SMALL)
    found = {(row.method, row.metric): row.value for row in compared.rows}
    assert found["lambdarank", "ndcg@10"] > 0.8
    assert found["lambdarank", "ndcg@10"] > found["popularity", "ndcg@10"] > 0
    assert found["random", "ndcg@10"] < 0.3
    assert found["lambdarank", "recall@100"] == found["recall", "recall@100"]


READ = InteractionTypes(types={"read": InteractionType("neutral", history=True)})


def test_a_neutral_interaction_at_the_end_leaves_the_last_item_as_it_was(walks: tuple[ItemInputs, EventTable]) -> None:
    """A user whose last interaction is no target has one before it; what came after is not learnt from."""
    reads = [
        {"event": "interaction", "id": f"read-{user}", "timestamp": toyworld.END + user, "item": "space-3",
         "type": "read", "user": toyworld.user_id(user)}
        for user in range(toyworld.USERS)
    ]  # fmt: skip
    corpus, log = world(toyworld.items() + toyworld.interactions() + reads)
    log = replace(log, meanings=READ)
    compared, expected = leave_last_out(corpus, log, "toy", SMALL), leave_last_out(*walks, "toy", SMALL)
    assert compared.rows == expected.rows
    assert compared.trained.counts == expected.trained.counts
    assert ablate(corpus, log, "last-item", SMALL, "ndcg@10").groups == len(expected.qrels.queries)
    everything = train_from_recall(corpus, log, np.ones(len(log.interactions), np.bool_), SMALL).counts
    assert sum(everything.values()) == toyworld.USERS * SMALL.training.targets_per_user


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3), st.sampled_from(["click", "read", "hide"])), max_size=40),
    st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_the_last_targets_equal_a_slow_reference(
    events: list[tuple[int, int, str]], count: int, min_history: int
) -> None:
    users, items = Vocabulary([f"u{user}" for user in range(4)]), Vocabulary([f"i{item}" for item in range(4)])
    parsed = [
        InteractionEvent(f"e{n}", n, "gone" if item < 0 else f"i{item}", kind, user=f"u{user}")
        for n, (user, item, kind) in enumerate(events)
    ]
    log = replace(events_to_table(parsed, items, users), meanings=READ)
    histories = UserHistories.from_log(log, with_unknown_items=True).in_history
    found = histories.last_targets(count, min_history)
    expected, first = [], []
    for user in range(4):
        history = [(n, item, kind) for n, (who, item, kind) in enumerate(events) if who == user and kind != "hide"]
        clicks = [place for place, (_, _, kind) in enumerate(history) if kind == "click"][-count:]
        targets = [
            history[place][0] for place in clicks if sum(item >= 0 for _, item, _ in history[:place]) >= min_history
        ]
        expected += targets
        first.append(min(targets, default=np.iinfo(np.int64).max))
    assert histories.interaction[found].tolist() == expected
    assert histories.first_of(found)[:-1].tolist() == first


def test_the_test_split_of_the_rankings_is_their_last_fifth(lists: tuple[ItemInputs, EventTable]) -> None:
    compared = logged_rankings(*lists, "toy", SMALL)
    found = {(row.method, row.metric): row for row in compared.rows}
    assert found["lambdarank", "auc"].groups == 40
    assert found["lambdarank", "auc"].value > 0.8


def test_a_log_without_training_groups_is_an_error(walks: tuple[ItemInputs, EventTable]) -> None:
    corpus, log = walks
    with pytest.raises(ValueError, match="found no user with 3 interactions"):
        train_from_recall(corpus, log, np.zeros(len(log.interactions), np.bool_), SMALL)


def test_a_refused_parameter_is_said(walks: tuple[ItemInputs, EventTable]) -> None:
    corpus, log = walks
    settings = replace(SMALL, ranker=LambdaRankSettings(rounds=5, parameters={"num_leaves": -3}))
    with pytest.raises(ValueError, match="LightGBM refused"):
        train_from_recall(corpus, log, np.ones(len(log.interactions), np.bool_), settings)


def test_the_ranker_learns_a_public_learning_to_rank_sample(sample_data: Callable[[str], Path]) -> None:
    folder = sample_data("lightgbm_lambdarank")

    def load(part: str) -> QueryGroups:
        with gzip.open(folder / f"rank.{part}.gz") as rows:
            matrix, labels = load_svmlight_file(rows, n_features=301)
        with gzip.open(folder / f"rank.{part}.query.gz", "rt") as sizes:
            offsets = np.concatenate([[0], np.cumsum([int(size) for size in sizes])]).astype(np.int64)
        return QueryGroups(matrix.toarray().astype(np.float32), labels.astype(np.float32), offsets)

    train, test = load("train"), load("test")
    names = tuple(f"f{column}" for column in range(301))
    # the folds of a search log are users; here every fifth query stops training
    held = np.arange(len(train.offsets) - 1) % 5 == 0
    rows = np.repeat(held, np.diff(train.offsets))
    slices = [
        QueryGroups(
            train.matrix[rows == kept], train.labels[rows == kept],
            np.concatenate([[0], np.cumsum(np.diff(train.offsets)[held == kept])]).astype(np.int64),
        )
        for kept in (False, True)
    ]  # fmt: skip
    ranker = LambdaRanker.train(
        slices[:1], slices[1], names, "sample", LambdaRankSettings(parameters={"min_data_in_leaf": 20})
    )
    scores = ranker.score(test.matrix)
    by = order(scores, test.offsets)
    learnt = evaluate(["ndcg@5"], test.labels[by], test.offsets)["ndcg@5"].mean()
    as_given = evaluate(["ndcg@5"], test.labels, test.offsets)["ndcg@5"].mean()
    assert learnt > max(0.6, as_given + 0.05)
    contributions = ranker.contributions(test.matrix[:20])
    np.testing.assert_allclose(contributions.sum(axis=1), scores[:20], atol=1e-4)


def test_matrices_on_disk_are_those_in_memory(lists: tuple[ItemInputs, EventTable], tmp_path: Path) -> None:
    corpus, log = lists
    examples = from_rankings(log, 20, 150)
    item_model = item_inputs.fit_item_views(
        corpus.catalogue, corpus.text, corpus.term_weights, UserHistories.from_log(log), SMALL.items
    )
    builder = FeatureBuilder(item_model, SMALL.state)
    whole = build_query_groups(log, builder, examples)
    written = parquet_dataset.write_query_groups(tmp_path / "groups.parquet", log, builder, examples, chunk_rows=100)
    again = parquet_dataset.read_query_groups(tmp_path / "groups.parquet")
    for matrix_set in (written, again):
        assert isinstance(matrix_set.matrix, parquet_dataset.ParquetMatrix)
        assert matrix_set.matrix.shape == np.asarray(whole.matrix).shape
        assert np.array_equal(matrix_set.features(), whole.features(), equal_nan=True)
        assert np.array_equal(matrix_set.labels, whole.labels)
        assert np.array_equal(matrix_set.offsets, whole.offsets)
        for row in (0, 99, 100, len(whole.labels) - 1):
            assert np.array_equal(matrix_set.matrix[row], whole.features()[row], equal_nan=True)
        assert np.array_equal(matrix_set.matrix[90:310:7], whole.features()[90:310:7], equal_nan=True)
        assert np.array_equal(matrix_set.matrix[[5, 205]], whole.features()[[5, 205]], equal_nan=True)
    assert again.positions is not None
    assert (again.positions == -1).all()


def test_a_ranker_trained_from_disk_is_the_same_ranker(lists: tuple[ItemInputs, EventTable]) -> None:
    corpus, log = lists
    rankers = [
        train_from_rankings(
            corpus, log, 140, 160, replace(SMALL, training=replace(SMALL.training, memory_mb=memory))
        ).ranker
        for memory in (2_000, 0)
    ]
    trees = [ranker._boosters[0].model_to_string() for ranker in rankers]
    assert trees[0] == trees[1]
