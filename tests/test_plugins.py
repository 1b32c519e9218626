"""Plug-ins by name: custom vector indexes and readers, and the errors of those that can't be used."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import custom_index
import custom_reader
import pytest
import toyworld
from conftest import feedrank

from feedrank.api import compose, config
from feedrank.api.compose.vector_index import custom_index_type, with_custom_index
from feedrank.api.config import Config, ConfigError, IndexConfig
from feedrank.api.home_paths import HomePaths
from feedrank.api.readers import Rejects, read_events
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.plugins import load_plugin
from feedrank.engine.retrieval.custom_index import CustomIndexError
from feedrank.engine.retrieval.indexes import ExactIndex, SegmentedIndex
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.testing import check_custom_index, check_reader, check_vector_index, toy_vectors
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.bundle import BundleError, BundleParts


def settings_of(home: Path, kind: str, **arguments: Any) -> Config:
    """The config of the home with a custom index."""
    return replace(
        config.load_config(HomePaths(home).config), index=IndexConfig(kind=f"custom_index:{kind}", arguments=arguments)
    )


def train(home: Path, name: str, settings: Config) -> bundle.Bundle:
    """Write a bundle in recall order and make it the current one."""
    paths = HomePaths(home)
    inputs = compose.load_training_inputs(paths, settings)
    parts = BundleParts(compose.fit_without_ranker(inputs, settings))
    compose.save_bundle(paths, settings, name, parts, {})
    return bundle.load(paths.current_bundle)


def feed(home: Path, settings: Config) -> tuple[str, ...]:
    recommender = compose.build_recommender(HomePaths(home), settings)
    return recommender.recommend(str(uuid.uuid4()), 2e9, RecommendationRequest("p0", n=5)).items


# --- the path of a plug-in


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("custom_index", 'expected the form "package.module:name"'),
        ("custom_index:", 'expected the form "package.module:name"'),
        ("own index:Saved", 'expected the form "package.module:name"'),
        ("no_such_module_of_mine:Saved", "No module named 'no_such_module_of_mine'; install it, or add its folder to"),
        (
            "custom_index:Sawed",
            "found no class or function 'Sawed' in custom_index for index.kind 'custom_index:Sawed'; the",
        ),
        ("custom_index:NOT_CALLABLE", "found no class or function 'NOT_CALLABLE'"),
    ],
)
def test_a_wrong_path_says_why(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"index\.kind") as caught:
        load_plugin(path, "index.kind")
    assert message in str(caught.value)


def test_a_module_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_that_fails.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"module_that_fails:x.*ZeroDivisionError: division by zero"):
        load_plugin("module_that_fails:x", "the reader")


# --- vector indexes: the shipped check


def test_the_check_passes_for_indexes_that_are_right() -> None:
    check_custom_index(custom_index.BuiltAtStart)
    check_custom_index(custom_index.Saved, shift=0.5)
    check_custom_index(ExactIndex, "cosine")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (custom_index.PadsWithMinusOne, "rows of the search"),
        (custom_index.SavesNothing, "saved no file"),
        (custom_index.KeepsItsFolder, "can't be loaded from"),
        (custom_index.LoadsSomethingElse, "after it was loaded"),
        (custom_index.OnlySaves, "has a method save and no load, expected both or neither"),
        (custom_index.no_index, "gave NoneType, expected an object with a method search"),
    ],
)
def test_the_check_finds_what_is_wrong(kind: Callable[..., Any], message: str) -> None:
    with pytest.raises((AssertionError, CustomIndexError), match=message):
        check_custom_index(kind)


# --- vector indexes: config and bundle


def test_arguments_come_from_the_config(home: Path) -> None:
    text = (home / "feedrank.toml").read_text().replace("[index]\n", '[index]\nkind = "custom_index:Saved"\n')
    (home / "feedrank.toml").write_text(f"{text}\n[index.arguments]\nshift = 1\n")
    settings = config.load_config(home / "feedrank.toml")
    assert settings.index.arguments == {"shift": 1}
    assert "bundles/own" in feedrank(home, "index", "--name", "own")
    found = compose.build_vector_index(bundle.load(home / "bundles" / "own"), settings.index)
    assert isinstance(found, custom_index.Saved)
    assert found._shift == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shfit": 1}, "unexpected keyword argument 'shfit'; its signature is (vectors"),
        ({"metric": "dot"}, "multiple values for argument 'metric'"),
    ],
)
def test_a_wrong_argument_is_found_before_the_training(home: Path, arguments: dict[str, Any], message: str) -> None:
    settings = settings_of(home, "Saved", **arguments)
    with pytest.raises(CustomIndexError) as caught:
        compose.load_training_inputs(HomePaths(home), settings)
    assert "index.kind 'custom_index:Saved' with [index.arguments]" in str(caught.value)
    assert message in str(caught.value)
    (home / "feedrank.toml").write_text('[index]\nkind = "custom_index:Sawed"\n')
    for command in (["train"], ["index"], ["serve", "--no-keys", "--port", 0]):
        assert "found no class or function 'Sawed'" in feedrank(home, *command, code=1)


def test_arguments_of_a_built_in_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text("[index]\narguments = {trees = 3}\n")
    with pytest.raises(ConfigError, match=r"found arguments for the kind annoy.*trees and search_k_factor"):
        config.load_config(tmp_path / "feedrank.toml")


def test_a_saved_index_is_built_once_and_loaded_by_each_server(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(home, "Saved", shift=0.25)
    usual = config.load_config(HomePaths(home).config)
    monkeypatch.setattr(custom_index.Saved, "built", 0)
    opened = train(home, "own", settings)
    assert custom_index.Saved.built == 1
    assert opened.manifest["custom_index"] == {"kind": "custom_index:Saved", "arguments": {"shift": 0.25}}
    assert "custom-index/vectors.npz" in opened.manifest["files"]
    monkeypatch.setattr(custom_index.Saved, "loaded", 0)
    with caplog.at_level(logging.INFO):
        assert feed(home, settings) == feed(home, usual)
    assert (custom_index.Saved.built, custom_index.Saved.loaded) == (1, 1)
    assert not caplog.records
    assert "custom_index" in feedrank(home, "bundles", "show", "own")


def test_an_unsaveable_index_is_built_at_start_and_logged(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custom_index.BuiltAtStart, "built", 0)
    settings = settings_of(home, "BuiltAtStart")
    opened = train(home, "own", settings)
    assert custom_index.BuiltAtStart.built == 0
    assert "custom_index" not in opened.manifest
    with caplog.at_level(logging.INFO):
        feed(home, settings)
    assert custom_index.BuiltAtStart.built == 1
    (line,) = caplog.records
    assert line.levelname == "INFO"
    assert "it has no save and load, so each server process builds it at its start" in line.getMessage()


@pytest.mark.parametrize("kind", ["Saved", "LoadsSomethingElse"])
def test_a_bundle_with_another_index_is_served_with_a_warning(
    home: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    train(home, "own", settings_of(home, "Saved"))
    with caplog.at_level(logging.WARNING):
        assert feed(home, settings_of(home, kind, shift=0.5))
    assert "was made with custom_index:Saved and the arguments {}; train again" in caplog.text
    caplog.clear()
    registry.promote(HomePaths(home).bundles, "toy")
    assert feed(home, settings_of(home, "Saved"))
    assert "the bundle toy was made with no custom index; train again" in caplog.text


def test_new_items_are_found_with_a_saved_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(home, "Saved")
    opened = with_custom_index(train(home, "own", settings), settings.index)
    monkeypatch.setattr(custom_index.Saved, "built", 0)
    monkeypatch.setattr(custom_index.Saved, "loaded", 0)
    paths = HomePaths(home)
    recommender = compose.build_recommender(paths, settings)
    from feedrank.api.compose.cold_start_updater import ColdStartUpdater
    from feedrank.api.compose.text_signals import TextEncoders

    updater = ColdStartUpdater(settings, opened, TextEncoders(paths, opened))
    fields = {"title": "the rocket book", "category": "space"}
    event = ItemEvent("i-new", toyworld.END, "new", fields)
    recommender.snapshot.observe([event])
    updater.apply([event], ["new"], 10_000, None, lambda make: recommender.swap_snapshot(make, 2e9))
    assert "new" in recommender.recommend("r", 2e9, RecommendationRequest("p0", n=100)).items
    grown = replace(opened, builder=updater._opened.builder)
    found = compose.build_vector_index(grown, settings.index)
    assert isinstance(found, SegmentedIndex)
    assert len(grown.item_model.space.item_side) == 61
    assert custom_index.Saved.built == 0


@pytest.mark.parametrize("kind", ["SavesNothing", "OnlySaves", "LoadsSomethingElse", "no_index"])
def test_an_index_that_fails_its_check_makes_no_bundle(home: Path, kind: str) -> None:
    settings = settings_of(home, kind)
    if kind == "no_index":
        train(home, "own", settings)
        with pytest.raises(CustomIndexError, match="gave NoneType"):
            feed(home, settings)
        return
    with pytest.raises(CustomIndexError, match=f"index.kind 'custom_index:{kind}'"):
        train(home, "own", settings)
    assert registry.current_name(HomePaths(home).bundles) == "toy"
    assert not (HomePaths(home).bundles / "own").exists()
    assert not list(HomePaths(home).bundles.glob(".own*"))


def test_an_error_of_the_class_is_passed_on(home: Path) -> None:
    settings = settings_of(home, "Saved")
    settings = replace(settings, index=replace(settings.index, metric="cosine"))
    with pytest.raises(CustomIndexError, match=r"can't be built: ValueError: found the metric 'cosine', expected dot"):
        train(home, "own", settings)


def test_a_damaged_or_foreign_file_of_the_index_is_named(home: Path) -> None:
    train(home, "own", settings_of(home, "Saved"))
    folder = HomePaths(home).bundles / "own"
    (folder / "custom-index" / "more.npz").write_bytes(b"more")
    with pytest.raises(BundleError, match=r"custom-index/more\.npz is foreign"):
        bundle.load(folder)
    (folder / "custom-index" / "more.npz").unlink()
    saved = folder / "custom-index" / "vectors.npz"
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"custom-index/vectors\.npz is damaged"):
        bundle.load(folder)
    shutil.rmtree(saved.parent)
    with pytest.raises(BundleError, match=r"custom-index/vectors\.npz is missing"):
        bundle.load(folder)


def test_a_changed_class_requires_retraining(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(home, "Saved")
    train(home, "own", settings)

    def refuse(*_: Any) -> None:
        raise KeyError("links")

    monkeypatch.setattr(custom_index.Saved, "load", refuse)
    with pytest.raises(BundleError, match=r"can't be loaded from .*custom-index: KeyError: 'links'; train again"):
        feed(home, settings)


def test_the_same_seed_gives_the_same_bytes_with_a_custom_index(home: Path) -> None:
    settings = settings_of(home, "Saved")
    first, second = train(home, "one", settings), train(home, "two", settings)
    names = [file for file in first.manifest["files"] if file.startswith("custom-index/")]
    assert names
    assert all(first.manifest["files"][name] == second.manifest["files"][name] for name in names)


def test_a_compiled_class_needs_no_signature() -> None:
    check_vector_index(lambda vectors: ExactIndex(vectors, "dot"))
    custom = custom_index_type(IndexConfig(kind="builtins:dict", arguments={"a": 1}))
    assert custom is not None
    with pytest.raises(CustomIndexError, match="builtins:dict' can't be built: TypeError"):
        custom.build(toy_vectors(), "dot")


# --- readers

LINES = "1700000000000 ann a click\nno line\n1700000001000 ben b click\n"


def test_the_check_of_a_reader_passes(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(LINES)
    events = check_reader(custom_reader.read, log, rejected=1)
    assert [event.id for event in events] == ["log.txt:1", "log.txt:3"]
    with pytest.raises(AssertionError, match="found 1 rejected lines, expected 0"):
        check_reader(custom_reader.read, log)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (custom_reader.read_unchecked, "event 2 is invalid: item: found ''"),
        (custom_reader.read_dicts, "event 1 is dict, expected an event"),
        (custom_reader.read_nothing, "returned NoneType, expected an iterator"),
        (custom_reader.read_random_ids, "event 1 differs when the file is read again"),
        (custom_reader.read_one_id, r"found the ids \['a'\] more than once"),
        (lambda path, rejects: iter(()), "found no event and no rejected line"),
        (lambda path, rejects: iter(rejects.reject("", 1, "why") or ()), "expected a source and a reason"),
    ],
)
def test_the_check_of_a_reader_finds_what_is_wrong(read: Callable[..., Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reader(read, tmp_path)


def test_an_import_with_a_custom_reader(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log.txt"
    log.write_text(LINES)
    text = feedrank(home, "import", log, "--format", "custom_reader:read")
    assert "2 of 2" in text
    (reject,) = [json.loads(line) for line in (home / "rejects.jsonl").read_text().splitlines()]
    assert (reject["line"], reject["text"]) == (2, "no line")
    assert "0 of 2" in feedrank(home, "import", log, "--format", "custom_reader:read")
    assert [event.id for event in HomePaths(home).journal().events("interaction")] == ["log.txt:1", "log.txt:3"]
    assert "log.txt:2: not enough values" in feedrank(
        tmp_path / "other", "import", log, "--format", "custom_reader:read", "--strict", code=1
    )


def test_a_custom_reader_may_read_a_folder(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "logs" / name).write_text(LINES)
    assert "4 of 4" in feedrank(tmp_path / "home", "import", tmp_path / "logs", "--format", "custom_reader:read_folder")


def test_invalid_events_of_a_reader_are_rejected_not_stored(tmp_path: Path) -> None:
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        events = list(read_events(tmp_path, rejects, "custom_reader:read_unchecked"))
    assert events == [parse({"event": "item", "id": "a", "timestamp": 1, "item": "x",
                             "fields": [{"name": "title", "value": "X"}]}),
                      parse({"event": "item", "id": "e", "timestamp": 1, "item": "y"})]  # fmt: skip
    assert (rejects.accepted, rejects.rejected) == (2, 3)
    written = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [line["line"] for line in written] == [2, 3, 4]
    assert all("custom_reader:read_unchecked yielded an invalid event: " in line["reason"] for line in written)
    assert "item: found nothing" in written[0]["reason"]


def test_lines_counted_by_the_reader_count_once(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(LINES)
    rejects = Rejects()
    assert len(list(read_events(log, rejects, "custom_reader:read"))) == 2
    assert rejects.summary()["read"] == 3


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("custom_reader:read_dicts", "yielded dict as its event 1, expected an event"),
        ("custom_reader:read_nothing", "returned NoneType, expected an iterator of events; use yield"),
        (
            "custom_reader:read_without_rejects",
            "can't call the reader 'custom_reader:read_without_rejects' as (path, rejects)",
        ),
        ("custom_reader:reed", "found no function 'reed' in custom_reader for the reader"),
        ("own-reader:read", 'expected the form "package.module:name"'),
        ("no_such_module_of_mine:read", "add its folder to PYTHONPATH"),
        ("txt", "found the format 'txt', expected one of jsonl"),
    ],
)
def test_a_reader_that_can_not_be_used_says_why(tmp_path: Path, format: str, message: str) -> None:
    assert message in feedrank(tmp_path / "home", "import", tmp_path, "--format", format, code=1)
