"""Retraining: the gate judges on new data and promotes what it should, reports say so, bundles can be rolled back."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from click.testing import CliRunner
from conftest import feedrank
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank import Home
from feedrank.api import compose, config
from feedrank.api.cli import main
from feedrank.api.compose import retraining_run
from feedrank.api.home_paths import HomePaths
from feedrank.api.training_lock import training_lock
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.bundle import BundleError
from feedrank.models.bundles.manifest import write_manifest
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining import incumbent as incumbents
from feedrank.models.retraining.drift import FeatureHistogram, sample_rows
from feedrank.models.retraining.gate import GateSettings, decide, decide_against_recall
from feedrank.models.retraining.held_out_slice import ranking_slice, recall_slice
from feedrank.models.retraining.retraining import RetrainContext, retrain
from feedrank.models.training.labels import LabelSettings

RANKINGS, NEWER = 600, 260
"""Number of rankings that the first bundle learns, and of those after it."""
# users keep to one genre, so some features alone rank too well
SETTINGS = (
    toyworld.CONFIG.replace("[training]\n", "[training]\nmin_rankings = 50\nmax_feature_auc = 1.0\n")
    + '[embedder]\nmodel = "none"\n'
)


@pytest.fixture(scope="module")
def learnt_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose bundle `first` has learnt the whole journal, in which a ranker beats recall. Do not write to it."""
    home = tmp_path_factory.mktemp("learnt")
    (home / "feedrank.toml").write_text(SETTINGS)
    events = toyworld.items() + toyworld.interactions() + toyworld.rankings(RANKINGS, prefer_new=True)
    feedrank(home, "data", toyworld.write(home / "log.jsonl", events))
    feedrank(home, "train", "--name", "first")
    return home


@pytest.fixture(scope="module")
def trained_home(learnt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with rankings that are newer than the bundle. Tests that write use `home_copy`."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copytree(learnt_home, home, symlinks=True, dirs_exist_ok=True)
    add_rankings(home, RANKINGS, NEWER)
    return home


@pytest.fixture
def home_copy(trained_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_home, tmp_path / "home", symlinks=True))


@pytest.fixture
def learnt_copy(learnt_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learnt_home, tmp_path / "home", symlinks=True))


def add_rankings(home: Path, first: int, count: int) -> None:
    events = toyworld.rankings(count, first, prefer_new=True)
    feedrank(home, "data", toyworld.write(home / f"more-{first}.jsonl", events))


def report_of(home: Path, name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((home / "reports" / name / "report.json").read_text())
    return report


def current(home: Path) -> str | None:
    return registry.current_name(home / "bundles")


# --- the gate


GROUPS = np.random.default_rng(0).random(400)


def test_the_gate() -> None:
    def passes(gain: float, **given: object) -> bool:
        noise = np.random.default_rng(1).normal(0, 0.01, 400)
        settings = GateSettings(**given)  # type: ignore[arg-type]
        return decide(GROUPS + gain + noise, GROUPS, {}, settings).promote

    assert passes(0.0)
    assert passes(0.05)
    assert not passes(-0.05)
    assert not passes(0.0, margin=0.0)
    assert not passes(0.0, rule="superior")
    assert passes(0.05, rule="superior")
    assert not passes(0.05, rule="superior", margin=0.1)


def test_a_first_ranker_must_beat_recall_order() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 400)
    decisions = [
        decide_against_recall(GROUPS + gain + noise, GROUPS, {}, GateSettings(), "nothing serves")
        for gain in (0.05, 0.0, -0.005)
    ]
    assert [decision.outcome for decision in decisions] == ["promoted", "refused", "refused"]
    assert {decision.baseline for decision in decisions} == {"recall"}
    assert decisions[0].reasons[0] == "nothing serves, so the candidate must beat recall order"


