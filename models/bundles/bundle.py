"""A bundle is one immutable folder with everything that serving needs and the sha256 of every file."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from feedrank.engine.private_files import FILE_MODE, FOLDER_MODE, make_private_folder
from feedrank.engine.protocols import ScannableIndex, VectorIndex
from feedrank.engine.retrieval.custom_index import CustomIndexType
from feedrank.engine.retrieval.indexes import AnnoyIndex
from feedrank.engine.retrieval.pca_index import build_scannable_index
from feedrank.features.builder import FeatureBuilder
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.value_vocabulary import ValueVocabulary
from feedrank.features.families.extra import ExtraFamilyError
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.item_model import ItemModel
from feedrank.features.state_spec import StateSpec
from feedrank.models.atomic_files import digest, fsync
from feedrank.models.bundles import item_model_io
from feedrank.models.bundles.content_check import check_index, check_item_model, check_ranker, check_tokens
from feedrank.models.bundles.content_maps import read_content_maps, write_content_maps
from feedrank.models.bundles.manifest import BUILD_INFO as BUILD_INFO
from feedrank.models.bundles.manifest import FORMAT as FORMAT
from feedrank.models.bundles.manifest import MANIFEST as MANIFEST
from feedrank.models.bundles.manifest import BundleError as BundleError
from feedrank.models.bundles.manifest import bundle_files as bundle_files
from feedrank.models.bundles.manifest import check_files, reading, write_manifest
from feedrank.models.bundles.manifest import read_manifest as read_manifest
from feedrank.models.items.cold_start import ContentMaps
from feedrank.models.retraining.drift import FeatureHistogram
from feedrank.models.text import cross_encoder_model
from feedrank.models.text.cross_encoder_model import CrossEncoderModel, TokenIds
from feedrank.models.training.ranker import LambdaRanker

CROSS_ENCODER_ITEMS = "cross-encoder-items.npz"
INDEX = "index.ann"
CUSTOM_INDEX = "custom-index"
"""Folder of the index of a class of the user's own."""
FEATURE_HISTOGRAM = "feature-histogram.json"
FIRST_STAGE = "first-stage"
"""Start of the names of the first-stage ranker's files."""
CURRENT = "current"
"""Name of the symbolic link, next to the bundles, to the bundle that serves."""


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """A bundle that was loaded from its folder."""

    folder: Path
    manifest: Mapping[str, Any]
    builder: FeatureBuilder
    index: AnnoyIndex
    exact_index: ScannableIndex
    """Exact index over the same vectors."""
    ranker: LambdaRanker | None
    """None: the recall order is the final order."""
    first_stage: LambdaRanker | None = None
    """First-stage ranker without cross-encoder scores; None without a cross-encoder."""
    content_maps: ContentMaps | None = None
    """How new items get content vectors; None: the bundle was made by an earlier version, which stored no maps."""
    custom_index: VectorIndex | None = None
    """Index of a class of the user's own, over the items of the bundle; None: not loaded, or there is none."""

    @property
    def name(self) -> str:
        """Return the folder's name."""
        return self.folder.name

    @property
    def item_model(self) -> ItemModel:
        """Return the fitted item model."""
        return self.builder.item_model


@dataclass(frozen=True, eq=False, slots=True)
class BundleParts:
    """What training made, and a bundle holds."""

    builder: FeatureBuilder
    ranker: LambdaRanker | None = None
    """None: the recall order is the final order."""
    histogram: FeatureHistogram | None = None
    """The distribution of the training features, the reference for drift."""
    first_stage: LambdaRanker | None = None
    """First-stage ranker without cross-encoder scores; None without a cross-encoder."""
    cross_encoder: CrossEncoderModel | None = None
    """The cross-encoder with the tokens of these items."""


