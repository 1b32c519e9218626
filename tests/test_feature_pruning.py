"""Pruning and ablation of declared features, what training says of missing values, and explanations of categories."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import feedrank
from test_feature_suggestion import AGENT, CONFIG, shop

from feedrank.api import compose
from feedrank.api.config import load_config
from feedrank.api.home_paths import HomePaths
from feedrank.api.python.home import Home
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.features.declared.counter_plan import forms_of_all
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.field_coverage import field_problems
from feedrank.models.evaluation import pruning
from feedrank.models.evaluation.feature_groups import feature_groups
from feedrank.models.evaluation.pruning import PruneOptions

TABLES = """
# the price decides
[[features.declared]]
name = "price"
kind = "number"
from = "item.price"

# the same again
[[features.declared]]
name = "price_too"
kind = "number"
from = "item.price"
transform = "log1p"

# says nothing
[[features.declared]]
name = "noise"
kind = "random"

[[features.declared]]
name = "brand"
kind = "category"
from = "item.brand"

[[features.declared]]
name = "age"
kind = "number"
from = "user.age"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, shop(1_200))))
    (folder / "feedrank.toml").write_text(
        CONFIG.replace("[training]", '[features]\nfamilies = ["user"]\n\n[training]') + TABLES
    )
    feedrank(folder, "import", folder / "log.jsonl")
    return folder