def test_a_segment_must_not_fall() -> None:
    few = np.arange(400) < 60
    candidate = np.where(few, GROUPS - 0.1, GROUPS + 0.1)
    decision = decide(candidate, GROUPS, {"new": few, "heavy": ~few}, GateSettings())
    assert not decision.promote
    assert any("'new' degrades" in reason for reason in decision.reasons)
    assert decide(candidate, GROUPS, {"new": few}, GateSettings(segments=("heavy",))).promote
    assert decide(candidate, GROUPS, {"new": np.arange(400) < 20}, GateSettings()).promote, "too few groups to say"


# --- drift


def test_population_stability_index_by_hand() -> None:
    old = np.repeat(np.arange(10, dtype=np.float32), 10)[:, None]
    histogram = FeatureHistogram.from_matrix(old, ["x"])
    assert sum(histogram.shares["x"]) == pytest.approx(1)
    assert histogram.psi(old, ["x"])["x"] == pytest.approx(0)
    halves = FeatureHistogram({"x": [0.5]}, {"x": [0.5, 0.5, 0.0]})
    new = np.array([0.0] * 8 + [1.0] * 2, np.float32)[:, None]
    expected = (0.8 - 0.5) * np.log(0.8 / 0.5) + (0.2 - 0.5) * np.log(0.2 / 0.5)
    assert halves.psi(new, ["x"])["x"] == pytest.approx(expected)
    missing = halves.psi(np.full((10, 1), np.nan, np.float32), ["x"])["x"]
    assert missing > 5
    assert halves.psi(new, ["y"]) == {}


@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), min_size=1, max_size=60))
def test_a_histogram_comes_back_and_drifts_from_nothing(values: list[float]) -> None:
    matrix = np.array(values, np.float32)[:, None]
    histogram = FeatureHistogram.from_matrix(matrix, ["x"])
    assert histogram.psi(matrix, ["x"])["x"] == pytest.approx(0, abs=1e-9)


def test_a_sample_is_of_all_parts() -> None:
    parts = [np.full((30_000, 1), 1, np.float32), np.full((10_000, 1), 2, np.float32)]
    drawn = sample_rows(parts, 0)
    assert len(drawn) == 20_000
    assert 0.2 < (drawn == 2).mean() < 0.3
    assert len(sample_rows(parts[1:], 0)) == 10_000


# --- the test slice


CATALOGUE = Catalogue.from_items({f"i{n}": {"title": f"t{n}"} for n in range(6)})
DAY_MS = 86_400_000


@st.composite
def events_of_clocks(draw: st.DrawFn) -> list[Event]:
    """Rankings and clicks in any order, with senders' clocks that are behind, equal times and late clicks."""
    events: list[Event] = []
    for n in range(draw(st.integers(3, 25))):
        received = draw(st.none() | st.integers(0, 30).map(lambda day: toyworld.START + day * DAY_MS))
        at = toyworld.START + draw(st.integers(0, 30)) * DAY_MS if received is None else received
        at -= draw(st.sampled_from([0, 0, 0, 5 * DAY_MS, 1]))
        user, items = f"u{n % 3}", tuple(f"i{(n + k) % 6}" for k in range(3))
        events.append(RankingEvent(f"r{n}", at, items, user, received=received))
        for k in range(draw(st.integers(0, 2))):
            delay = draw(st.sampled_from([0, 1_000, 3 * DAY_MS]))
            later = None if received is None else received + delay
            named = draw(st.sampled_from([f"r{n}", None]))
            events.append(InteractionEvent(f"c{n}-{k}", at + delay, items[k], "click", named, user, received=later))
    return events


