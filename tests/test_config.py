"""The config file: defaults, every key, and errors that name the path of the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from feedrank.api.config import Config, ConfigError, IndexConfig, RecallConfig, ServeConfig, load_config
from feedrank.api.experiment_config import parse_experiment
from feedrank.api.renamed_keys import OLD_EXPERIMENT_KEYS, OLD_KEYS, OLD_VALUES
from feedrank.features.custom_counters import CounterSpec
from feedrank.features.families.registry import FAMILIES
from feedrank.features.state_spec import StateSettings


def written(folder: Path, text: str) -> Path:
    """A config file with that text."""
    path = folder / "feedrank.toml"
    path.write_text(text, encoding="utf-8")
    return path


def toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return repr(value)


def sections(config: Any, prefix: str = "") -> str:
    """The config as TOML, every key of every section; None can't be written."""
    plain: list[str] = [f"[{prefix[:-1]}]"] if prefix else []
    tables: list[str] = []
    for one in fields(config):
        held = getattr(config, one.name)
        if is_dataclass(held):
            tables.append(sections(held, f"{prefix}{one.name}."))
        elif isinstance(held, Mapping):
            tables.append(f"[{prefix}{one.name}]")
            tables += [f"{key} = {toml(value)}" for key, value in held.items()]
        elif held is not None:
            plain.append(f"{one.name} = {toml(held)}")
    return "\n".join([*plain, *tables])


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path: Path) -> None:
    assert load_config(None) == Config()
    assert load_config(written(tmp_path, "")) == Config()
    assert load_config(written(tmp_path, "# nothing\n[serve]\n")) == Config()


def test_every_key_can_be_set(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, sections(Config()))) == Config()
    usual = Config()
    changed = Config(
        embedder=replace(usual.embedder, model="a/model", revision="abc", batch_size=8, document=("title", "plot")),
        items=replace(usual.items, text_weight=0.25, transition_window=3, history_length=7),
        index=IndexConfig("my.module:Index", "cosine", 5, 2),
        recall=RecallConfig(50, 0.5),
        state=StateSettings((2.0, float("inf")), 9),
        features=replace(usual.features, families=("recall", "bm25")),
        training=replace(usual.training, folds=3, seed=1),
        ranker=replace(usual.ranker, rounds=9, parameters={"num_leaves": 4, "boosting": "dart", "lambda_l2": 0.5}),
        serve=ServeConfig("0.0.0.0", 0, 2),
    )
    assert load_config(written(tmp_path, sections(changed))) == changed


