"""Bundles: what is loaded is what was saved, damage is found and named, and the same input gives the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.types import Batch
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle
from feedrank.models.bundles.bundle import Bundle, BundleError, BundleParts
from feedrank.models.bundles.manifest import write_manifest
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import from_recall, point_in_time_batch
from feedrank.models.training.training import TrainedRanker, exact_retriever

FILES = (
    "catalogue.jsonl.gz", "content-maps.npz", "feature-histogram.json", "index.ann", "index.json", "item-model.npz",
    "ranker-0.txt", "terms.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def training_inputs(interactions_home: Path) -> compose.TrainingInputs:
    home = HomePaths(interactions_home)
    return compose.load_training_inputs(home, config.load_config(home.config))


@pytest.fixture(scope="module")
def settings(interactions_home: Path) -> config.Config:
    return config.load_config(HomePaths(interactions_home).config)


@pytest.fixture(scope="module")
def trained(training_inputs: compose.TrainingInputs, settings: config.Config) -> TrainedRanker:
    return compose.train(training_inputs, settings, lambda *_: None)


@pytest.fixture(scope="module")
def batch(training_inputs: compose.TrainingInputs, trained: TrainedRanker) -> Batch:
    """Build a batch that predicts the last interaction of every user."""
    histories = UserHistories.from_log(training_inputs.log)
    last = np.flatnonzero(histories.count_after == 0)
    examples = from_recall(
        training_inputs.log,
        histories,
        last,
        exact_retriever(trained.item_model),
        60,
        trained.builder.spec.history_length,
    )
    return point_in_time_batch(
        training_inputs.log, training_inputs.item_inputs.catalogue, trained.builder.spec, examples
    )


@pytest.fixture
def bundles(interactions_home: Path, tmp_path: Path) -> Path:
    """A copy of the bundles folder that a test may change."""
    return Path(shutil.copytree(interactions_home / "bundles", tmp_path / "bundles", symlinks=True))


def opened(bundles: Path) -> Bundle:
    return bundle.load(bundles / bundle.CURRENT)


def same_bits(one: Any, other: Any) -> bool:
    """Equal shapes, and equal bits where values are NaN too."""
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change fields of a manifest and keep its checksum valid."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    change(manifest)
    write_manifest(folder / "manifest.json", manifest)


def test_a_bundle_is_loaded_as_it_was_saved_bit_for_bit(bundles: Path, trained: TrainedRanker, batch: Batch) -> None:
    found = opened(bundles)
    assert found.name == "toy"
    assert set(found.manifest["files"]) == set(FILES)
    assert found.builder.names == trained.builder.names
    assert found.builder.fingerprint == trained.builder.fingerprint
    matrix = trained.builder.matrix(batch)
    assert same_bits(found.builder.matrix(batch), matrix)
    assert found.ranker is not None
    assert same_bits(found.ranker.score(matrix), trained.ranker.score(matrix))
    assert found.item_model.catalogue.to_items() == trained.item_model.catalogue.to_items()
    user_vector = found.item_model.space.user_vector(batch.history[0])
    assert same_bits(user_vector, trained.item_model.space.user_vector(batch.history[0]))
    rows, _ = found.index.search(user_vector, 10)
    nearest = np.argsort(-trained.item_model.space.item_side @ user_vector, kind="stable")[:10]
    assert set(rows.tolist()) == set(nearest.tolist())


def test_a_bundle_without_a_ranker(
    bundles: Path, training_inputs: compose.TrainingInputs, settings: config.Config, tmp_path: Path
) -> None:
    home = HomePaths(tmp_path)
    compose.save_bundle(home, settings, "bare", BundleParts(compose.fit_without_ranker(training_inputs, settings)), {})
    found = opened(bundles)
    assert found.name == "bare"
    assert found.ranker is None
    assert BehaviouralState(found.item_model.catalogue, found.builder.spec).spec == settings.state_spec


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
def test_a_flipped_byte_is_found_and_its_file_named(bundles: Path, file: str, share: float) -> None:
    path = bundles / "toy" / file
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=file):
        opened(bundles)


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(bundles: Path, file: str) -> None:
    (bundles / "toy" / file).unlink()
    with pytest.raises(BundleError, match=file):
        opened(bundles)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"format": 99}', '{"format": 1}'])
def test_a_foreign_manifest_is_refused(bundles: Path, text: str) -> None:
    (bundles / "toy" / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        opened(bundles)


def test_a_foreign_format_is_refused(bundles: Path) -> None:
    edit_manifest(bundles / "toy", lambda manifest: manifest.update(format=bundle.FORMAT + 1))
    with pytest.raises(BundleError, match=rf"format {bundle.FORMAT + 1}; this version reads format {bundle.FORMAT}"):
        opened(bundles)


def test_a_bundle_of_an_earlier_format_says_to_train_again(bundles: Path) -> None:
    edit_manifest(bundles / "toy", lambda manifest: manifest.update(format=bundle.FORMAT - 1))
    message = rf"toy/manifest\.json is of format {bundle.FORMAT - 1}; .* train again with `feedrank train`"
    with pytest.raises(BundleError, match=message):
        opened(bundles)


def test_other_features_are_refused(bundles: Path) -> None:
    edit_manifest(bundles / "toy", lambda manifest: manifest["features"].update(fingerprint="0" * 16))
    with pytest.raises(BundleError, match="train again"):
        opened(bundles)


def test_a_ranker_of_other_features_is_refused(bundles: Path, trained: TrainedRanker) -> None:
    fewer = bundle.FeatureBuilder(trained.item_model, trained.builder.spec, FeatureSettings(("recall", "bm25")))
    bundle.save(bundles, "mixed", BundleParts(fewer, trained.ranker), {}, {})
    with pytest.raises(BundleError, match=r"mixed.*ranker-0\.txt.*train again"):
        bundle.load(bundles / "mixed")


def test_without_a_bundle_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="feedrank train"):
        bundle.load(tmp_path / bundle.CURRENT)


def test_promotion_swaps_a_link_and_keeps_open_bundles(bundles: Path, trained: TrainedRanker) -> None:
    before = opened(bundles)
    bundle.save(bundles, "second", BundleParts(trained.builder, trained.ranker), {}, {})
    assert opened(bundles).name == "toy"
    bundle.promote(bundles, "second")
    assert (bundles / bundle.CURRENT).is_symlink()
    assert opened(bundles).name == "second"
    assert sorted(path.name for path in bundles.iterdir()) == ["current", "promotions.jsonl", "second", "toy"]
    rows, _ = before.index.search(before.item_model.space.item_side[0], 5)
    assert len(rows) == 5
    bundle.promote(bundles, "toy")
    assert opened(bundles).name == "toy"


def test_promotion_of_nothing_changes_nothing(bundles: Path) -> None:
    with pytest.raises(BundleError, match="'third'"):
        bundle.promote(bundles, "third")
    assert opened(bundles).name == "toy"


def test_a_failed_save_leaves_nothing(bundles: Path, trained: TrainedRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> list[Path]:
        raise OSError("no space left on device")

    monkeypatch.setattr(trained.ranker, "save", refuse)
    with pytest.raises(OSError, match="no space"):
        bundle.save(bundles, "second", BundleParts(trained.builder, trained.ranker), {}, {})
    assert sorted(path.name for path in bundles.iterdir()) == ["current", "promotions.jsonl", "toy"]
    assert opened(bundles).name == "toy"


def test_leftovers_of_an_interrupted_save_are_ignored(bundles: Path, trained: TrainedRanker) -> None:
    (bundles / ".second.tmp").mkdir()
    (bundles / ".second.tmp" / "half.npz").write_bytes(b"half")
    (bundles / ".current.tmp").symlink_to("nowhere")
    bundle.save(bundles, "second", BundleParts(trained.builder, trained.ranker), {}, {})
    bundle.promote(bundles, "second")
    assert sorted(path.name for path in bundles.iterdir()) == ["current", "promotions.jsonl", "second", "toy"]


@pytest.mark.parametrize("name", ["toy", "current", "", ".", "..", "a/b", "../b", "/b", ".hidden", "a b", "x" * 101])
def test_invalid_bundle_names_are_refused(bundles: Path, trained: TrainedRanker, name: str) -> None:
    with pytest.raises(BundleError, match=r"choose another name|found the bundle name"):
        bundle.save(bundles, name, BundleParts(trained.builder, None), {}, {})
    assert sorted(path.name for path in bundles.iterdir()) == ["current", "promotions.jsonl", "toy"]


def test_the_same_journal_config_and_seed_give_the_same_bytes(
    interactions_home: Path, settings: config.Config, tmp_path: Path
) -> None:
    home = HomePaths(interactions_home)
    again = compose.load_training_inputs(home, settings)
    trained = compose.train(again, settings, lambda *_: None)
    compose.save_trained_bundle(HomePaths(tmp_path), settings, "toy", again, trained, {}, 1.5)
    first, second = home.bundles / "toy", tmp_path / "bundles" / "toy"
    assert {file.name for file in first.iterdir()} == {*FILES, "manifest.json", "build.json"}
    for file in (*FILES, "manifest.json"):
        assert (second / file).read_bytes() == (first / file).read_bytes(), file
    assert bundle.read_build_info(second)["seconds"] == 1.5