@settings(max_examples=80)
@given(events_of_clocks(), st.integers(0, 60), st.sampled_from([0.1, 0.3, 0.5]))
def test_no_test_group_is_of_what_was_learnt(events: list[Event], learnt_events: int, share: float) -> None:
    log = events_to_table(events, CATALOGUE.ids)
    learnt = log.event_order[:learnt_events]
    until = float(log.at[:learnt_events].max()) if len(learnt) else float("nan")
    n = len(log.interactions)
    found = ranking_slice(log, share, until, LabelSettings(), CATALOGUE.ids)
    assert found.rankings is not None
    tested = log.event_order[found.rankings.queries.before_event] - n
    assert not set(tested.tolist()) & set((learnt[learnt >= n] - n).tolist())
    assert found.start >= round(len(log.rankings) * (1 - share))
    assert (tested >= found.start).all()
    if len(tested):
        before = log.event_positions()[n + found.start]
        assert found.learnable_until == (log.at[:before].max() if before else found.learnable_until)
    if not (log.interactions.type >= 0).any() or not len(log.interactions):
        return
    histories = UserHistories.from_log(log, with_unknown_items=True).in_history
    target = recall_slice(log, histories, share, until)
    assert target.targets is not None
    interactions = histories.interaction[target.targets]
    assert not set(interactions.tolist()) & set(learnt[learnt < n].tolist())
    rankings = log.interactions.ranking[interactions]
    assert not set(rankings[rankings >= 0].tolist()) & set((learnt[learnt >= n] - n).tolist())
    assert (interactions >= target.start).all()


def test_one_late_ranking_does_not_hide_the_newer_ones() -> None:
    def at(number: int) -> int:
        return toyworld.START + number * DAY_MS

    events = [RankingEvent(f"r{n}", at(n), ("i0", "i1"), "u", labels=(1.0, 0.0), received=at(n)) for n in range(20)]
    late = RankingEvent("late", at(3), ("i0", "i1"), "u", labels=(1.0, 0.0), received=at(20))
    log = events_to_table([*events, late], CATALOGUE.ids)
    found = ranking_slice(log, 0.5, at(14) / 1000, LabelSettings(), CATALOGUE.ids)
    assert (found.start, len(found)) == (15, 5)
    assert found.begins_at == at(15) / 1000


@pytest.mark.parametrize(
    ("manifest", "built_at", "expected"),
    [
        ({"trained_until": 50.0, "window": {"last": 90.0}}, 100.0, 50.0),
        ({"window": {"last": 90.0}}, 100.0, 90.0),
        ({}, 100.0, 100.0),
        ({"trained_until": 1e12}, 100.0, 100.0),  # an event of the year 9999 was learnt
        ({"trained_until": 120.0 + incumbents.MAX_AHEAD_S}, 100.0, 120.0 + incumbents.MAX_AHEAD_S),
        ({"trained_until": 1e12}, 1e12, None),  # the clock was ahead
    ],
)
def test_what_a_bundle_has_learnt(manifest: dict[str, Any], built_at: float, expected: float | None) -> None:
    until = incumbents.learnt_until(manifest, built_at, now=200.0)
    assert until == expected if expected is not None else np.isnan(until)


# --- the command


def test_retraining_right_after_a_training_says_that_nothing_is_newer(learnt_copy: Path) -> None:
    message = feedrank(learnt_copy, "retrain", "--name", "second", code=4)
    report = report_of(learnt_copy, "second")
    assert (report["outcome"], report["promote"], report["bundles"]) == (
        "too-little-new-data", False, {"incumbent": "first"}
    )  # fmt: skip
    assert "found 0 rankings with a relevant item after what the incumbent first has learnt" in report["reasons"][0]
    assert "expected at least 100 (retrain.min_test_groups)" in report["reasons"][0]
    assert current(learnt_copy) == "first"
    assert [entry.name for entry in registry.list_bundles(learnt_copy / "bundles")] == ["first"]
    assert "too little new data" in (learnt_copy / "reports" / "second" / "report.html").read_text()
    assert "warning" not in message