def test_a_whole_number_stands_for_a_float_and_infinity_is_inf(tmp_path: Path) -> None:
    found = load_config(written(tmp_path, "[items]\ntransition_damping = 5\n[state]\nhalf_lives_h = [1, 24, inf]"))
    assert found.items.transition_damping == 5.0
    assert found.state.half_lives_h == (1.0, 24.0, float("inf"))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("sevre = 1", ["unknown key sevre", "at the top level", "serve"]),
        ("[serve]\nportt = 1", ["unknown key serve.portt", "[serve]", "host, port, workers, threads"]),
        ("[ranker]\nparameter = {}", ["unknown key ranker.parameter", "parameters"]),
        ("[embedder.model]\nname = 'x'", ["embedder.model", "string"]),
        ('[serve]\nport = "8080"', ["serve.port", "'8080'", "integer"]),
        ("[serve]\nport = 80.5", ["serve.port", "80.5"]),
        ("[serve]\nthreads = true", ["serve.threads", "True"]),
        ("[serve]\nhost = 5", ["serve.host", "5", "string"]),
        ("serve = 1", ["serve", "found 1", "table"]),
        ("[state]\nhalf_lives_h = 5", ["state.half_lives_h", "5"]),
        ('[state]\nhalf_lives_h = [1, "a"]', ["state.half_lives_h.1", "'a'"]),
        ('[embedder]\ndocument = "title"', ["embedder.document", "'title'"]),
        ('[index]\nmetric = "manhattan"', ["index.metric", "manhattan", "cosine"]),
        # the values themselves
        ("[state]\nhalf_lives_h = [0]", ["state", "half_lives_h", "above 0"]),
        ("[state]\nhalf_lives_h = []", ["state", "half_lives_h"]),
        ('[features]\nfamilies = ["colour"]', ["features", "colour", "recall"]),
        ('[index]\nkind = "faiss"', ["index", "'faiss'", "annoy, exact"]),
        ("[index]\ntrees = 0", ["index", "trees is 0", "1 to"]),
        ("[recall]\ncandidates = 0", ["recall", "candidates is 0", "1 to 1,000"]),
        ("[recall]\nquery_weight = 1.5", ["recall", "query_weight is 1.5"]),
        ("[recall]\nquery_weight = nan", ["recall", "query_weight is nan"]),
        ("[serve]\nport = 65536", ["serve", "port is 65536", "65,535"]),
        ("[serve]\nthreads = 0", ["serve", "threads is 0"]),
        ("[embedder]\nbatch_size = 0", ["embedder", "batch_size is 0"]),
        ("[training]\nfolds = 1", ["training", "folds is 1", "at least 2"]),
        # no TOML at all
        ("[serve", ["is not TOML", "end of document"]),
        ("port: 5", ["is not TOML"]),
    ],
)
def test_an_error_is_one_line_with_file_and_key(tmp_path: Path, text: str, messages: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) - len(str(path)) < 250
    for part in messages:
        assert part in message


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read the config file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="can't read the config file"):
        load_config(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(tmp_path / "bytes.toml")


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
def test_an_old_key_is_refused_with_its_new_name(tmp_path: Path, old: str, new: str) -> None:
    section, _, key = old.rpartition(".")
    header = f"[[{section}]]\nname = 'a'" if section == "state.counters" else f"[{section}]"
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, f"{header}\n{key} = 1\n"))
    new_key = new.rpartition(".")[2]
    assert f"{old} is now named {new_key};" in str(caught.value)
    part: Any = CounterSpec("a") if section == "state.counters" else Config()
    for name in () if section == "state.counters" else section.split("."):
        part = getattr(part, name)
    assert hasattr(part, new_key), "the new name is a key"
    assert not hasattr(part, key), "the old name is none"


@pytest.mark.parametrize(
    ("path", "old", "new"), [(path, *pair) for path, values in OLD_VALUES.items() for pair in values.items()]
)
def test_an_old_value_is_refused_with_its_new_name(tmp_path: Path, path: str, old: str, new: str) -> None:
    section, _, key = path.rpartition(".")
    for name in (old, new):
        value = f'"{name}"' if key == "rule" else f'["{name}"]'
        text = f"[{section}]\n{key} = {value}\n"
        if name == new:
            load_config(written(tmp_path, text))
            continue
        with pytest.raises(ConfigError, match=f"{path} has the value '{old}', which is now named '{new}'"):
            load_config(written(tmp_path, text))
    assert key != "families" or (new in FAMILIES and old not in FAMILIES)


@pytest.mark.parametrize(("old", "new"), OLD_EXPERIMENT_KEYS.items())
def test_an_old_key_of_an_experiment_is_refused_with_its_new_name(old: str, new: str) -> None:
    body: dict[str, Any] = {
        "name": "x", "arms": {"a": {}, "b": {}}, "guardrails": [{"metric": "ctr"}], "metrics": {"m": {"type": "buy"}},
    }  # fmt: skip
    *tables, key = old.split(".")
    table: Any = body
    for name in tables:
        table = next(iter(table.values())) if name == "*" else table[name]
    (table[0] if isinstance(table, list) else table)[key] = 1
    with pytest.raises(ValueError, match=f"{key} is now named {new.rpartition('.')[2]};"):
        parse_experiment(body, "ab.toml")
