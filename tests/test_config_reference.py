"""The config reference: every key has a type, a default and a meaning, and what is printed loads again."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st

from feedrank.api.attribute_docs import attribute_docs
from feedrank.api.cli import main
from feedrank.api.config import Config, load_config
from feedrank.api.config_reference import ConfigKey, config_keys, experiment_keys
from feedrank.api.config_template import config_template
from feedrank.api.effective_config import effective_values
from feedrank.api.experiment_config import parse_experiment
from feedrank.api.toml_text import to_toml

KEYS = [*config_keys(), *experiment_keys()]


def names(config: Any, prefix: str = "") -> set[str]:
    """The keys that a config's dataclasses have, by themselves."""
    found: set[str] = set()
    for entry in fields(config):
        held = getattr(config, entry.name)
        found |= names(held, f"{prefix}{entry.name}.") if is_dataclass(held) else {prefix + entry.name}
    return found


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


# --- the reference


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.key)
def test_every_key_has_a_type_a_default_and_a_meaning(key: ConfigKey) -> None:
    assert key.type
    assert key.default
    assert key.meaning.endswith("."), f"{key.key} has no docstring with a full sentence: {key.meaning!r}"
    assert len(key.meaning) >= 25
    assert words(key.meaning) - words(key.key) - words(key.type) - {"the", "a", "an", "of", "number", "name"}
    for word in ("None", "True", "False", "TOML null"):
        assert word not in key.meaning.split(), f"{key.key}: a config file has no {word}"


def test_every_key_of_every_section_is_listed_once() -> None:
    listed = [key.key for key in config_keys()]
    assert len(set(listed)) == len(listed)
    in_lists = {
        key for key in listed if key.startswith(("state.counters.", "interactions.types.", "features.declared."))
    }
    assert set(listed) - in_lists == names(Config())
    assert {"retrain.gate.margin", "state.counters.name", "index.arguments"} <= set(listed)


def test_types_defaults_and_units_are_read_from_the_classes() -> None:
    found = {key.key: (key.type, key.default, key.unit) for key in config_keys()}
    assert found["index.metric"] == ("one of cosine, euclidean, dot", '"dot"', "")
    assert found["serve.deadline_ms"] == ("number", "0", "milliseconds")
    assert found["training.memory_mb"] == ("integer", "2000", "MB")
    assert found["recall.candidates"] == ("integer", "100", "items")
    assert found["journal.url"] == ("text", "not set", "")
    assert found["state.half_lives_h"] == ("list of numbers", "[1.0, 6.0, 24.0, 168.0, 720.0, inf]", "hours")
    assert found["state.counters"] == ("list of tables", "[]", "")
    assert found["state.counters.name"] == ("text", "required", "")
    assert found["labels.dwell_saturation_s"] == ("table of numbers", "{}", "seconds")
    assert found["interactions.types"] == ("table of tables", "{}", "")
    assert found["interactions.types.*.weight"] == ("number", "not set", "")
    assert found["serve.log_json"] == ("true or false", "true", "")


def test_the_keys_of_an_experiment_are_those_that_a_file_may_have() -> None:
    body = {
        "name": "x", "arms": {"a": {"diversity": {}, "explore": {}}, "b": {}}, "guardrails": [{"metric": "ctr"}],
        "metrics": {"m": {"type": "buy"}},
    }  # fmt: skip

    def paths(value: Any, prefix: str = "") -> set[str]:
        if isinstance(value, list):
            return set[str]().union(*(paths(entry, prefix) for entry in value))
        if not isinstance(value, dict):
            return set()
        found: set[str] = set()
        for name, entry in value.items():
            path = prefix + (name if prefix not in ("arms.", "metrics.") else "*")
            found |= {path} | paths(entry, f"{path}.")
        return found

    allowed = paths(parse_experiment(body, "x.toml").to_dict())
    listed = {key.key for key in experiment_keys()}
    assert listed == {path for path in allowed if path not in ("targeting", "arms.*", "metrics.*")}


def test_a_class_without_a_source_is_an_error() -> None:
    class WithoutSource:
        pass

    WithoutSource.__module__ = "itertools"
    with pytest.raises(RuntimeError, match="no source of itertools"):
        attribute_docs(WithoutSource)


# --- the template


