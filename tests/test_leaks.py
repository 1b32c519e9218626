"""No feature sees the label of its own ranking: clicks by chance score as chance, and checks find what leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feedrank.engine.events import event_table_builder
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import InteractionEvent, RankingEvent
from feedrank.features.bm25 import TermWeights
from feedrank.models.evaluation.evaluation import logged_rankings
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining.gate import GateDecision, refuse_leaks
from feedrank.models.retraining.retraining import RetrainSettings, retrain
from feedrank.models.training.dataset import from_recall, target_order
from feedrank.models.training.labels import impression_labels
from feedrank.models.training.leak_check import SuspectFeature, suspect_features
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRankSettings
from feedrank.models.training.ranker_warnings import ranker_warnings
from feedrank.models.training.shuffled_check import check_shuffled, latest_part, shuffle_labels
from feedrank.models.training.training import ItemInputs, exact_retriever, fit_item_model, train_from_rankings
from feedrank.models.training.training_settings import ModelSettings, TrainingSettings

ITEMS, USERS, RANKINGS, LENGTH = 60, 80, 600, 8
START, GAP, DAY = 1_750_000_000_000, 1_200_000, 86_400_000
CATALOGUE = Catalogue.from_items({f"i{n}": {"title": f"Title {n}", "category": f"c{n % 4}"} for n in range(ITEMS)})
INPUTS = ItemInputs(CATALOGUE, np.empty((ITEMS, 0), np.float32), TermWeights.fit(CATALOGUE.documents()))
SETTINGS = ModelSettings(
    training=TrainingSettings(folds=2, min_rankings=100), ranker=LambdaRankSettings(rounds=40, patience=40, threads=1)
)


def by_chance(delay_ms: int, resolution_ms: int = 1) -> EventTable:
    """Return rankings of random items with one random click each, `delay_ms` after its ranking."""
    random = np.random.default_rng(5)
    events: list[RankingEvent | InteractionEvent] = []
    for n in range(RANKINGS):
        shown, user, at = random.permutation(ITEMS)[:LENGTH], f"u{random.integers(USERS)}", START + n * GAP
        times = [one // resolution_ms * resolution_ms for one in (at + delay_ms, at)]
        clicked = f"i{random.choice(shown)}"
        events.append(InteractionEvent(f"c{n}", times[0], clicked, "click", f"r{n}", user))
        events.append(RankingEvent(f"r{n}", times[1], tuple(f"i{item}" for item in shown), user))
    return events_to_table(events, CATALOGUE.ids)


@pytest.mark.parametrize(("delay_ms", "resolution_ms", "moved"), [(-2_000, 1, RANKINGS), (5_000, DAY, RANKINGS)])
def test_clicks_by_chance_score_as_chance(delay_ms: int, resolution_ms: int, moved: int) -> None:
    log = by_chance(delay_ms, resolution_ms)
    assert log.moved == moved
    compared = logged_rankings(INPUTS, log, "by chance", SETTINGS)
    (row,) = (row for row in compared.rows if (row.method, row.metric) == ("lambdarank", "auc"))
    assert row.low <= 0.5 <= row.high
    assert compared.trained.suspects == ()
    assert any("not clearly better than random order" in warning for warning in compared.trained.warnings)
    checked = check_shuffled(INPUTS, log, SETTINGS)
    assert checked is not None
    assert not checked.leaks
    assert checked.sentence().startswith("shuffled clicks score as chance: AUC 0.")


def test_the_check_finds_a_click_in_the_features_of_its_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_table_builder, "place_after_rankings", lambda *_: None)
    log = by_chance(-2_000)
    checked = check_shuffled(INPUTS, log, SETTINGS)
    assert checked is not None
    assert checked.leaks
    assert checked.auc > 0.95
    assert "features see the labels of their own ranking" in checked.sentence()
    trained = train_from_rankings(INPUTS, log, 450, 600, SETTINGS)
    assert trained.suspects
    assert trained.suspects[0].auc > 0.95
    assert trained.suspects[0].name in trained.warnings[0]


def test_the_check_of_a_log_with_too_few_rankings_replaces_items() -> None:
    log = by_chance(5_000)
    few = replace(SETTINGS, training=replace(SETTINGS.training, min_rankings=10_000))
    checked = check_shuffled(INPUTS, log, few)
    assert checked is not None
    assert not checked.leaks
    assert check_shuffled(INPUTS, events_to_table([], CATALOGUE.ids), few) is None


def test_shuffled_labels_stay_in_their_ranking() -> None:
    log = by_chance(5_000)
    labelled = replace(log, rankings=replace(log.rankings, labels=impression_labels(log)))
    shuffled = shuffle_labels(labelled, 3)
    clicks = replace(shuffled, rankings=replace(shuffled.rankings, labels=np.full_like(log.rankings.labels, np.nan)))
    assert np.array_equal(impression_labels(clicks), shuffled.rankings.labels), "clicks and labels move together"
    per_ranking = np.add.reduceat(shuffled.rankings.labels, log.rankings.offsets[:-1])
    assert np.array_equal(per_ranking, np.ones(RANKINGS))
    same = shuffled.rankings.labels[labelled.rankings.labels > 0].mean()
    assert 0.5 / LENGTH < same < 2 / LENGTH


def test_the_latest_part_of_a_log_is_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = by_chance(-2_000)
    assert latest_part(log, 10**6).event_order.tolist() == log.event_order.tolist()
    part = latest_part(log, 10 * LENGTH)
    assert (len(part.rankings), len(part.interactions)) == (10, 10)
    assert part.rankings.items.tolist() == log.rankings.items[-10 * LENGTH :].tolist()
    assert part.interactions.ranking.tolist() == list(range(10))
    assert part.event_order.tolist() == [n // 2 + 10 * (n % 2 == 0) for n in range(20)]
    monkeypatch.setattr("feedrank.models.training.shuffled_check.MAX_EVENTS", 5)
    part = latest_part(log, 10 * LENGTH)
    assert (len(part.rankings), part.interactions.ranking.tolist()) == (2, [-1, 0, 1])


# --- single features


def groups(columns: list[np.ndarray], labels: np.ndarray, size: int) -> QueryGroups:
    matrix = np.stack(columns, axis=1).astype(np.float32)
    return QueryGroups(matrix, labels.astype(np.float32), np.arange(0, len(labels) + 1, size, dtype=np.int64))


def test_a_feature_that_holds_the_answer_is_named() -> None:
    random = np.random.default_rng(2)
    labels = np.tile([0, 1, 0, 0, 0], 200)
    noise = random.random(len(labels))
    rare = np.where(np.arange(len(labels)) < 5 * 15, labels, 0.0)
    columns = [
        noise,
        labels + noise / 9,
        -labels + noise / 9,
        np.where(labels > 0, 1.0, np.nan),
        rare,
        noise + labels / 2,
    ]
    part = groups(columns, labels, 5)
    names = ("noise", "higher", "lower", "only clicked ones have it", "rare", "good")
    found = suspect_features([part, part], names, 0.95)
    assert {suspect.name for suspect in found} == {"higher", "lower", "only clicked ones have it"}
    assert all(suspect.auc == 1.0 for suspect in found)
    assert {suspect.groups for suspect in found} == {400}
    assert suspect_features([part], names, 1.0) == ()
    assert suspect_features([groups(columns, np.ones(1000), 5)], names, 0.95) == ()


def test_the_gate_refuses_what_leaks() -> None:
    decision = GateDecision(True, ("better",), None, {})
    assert refuse_leaks(decision, []) is decision
    leak = SuspectFeature("x", 0.99, 100).sentence()
    refused = refuse_leaks(decision, [leak])
    assert not refused.promote
    assert refused.reasons == (leak, "better")
    assert "the feature 'x' alone ranks with an AUC of 0.990 (100 groups)" in leak
    suspicious = replace(SETTINGS, training=replace(SETTINGS.training, max_feature_auc=0.501))
    world = by_chance(5_000)
    result = retrain(INPUTS, world, None, suspicious, RetrainSettings())
    assert result.shuffled is not None
    assert result.trained is not None
    assert not result.decision.promote, "clicks by chance are not better than recall order"
    assert any("alone ranks with an AUC" in reason for reason in result.decision.reasons) == bool(
        result.trained.suspects
    )


def test_a_ranker_that_learnt_nothing_is_named() -> None:
    class Ranker:
        trees, position_bias, learning_curve = 1, None, (0.4,)

    part = groups([np.arange(40)], np.ones(40), 4)
    found = ranker_warnings(Ranker(), [part], part, 1, 7)  # type: ignore[arg-type]
    assert "every label of the training groups is positive" in found[0]
    assert "one tree" in found[1]
    assert "not clearly better than random order" in found[2]


# --- groups from recall


def test_a_target_is_read_before_the_ranking_that_showed_it() -> None:
    log = by_chance(5_000)
    histories = UserHistories.from_log(log)
    targets = np.flatnonzero((histories.count_after == 0) & (histories.count_before > 1))
    retriever = exact_retriever(fit_item_model(INPUTS, histories, SETTINGS.items))
    found = from_recall(log, histories, targets, retriever, 10, 20)
    ranking = log.interactions.ranking[histories.interaction[targets[target_order(log, histories, targets)]]]
    assert found.queries.before_event.tolist() == log.event_positions()[len(log.interactions) + ranking].tolist()
    assert found.queries.at.tolist() == log.rankings.at[ranking].tolist()
