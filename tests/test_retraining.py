"""Retraining: the gate promotes what it should, the reports say so, and bundles can be rolled back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st

from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.bundle import BundleError
from feedrank.models.retraining.drift import FeatureHistogram, sample_rows
from feedrank.models.retraining.gate import GateSettings, decide


@pytest.fixture(scope="module")
def trained_home(rankings_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose log has rankings, with a current bundle. Tests that write use `home_copy`."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copytree(rankings_home, home, symlinks=True, dirs_exist_ok=True)
    with (home / "feedrank.toml").open("a") as file:
        file.write("\n[retrain]\ntest_share = 0.2\n")
    text = (home / "feedrank.toml").read_text().replace("[training]\n", "[training]\nmin_rankings = 50\n")
    (home / "feedrank.toml").write_text(text)
    feedrank(home, "train", "--name", "first")
    return home


@pytest.fixture
def home_copy(trained_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_home, tmp_path / "home", symlinks=True))


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
    assert decide(GROUPS, None, {}, GateSettings()).promote


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


# --- the command


def test_a_candidate_that_is_as_good_is_promoted(home_copy: Path) -> None:
    output = feedrank(home_copy, "retrain", "--name", "second", "--margin", "0.5")
    assert "promoted; current bundle" in output
    assert current(home_copy) == "second"
    report = json.loads((home_copy / "reports" / "second" / "report.json").read_text())
    assert report["promote"]
    assert report["bundles"] == {"candidate": "second", "incumbent": "first"}
    assert report["warnings"], "the incumbent was trained on the whole journal"
    methods = {(row["dataset"], row["method"]) for row in report["rows"]}
    assert {("all", "candidate"), ("all", "incumbent")} <= methods
    assert report["drift"]
    assert len(report["learning_curve"]) > 5
    page = (home_copy / "reports" / "second" / "report.html").read_text()
    for words in ("second", "promoted", "Learning curve", "Drift", "Features, by share of gain", "Warning"):
        assert words in page
    assert "http" not in page, "nothing is loaded from elsewhere"
    manifest = bundle.read_manifest(home_copy / "bundles" / "second")
    assert manifest["metrics"]["ndcg@10"] > 0
    assert manifest["window"]["rankings"] > 0


def test_a_candidate_that_is_not_better_is_refused_and_kept(home_copy: Path) -> None:
    output = feedrank(home_copy, "retrain", "--name", "second", "--gate", "superior", "--margin", "0.9", code=3)
    del output
    assert current(home_copy) == "first"
    assert (home_copy / "bundles" / "second").is_dir()
    assert not json.loads((home_copy / "reports" / "second" / "report.json").read_text())["promote"]
    feedrank(home_copy, "bundles", "promote", "second")
    assert current(home_copy) == "second"


def test_without_an_incumbent_the_first_is_promoted(home_copy: Path) -> None:
    shutil.rmtree(home_copy / "bundles")
    assert "there is no incumbent" in feedrank(home_copy, "retrain", "--name", "only")
    assert current(home_copy) == "only"


def test_a_warm_start_keeps_the_trees(home_copy: Path) -> None:
    feedrank(home_copy, "retrain", "--name", "warm", "--warm-start", "--margin", "0.5")
    before, after = (bundle.load(home_copy / "bundles" / name).ranker for name in ("first", "warm"))
    assert before is not None
    assert after is not None
    assert after.trees > before.trees


def test_a_warm_start_from_other_features_is_refused(home_copy: Path) -> None:
    with (home_copy / "feedrank.toml").open("a") as file:
        file.write('\n[features]\nfamilies = ["recall", "rates"]\n')
    output = feedrank(home_copy, "retrain", "--name", "warm", "--warm-start", code=1)
    assert "trained on other features" in output
    assert not (home_copy / "bundles" / "warm").exists()


def test_a_window_with_nothing_in_it_fails_and_leaves_nothing(home_copy: Path) -> None:
    output = feedrank(home_copy, "retrain", "--name", "empty", "--days", "0.5", code=1)
    assert "found no interactions in this time window" in output
    assert current(home_copy) == "first"
    assert not (home_copy / "bundles" / "empty").exists()


def test_a_log_without_rankings_is_evaluated_on_the_next_item(home: Path) -> None:
    output = feedrank(home, "retrain", "--name", "second", "--margin", "0.9")
    assert "promoted" in output
    rows = json.loads((home / "reports" / "second" / "report.json").read_text())["rows"]
    by = {row["method"]: row["value"] for row in rows if (row["dataset"], row["metric"]) == ("all", "ndcg@10")}
    assert set(by) == {"candidate", "incumbent"}
    assert by["candidate"] > 0.2


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