def test_what_was_done_with_the_log_is_a_note(learnt_copy: Path) -> None:
    ahead = InteractionEvent("ahead", round(time.time() * 1000) + 10 * 86_400_000, "ocean-1", "click", user="p0")
    HomePaths(learnt_copy).journal().append([ahead])
    args = ["--home", str(learnt_copy), "retrain", "--name", "second"]
    result = CliRunner().invoke(main, args, catch_exceptions=False)
    report = report_of(learnt_copy, "second")
    assert report["outcome"] == "too-little-new-data"
    assert report["notes"][0].startswith("passed over 1 event more than a day ahead of the clock")
    assert f"note: {report['notes'][0]}" in result.stdout
    assert report["warnings"] == []
    feedrank(learnt_copy, "train", "--name", "third", "--no-promote")
    manifest = bundle.read_manifest(learnt_copy / "bundles" / "third")
    assert (manifest["log_notes"], manifest["warnings"]) == (report["notes"], [])


def test_a_candidate_that_is_as_good_is_promoted(home_copy: Path) -> None:
    output = feedrank(home_copy, "retrain", "--name", "second", "--margin", "0.5")
    assert "promoted; current bundle" in output
    assert current(home_copy) == "second"
    report = report_of(home_copy, "second")
    assert report["promote"]
    assert (report["outcome"], report["baseline"]) == ("promoted", "incumbent")
    assert 100 <= report["test_groups"] <= NEWER
    assert report["bundles"] == {"candidate": "second", "incumbent": "first"}
    assert report["test_start"] > report["incumbent_trained_until"]
    methods = {(row["dataset"], row["method"]) for row in report["rows"]}
    assert {("all", "candidate"), ("all", "incumbent"), ("all", "recall")} <= methods
    assert report["drift"]
    assert len(report["learning_curve"]) > 5
    page = (home_copy / "reports" / "second" / "report.html").read_text()
    for words in ("second", "promoted", "Learning curve", "Drift", "Features, by share of gain"):
        assert words in page
    assert "http" not in page, "nothing is loaded from elsewhere"
    manifest = bundle.read_manifest(home_copy / "bundles" / "second")
    assert manifest["metrics"]["ndcg@10"] > 0
    assert manifest["window"]["rankings"] > 0
    assert report["incumbent_trained_until"] <= manifest["trained_until"] < report["test_start"], "it is not learnt"
    # so the next night's test may begin where this one's did
    add_rankings(home_copy, RANKINGS + NEWER, 30)
    feedrank(home_copy, "retrain", "--name", "third", "--margin", "0.5", "--refit")
    manifest = bundle.read_manifest(home_copy / "bundles" / "third")
    assert manifest["trained_until"] == manifest["window"]["last"], "a refit learns the whole window"
    assert report_of(home_copy, "third")["test_start"] > report_of(home_copy, "third")["incumbent_trained_until"]
    feedrank(home_copy, "retrain", "--name", "fourth", code=4)


def test_a_candidate_that_is_not_better_is_refused_and_kept(home_copy: Path) -> None:
    feedrank(home_copy, "retrain", "--name", "second", "--gate", "superior", "--margin", "0.9", code=3)
    assert current(home_copy) == "first"
    assert (home_copy / "bundles" / "second").is_dir()
    assert report_of(home_copy, "second")["outcome"] == "refused"
    feedrank(home_copy, "bundles", "promote", "second")
    assert current(home_copy) == "second"


def test_nights_in_a_row_never_test_on_what_was_learnt(learnt_copy: Path) -> None:
    outcomes, first = [], RANKINGS
    for night, count in enumerate((60, 60, 60, 60)):
        add_rankings(learnt_copy, first, count)
        first += count
        serving = bundle.read_manifest(learnt_copy / "bundles" / "current")
        args = ["--home", str(learnt_copy), "retrain", "--name", f"n{night}", "--margin", "0.5"]
        code = CliRunner().invoke(main, args, catch_exceptions=False).exit_code
        report = report_of(learnt_copy, f"n{night}")
        outcomes.append((code, report["outcome"]))
        if report["outcome"] != "too-little-new-data":
            assert report["test_start"] > serving["trained_until"]
            assert report["test_groups"] >= 100
    assert outcomes == [(4, "too-little-new-data"), *[(0, "promoted")] * 3]


