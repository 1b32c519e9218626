"""A promotion hands the state over where a replay would give the same bits, and replays the journal elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import feedrank
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bundle_damage import copy_bundle, sign

from feedrank.api.compose import state_saver, text_signals
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.serving import build_snapshot, restore_state, try_out
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.config import load_config
from feedrank.api.home_paths import HomePaths
from feedrank.api.process_turns import SWITCH_INTERVAL_S, frequent_switches, take_turn
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle, registry, snapshot
from feedrank.models.bundles.content_maps import CONTENT_MAPS
from feedrank.models.items.cold_start import ColdStartExtender

START_S = toyworld.END / 1000 + 100_000


class Running:
    """A recommender on a home with the bundles toy and newer, and its refresher, which is not started."""

    def __init__(self, home: Path) -> None:
        self.home, self.at = HomePaths(home), START_S
        copy_bundle(self.home.bundles, "newer")
        registry.promote(self.home.bundles, "toy")
        self.config, self.journal = load_config(self.home.config), self.home.journal()
        opened = bundle.load(self.home.current_bundle)
        restored = restore_state(self.home, self.journal, opened, round(self.at * 1000))
        self.recommender = Recommender(build_snapshot(self.home, self.config, opened, restored), self.journal)
        self.refresher = Refresher(
            self.home, self.config, self.journal, self.recommender, opened, TextEncoders(self.home, opened),
            clock=lambda: self.at,
        )  # fmt: skip

    def feed(self, number: int) -> None:
        self.at += 1
        self.recommender.recommend(f"feed-{number}", self.at, RecommendationRequest(toyworld.user_id(number % 70)))

    def record(self, event: Event) -> None:
        self.at += 1
        self.recommender.record([event], self.at)

    def click(self, number: int, **more: Any) -> None:
        at = round(self.at * 1000) - 60_000 * (number % 3)
        item = toyworld.item("ocean", number)
        self.record(InteractionEvent(f"click-{number}", at, item, "click", user=toyworld.user_id(number % 70), **more))

    def promote(self, name: str) -> bool:
        """Promote a bundle; returns whether the state was handed over."""
        before = self.recommender.snapshot
        registry.promote(self.home.bundles, name)
        assert self.refresher.check_bundle()
        assert self.recommender.pipeline.bundle == name
        assert before.is_replaced
        return self.recommender.snapshot.state is before.state

    def assert_as_replayed(self) -> None:
        """Assert that the state is that of a replay of the whole journal."""
        self.recommender.catch_up(self.at)
        served, opened = self.recommender.snapshot, bundle.load(self.home.current_bundle)
        replayed = snapshot.restore(
            self.home.folder / "none", self.journal, opened.item_model.catalogue, opened.builder.spec,
            now_ms=round(self.at * 1000),
        )  # fmt: skip
        assert isinstance(served.state, BehaviouralState)
        assert served.offset == replayed.offset
        assert served.latest_ms == replayed.high_watermark_ms
        assert list(served.users) == list(replayed.users)
        users = range(len(served.users))
        for name, array in replayed.state.arrays().items():
            if not name.startswith(("histories.", "dislike_marks.")):  # spare room and blocks depend on the growth
                np.testing.assert_array_equal(served.state.arrays()[name][: len(array)], array, name)
        for user in users:
            for mine, other in zip(served.state.history(user), replayed.state.history(user), strict=True):
                np.testing.assert_array_equal(mine, other)
            np.testing.assert_array_equal(served.state.disliked(user), replayed.state.disliked(user))


@pytest.fixture
def running(home: Path) -> Running:
    return Running(home)


# --- handing over


@settings(max_examples=8)
@given(steps=st.lists(st.sampled_from(["feed", "click", "late click", "other process", "promote"]), max_size=25))
def test_a_state_that_is_handed_over_is_that_of_a_replay(
    interactions_home: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("promotions") / "home"
    running = Running(Path(shutil.copytree(interactions_home, folder, symlinks=True)))
    other = running.home.journal()
    names = ["newer", "toy"]
    for number, step in enumerate([*steps, "promote", "click", "feed"]):
        if step == "feed":
            running.feed(number)
        elif step == "click":
            running.click(number)
        elif step == "late click":
            running.click(number, received=1)
        elif step == "other process":
            running.at += 1
            user = toyworld.user_id(number)
            event = InteractionEvent(f"other-{number}", 0, "music-1", "click", user=user)
            other.record([event], round(running.at * 1000))
        else:
            assert running.promote(names[0]), "nothing happened that a replay sees in another way"
            names.reverse()
    running.assert_as_replayed()
    other.close()


def erase(running: Running) -> None:
    running.recommender.erase_user(toyworld.user_id(3), "erasure", running.at)


def import_older(running: Running) -> None:
    event = InteractionEvent("late", toyworld.START, "ocean-1", "click", user=toyworld.user_id(0))
    running.journal.append([event])
    running.recommender.catch_up(running.at)


def import_newer(running: Running) -> None:
    event = InteractionEvent("now", round(running.at * 1000), "ocean-1", "click", user=toyworld.user_id(0))
    running.journal.append([event])
    running.recommender.catch_up(running.at)


def purge(running: Running) -> None:
    feedrank(running.home.folder, "purge", "--older-than-days", "1", "--yes")


def postpone(running: Running) -> None:
    ahead = round(running.at * 1000) + 3 * 86_400_000
    running.journal.append([InteractionEvent("ahead", ahead, "ocean-1", "click", user=toyworld.user_id(0))])
    running.recommender.catch_up(running.at)


def postpone_and_wait(running: Running) -> None:
    postpone(running)
    running.at += 4 * 86_400
    running.recommender.catch_up(running.at)


def add_item(running: Running) -> None:
    running.record(ItemEvent("new-item", round(running.at * 1000), "ocean-new", {"title": "the kraken book"}))
    assert running.refresher.check_items() == 1


@pytest.mark.parametrize(
    "happen", [erase, import_older, import_newer, purge, postpone, postpone_and_wait, add_item],
    ids=lambda happen: happen.__name__,
)  # fmt: skip
def test_the_journal_is_replayed_after_what_a_replay_sees_in_another_way(
    running: Running, happen: Callable[[Running], None]
) -> None:
    running.click(1)
    assert running.promote("newer")
    happen(running)
    running.click(2)
    assert not running.promote("toy")
    if happen is not add_item:
        running.assert_as_replayed()
    assert happen is add_item or not running.recommender.snapshot.future.postponed or happen is postpone


def test_a_bundle_of_other_items_or_settings_gets_a_state_of_its_own(running: Running) -> None:
    running.record(ItemEvent("new-item", round(running.at * 1000), "ocean-new", {"title": "the kraken book"}))
    feedrank(running.home.folder, "index", "--name", "more")
    assert not running.promote("more")
    assert "ocean-new" in running.recommender.catalogue.ids
    running.assert_as_replayed()
    folder = running.home.folder
    (folder / "feedrank.toml").write_text(toyworld.CONFIG + "\n[state]\nhistory_length = 7\n")
    feedrank(folder, "index", "--name", "shorter")
    assert not running.promote("shorter")
    running.assert_as_replayed()


def test_trying_out_applies_no_event_and_sees_a_state_that_others_change(running: Running) -> None:
    serving = running.recommender.snapshot
    opened = bundle.load(running.home.bundles / "newer")
    restored = restore_state(running.home, running.journal, opened, round(running.at * 1000))
    tried = build_snapshot(running.home, running.config, opened, restored)
    offset, users = tried.offset, len(tried.users)
    running.click(1)
    try_out(tried, running.at, running.recommender.state_lock)
    assert (tried.offset, len(tried.users)) == (offset, users)
    assert serving.offset == offset + 1


# --- turns


def test_one_process_loads_at_a_time(running: Running) -> None:
    registry.promote(running.home.bundles, "newer")
    script = (
        "import sys; from pathlib import Path; from feedrank.api.process_turns import take_turn\n"
        "with take_turn(Path(sys.argv[1])) as is_ours: print(is_ours, flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", script, str(running.home.loading_lock)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert not running.refresher.check_bundle()
        assert running.recommender.pipeline.bundle == "toy"
        running.feed(0)
        other.kill()
    assert running.refresher.check_bundle(), "a process that dies loses its turn"
    assert running.recommender.pipeline.bundle == "newer"


def test_a_home_that_holds_no_lock_file_has_no_turns(tmp_path: Path) -> None:
    with take_turn(tmp_path / "none" / "lock") as first, take_turn(tmp_path / "none" / "lock") as second:
        assert (first, second) == (True, True)
    with take_turn(tmp_path / "lock") as first, take_turn(tmp_path / "lock") as second:
        assert (first, second) == ((True, False) if os.name == "posix" else (True, True))


def test_the_switch_interval_is_set_back() -> None:
    before = sys.getswitchinterval()
    with frequent_switches():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    assert sys.getswitchinterval() == before


# --- saving the state


def test_a_long_replay_runs_in_another_process(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.record(ItemEvent("new-item", round(running.at * 1000), "ocean-new", {"title": "the kraken book"}))
    feedrank(running.home.folder, "index", "--name", "more")
    monkeypatch.setattr(snapshot, "MIN_EVENTS_TO_SAVE", 5)
    assert not running.promote("more")
    opened = bundle.load(running.home.current_bundle)
    catalogue, spec = opened.item_model.catalogue, opened.builder.spec
    assert snapshot.saved_offset(running.home.snapshot, catalogue, spec) == running.journal.last_offset
    running.assert_as_replayed()
    assert snapshot.saved_offset(running.home.snapshot, catalogue, opened.builder.spec.of(spec, spec.interactions)) > 0
    toy = bundle.load(running.home.bundles / "toy")
    assert snapshot.saved_offset(running.home.snapshot, toy.item_model.catalogue, toy.builder.spec) == 0
    running.home.snapshot.write_bytes(b"damaged")
    assert snapshot.saved_offset(running.home.snapshot, catalogue, spec) == 0


def test_a_state_that_can_not_be_saved_is_replayed(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(snapshot, "MIN_EVENTS_TO_SAVE", 1)
    monkeypatch.setattr(
        state_saver, "run_cli", lambda *_, **more: subprocess.CompletedProcess([], 1, "", "Error: the disk is full")
    )
    import_older(running)
    assert not running.promote("newer")
    assert "the disk is full" in caplog.text
    running.assert_as_replayed()


# --- what is shared


class Model:
    """Stands in for a text model."""

    loaded = 0

    def __init__(self, settings: Any, cache: Path) -> None:
        Model.loaded += 1
        self.digest = "weights/1"

    def encode_query(self, text: str) -> Any:
        return np.ones(3, np.float32)


def test_a_loaded_text_model_is_shared_where_its_digest_is_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_signals, "SentenceEmbedder", Model)
    bundles = HomePaths(home).bundles

    def encoders(name: str, digest: str, other: TextEncoders | None = None, **more: Any) -> TextEncoders:
        opened = bundle.load(copy_bundle(bundles, name))
        config = {**opened.manifest["config"], "embedder": {**opened.manifest["config"]["embedder"], "model": "some"}}
        config["embedder"] |= more
        manifest = {**opened.manifest, "config": config, "model_digests": {"text": digest}}
        return TextEncoders(HomePaths(home), replace(opened, manifest=manifest), other)

    first = encoders("a", "weights/1")
    unloaded = encoders("b", "weights/1", first)
    for one in (first, unloaded):
        one.encode_query("text")
    assert Model.loaded == 2, "nothing was loaded that could be shared"
    for name, digest, more, count in (
        ("c", "weights/1", {}, 2), ("d", "weights/2", {}, 3), ("e", "weights/1", {"query_prompt": "q: "}, 4)
    ):  # fmt: skip
        encoders(name, digest, first, **more).encode_query("text")
        assert Model.loaded == count


def test_stored_content_maps_give_the_bits_of_fitted_ones(home: Path) -> None:
    folder = HomePaths(home).current_bundle.resolve()
    opened = bundle.load(folder)
    assert opened.content_maps is not None
    fitted = ColdStartExtender(opened.item_model).content_maps
    assert fitted.keys() == opened.content_maps.keys()
    for name, values in fitted.items():
        np.testing.assert_allclose(opened.content_maps[name], values, atol=1e-4)
    (folder / CONTENT_MAPS).unlink()
    sign(folder)
    assert bundle.load(folder).content_maps is None, "a bundle of an earlier version has none"
