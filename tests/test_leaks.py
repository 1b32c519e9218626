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
from feedrank.models.training import dataset, shuffled_check
from feedrank.models.training.dataset import from_recall, target_order
from feedrank.models.training.item_inputs import ItemInputs, fit_item_model
from feedrank.models.training.labels import impression_labels
from feedrank.models.training.leak_check import SuspectFeature, suspect_features
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRankSettings
from feedrank.models.training.ranker_warnings import ranker_warnings
from feedrank.models.training.shuffled_check import check_shuffled, latest_part, shuffle_labels
from feedrank.models.training.training import exact_retriever, train_from_rankings
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


def test_the_check_finds_a_leak_of_grades_without_a_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The label is 5 for the clicked item and 1 to 4 for the others; the click's counters stand before the ranking."""
    monkeypatch.setattr(event_table_builder, "place_after_rankings", lambda *_: None)
    log = by_chance(-2_000)
    clicked = impression_labels(log) > 0
    grades = np.where(clicked, 5, np.random.default_rng(1).integers(1, 5, len(clicked))).astype(np.float32)
    graded = replace(log, rankings=replace(log.rankings, labels=grades))
    checked = check_shuffled(INPUTS, graded, SETTINGS)
    assert checked is not None
    assert checked.leaks
    trained = train_from_rankings(INPUTS, replace(log, rankings=replace(log.rankings, labels=np.where(clicked, 5, 1))),
                                  450, 600, SETTINGS)  # fmt: skip
    assert trained.suspects
    assert not any("same label" in warning for warning in trained.warnings)


def test_the_check_of_a_log_with_too_few_rankings_replaces_items() -> None:
    log = by_chance(5_000)
    few = replace(SETTINGS, training=replace(SETTINGS.training, min_rankings=10_000))
    checked = check_shuffled(INPUTS, log, few)
    assert checked is not None
    assert not checked.leaks
    assert check_shuffled(INPUTS, events_to_table([], CATALOGUE.ids), few) is None


def test_the_check_of_targets_finds_a_state_that_saw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def moments_after(log: EventTable, interactions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return log.event_positions()[interactions] + 1, log.interactions.at[interactions], interactions

    monkeypatch.setattr(dataset, "_request_moments", moments_after)
    few = replace(SETTINGS, training=replace(SETTINGS.training, min_rankings=10_000))
    checked = check_shuffled(INPUTS, by_chance(5_000), few)
    assert checked is not None
    assert checked.leaks
    assert checked.auc > 0.95


def test_only_a_short_log_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    log = by_chance(5_000)
    late = replace(log, interactions=replace(log.interactions, ranking=np.maximum(log.interactions.ranking, 590)))
    assert check_shuffled(INPUTS, late, replace(SETTINGS, training=replace(SETTINGS.training, min_rankings=1))) is None

    def fail(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(shuffled_check, "train_from_rankings", fail)
    with pytest.raises(ValueError, match="a fault"):
        check_shuffled(INPUTS, log, SETTINGS)


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
    grades = groups(columns, np.where(labels > 0, 5, 3), 5)
    assert suspect_features([grades], names, 0.95) == suspect_features([part], names, 0.95), "labels need no 0"
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


def test_retraining_refuses_a_candidate_that_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_table_builder, "place_after_rankings", lambda *_: None)
    result = retrain(INPUTS, by_chance(-2_000), None, SETTINGS, RetrainSettings())
    assert result.trained.suspects
    assert result.shuffled is not None
    assert result.shuffled.leaks
    assert not result.decision.promote
    assert result.decision.reasons[: len(result.trained.suspects)] == tuple(
        suspect.sentence() for suspect in result.trained.suspects
    )
    assert result.shuffled.sentence() in result.decision.reasons


def test_a_ranker_that_learnt_nothing_is_named() -> None:
    part = groups([np.arange(40)], np.ones(40), 4)
    found = ranker_warnings(Ranker(), [part], part, LambdaRankSettings())  # type: ignore[arg-type]
    assert "in each training group all items have the same label" in found[0]
    assert "one tree" in found[1]
    assert "not clearly better than random order" in found[2]


def test_chance_has_the_gain_that_the_ranker_was_trained_with() -> None:
    """Random order scores 0.93 by linear gains and 0.79 by exponential ones, where one of four labels is 5, not 3."""
    labels = np.tile([3, 3, 3, 5], 100)
    part = groups([np.arange(400)], labels, 4)
    linear = LambdaRankSettings(parameters={"label_gain": [0, 1, 2, 3, 4, 5]})
    assert any("not clearly better" in found for found in ranker_warnings(Ranker(0.85), [part], part, linear))  # type: ignore[arg-type]
    found = ranker_warnings(Ranker(0.85), [part], part, LambdaRankSettings())  # type: ignore[arg-type]
    assert found == ("the ranker has one tree: no further round improved the validation metric",)


class Ranker:
    """A ranker of one tree, with this validation metric."""

    trees, position_bias = 1, None

    def __init__(self, value: float = 0.4) -> None:
        self.learning_curve = (value,)


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