def test_without_an_incumbent_a_candidate_that_beats_recall_is_promoted(home_copy: Path) -> None:
    shutil.rmtree(home_copy / "bundles")
    assert "there is no incumbent" in feedrank(home_copy, "retrain", "--name", "only")
    assert current(home_copy) == "only"
    assert report_of(home_copy, "only")["baseline"] == "recall"
    assert "Gain over recall order" in (home_copy / "reports" / "only" / "report.html").read_text()


@pytest.fixture
def chance_home(tmp_path: Path) -> Path:
    """A home whose clicks are by chance among the items of the user's genre: nothing is better than recall order."""
    home = tmp_path / "chance"
    home.mkdir()
    (home / "feedrank.toml").write_text(SETTINGS)
    events = toyworld.items() + toyworld.interactions() + toyworld.rankings(500)
    dice = np.random.default_rng(3)
    for ranking, click in zip(events[-1000::2], events[-999::2], strict=True):
        click["item"] = ranking["items"][dice.integers(len(ranking["items"]))]["id"]
    feedrank(home, "data", toyworld.write(home / "log.jsonl", events))
    return home


def test_a_ranker_that_learnt_nothing_does_not_serve_unless_forced(chance_home: Path) -> None:
    message = feedrank(chance_home, "train", "--name", "weak", code=3)
    assert "not promoted: the ranker is not clearly better than random order" in message
    serving = current(chance_home)
    assert serving is not None
    assert serving.startswith("recall-order-"), "feeds are in recall order, as nothing served before"
    assert json.loads(feedrank(chance_home, "recommend", "--user", "p0", "--json"))["bundle"] == serving
    message = feedrank(chance_home, "retrain", "--name", "weak-too", code=3)
    assert current(chance_home) == serving
    reasons = report_of(chance_home, "weak-too")["reasons"]
    assert f"the incumbent {serving} has no ranker, so the candidate must beat recall order" in reasons
    report = Home(chance_home, progress=False).train("weak-three")
    assert not report.promoted
    assert "NOT promoted" in repr(report)
    assert current(chance_home) == serving
    feedrank(chance_home, "train", "--name", "kept", "--no-promote")
    assert current(chance_home) == serving
    feedrank(chance_home, "bundles", "promote", "kept")
    assert json.loads(feedrank(chance_home, "recommend", "--user", "p0", "--json"))["bundle"] == "kept"
    feedrank(chance_home, "train", "--name", "forced", "--promote")
    assert current(chance_home) == "forced"


def older_format(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3}))