def test_pruning_drops_what_adds_nothing_and_keeps_one_of_two_equals(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "smaller.toml"
    feedrank(home, "features", "prune", "--margin", "0.08", "--repeats", "1", "--output", path)
    config = load_config(path)
    kept = {feature.name for feature in config.features.declared}
    assert "noise" not in kept
    assert len(kept & {"price", "price_too"}) == 1, "one of two equals is enough, and needed"
    assert replace(config, features=replace(config.features, declared=())) == replace(
        load_config(home / "feedrank.toml"), features=replace(config.features, declared=())
    )
    assert "# says nothing" not in path.read_text()
    assert "exists" in feedrank(home, "features", "prune", "--output", path, code=1)


def test_what_is_needed_stays_and_too_little_data_is_told(home: Path, tmp_path: Path) -> None:
    text = (home / "feedrank.toml").read_text()
    path = tmp_path / "needed.toml"
    path.write_text(text[: text.index("# the same again")])
    arguments = ("--config", path, "features", "prune", "--repeats", "1")
    feedrank(home, *arguments, "--margin", "0.05", code=3)
    feedrank(home, *arguments, "--margin", "0.000001", code=4)
    path.write_text(text[: text.index("# the price decides")])
    assert "declares no features" in feedrank(home, *arguments, code=1)


def test_a_failed_confirmation_puts_features_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = HomePaths(home)
    config = load_config(paths.config)
    inputs = compose.load_training_inputs(paths, config)
    searched = pruning._Trials.values

    def values(trials: Any, left_out: Sequence[str], part: int = 0) -> Any:
        found = searched(trials, left_out, part)
        return found - 0.2 if part == 1 and len(left_out) > 1 else found  # with other seeds, two at once are too many

    monkeypatch.setattr(pruning._Trials, "values", values)
    with config.training.matrix_store() as store:
        data = compose.prepare_training_data(inputs, config, store, lambda *_: None)
        found = pruning.prune(data, PruneOptions(0.08, 1))
    assert len(found.dropped) == 1
    assert found.trainings <= 60


def test_ablation_measures_declared_features_by_field_and_alone(home: Path, tmp_path: Path) -> None:
    output = feedrank(home, "evaluate", "--ablate", "--max-trainings", "6", "--json", tmp_path / "rows.json")
    assert "6 trainings in" in output
    found = json.loads((tmp_path / "rows.json").read_text())["costs"]["journal: ablation"]
    rows = {(row["kind"], row["signal"]): row for row in found["rows"]}
    assert set(list(rows)[:3]) == {("signal", "behaviour"), ("family", "declared"), ("field", "item.price")}
    assert rows["family", "declared"]["low"] > 0.1, "clicks follow the price alone"
    assert rows["field", "item.price"]["low"] > 0.1
    assert len(rows) == 4
    assert len(found["not_measured"]) == 4
    assert "declared price" in found["ms"]


def test_groups_have_the_columns_of_their_features(home: Path) -> None:
    paths = HomePaths(home)
    config = load_config(paths.config)
    builder = compose.fit_without_ranker(compose.load_training_inputs(paths, config), config)
    groups = {group.name: group for group in feature_groups(builder)}
    assert [builder.names[column] for column in groups["item.price"].columns] == ["price", "price_too"]
    assert set(groups["declared"].columns) == {
        column for group in groups.values() if group.kind == "feature" for column in group.columns
    }
    assert not set(groups["behaviour"].columns) & set(groups["declared"].columns)


def problems(features: Sequence[DeclaredFeature], events: Sequence[Any]) -> dict[str, str]:
    catalogue = Catalogue.from_events(event for event in events if isinstance(event, ItemEvent))
    collector = FieldCollector(forms_of_all(features), counts_values=True)
    log = events_to_table(events, catalogue.ids, fields=collector)
    return {problem.field: problem.reason for problem in field_problems(features, log)}


def test_fields_without_values_are_named_with_the_likely_reason() -> None:
    events = [
        ItemEvent("a", 0, "a", {"price": 5.0, "brand": "acme"}), UserEvent("u", 0, "u", {"country": "DE"}),
        *(RankingEvent(f"r{n}", 1_750_000_000_000 + n, ("a",), "u", None, {"device": "x"}) for n in range(50)),
        ItemEvent("b", 1_750_000_001_000, "a", {"grade": 3.0}),
    ]  # fmt: skip
    found = problems(
        [
            DeclaredFeature("a", "number", from_="item.price"),
            DeclaredFeature("b", "number", from_="item.prise"),
            DeclaredFeature("c", "number", from_="item.brand"),
            DeclaredFeature("d", "category", from_="item.brand"),
            DeclaredFeature("e", "category", from_="user.device"),
            DeclaredFeature("f", "number", from_="item.grade"),
            DeclaredFeature("g", "rate", key=("item.brand", "request.town")),
        ],
        events,
    )
    assert set(found) == {"item.prise", "item.brand", "user.device", "item.grade", "request.town"}
    assert "did you mean item.price?" in found["item.prise"]
    assert "can be read as a number" in found["item.brand"]
    assert "did you mean request.device?" in found["user.device"]
    assert "later than 100% of the rankings" in found["item.grade"]
    assert "fields there are device" in found["request.town"]


def test_training_names_missing_constant_and_cut_features(home: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(
        (home / "feedrank.toml").read_text()
        + '[[features.declared]]\nname = "gone"\nkind = "number"\nfrom = "item.prize"\n'
        + '[[features.declared]]\nname = "few"\nkind = "category"\nfrom = "item.brand"\nmax_values = 2\n'
        + '[[features.declared]]\nname = "agent"\nkind = "user_agent"\nfrom = "request.agent"\npart = "platform"\n'
    )
    assert AGENT
    run = Home(home, config=path, progress=False).train(promote=True)
    assert "the declared feature gone reads item.prize, but no item event has this field" in capsys.readouterr().err
    (note,) = [note for note in run.notes if "missing values of declared features" in note]
    assert "price 0.0%" in note
    assert "gone 100.0%" in note
    warnings = "\n".join(run.warnings)
    assert "gone is missing in all" in warnings
    assert "did you mean item.price?" in warnings
    assert "few has codes for the 2 most frequent of 6 values" in warnings
    assert "agent is constant" in warnings


def test_an_explanation_has_the_text_of_a_category(home: Path) -> None:
    feedrank(home, "train", "--promote")
    with Home(home).recommender() as recommender:
        explanation = recommender.recommend("u1", n=3).explain()
    items = tomllib.loads(TABLES)["features"]["declared"]
    assert [table["name"] for table in items][3] == "brand"
    for item, entry in zip(explanation.ids, explanation.items, strict=True):
        assert entry.categories == {"brand": f"b{int(item[1:]) % 6}"}
        assert np.isfinite(entry.features["brand"])
    assert explanation.to_pyarrow().column("category").drop_null().to_pylist() == [
        entry.categories["brand"] for entry in explanation.items
    ]
