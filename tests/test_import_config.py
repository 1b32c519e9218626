"""Importing a config of Metarank: every kind in every spelling; what has no counterpart is named, all of it at once."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.features import metarank
from feedrank.api.config import load_config
from feedrank.api.metarank.config_import import import_metarank
from feedrank.api.metarank.feature_kinds import KINDS
from feedrank.api.metarank.section import NoCounterpart, Section

MODEL = "models:\n  m:\n    type: lambdamart\n"


def imported(tmp_path: Path, text: str, *options: str, code: int = 0) -> Any:
    """The parsed TOML of an import, or what the command prints to stderr where it fails."""
    (tmp_path / "metarank.yml").write_text(text)
    arguments = ["import-config", tmp_path / "metarank.yml", "--output", tmp_path / "out.toml", "--force", *options]
    printed = feedrank(tmp_path / "home", *arguments, code=code)
    return tomllib.loads((tmp_path / "out.toml").read_text()) if code == 0 else printed


def feature(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    """The declared features of one feature."""
    declared: list[dict[str, Any]] = imported(tmp_path, f"features:\n  - {{name: x, {text}}}\n")["features"]["declared"]
    return declared


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: number, scope: item, source: metadata.price", {"from": "list.price", "fallback": "item.price"}),
        ("type: number, scope: user, field: user.age", {"from": "user.age"}),
        ("type: number, scope: ranking, field: ranking.hour", {"from": "request.hour"}),
        ("type: number, scope: item, field: ranking.bid", {"from": "list.bid", "fallback": "request.bid"}),
        ("type: number, source: item, field: price", {"fallback": "item.price"}),
        ("type: boolean, scope: item, field: item.stock", {"kind": "boolean"}),
        ("type: string, scope: item, field: item.c, values: [a, b]", {"kind": "list", "values": ["a", "b"]}),
        ("type: string, scope: item, field: item.c, encode: index, values: [a, 1]", {"kind": "category"}),
        ("type: vector, scope: item, field: item.v", {"reduce": ["min", "max", "size", "mean"]}),
        (
            "type: vector, scope: item, field: item.v, reduce: [vector10, euclideanDistance]",
            {"reduce": ["values", "norm"], "dimensions": 10},
        ),
        ("type: list_size, source: item, field: tags", {"reduce": ["size"], "from": "item.tags"}),
        ("type: relative_number, field: item.price, scope: item", {"within": ["minmax"]}),
        ("type: word_count, scope: item, field: item.title", {"kind": "word_count"}),
        ("type: item_age, source: item.timestamp", {"from": "item.timestamp"}),
        ("type: time-diff, source: item.made", {"kind": "item_age"}),
        ("type: local_time, source: ranking.timestamp, parse: day_of_week", {"part": "weekday"}),
        ("type: localTime, source: ranking.ts, parse: second", {"part": "timestamp", "from": "request.ts"}),
        ("type: ua, source: ranking.ua, field: bot", {"kind": "user_agent", "part": "bot"}),
        ("type: referer, source: ranking.ref, scope: session", {"kind": "referer", "part": "medium"}),
        ("type: relevancy", {"from": "list.relevancy"}),
        ("type: interaction_count, interaction: buy, scope: item", {"of": ["buy"], "half_lives_h": [math.inf]}),
        ("type: interaction_count, interaction: buy, scope: session", {"key": ["session"]}),
        ("type: interaction_count, interaction: buy, scope: global", {"key": []}),
        (
            "type: window_count, interaction: click, scope: user, bucket: 24h, periods: [7, 30]",
            {"windows_h": [168.0, 720.0], "bucket_h": 24.0, "key": ["user"]},
        ),
        (
            "type: window_event_count, interaction: click, scope: item, bucketSize: 30m, windows: [2]",
            {"windows_h": [1.0], "bucket_h": 0.5},
        ),
        ("type: rate, top: click, bottom: impression, bucket: 1d, periods: [7]", {"key": ["item"], "smoothing": 0.0}),
        (
            "type: rate, top: a, bottom: b, bucket: 1d, periods: [7], scope: item.tag, normalize: {weight: 5}",
            {"key": ["item.tag"], "prior_of": 5.0, "per": ["b"]},
        ),
        (
            "type: rate, top: a, bottom: b, bucket: 1d, periods: [7], scope: ranking.query",
            {"key": ["item", "request.query"]},
        ),
        (
            "type: interacted_with, interaction: click, field: item.tag, scope: session, count: 10, duration: 2h",
            {"by": "session", "latest": 10, "windows_h": [2.0], "share": False},
        ),
        (
            "type: field_match, rankingField: ranking.q, itemField: item.t, method: {type: ngram, n: 2, language: en}",
            {"method": "ngram", "n": 2, "from": "request.q", "to": "item.t"},
        ),
        (
            "type: field_match, ranking_field: ranking.q, item_field: item.t, method: {type: bm25, language: de}",
            {"method": "bm25", "language": "german"},
        ),
        ("type: random", {"kind": "random"}),
    ],
)  # fmt: skip
def test_each_kind_becomes_a_declared_feature(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    (declared,) = feature(tmp_path, text)
    assert expected.items() <= declared.items()


def test_one_field_of_each_becomes_a_feature(tmp_path: Path) -> None:
    found = feature(tmp_path, "type: interacted_with, interaction: c, field: [item.a, item.b], scope: user")
    assert [(entry["name"], entry["from"]) for entry in found] == [("x_a", "item.a"), ("x_b", "item.b")]


def test_diversity_knows_by_other_features_what_a_field_holds(tmp_path: Path) -> None:
    diversity = "  - {name: d, type: diversity, source: item.price}\n"
    number = "  - {name: n, type: number, scope: item, source: item.price}\n"
    text = "  - {name: s, type: word_count, scope: item, source: item.price}\n"
    for others, methods in ((number, ["number"]), (text, [None]), ("", [None, "number"])):
        declared = imported(tmp_path, f"features:\n{diversity}{others}")["features"]["declared"]
        assert [entry.get("method") for entry in declared if entry["kind"] == "diversity"] == methods, others


def test_the_eighteen_kinds_and_their_model(tmp_path: Path) -> None:
    (tmp_path / "metarank.yml").write_text(metarank.CONFIG)
    found = import_metarank(tmp_path / "metarank.yml")
    assert len(found.names) == metarank.KINDS
    assert found.report.problems == []
    (tmp_path / "feedrank.toml").write_text(found.text)
    config = load_config(tmp_path / "feedrank.toml")
    assert config.ranker.debias
    assert config.ranker.rounds == 100
    assert config.interactions.of("click").weight == 1


def test_models_become_labels_parameters_and_half_lives(tmp_path: Path) -> None:
    text = """
