"""Bundles that are damaged behind right checksums, or lead out of their folder: named, refused, and never served."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st

from feedrank.api import server
from feedrank.api.compose import serving
from feedrank.api.compose.serving import build_snapshot, restore_state, try_out
from feedrank.api.config import load_config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.retrieval.indexes import AnnoyIndex
from feedrank.models.atomic_files import digest
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.bundle import BundleError
from feedrank.models.bundles.manifest import MANIFEST, bundle_files, write_manifest
from feedrank.models.training.booster_file import check_booster_text
from feedrank.models.training.ranker import LambdaRanker

NOW = 1_800_000_000.0
FILES = (
    "catalogue.jsonl.gz", "content-maps.npz", "feature-histogram.json", "index.ann", "index.json", "item-model.npz",
    "ranker-0.txt", "terms.json",
)  # fmt: skip


def sign(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Give a bundle's manifest the checksums of its files as they are, after a change of it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["sha256"]
    names = set(bundle_files(folder)) - {MANIFEST, bundle.BUILD_INFO}
    manifest["files"] = {name: digest(folder / name) for name in sorted(names)}
    change(manifest)
    write_manifest(folder / MANIFEST, manifest)


def copy_bundle(bundles: Path, name: str) -> Path:
    """Copy the bundle `toy` under another name, and make it current."""
    folder = Path(shutil.copytree(bundles / "toy", bundles / name))
    sign(folder, lambda manifest: manifest.update(name=name))
    registry.promote(bundles, name)
    return folder


def bundles_of(home: Path) -> Path:
    return HomePaths(home).bundles


# --- damage behind a right checksum


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["empty", "cut", "text", "zeros"])
def test_damage_behind_a_right_checksum_is_named(home: Path, file: str, damage: str) -> None:
    path = bundles_of(home) / "toy" / file
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    path.write_bytes(
        {"empty": b"", "cut": half, "text": b"damaged", "zeros": half + bytes(len(whole) - len(half))}[damage]
    )
    sign(path.parent)
    with pytest.raises(BundleError, match=file.split(".")[0]):
        bundle.load(path.parent)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update({"space/item_side": arrays["space/item_side"] * np.nan}),
        lambda arrays: arrays.update({"space/item_side": arrays["space/item_side"][:, ::-1].copy()}),
        lambda arrays: arrays.update({"terms/term_codes": arrays["terms/term_codes"] + 10_000}),
        lambda arrays: arrays.update({"terms/offsets": arrays["terms/offsets"][::-1].copy()}),
        lambda arrays: arrays.update({"terms/weights": arrays["terms/weights"][:-1]}),
        lambda arrays: arrays.pop("space/user_side"),
        lambda arrays: [
            arrays.update({name: values - 1_000}) for name, values in list(arrays.items()) if name.endswith("/columns")
        ],
    ],
    ids=[
        "NaN",
        "other vectors",
        "terms out of range",
        "offsets fall",
        "fewer weights",
        "no array",
        "rows out of range",
    ],
)
def test_arrays_that_do_not_fit_are_named(home: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundles_of(home) / "toy" / "item-model.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)
    sign(path.parent)
    with pytest.raises(BundleError, match=r"item-model\.npz|index\.ann"):
        bundle.load(path.parent)


def test_a_catalogue_of_other_items_is_named(home: Path) -> None:
    path = bundles_of(home) / "toy" / "catalogue.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join(lines[:-1])))
    sign(path.parent)
    with pytest.raises(BundleError, match=r"catalogue\.jsonl\.gz.*59 items, expected 60"):
        bundle.load(path.parent)


def test_a_manifest_without_one_of_its_keys_is_named(home: Path) -> None:
    folder = bundles_of(home) / "toy"
    whole = (folder / MANIFEST).read_text()
    for key in ("space", "state", "features", "ranker", "two_stage", "model_digests", "items", "files"):
        for value in (None, 7):
            sign(folder, lambda manifest, key=key, value=value: manifest.update({key: value}))  # type: ignore[misc]
            if key in ("ranker", "two_stage"):
                continue  # a bool is all that is read of it
            with pytest.raises(BundleError, match=str(folder.name)):
                bundle.load(folder)
            (folder / MANIFEST).write_text(whole)


@pytest.fixture(scope="module")
def ranker_text(interactions_home: Path) -> str:
    return (bundles_of(interactions_home) / "toy" / "ranker-0.txt").read_text()


def damaged(text: str, dice: random.Random) -> str:
    """A text with one piece cut off, repeated, removed, or with another character."""
    start = dice.randrange(len(text))
    length = dice.choice([1, 5, 50, 500])
    return dice.choice(
        [
            text[:start], text[:start] + text[start + length :], text[: start + length] + text[start:],
            text[:start] + dice.choice("0123456789x-=.\n ") + text[start + 1 :],
        ]
    )  # fmt: skip


def test_no_damaged_ranker_reaches_lightgbm_that_would_end_the_process(ranker_text: str) -> None:
    """LightGBM aborts, crashes or hangs on a third of such texts."""
    n_features = int(ranker_text.split("max_feature_idx=")[1].split()[0]) + 1
    check_booster_text(ranker_text.encode(), n_features)
    dice, refused = random.Random(5), 0
    for _ in range(150):
        text = damaged(ranker_text, dice)
        try:
            check_booster_text(text.encode(), n_features)
        except ValueError:
            refused += 1
            continue
        try:
            booster = lgb.Booster(model_str=text)
        except (ValueError, lgb.basic.LightGBMError):
            continue  # an exception that `LambdaRanker.load` turns into one that names the file
        assert np.isfinite(booster.predict(np.zeros((2, n_features)))).all()
    assert refused > 30


def test_boosters_of_all_kinds_are_accepted() -> None:
    dice = np.random.default_rng(0)
    rows, labels = dice.standard_normal((400, 5)), dice.integers(0, 3, 400)
    rows[:, 4] = dice.integers(0, 40, 400)
    for more in ({}, {"num_leaves": 2}, {"min_data_in_leaf": 1_000}, {"max_bin": 5}):
        settings = {"objective": "lambdarank", "verbosity": -1, **more}
        for categories in ([], [4]):
            data = lgb.Dataset(rows, labels, group=[40] * 10, categorical_feature=categories)
            text = lgb.train(settings, data, 5).model_to_string()
            check_booster_text(text.encode(), 5)


# --- what serves instead


def test_the_last_good_bundle_serves_with_its_ranker(home: Path) -> None:
    newer = copy_bundle(bundles_of(home), "newer")
    (newer / "ranker-0.txt").write_bytes((newer / "ranker-0.txt").read_bytes()[:9_000])
    sign(newer)
    warnings: list[str] = []
    opened = registry.load_current(bundles_of(home), warnings.append)
    assert opened.name == "toy"
    assert opened.ranker is not None
    assert "newer/ranker-0.txt" in warnings[0]
    assert "previous bundle" in warnings[0]


def test_what_only_ranking_shows_is_found_before_a_bundle_serves(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_bundle(bundles_of(home), "newer")
    paths = HomePaths(home)
    config, preloaded = load_config(paths.config), server.preload(paths, load_config(paths.config))
    assert preloaded.current_bundle.name == "newer"
    broken, score = preloaded.current_bundle.ranker, LambdaRanker.score

    def fails(self: LambdaRanker, features: Any) -> Any:
        if self is broken:
            raise RuntimeError("a tree is damaged")
        return score(self, features)

    monkeypatch.setattr(LambdaRanker, "score", fails)
    snapshot = build_snapshot(paths, config, preloaded.current_bundle, preloaded.restored)
    with pytest.raises(BundleError, match="newer can't rank"):
        try_out(snapshot, NOW)
    found, _, _ = server._first_that_serves(paths, config, paths.journal(), preloaded, lambda: NOW)
    assert found.current_bundle.name == "toy"
    assert found.current_bundle.ranker is not None


def test_where_no_bundle_serves_the_first_error_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_bundle(bundles_of(home), "newer")
    paths = HomePaths(home)

    def fails(snapshot: Any, *_: Any) -> None:
        raise BundleError(f"{snapshot.pipeline.bundle} can't rank")

    monkeypatch.setattr(server, "try_out", fails)
    config = load_config(paths.config)
    with pytest.raises(BundleError, match="newer can't rank"):
        server._first_that_serves(paths, config, paths.journal(), server.preload(paths, config), lambda: NOW)


def test_a_worker_serves_the_bundle_of_the_start_if_the_current_one_can_not_be_loaded(home: Path) -> None:
    paths = HomePaths(home)
    config = load_config(paths.config)
    preloaded = server.preload(paths, config)
    newer = copy_bundle(bundles_of(home), "newer")
    for folder in (newer, bundles_of(home) / "toy"):
        (folder / "terms.json").write_text("")
    assert server._reloaded(paths, config, preloaded) is preloaded


def test_a_snapshot_of_the_state_that_can_not_be_saved_stops_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = HomePaths(home)
    monkeypatch.setattr(serving.snapshot, "MIN_EVENTS_TO_SAVE", 1)
    paths.snapshot.unlink(missing_ok=True)
    paths.snapshot.mkdir()
    restored = restore_state(paths, paths.journal(), bundle.load(paths.current_bundle), round(NOW * 1000))
    assert restored.offset > 0
    assert "could not be saved" in capsys.readouterr().err


# --- names and links


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "C:\\secret", "..\\secret", "a//b", "./a", "", ".", "a\0b"]
)
def test_a_manifest_names_no_file_outside_its_folder(home: Path, name: str) -> None:
    folder = bundles_of(home) / "toy"
    (bundles_of(home) / "secret").write_text("secret")
    sign(folder, lambda manifest: manifest["files"].update({name: digest(bundles_of(home) / "secret")}))
    with pytest.raises(BundleError, match=r"manifest\.json names the file"):
        bundle.load(folder)


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_bundle_holds_no_link(home: Path, is_folder: bool) -> None:
    folder, outside = bundles_of(home) / "toy", home / "outside"
    outside.mkdir()
    (outside / "terms.json").write_bytes((folder / "terms.json").read_bytes())
    (folder / "terms.json").unlink()
    (folder / "terms.json").symlink_to(outside / "terms.json")
    if is_folder:
        (folder / "terms.json").unlink()
        (folder / "sub").symlink_to(outside, target_is_directory=True)
    sign(folder)
    with pytest.raises(BundleError, match="is a link"):
        bundle.load(folder)


def test_the_current_bundle_is_one_of_the_folder(home: Path) -> None:
    bundles = bundles_of(home)
    shutil.copytree(bundles / "toy", home / "elsewhere")
    (bundles / bundle.CURRENT).unlink()
    (bundles / bundle.CURRENT).symlink_to(home / "elsewhere")
    with pytest.raises(BundleError, match=r"current leads to .*elsewhere, expected a bundle in"):
        bundle.load(bundles / bundle.CURRENT)


@given(st.text(max_size=20).filter(lambda name: not bundle.is_bundle_name(name)))
def test_no_name_leads_out_of_the_bundles(name: str) -> None:
    with pytest.raises(BundleError, match="found the bundle name"):
        bundle.path_of(Path("bundles"), name)


def test_commands_take_names_of_bundles_only(home: Path) -> None:
    shutil.copytree(bundles_of(home) / "toy", home / "outside")
    for command in (["promote", "../outside"], ["show", "../outside"], ["promote", bundle.CURRENT]):
        message = feedrank(home, "bundles", *command, code=1)
        assert "found the bundle name" in message or "no bundle 'current'" in message
    assert registry.current_name(bundles_of(home)) == "toy"
    registry.record_promotion(bundles_of(home), "../outside")
    assert registry.previous(bundles_of(home)) == []


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize(("n", "d"), [(1, 3), (7, 2), (60, 40), (900, 3)])
def test_nodes_of_an_index_are_checked_before_they_are_followed(tmp_path: Path, metric: Any, n: int, d: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((n, d)).astype(np.float32)
    AnnoyIndex.build(tmp_path / "a.ann", vectors, metric, trees=5).check(vectors, range(n))
    words = np.fromfile(tmp_path / "a.ann", np.int32)
    dice, refused = random.Random(2), 0
    for _ in range(40):
        changed = words.copy()
        changed[dice.randrange(len(words))] = dice.choice([-1, n, len(words), 2**30, dice.randrange(n)])
        changed.tofile(tmp_path / "b.ann")
        shutil.copyfile(tmp_path / "a.json", tmp_path / "b.json")
        index = AnnoyIndex.load(tmp_path / "b.ann")
        try:
            index.check(vectors, range(n))
        except ValueError:
            refused += 1
            continue
        for vector in vectors[:20]:
            rows, _ = index.search(vector, 10)
            assert ((rows >= 0) & (rows < n)).all()
    assert refused > 5