def load(folder: Path, text: str) -> Config:
    path = folder / "feedrank.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_the_template_loads_to_the_defaults_also_if_its_keys_are_uncommented(tmp_path: Path) -> None:
    text = feedrank(tmp_path, "config", "--toml")
    assert load(tmp_path, text) == Config()
    uncommented, count = re.subn(r"^#(?=[a-z])", "", text, flags=re.MULTILINE)
    assert load(tmp_path, uncommented) == Config()
    in_tables = ("state.counters", "interactions.types.*", "features.declared")
    with_default = [key for key in config_keys() if key.default != "not set" and key.section not in in_tables]
    assert count == len(with_default) > 80
    assert all(f"\n{key.name} = {key.default}\n" in uncommented for key in with_default)
    assert max(len(line) for line in text.splitlines() if line.startswith("# ")) <= 110


def test_every_key_is_in_the_template() -> None:
    text = config_template(config_keys())
    for key in config_keys():
        assert re.search(rf"^#{key.name} = |^# {key.name}: ", text, re.MULTILINE), key.key


def test_a_template_of_one_section(tmp_path: Path) -> None:
    text = feedrank(tmp_path, "config", "retrain", "--toml")
    assert re.findall(r"^\[.*", text, re.MULTILINE) == ["[retrain]", "[retrain.gate]"]
    assert load(tmp_path, text) == Config()


# --- the command


def test_the_command_prints_every_key(tmp_path: Path) -> None:
    text = feedrank(tmp_path, "config")
    for key in config_keys():
        assert f" {key.name} " in text
        assert key.section in text
    assert "milliseconds" in text
    assert "list of tables" in text


def test_one_section_and_one_key(tmp_path: Path) -> None:
    def listed(*arguments: str) -> list[str]:
        return [key["key"] for key in json.loads(feedrank(tmp_path, "config", "--json", *arguments))]

    assert listed() == [key.key for key in config_keys()]
    assert listed("index.trees") == ["index.trees"]
    assert set(listed("recall")) == {"recall.candidates", "recall.query_weight"}
    assert {"state.half_lives_h", "state.counters", "state.counters.name"} <= set(listed("state"))
    assert "guardrails.metric" in listed("--experiment", "guardrails")
    trees = json.loads(feedrank(tmp_path, "config", "--json", "index.trees"))[0]
    assert set(trees) == {"key", "type", "default", "unit", "meaning"}


def test_the_values_in_force_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text(
        '[journal]\nurl = "postgresql+psycopg://ann:secret@host/name"\n[index]\ntrees = 7\n'
        '[[state.counters]]\nname = "buys"\ntypes = ["purchase"]\n'
    )
    values = json.loads(feedrank(tmp_path, "config", "--effective", "--json"))
    changed = {value["key"]: value["value"] for value in values if value["differs"]}
    assert changed["index.trees"] == "7"
    assert changed["journal.url"] == '"postgresql+psycopg://ann:***@host/name"'
    assert changed["state.counters"].startswith('[{name = "buys", entity = "item", types = ["purchase"]')
    assert len(changed) == 3
    assert {value["key"] for value in values} == names(Config())
    text = feedrank(tmp_path, "config", "--effective", "index")
    assert re.search(r"\*\W+index\.trees\W+7\W+30\b", text)
    assert "1 of 6 values differ" in text
    assert str(tmp_path / "feedrank.toml") in text.replace("\n", "")


def test_without_a_file_no_value_differs() -> None:
    assert not [value for value in effective_values(Config(), config_keys()) if value.differs]


def test_a_file_that_is_wrong_stops_only_the_values_in_force(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text("[index]\ntree = 7\n")
    assert "unknown key index.tree;" in feedrank(tmp_path, "config", "--effective", code=1)
    assert "trees" in feedrank(tmp_path, "config", "index")
    assert "unknown key index.tree;" in feedrank(tmp_path, "train", code=1)


@pytest.mark.parametrize(
    "arguments", [["indx"], ["index.tree"], ["--toml", "--json"], ["--toml", "--effective"],
                  ["--effective", "--experiment"]],
)  # fmt: skip
def test_wrong_arguments_end_with_2(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path), "config", *arguments])
    assert result.exit_code == 2
    assert "index" in result.stderr or "--toml" in result.stderr


# --- values as TOML

VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)  # fmt: skip


@given(VALUES)
def test_values_written_as_toml_are_read_back(value: Any) -> None:
    import tomllib

    assert tomllib.loads(f"key = {to_toml(value)}\n") == {"key": value}


def test_none_is_not_written() -> None:
    with pytest.raises(TypeError, match="expected a value that TOML can hold"):
        to_toml([None])