features:
  - {name: bought, type: interaction_count, interaction: buy, scope: item}
  - {name: match, type: field_match, rankingField: ranking.query, itemField: item.title,
     method: {type: bi-encoder, model: metarank/all-MiniLM-L6-v2, dim: 384}}
  - {name: cross, type: field_match, rankingField: ranking.query, itemField: item.text,
     method: {type: cross-encoder, model: metarank/ce-msmarco-MiniLM-L6-v2}}
models:
  rank:
    type: lambdamart
    backend: {type: xgboost, learningRate: 0.05, maxDepth: 6, sampling: 0.7, ndcgCutoff: 20, debias: true}
    weights: {click: 1, like: 2.5, hide: -1}
    features: [bought, match, cross]
    eval: [MAP@10, NDCG@5]
    split: time=90%
    warmup: {sampledRequests: 10, duration: 1s}
  top:
    type: trending
    weights: [{interaction: click, decay: 0.5, window: 30d}]
  like: {type: als, interactions: [click], factors: 64, iterations: 10}
  text: {type: semantic, encoder: {type: bert, model: metarank/all-MiniLM-L6-v2, dim: 384}, itemFields: [title, text]}
api: {port: 9000}
state: {type: redis, host: localhost}
core: {clickthrough: {maxSessionLength: 30m}}
source: {type: file, path: events.jsonl}
"""
    found = imported(tmp_path, text)
    assert found["ranker"]["parameters"] == {
        "learning_rate": 0.05, "max_depth": 6, "feature_fraction": 0.7, "lambdarank_truncation_level": 20,
    }  # fmt: skip
    assert found["labels"] == {"grade_thresholds": [0.0, 1.0], "gains": [0.0, 1.0, 2.5]}
    assert found["interactions"]["types"]["hide"] == {"meaning": "negative", "weight": -1.0}
    assert found["interactions"]["types"]["buy"] == {"weight": 0.0}
    assert found["interactions"]["types"]["click"]["cooccurrence"] is True
    assert found["retrain"]["gate"]["metric"] == "map"
    assert found["retrain"]["test_share"] == 0.1
    assert 24.0 in found.get("state", {"half_lives_h": [24.0]})["half_lives_h"]
    assert found["embedder"]["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["embedder"]["document"] == ["title", "text"]
    assert found["cross_encoder"]["model"] == "cross-encoder/ms-marco-MiniLM-L6-v2"
    assert found["serve"]["port"] == 9000


def test_all_that_has_no_counterpart_is_named_at_once(tmp_path: Path) -> None:
    text = """
features:
  - {name: a, type: number, scope: global, source: item.a}
  - {name: b, type: number, scope: item, source: "interaction:click.b"}
  - {name: c, type: telepathy}
  - {name: d, type: vector, scope: item, field: item.v, reduce: [random]}
  - {name: e, type: window_count, interaction: click, scope: item, bucket: soon, periods: [1]}
  - {name: f, type: string, scope: item, field: item.c, values: [x], colour: blue}
  - {name: g, type: field_match, rankingField: ranking.text, itemField: item.t,
     method: {type: bi-encoder, model: m, dim: 3}}
  - {name: h h, type: random}
  - {name: a, type: random}
  - {type: random}
  - {name: ok, type: random}