def is_bundle_name(name: str) -> bool:
    """Return whether a text can be the name of a bundle, and so of a folder among the bundles."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


def path_of(bundles: Path, name: str) -> Path:
    """Return the folder of a bundle; names come from callers too. Raises BundleError for one that leaves `bundles`."""
    if not is_bundle_name(name):
        raise BundleError(
            f"found the bundle name {name!r}, expected up to 100 letters, digits, dots, dashes and underscores, with a "
            f"letter or digit first, and not {CURRENT!r}"
        )
    return bundles / name


def new_bundle_path(bundles: Path, name: str) -> Path:
    """Return the folder for a new bundle; raises BundleError if the name is invalid or taken."""
    folder = path_of(bundles, name)
    if name == CURRENT:
        raise BundleError(f"found the bundle name {CURRENT!r}, which is that of the link to the current bundle")
    if folder.exists():
        raise BundleError(f"found a bundle at {folder} already; bundles are immutable, choose another name")
    return folder


def save(
    bundles: Path,
    name: str,
    parts: BundleParts,
    index: Mapping[str, Any],
    metadata: Mapping[str, Any],
    build_info: Mapping[str, Any] | None = None,
    custom_index: CustomIndexType | None = None,
) -> Path:
    """Write a bundle to a temporary folder, rename it into `bundles` and return its folder.

    index: the arguments of `AnnoyIndex.build`. metadata: more manifest entries, JSON-ready. build_info: what may differ
    between two bundles of the same log, config and seed. custom_index: a class of the user's own, whose index is built
    and saved with the bundle if it can be saved.

    Raises BundleError if the name is invalid or taken; an existing bundle is never overwritten. Raises CustomIndexError
    if the custom index can't be built, saved and loaded again.
    """
    folder = new_bundle_path(bundles, name)
    temporary = bundles / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    make_private_folder(temporary)
    try:
        builder, cross_encoder = parts.builder, parts.cross_encoder
        item_model = builder.item_model
        AnnoyIndex.build(temporary / INDEX, item_model.space.item_side, **index)
        if custom_index is not None and custom_index.is_saved:
            custom_index.write(temporary / CUSTOM_INDEX, item_model.space.item_side, index["metric"])
            metadata = {**metadata, "custom_index": custom_index.to_dict()}
        item_model_io.write_item_model(temporary, item_model)
        write_content_maps(temporary, item_model)
        if parts.ranker is not None:
            parts.ranker.save(temporary)
        if parts.histogram is not None:
            parts.histogram.save(temporary / FEATURE_HISTOGRAM)
        if parts.first_stage is not None:
            parts.first_stage.save(temporary, FIRST_STAGE)
        if cross_encoder is not None:
            for file_name in cross_encoder_model.FILES:
                shutil.copyfile(cross_encoder.folder / file_name, temporary / file_name)
            np.savez(temporary / CROSS_ENCODER_ITEMS, ids=cross_encoder.items.ids, offsets=cross_encoder.items.offsets)
        manifest = {
            "format": FORMAT,
            "name": name,
            **metadata,
            "items": len(item_model.catalogue),
            "index": dict(index),
            "space": {
                "blocks": [[block.name, block.start, block.stop, block.weight] for block in item_model.space.blocks],
                "decay": item_model.space.decay,
                "history_length": item_model.space.history_length,
            },
            "state": builder.spec.to_dict(),
            "features": {
                "families": builder.settings.families, "extra": builder.settings.extra,
                "fingerprint": builder.fingerprint, "names": builder.names,
                "vocabularies": {name: known.values for name, known in item_model.vocabularies.items()},
            },
            "ranker": parts.ranker is not None,
            "two_stage": parts.first_stage is not None,
            "model_digests": dict(item_model.model_digests),
            "files": {name: digest(temporary / name) for name in bundle_files(temporary)},
        }  # fmt: skip
        write_manifest(temporary / MANIFEST, manifest)
        (temporary / BUILD_INFO).write_text(json.dumps(dict(build_info or {}), indent=1) + "\n")
        for path in temporary.rglob("*"):
            path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
            fsync(path)
        fsync(temporary)
        os.replace(temporary, folder)
        fsync(bundles)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(folder: Path) -> Bundle:
    """Load a bundle; raises BundleError that names the file if one is missing, damaged or foreign."""
    linked, folder = folder, folder.resolve()
    if folder.parent != linked.parent.resolve():
        raise BundleError(
            f"{linked} leads to {folder}, expected a bundle in {linked.parent}; promote one that is there"
        )
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    item_model = item_model_io.read_item_model(folder, manifest)
    with reading(folder / MANIFEST):
        coded = manifest["features"].get("vocabularies", {}).items()  # none in versions before 0.3
        item_model = replace(item_model, vocabularies={name: ValueVocabulary.of(values) for name, values in coded})
    with reading(folder / item_model_io.ITEM_MODEL):
        check_item_model(item_model)
    with reading(folder / MANIFEST):
        builder = _read_builder(folder, manifest, item_model)
        has_ranker, has_first_stage = bool(manifest["ranker"]), bool(manifest["two_stage"])
    ranker = _read_ranker(folder, builder, "ranker") if has_ranker else None
    first_stage = _read_ranker(folder, builder, FIRST_STAGE) if has_first_stage else None
    with reading(folder / INDEX):
        index = AnnoyIndex.load(folder / INDEX)
        check_index(index, item_model.space.item_side)
    exact_index = build_scannable_index(item_model.space.item_side, index.metric)
    with reading(folder / FEATURE_HISTOGRAM):
        read_histogram(folder)
    content_maps = read_content_maps(folder, manifest, item_model)
    return Bundle(folder, manifest, builder, index, exact_index, ranker, first_stage, content_maps)


def _read_builder(folder: Path, manifest: Mapping[str, Any], item_model: ItemModel) -> FeatureBuilder:
    features = manifest["features"]
    # version 0.1 had no extra
    spec = StateSpec.from_dict(manifest["state"])
    settings = FeatureSettings(tuple(features["families"]), tuple(features.get("extra", ())), spec.declared)
    try:
        builder = FeatureBuilder(item_model, spec, settings)
    except ExtraFamilyError as problem:
        raise BundleError(
            f"{folder} was trained with an extra feature family that can't be used now: {problem}"
        ) from problem
    if builder.fingerprint != features["fingerprint"]:
        raise BundleError(
            f"found features {features['fingerprint']} in {folder}, this version expects {builder.fingerprint}; "
            "train again with this version"
        )
    return builder


def _read_ranker(folder: Path, builder: FeatureBuilder, name: str) -> LambdaRanker:
    with reading(folder / f"{name}-0.txt"):
        ranker = LambdaRanker.load(folder, builder.names, builder.fingerprint, name)
        check_ranker(ranker)
        return ranker


def load_cross_encoder(bundle: Bundle, threads: int = 0) -> CrossEncoderModel | None:
    """Load the cross-encoder of a bundle with the tokens of its items; None if the bundle has none.

    Raises BundleError, which names the file.
    """
    if cross_encoder_model.MODEL_FILE not in bundle.manifest["files"]:
        return None
    with reading(bundle.folder / CROSS_ENCODER_ITEMS):
        with np.load(bundle.folder / CROSS_ENCODER_ITEMS, allow_pickle=False) as file:
            items = TokenIds(file["ids"], file["offsets"])
        check_tokens(items, bundle.manifest["items"])
    with reading(bundle.folder / cross_encoder_model.MODEL_FILE):
        return CrossEncoderModel(bundle.folder, threads).with_items(items)


def promote(bundles: Path, name: str) -> None:
    """Point the `current` link at a bundle atomically; raises BundleError if there is no such bundle."""
    if name == CURRENT or not (path_of(bundles, name) / MANIFEST).is_file():
        raise BundleError(f"no bundle {name!r} in {bundles}")
    temporary = bundles / f".{CURRENT}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name, target_is_directory=True)
    os.replace(temporary, bundles / CURRENT)
    fsync(bundles)


def declared_features(folder: Path) -> tuple[DeclaredFeature, ...]:
    """Return the declared features of a bundle; none if its manifest can't be read."""
    try:
        return StateSpec.from_dict(read_manifest(folder)["state"]).declared
    except (BundleError, KeyError, TypeError, ValueError):  # loading the bundle says what is wrong with it
        return ()


def journal_offset_of(bundle: Bundle) -> int:
    """Return the journal offset up to which the bundle contains items; 0 if the manifest has none."""
    return int(bundle.manifest.get("window", {}).get("offset", 0))


def built_ms(bundle: Bundle) -> int:
    """Return when the bundle was written, in epoch milliseconds: by its build info, or by its manifest's file."""
    try:
        return round(datetime.fromisoformat(read_build_info(bundle.folder)["at"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError):
        return round((bundle.folder / MANIFEST).stat().st_mtime * 1000)


def read_build_info(folder: Path) -> dict[str, Any]:
    """Read a bundle's build time and other build info; empty if missing or unreadable."""
    try:
        build_info = json.loads((folder / BUILD_INFO).read_text())
    except (OSError, ValueError):
        return {}
    return build_info if isinstance(build_info, dict) else {}


def read_histogram(folder: Path) -> FeatureHistogram | None:
    """Read the training-feature histogram of a bundle; None if it has none."""
    path = folder / FEATURE_HISTOGRAM
    return FeatureHistogram.load(path) if path.exists() else None