def other_features(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("sha256")
    manifest["features"]["fingerprint"] = "0123456789abcdef"
    write_manifest(path, manifest)


def damaged(folder: Path) -> None:
    (folder / "ranker-0.txt").write_text("damaged")


@pytest.mark.parametrize(
    ("change", "found"),
    [(older_format, "is of format 3"), (other_features, "found features 0123456789abcdef"), (damaged, "is damaged"),
     (shutil.rmtree, "found no manifest.json")],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_an_incumbent_that_can_not_be_loaded_is_replaced_by_what_beats_recall(
    change: Callable[[Path], None], found: str, home_copy: Path
) -> None:
    change(home_copy / "bundles" / "first")
    output = feedrank(home_copy, "retrain", "--name", "second", "--warm-start")
    assert current(home_copy) == "second"
    report = report_of(home_copy, "second")
    assert report["baseline"] == "recall"
    assert found in report["reasons"][0]
    assert report["reasons"][0].startswith("the incumbent first can't be loaded (")
    assert report["reasons"][0].endswith("so the candidate must beat recall order")
    assert report["reasons"][0] in output
    assert any("no warm start: there is no incumbent ranker" in line for line in report["warnings"])


def test_the_previous_bundle_is_the_incumbent_if_the_current_one_is_damaged(home_copy: Path) -> None:
    feedrank(home_copy, "index", "--name", "broken")
    damaged_index = home_copy / "bundles" / "broken" / "index.ann"
    damaged_index.write_bytes(b"damaged")
    args = ["--home", str(home_copy), "retrain", "--name", "second", "--margin", "0.5"]
    result = CliRunner().invoke(main, args, catch_exceptions=False)
    report = report_of(home_copy, "second")
    assert (report["bundles"]["incumbent"], report["baseline"]) == ("first", "incumbent")
    assert "Serving the previous bundle instead: first" in report["warnings"][0]
    assert result.output.count(report["warnings"][0]) == 1
    assert current(home_copy) == "second"


def test_an_incumbent_that_can_not_be_compared_is_named(home_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a column of an extra family")

    monkeypatch.setattr(incumbents.Incumbent, "score_rankings", fail)
    output = feedrank(home_copy, "retrain", "--name", "second")
    assert "the incumbent first can't be compared (KeyError: 'a column of an extra family'), so the" in output
    assert {row["method"] for row in report_of(home_copy, "second")["rows"]} == {"candidate", "recall"}


def test_a_bundle_that_became_current_meanwhile_stays(home_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = retraining_run.retraining.retrain

    def retrain_while_another_is_promoted(*args: Any, **named: Any) -> Any:
        result = original(*args, **named)
        feedrank(home_copy, "index", "--name", "meanwhile")
        return result

    monkeypatch.setattr(retraining_run.retraining, "retrain", retrain_while_another_is_promoted)
    feedrank(home_copy, "retrain", "--name", "second", "--margin", "0.5", code=3)
    assert current(home_copy) == "meanwhile"
    reason = report_of(home_copy, "second")["reasons"][0]
    assert reason.startswith("the current bundle changed from first to meanwhile while the candidate was trained")


def test_a_warm_start_keeps_the_trees(home_copy: Path) -> None:
    feedrank(home_copy, "retrain", "--name", "warm", "--warm-start", "--margin", "0.5")
    before, after = (bundle.load(home_copy / "bundles" / name).ranker for name in ("first", "warm"))
    assert before is not None
    assert after is not None
    assert after.trees > before.trees


def test_a_warm_start_from_other_features_trains_from_the_start(home_copy: Path) -> None:
    with (home_copy / "feedrank.toml").open("a") as file:
        file.write('\n[features]\nfamilies = ["recall", "rates", "user", "recency"]\n')
    feedrank(home_copy, "retrain", "--name", "warm", "--warm-start", "--margin", "0.5")
    (note,) = (line for line in report_of(home_copy, "warm")["warnings"] if "no warm start" in line)
    assert "the incumbent was trained on other features (removed " in note
    assert report_of(home_copy, "warm")["baseline"] == "incumbent", "which ranks with features of its own"


def test_a_window_with_nothing_in_it_fails_and_leaves_a_report(home_copy: Path) -> None:
    output = feedrank(home_copy, "retrain", "--name", "empty", "--days", "0.5", code=1)
    assert "found no interactions in this time window" in output
    assert current(home_copy) == "first"
    assert not (home_copy / "bundles" / "empty").exists()
    report = report_of(home_copy, "empty")
    assert (report["outcome"], report["promote"]) == ("failed", False)
    assert report["reasons"][0] in output


def test_a_log_without_rankings_is_evaluated_on_the_next_item(home: Path) -> None:
    with (home / "feedrank.toml").open("a") as file:
        file.write("\n[retrain]\nmin_test_groups = 40\n")
    feedrank(home, "retrain", "--name", "none", code=4)
    assert "found 0 users with an interaction to predict" in report_of(home, "none")["reasons"][0]
    shift = toyworld.END - toyworld.START
    more = [event | {"id": f"m-{event['id']}", "timestamp": event["timestamp"] + shift} for event in
            toyworld.interactions()[: 2 * toyworld.USERS]]  # fmt: skip
    feedrank(home, "data", toyworld.write(home / "more.jsonl", more))
    assert "promoted" in feedrank(home, "retrain", "--name", "second", "--margin", "0.9")
    report = report_of(home, "second")
    assert report["test_start"] > report["incumbent_trained_until"]
    by = {
        row["method"]: row["value"] for row in report["rows"] if (row["dataset"], row["metric"]) == ("all", "ndcg@10")
    }
    assert set(by) == {"candidate", "incumbent", "recall"}


def test_two_trainings_of_a_home_do_not_run_at_once(learnt_copy: Path) -> None:
    with training_lock(HomePaths(learnt_copy)):
        for command in ("train", "retrain"):
            message = feedrank(learnt_copy, command, code=5)
            assert f"another training is running in {learnt_copy} (process {os.getpid()})" in message
    assert current(learnt_copy) == "first"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom feedrank.api.home_paths import HomePaths\n"
        "from feedrank.api.training_lock import training_lock\n"
        "with training_lock(HomePaths(Path(sys.argv[1]))):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(learnt_copy)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        feedrank(learnt_copy, "retrain", code=5)
        other.kill()
    feedrank(learnt_copy, "retrain", code=4)


def test_a_journal_from_a_backup_is_older_than_the_incumbent(learnt_copy: Path) -> None:
    for path in learnt_copy.glob("journal.db*"):
        path.unlink()
    events = toyworld.items() + toyworld.interactions() + toyworld.rankings(400, prefer_new=True)
    feedrank(learnt_copy, "data", toyworld.write(learnt_copy / "backup.jsonl", events))
    feedrank(learnt_copy, "retrain", "--name", "second", code=4)
    assert "was the journal restored from a backup?" in report_of(learnt_copy, "second")["reasons"][0]
    add_rankings(learnt_copy, RANKINGS, NEWER)  # what came after the restoring
    feedrank(learnt_copy, "retrain", "--name", "third", "--margin", "0.5")
    report = report_of(learnt_copy, "third")
    assert report["test_start"] > report["incumbent_trained_until"]


def test_what_text_models_were_fine_tuned_on_is_no_test(home_copy: Path, tmp_path: Path) -> None:
    events = toyworld.rankings(RANKINGS + NEWER, prefer_new=True)
    model_card = tmp_path / "own-model" / "feedrank.json"
    model_card.parent.mkdir()

    def learnt_until(ranking: int) -> float:
        last: float = events[2 * ranking]["timestamp"] / 1000
        model_card.write_text(json.dumps({"trained_on": {"journal": {"last": last}}}))
        settings = config.load_config(home_copy / "feedrank.toml")
        embedder = dataclasses.replace(settings.embedder, model=str(model_card.parent))
        assert retraining_run._models_learnt_until(settings) != last
        assert retraining_run._models_learnt_until(dataclasses.replace(settings, embedder=embedder)) == last
        return last

    inputs = compose.load_training_inputs(HomePaths(home_copy), config.load_config(home_copy / "feedrank.toml"))
    settings = config.load_config(home_copy / "feedrank.toml")
    context = RetrainContext(models_learnt_until=learnt_until(RANKINGS + NEWER - 20))
    result = retrain(
        inputs.item_inputs, inputs.log, None, settings.training_settings, settings.retrain, context=context
    )
    assert (result.decision.outcome, len(result.test)) == ("too-little-new-data", 19)
    assert "after what the text models have learnt" in result.decision.reasons[0]


def test_a_bundle_of_a_clock_that_was_ahead_is_judged_by_offsets(home_copy: Path) -> None:
    folder = home_copy / "bundles" / "first"
    manifest = bundle.read_manifest(folder) | {"trained_until": time.time() + 400 * 86_400}
    write_manifest(folder / "manifest.json", manifest)
    (folder / "build.json").write_text(json.dumps({"at": "2099-01-01T00:00:00+00:00"}))
    feedrank(home_copy, "retrain", "--name", "second", "--margin", "0.5")
    learnt = bundle.read_manifest(home_copy / "bundles" / "first")["window"]["last"]
    assert (
        learnt
        == report_of(home_copy, "second")["incumbent_trained_until"]
        < report_of(home_copy, "second")["test_start"]
    )
    registry.promote(home_copy / "bundles", "first")
    manifest["window"]["offset"] = 10**9
    write_manifest(folder / "manifest.json", manifest)
    assert "was built in the future" in feedrank(home_copy, "retrain", "--name", "third", code=1)


# --- bundles


def test_rollback_restores_the_previous_bundle(home_copy: Path) -> None:
    feedrank(home_copy, "index", "--name", "second")
    feedrank(home_copy, "index", "--name", "third")
    assert registry.previous(home_copy / "bundles") == ["second", "first"]
    assert "current bundle: second" in feedrank(home_copy, "bundles", "rollback")
    assert current(home_copy) == "second"
    shown = json.loads(feedrank(home_copy, "bundles", "list", "--json"))
    assert [(one["name"], one["current"]) for one in shown] == [("first", False), ("second", True), ("third", False)]
    assert "*" in feedrank(home_copy, "bundles", "list")
    differing = json.loads(feedrank(home_copy, "bundles", "diff", "first", "--json"))
    assert differing["ranker"] == [True, False]
    assert "name" in feedrank(home_copy, "bundles", "diff", "first", "second")
    assert "all sha256 checksums valid" in feedrank(home_copy, "bundles", "show", "first")


def test_prune_keeps_the_current_and_latest_bundles(home_copy: Path) -> None:
    for name in ("second", "third", "fourth"):
        feedrank(home_copy, "index", "--name", name)
    feedrank(home_copy, "bundles", "promote", "first")
    assert "second, third" in feedrank(home_copy, "bundles", "prune", "--keep", "0", "--dry-run")
    assert "second, third" in feedrank(home_copy, "bundles", "prune", "--keep", "0")
    assert {entry.name for entry in registry.list_bundles(home_copy / "bundles")} == {"first", "fourth"}
    assert "nothing" in feedrank(home_copy, "bundles", "prune")


def test_rollback_without_a_previous_bundle_is_refused(home_copy: Path) -> None:
    assert "nothing to roll back to" in feedrank(home_copy, "bundles", "rollback", code=1)


def test_a_damaged_bundle_is_not_promoted(home_copy: Path) -> None:
    feedrank(home_copy, "index", "--name", "second")
    feedrank(home_copy, "bundles", "rollback")
    (home_copy / "bundles" / "second" / "item-model.npz").write_bytes(b"damaged")
    assert "item-model.npz is damaged" in feedrank(home_copy, "bundles", "promote", "second", code=1)
    (home_copy / "bundles" / "second" / "item-model.npz").unlink()
    assert "item-model.npz is missing" in feedrank(home_copy, "bundles", "promote", "second", code=1)
    (home_copy / "bundles" / "first" / "extra.bin").write_bytes(b"?")
    assert "extra.bin is foreign" in feedrank(home_copy, "bundles", "promote", "first", code=1)


def test_the_last_good_bundle_goes_on_where_the_current_is_damaged(
    home_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feedrank(home_copy, "index", "--name", "second")
    (home_copy / "bundles" / "second" / "index.ann").write_bytes(b"damaged")
    home = HomePaths(home_copy)
    recommender = compose.build_recommender(home, config.load_config(home.config))
    assert recommender.pipeline.bundle == "first"
    output = capsys.readouterr().err
    assert "index.ann is damaged" in output
    assert "Serving the previous bundle instead: first" in output
    (home_copy / "bundles" / "first" / "index.ann").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"second/index\.ann is damaged"):
        registry.load_current(home.bundles, lambda _: None)


def test_a_history_that_was_cut_short_is_read(home_copy: Path) -> None:
    feedrank(home_copy, "index", "--name", "second")
    with (home_copy / "bundles" / registry.PROMOTIONS_FILE).open("a") as file:
        file.write('{"na')
    assert registry.previous(home_copy / "bundles") == ["first"]