models:
  one: {type: lambdamart, features: [ok, nowhere], selector: {ratio: 0.5}, split: random}
  two: {type: shuffle, maxPositionChange: 3}
  three: {type: neural}
source: {type: kafka, topic: t}
inference: {m: {type: cross-encoder}}
telemetry: on
"""
    printed = imported(tmp_path, text, code=1)
    for expected in (
        "features.a: found scope = global; send the value with each ranking",
        "features.b: found the field interaction:click.b: interactions bring no fields",
        "features.c: found type = telepathy, expected one of number",
        "features.d: found reduce = random, expected first",
        "features.e: found bucket = 'soon', expected a duration such as 30s, 24h or 7d",
        "features.f: found the key colour = 'blue'",
        "features.g: found rankingField = ranking.text: text models read the query",
        "features.h h",
        "features[9]: found name = nothing, expected a text",
        "models: found the feature nowhere, which features does not have",
        "models.one: found selector = {'ratio': 0.5}",
        "models.one: found split = random; feedrank tests on the newest part",
        "models.two: found type = shuffle",
        "models.three: found type = neural, expected one of lambdamart",
        "source: found type = kafka; feedrank reads files",
        "inference: feedrank has no routes",
        "found the key telemetry",
        "nothing is written",
    ):
        assert expected in printed, expected
    assert not (tmp_path / "out.toml").exists()
    imported(tmp_path, text, "--skip-unsupported", code=6)
    written = (tmp_path / "out.toml").read_text()
    assert "# NOT IMPORTED: features.c" in written
    assert [entry["name"] for entry in tomllib.loads(written)["features"]["declared"]] == ["ok"]


def test_a_feature_that_no_model_uses_is_a_comment(tmp_path: Path) -> None:
    features = "features:\n  - {name: a, type: random}\n  - {name: b, type: random}\n"
    found = imported(tmp_path, f"{features}{MODEL}    features: [b]\n")
    assert [entry["name"] for entry in found["features"]["declared"]] == ["b"]
    assert '# name = "a"' in (tmp_path / "out.toml").read_text()


def test_a_name_of_a_built_in_feature_gets_longer(tmp_path: Path) -> None:
    (declared,) = imported(
        tmp_path, "features:\n  - {name: ctr, type: rate, top: click, bottom: impression, bucket: 1d, periods: [1, 7]}"
    )["features"]["declared"]
    assert declared["name"] == "ctr_declared"


def test_one_of_several_rankers_is_chosen(tmp_path: Path) -> None:
    text = (
        "features: [{name: a, type: random}, {name: b, type: random}]\n"
        "models:\n  one: {type: lambdamart, features: [a]}\n  two: {type: lambdamart, features: [b]}\n"
    )
    assert "choose it with --model" in imported(tmp_path, text, code=1)
    assert "no lambdamart model three; there are one, two" in imported(tmp_path, text, "--model", "three", code=1)
    found = imported(tmp_path, text, "--model", "two")
    assert [entry["name"] for entry in found["features"]["declared"]] == ["b"]


def test_a_config_that_exists_stays_unless_forced(tmp_path: Path) -> None:
    source = tmp_path / "metarank.yml"
    source.write_text("features: [{name: a, type: random}]")
    home = tmp_path / "home"
    feedrank(home, "import-config", source)
    before = (home / "feedrank.toml").read_text()
    assert "--force" in feedrank(home, "import-config", source, code=1)
    (home / "feedrank.toml").write_text("not toml")
    feedrank(home, "import-config", source, "--force")
    assert (home / "feedrank.toml").read_text() == before
    assert feedrank(home, "import-config", source, "--output", "-") == before
    assert [path.name for path in home.iterdir()] == ["feedrank.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("features: [", "is not YAML"),
        ("a: 1\na: 2", "twice"),
        ("- 1", "expected a mapping"),
        ("features: {a: 1}", "expected a list"),
        ("models: [1]", "expected a mapping"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in imported(tmp_path, text, code=1)


@given(st.integers(1, 10_000), st.sampled_from("smhd"))
def test_durations(number: int, unit: str) -> None:
    hours = {"s": 1 / 3_600, "m": 1 / 60, "h": 1, "d": 24}[unit]
    assert Section("x", {"bucketSize": f"{number}{unit}"}).hours("bucket_size") == pytest.approx(number * hours)
    with pytest.raises(NoCounterpart):
        Section("x", {"bucket": f"{number}{unit}{unit}"}).hours("bucket")


def test_every_kind_is_tested() -> None:
    text = Path(__file__).read_text().lower().replace("_", "").replace("-", "") + metarank.CONFIG.replace("_", "")
    aliases = {"numvector", "useragent", "referermedium", "interactioncounter", "windowcounter", "windowedcount"}
    assert [kind for kind in KINDS if kind not in aliases and f"type: {kind}" not in text] == []
