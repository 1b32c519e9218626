"""Graded labels from the log to the report: grades, contrast, gains, ties by id, and items that the catalogue lacks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
import toyworld
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG
from test_training import SMALL, world

from feedrank.api.compose import training_inputs
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.codec import parse
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import ItemEvent
from feedrank.features.bm25 import TermWeights
from feedrank.models.evaluation.ablation import ablate
from feedrank.models.evaluation.evaluation import (
    PROTOCOLS,
    Comparison,
    leave_last_out,
    logged_rankings,
    time_split,
    trec_runs,
)
from feedrank.models.evaluation.trec import strictly_decreasing
from feedrank.models.training.folds import TooLittleDataError
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.label_contrast import label_notes, missing_contrast
from feedrank.models.training.labels import LabelSettings, impression_labels
from feedrank.models.training.logged_labels import MAX_GRADE, grade_labels
from feedrank.models.training.training import has_enough_rankings, train_from_rankings

MEASURES = {
    "ndcg@10": nDCG @ 10, "ndcg@5": nDCG @ 5, "map": AP, "mrr": RR, "recall@100": R @ 100, "hr@10": Success @ 10,
}  # fmt: skip
SETTINGS = replace(SMALL, training=replace(SMALL.training, min_rankings=50))
RANKINGS = 200


def ranking_events(labels: Any, seed: int = 1, count: int = RANKINGS) -> list[dict[str, Any]]:
    """Rankings of seven items of the toy world at random; labels(number, item index) -> label, None for no label."""
    dice, names = random.Random(seed), [event["item"] for event in toyworld.items()]
    events = []
    for number in range(count):
        shown = dice.sample(range(len(names)), 7)
        entries = [{"id": names[item], "label": labels(number, item)} for item in shown]
        events.append({
            "event": "ranking", "id": f"r{number}", "timestamp": toyworld.END + number * 60_000,
            "user": toyworld.user_id(number % toyworld.USERS),
            "items": [{key: value for key, value in entry.items() if value is not None} for entry in entries],
        })  # fmt: skip
    return events


def logged(labels: Any, **options: Any) -> tuple[ItemInputs, EventTable]:
    return world(toyworld.items() + toyworld.interactions() + ranking_events(labels, **options))


def by_ir_measures(compared: Comparison, corpus: ItemInputs, measures: dict[str, Any], method: str) -> dict[str, float]:
    """The mean of each measure, from the run and the qrels that `evaluate --trec` writes."""
    run, qrels = trec_runs(corpus, compared)[method], compared.qrels
    scores = strictly_decreasing(run.scores, run.offsets).tolist()

    def rows(offsets: Iterable[int]) -> list[int]:
        return np.repeat(np.arange(len(qrels.queries)), np.diff(list(offsets))).tolist()

    found = ir_measures.calc_aggregate(
        list(measures.values()),
        [
            ir_measures.Qrel(str(query), document, int(label))
            for query, document, label in zip(rows(qrels.offsets), qrels.documents, qrels.labels, strict=True)
        ],
        [
            ir_measures.ScoredDoc(str(query), document, score)
            for query, document, score in zip(rows(run.offsets), run.documents, scores, strict=True)
        ],
    )
    return {name: found[measure] for name, measure in measures.items()}


def grades(labels: list[float], **options: Any) -> list[float]:
    column = np.array(labels, np.float32)
    return grade_labels(column, **options).grades(column).tolist()


# --- grades of logged labels


@pytest.mark.parametrize(
    ("labels", "expected", "words"),
    [
        ([0, 1, 4, 30], [0, 1, 4, 30], ""),
        ([-1, 0, 1], [0, 0, 1], "1 of 3 logged labels are negative; their grade is 0"),
        ([0.4, 0.5, 0.4, 0], [1, 2, 1, 0], "from 0 to 0.5 have fractions"),
        ([41, 100, 77], [1, 3, 2], "from 41 to 100 exceed 30"),
        ([half / 2 for half in range(1, 11)], list(range(1, 11)), "10 above 4.5"),
        ([-0.5, 0.5, -3], [0, 1, 0], "0 up to 0, 1 above 0"),
    ],
)
def test_labels_that_are_no_grades_are_graded_with_words(
    labels: list[float], expected: list[float], words: str
) -> None:
    assert grades(labels) == expected
    note = grade_labels(np.array(labels, np.float32)).note
    assert words in note if words else not note


def test_many_values_are_cut_at_quantiles_and_thresholds_at_themselves() -> None:
    prices = np.exp(np.random.default_rng(0).normal(3, 1, 4_000)).astype(np.float32)
    grading = grade_labels(prices)
    found = grading.grades(prices)
    assert set(found.tolist()) == set(range(1, 11))
    assert np.bincount(found.astype(int))[1:].tolist() == [400] * 10
    assert "graded by quantiles of the 4,000 labels above 0" in grading.note
    # the thresholds of the note give the same grades
    assert grade_labels(prices, grading.thresholds or ()).grades(prices).tolist() == found.tolist()
    assert grades([0.4, 0.5, 3.0], thresholds=(0.4,)) == [0, 1, 1]
    assert grades([0.4, 0.5, 3.0, -2.0], thresholds=(-1.0, 0.4)) == [1, 2, 2, 0]
    assert np.isnan(grades([np.nan, 0.5], thresholds=(0.4,))[0])


@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6, width=32), st.integers(-3, 120), st.just(np.nan)), max_size=60),
    st.integers(1, MAX_GRADE),
)
def test_grades_are_small_whole_numbers_in_the_order_of_the_labels(labels: list[float], quantiles: int) -> None:
    column = np.array(labels, np.float32)
    found = grade_labels(column, quantiles=quantiles).grades(column)
    assert np.array_equal(np.isnan(found), np.isnan(column))
    column, found = column[~np.isnan(column)], found[~np.isnan(column)]
    assert np.all((found == np.round(found)) & (found >= 0) & (found <= MAX_GRADE))
    assert np.all((found > 0) == (column > 0))
    order = np.argsort(column, kind="stable")
    assert np.all(np.diff(found[order]) >= 0)
    positive = np.unique(column[column > 0])
    if len(positive) <= MAX_GRADE:
        assert len(np.unique(found[column > 0])) == len(positive), "no two values share a grade without need"


# --- labels without contrast


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        (lambda number, item: 1, "every one of the 1,400 logged labels is 1"),
        (lambda number, item: 0, "every one of the 1,400 logged labels is 0"),
        (lambda number, item: 0.5, "every one of the 1,400 logged labels is 0.5"),
        (lambda number, item: number % 3, "in each of the 200 rankings every item has the same label"),
        (lambda number, item: -(item % 3), "none of the 200 rankings has a logged label above 0"),
    ],
)
def test_labels_without_contrast_are_an_error_with_its_cause(labels: Any, cause: str) -> None:
    corpus, log = logged(labels)
    with pytest.raises(ValueError, match=cause):
        has_enough_rankings(log, SETTINGS)
    with pytest.raises(ValueError, match=cause):
        logged_rankings(corpus, log, "toy", SETTINGS)


def test_rankings_without_labels_are_passed_over_only_where_there_are_other_interactions() -> None:
    _, log = logged(lambda number, item: None)
    assert not has_enough_rankings(log, SETTINGS)
    assert "none of the 200 rankings has a logged label or an interaction" in missing_contrast(
        log, impression_labels(log)
    )
    _, alone = world(toyworld.items() + ranking_events(lambda number, item: None))
    with pytest.raises(ValueError, match="none of the 200 rankings has a logged label"):
        has_enough_rankings(alone, SETTINGS)


def test_interactions_with_every_shown_item_are_an_error_that_names_their_types() -> None:
    rankings = ranking_events(lambda number, item: None, count=60)
    seen = [
        {
            "event": "interaction", "id": f"s-{ranking['id']}-{entry['id']}", "timestamp": ranking["timestamp"] + 1,
            "type": "open", "item": entry["id"], "ranking": ranking["id"], "user": ranking["user"],
        }
        for ranking in rankings
        for entry in ranking["items"]
    ]  # fmt: skip
    _, log = world(toyworld.items() + toyworld.interactions() + rankings + seen)
    with pytest.raises(
        ValueError, match=r"with an interaction has one \(types: open\).*is one of the types an impression"
    ):
        has_enough_rankings(log, SETTINGS)


def test_a_relevance_level_that_tells_nothing_apart_is_said() -> None:
    _, log = logged(lambda number, item: 1 + item % 5)
    assert "all or none of the items have at least the label 1" in " ".join(label_notes(log, LabelSettings()))
    assert label_notes(log, LabelSettings(relevance_level=4)) == ()


# --- the report


@pytest.mark.parametrize(
    ("settings", "gains", "level"),
    [
        (LabelSettings(), {}, 1),
        (LabelSettings(gain="exponential", relevance_level=2), {label: 2**label - 1 for label in range(5)}, 2),
        (LabelSettings(gains=(0, 1, 1, 9, 20), relevance_level=4), {0: 0, 1: 1, 2: 1, 3: 9, 4: 20}, 4),
    ],
)
def test_the_report_on_graded_labels_is_that_of_ir_measures(
    settings: LabelSettings, gains: dict[int, int], level: int
) -> None:
    corpus, log = logged(lambda number, item: max(0, 4 - item % 9))
    compared = logged_rankings(corpus, log, "toy", replace(SETTINGS, labels=settings))
    graded = {"gains": gains} if gains else {}
    measures = {
        "ndcg@10": nDCG(**graded) @ 10, "ndcg@5": nDCG(**graded) @ 5, "map": AP(rel=level), "mrr": RR(rel=level),
    }  # fmt: skip
    assert set(compared.qrels.labels.tolist()) == {1, 2, 3, 4}
    for method in compared.methods:
        ours = {row.metric: row.value for row in compared.rows if row.method == method}
        theirs = by_ir_measures(compared, corpus, measures, method)
        assert {name: ours[name] for name in measures} == pytest.approx(theirs, abs=1e-6), method


def test_the_order_of_a_log_changes_no_figure() -> None:
    """A log that lists its clicked items first gives the same metrics, for constant scores and for the ranker."""
    events = ranking_events(lambda number, item: int(item % 6 == 0))
    clicked_first = [
        event | {"items": sorted(event["items"], key=lambda entry: -entry["label"])} for event in events
    ]  # fmt: skip
    results = [
        logged_rankings(*world(toyworld.items() + toyworld.interactions() + rankings), "toy", SETTINGS)
        for rankings in (events, clicked_first)
    ]
    assert results[0].rows == results[1].rows
    found = {(row.method, row.metric): row.value for row in results[1].rows}
    assert found["text", "ndcg@10"] < 0.9, "without an embedder all items are equal"
    rows, offsets = results[1].methods["text"].item_rows, results[1].methods["text"].offsets
    names = world(toyworld.items())[0].catalogue.ids.names(rows)
    first = names[int(offsets[0]) : int(offsets[1])]
    assert first == sorted(first, reverse=True), "equal scores are in descending order of ids"


def test_rankings_without_a_relevant_item_are_left_out_and_counted() -> None:
    corpus, log = logged(lambda number, item: 0 if number % 4 == 0 else item % 3)
    compared = logged_rankings(corpus, log, "toy", SETTINGS)
    assert compared.notes == ("10 of 40 test rankings have no relevant item and are left out",)
    assert {row.groups for row in compared.rows if row.metric != "auc"} == {30}


def test_training_optimises_the_gain_that_is_measured() -> None:
    corpus, log = logged(lambda number, item: item % 4)
    for settings, expected in (
        (LabelSettings(), "[label_gain: 0,1,2,3]"),
        (LabelSettings(gain="exponential"), "[label_gain: 0,1,3,7]"),
        (LabelSettings(gains=(0, 1, 5, 50)), "[label_gain: 0,1,5,50]"),
    ):
        chosen = replace(SETTINGS, labels=settings)
        text = train_from_rankings(corpus, log, 140, 160, chosen).ranker._boosters[0].model_to_string()
        assert expected in text
    with pytest.raises(ValueError, match="label 3, but gains for the labels 0 to 2 only"):
        train_from_rankings(corpus, log, 140, 160, replace(SETTINGS, labels=LabelSettings(gains=(0, 1, 5))))


# --- items that the catalogue lacks


def without_items(events: list[dict[str, Any]], missing: set[str]) -> tuple[ItemInputs, EventTable]:
    """A world whose catalogue lacks some items that its log names."""
    parsed = [parse(event) for event in events]
    items = [event for event in parsed if isinstance(event, ItemEvent) and event.item not in missing]
    catalogue = Catalogue.from_events(items)
    corpus = ItemInputs(catalogue, np.zeros((len(catalogue), 0), np.float32), TermWeights.fit(catalogue.documents()))
    return corpus, events_to_table([event for event in parsed if not isinstance(event, ItemEvent)], catalogue.ids)


@pytest.mark.parametrize("kind", ["labels", "named", "joined"])
def test_clicked_items_that_the_catalogue_lacks_stay_in_the_ideal(kind: str) -> None:
    wanted = ranking_events(lambda number, item: int(item % 5 == 0) * (1 + item % 2))
    rankings, clicks = wanted, []
    if kind != "labels":  # clicks instead, with the ranking's id or joined by user and time
        rankings = [event | {"items": [{"id": entry["id"]} for entry in event["items"]]} for event in wanted]
        clicks = [
            {
                "event": "interaction", "id": f"c-{event['id']}-{entry['id']}", "timestamp": event["timestamp"] + 1_000,
                "type": "click", "item": entry["id"], "user": event["user"],
                **({"ranking": event["id"]} if kind == "named" else {}),
            }
            for event in wanted
            for entry in event["items"]
            if entry["label"]
        ]  # fmt: skip
    missing = {event["item"] for event in toyworld.items()[::10]}
    corpus, log = without_items(toyworld.items() + toyworld.interactions() + rankings + clicks, missing)
    compared = logged_rankings(corpus, log, "toy", SETTINGS)
    relevant = {
        (number, entry["id"]): entry["label"] if kind == "labels" else 1
        for number, event in enumerate(event for event in wanted[160:] if any(e["label"] for e in event["items"]))
        for entry in event["items"]
        if entry["label"]
    }
    qrels = compared.qrels
    query_of = np.repeat(np.arange(len(qrels.queries)), np.diff(qrels.offsets)).tolist()
    assert dict(zip(zip(query_of, qrels.documents, strict=True), qrels.labels.tolist(), strict=True)) == relevant
    assert missing & set(qrels.documents)
    measures = {name: MEASURES[name] for name in ("ndcg@10", "ndcg@5", "map", "mrr")}
    for method in compared.methods:
        ours = {row.metric: row.value for row in compared.rows if row.method == method}
        theirs = by_ir_measures(compared, corpus, measures, method)
        assert {name: ours[name] for name in measures} == pytest.approx(theirs, abs=1e-6), method
    assert any("of items that the catalogue lacks" in note for note in compared.trained.notes)


@pytest.mark.parametrize("protocol", [leave_last_out, time_split])
def test_targets_that_the_catalogue_lacks_count_as_missed(protocol: Any) -> None:
    events = toyworld.items() + toyworld.interactions()
    corpus, log = world(events)
    whole = protocol(corpus, log, "toy", SMALL)
    missing = set(list(whole.qrels.documents)[::6])
    corpus, log = without_items(events, missing)
    compared = protocol(corpus, log, "toy", SMALL)
    assert compared.qrels.documents == whole.qrels.documents
    count = sum(document in missing for document in whole.qrels.documents)
    assert compared.notes == (
        f"the items of {count} of {len(whole.qrels.queries)} targets are not in the catalogue; they count as missed",
    )
    measures = {name: MEASURES[name] for name in ("ndcg@10", "hr@10", "recall@100", "mrr", "map")}
    for method in compared.methods:
        ours = {row.metric: row.value for row in compared.rows if row.method == method}
        assert ours == pytest.approx(by_ir_measures(compared, corpus, measures, method), abs=1e-6), method
        assert ours["recall@100"] <= 1 - count / len(whole.qrels.queries) + 1e-9


@pytest.mark.parametrize("protocol", [leave_last_out, time_split])
def test_the_targets_of_histories_are_binary_whatever_grades_are_worth(protocol: Any) -> None:
    corpus, log = world(toyworld.items() + toyworld.interactions())
    graded = replace(SMALL, labels=LabelSettings(relevance_level=4, gains=(0, 0, 1, 2, 3)))
    compared, other = protocol(corpus, log, "toy", SMALL), protocol(corpus, log, "toy", graded)
    assert compared.rows == other.rows
    assert (other.labels.label_gain, other.labels.relevance_level) == ("linear", 1)
    for metric in ("ndcg@10", "mrr") if protocol is leave_last_out else ():
        values = [ablate(corpus, log, "last-item", settings, metric).value for settings in (SMALL, graded)]
        assert values[0] == values[1] > 0.5


# --- the commands


def test_evaluate_takes_the_gain_and_writes_grades(home: Path, tmp_path: Path) -> None:
    settings = home / "feedrank.toml"
    settings.write_text(settings.read_text().replace("[training]", "[training]\nmin_rankings = 50"))
    rankings = ranking_events(lambda number, item: (0.5, 0.0, 4.5, 0.0, 2.0)[item % 5])
    feedrank(home, "import", toyworld.write(tmp_path / "rankings.jsonl", rankings))
    options = ("--gain", "0,1,5,20", "--relevance-level", 2, "--json", tmp_path / "r.json", "--trec", tmp_path)
    output = feedrank(home, "evaluate", *options)
    graded = "logged labels from 0 to 4.5 have fractions, so they were graded by value, one grade each"
    assert graded in output
    assert "labels up to 3; nDCG with the gain [0.0, 1.0, 5.0, 20.0]; other metrics: relevant from label 2 on" in output
    report = json.loads((tmp_path / "r.json").read_text())
    found = report["costs"]["journal: labels"]
    assert (found["highest"], found["gain"], found["relevance_level"]) == (3, [0, 1, 5, 20], 2)
    assert found["notes"][0].startswith(graded)
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "rankings.qrels")))
    assert {qrel.relevance for qrel in qrels} == {1, 2, 3}
    gains = {0: 0, 1: 1, 2: 5, 3: 20}
    measures = {"ndcg@10": nDCG(gains=gains) @ 10, "map": AP(rel=2), "mrr": RR(rel=2)}
    for method in ("lambdarank", "text", "random"):
        run = list(ir_measures.read_trec_run(str(tmp_path / f"rankings.{method}.run")))
        theirs = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
        ours = {row["metric"]: row["value"] for row in report["rows"] if row["method"] == method}
        assert {name: ours[name] for name in measures} == pytest.approx(
            {name: theirs[measure] for name, measure in measures.items()}, abs=1e-6
        )
    assert graded in feedrank(home, "train", "--name", "graded", "--promote")
    manifest = json.loads((home / "bundles" / "graded" / "manifest.json").read_text())
    assert manifest["label_notes"][0].startswith(graded)


def test_training_and_evaluation_refuse_labels_without_contrast(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
    events = toyworld.items() + ranking_events(lambda number, item: 1, count=60)
    feedrank(tmp_path, "import", toyworld.write(tmp_path / "log.jsonl", events))
    for command in ("train", "evaluate", "retrain"):
        assert "every one of the 420 logged labels is 1" in feedrank(tmp_path, command, code=1), command


def test_several_protocols_have_names_of_their_own(home: Path, tmp_path: Path) -> None:
    feedrank(home, "evaluate", "--protocol", "temporal", "--protocol", "last-item", "--json", tmp_path / "r.json")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {row["dataset"] for row in rows} == {"journal (temporal)", "journal (last-item)"}


def test_the_shuffled_labels_are_checked_once_for_all_protocols(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, checked = training_inputs.check_shuffled, []
    monkeypatch.setattr(training_inputs, "check_shuffled", lambda *inputs: checked.append(check(*inputs)) or checked[0])
    feedrank(home, "evaluate", "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert {row["dataset"] for row in report["rows"]} == {"journal", "journal (temporal)"}
    assert len(checked) == 1
    assert set(report["costs"]["checks"]) == {"notes", "shuffled_labels"}
    assert set(report["costs"]["journal: checks"]) == {"warnings", "suspect_features"}


@pytest.mark.parametrize("fault", [ValueError, TooLittleDataError])
def test_only_too_little_data_leaves_a_protocol_out(
    fault: type[ValueError], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise fault("a fault")

    monkeypatch.setitem(PROTOCOLS, "temporal", fail)
    is_left_out = fault is TooLittleDataError
    output = feedrank(home, "evaluate", "--json", tmp_path / "r.json", code=0 if is_left_out else 1)
    assert ("the protocol temporal does not fit: a fault" in output) == is_left_out
    assert (tmp_path / "r.json").exists() == is_left_out
