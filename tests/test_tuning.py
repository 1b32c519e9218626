"""Tuning: the search starts from the current parameters, resumes, and its result can be used for training."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from conftest import feedrank

from feedrank.models.bundles import bundle
from feedrank.models.training import tuning


def test_a_search_is_kept_goes_on_and_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "create it with `feedrank tune`" in feedrank(home, "train", "--tuned", code=1)
    output = feedrank(home, "tune", "--trials", "2")
    assert "2 trials" in output
    output = feedrank(home, "tune", "--trials", "2")
    assert "4 trials" in output
    assert "optimistic" in output
    found = tomllib.loads((home / "tuned.toml").read_text())["ranker"]["parameters"]
    # the first is named in the config, the second is decided by groups that come from recall
    assert found.keys() == tuning.SEARCH_SPACE.keys() - {"min_data_in_leaf", "lambdarank_truncation_level"}
    for name, value in found.items():
        least, most, _ = tuning.SEARCH_SPACE[name]
        assert least <= value <= most
    feedrank(home, "train", "--tuned", "--name", "tuned")
    used = bundle.read_manifest(home / "bundles" / "tuned")["config"]["ranker"]["parameters"]
    assert used == found | {"min_data_in_leaf": 5}
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert "pip install 'feedrank[tune]'" in feedrank(home, "tune", code=1)


def test_what_is_written_is_a_config() -> None:
    tuned = tuning.TuningResult({"num_leaves": 8, "learning_rate": 0.1}, 0.5, 0.4, 3)
    assert tomllib.loads(tuning.as_toml(tuned)) == {"ranker": {"parameters": {"num_leaves": 8, "learning_rate": 0.1}}}
