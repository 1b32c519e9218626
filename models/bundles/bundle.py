"""A bundle is one immutable folder with everything that serving needs and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from feedrank.engine.protocols import ScannableIndex, VectorIndex
from feedrank.engine.retrieval.custom_index import CustomIndexType
from feedrank.engine.retrieval.indexes import AnnoyIndex
from feedrank.engine.retrieval.pca_index import build_scannable_index
from feedrank.features.builder import FeatureBuilder
from feedrank.features.families.extra import ExtraFamilyError
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.item_model import ItemModel
from feedrank.features.state import StateSpec
from feedrank.models.atomic_files import digest, fsync
from feedrank.models.bundles import item_model_io
from feedrank.models.retraining.drift import FeatureHistogram
from feedrank.models.text import cross_encoder_model
from feedrank.models.text.cross_encoder_model import CrossEncoderModel, TokenIds
from feedrank.models.training.ranker import LambdaRanker

FORMAT = 4
MANIFEST = "manifest.json"
CROSS_ENCODER_ITEMS = "cross-encoder-items.npz"
INDEX = "index.ann"
CUSTOM_INDEX = "custom-index"
"""Folder of the index of a class of the user's own."""
FEATURE_HISTOGRAM = "feature-histogram.json"
FIRST_STAGE = "first-stage"
"""Start of the names of the first-stage ranker's files."""
BUILD_INFO = "build.json"
"""Build time and duration: what may differ between two bundles of the same log, config and seed."""
CURRENT = "current"
"""Name of the symbolic link, next to the bundles, to the bundle that serves."""


class BundleError(RuntimeError):
    """Raised for a bundle that can't be used; the message names the file."""


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


def new_bundle_path(bundles: Path, name: str) -> Path:
    """Return the folder for a new bundle; raises BundleError if the name is invalid or taken."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == CURRENT:
        raise BundleError(
            f"found the bundle name {name!r}, expected up to 100 letters, digits, dots, dashes and underscores, with a "
            f"letter or digit first, and not {CURRENT!r}"
        )
    folder = bundles / name
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
    temporary.mkdir(parents=True)
    try:
        builder, cross_encoder = parts.builder, parts.cross_encoder
        item_model = builder.item_model
        AnnoyIndex.build(temporary / INDEX, item_model.space.item_side, **index)
        if custom_index is not None and custom_index.is_saved:
            custom_index.write(temporary / CUSTOM_INDEX, item_model.space.item_side, index["metric"])
            metadata = {**metadata, "custom_index": custom_index.to_dict()}
        item_model_io.write_item_model(temporary, item_model)
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
            },
            "ranker": parts.ranker is not None,
            "two_stage": parts.first_stage is not None,
            "model_digests": dict(item_model.model_digests),
            "files": {name: digest(temporary / name) for name in bundle_files(temporary)},
        }  # fmt: skip
        _write_manifest(temporary / MANIFEST, manifest)
        (temporary / BUILD_INFO).write_text(json.dumps(dict(build_info or {}), indent=1) + "\n")
        for path in temporary.rglob("*"):
            fsync(path)
        fsync(temporary)
        os.replace(temporary, folder)
        fsync(bundles)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(folder: Path) -> Bundle:
    """Load a bundle; raises BundleError that names the file if one is missing, damaged or foreign."""
    folder = folder.resolve()
    manifest = read_manifest(folder)
    for file in sorted(set(bundle_files(folder)) - manifest["files"].keys() - {MANIFEST, BUILD_INFO}):
        raise BundleError(f"{folder / file} is foreign: it is not in {MANIFEST}; bundles are immutable, remove it")
    for file, expected in manifest["files"].items():
        if not (folder / file).is_file():
            raise BundleError(f"{folder / file} is missing; build the bundle again, or roll back to another one")
        if digest(folder / file) != expected:
            raise BundleError(f"{folder / file} is damaged: its sha256 differs from {MANIFEST}; build the bundle again")
    item_model = item_model_io.read_item_model(folder, manifest)
    state = manifest["state"]
    spec = StateSpec.from_dict(state)
    features = manifest["features"]
    settings = FeatureSettings(
        tuple(features["families"]), tuple(features.get("extra", ()))
    )  # version 0.1 had no extra
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
    try:
        ranker = LambdaRanker.load(folder, builder.names, builder.fingerprint) if manifest["ranker"] else None
        first_stage = None
        if manifest["two_stage"]:
            first_stage = LambdaRanker.load(folder, builder.names, builder.fingerprint, FIRST_STAGE)
    except (ValueError, FileNotFoundError) as problem:
        raise BundleError(f"{folder}: {problem}") from None
    index = AnnoyIndex.load(folder / INDEX)
    return Bundle(
        folder,
        manifest,
        builder,
        index,
        build_scannable_index(item_model.space.item_side, index.metric),
        ranker,
        first_stage,
    )


def load_cross_encoder(bundle: Bundle, threads: int = 0) -> CrossEncoderModel | None:
    """Load the cross-encoder of a bundle with the tokens of its items; None if the bundle has none."""
    if cross_encoder_model.MODEL_FILE not in bundle.manifest["files"]:
        return None
    with np.load(bundle.folder / CROSS_ENCODER_ITEMS, allow_pickle=False) as file:
        items = TokenIds(file["ids"], file["offsets"])
    return CrossEncoderModel(bundle.folder, threads).with_items(items)


def bundle_files(folder: Path) -> list[str]:
    """List the files of a bundle: sorted paths below its folder, with / between their parts."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def promote(bundles: Path, name: str) -> None:
    """Point the `current` link at a bundle atomically; raises BundleError if there is no such bundle."""
    if not (bundles / name / MANIFEST).is_file():
        raise BundleError(f"no bundle {name!r} in {bundles}")
    temporary = bundles / f".{CURRENT}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name, target_is_directory=True)
    os.replace(temporary, bundles / CURRENT)
    fsync(bundles)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle; raises BundleError if it is missing, damaged or of another format."""
    return _read_manifest(folder / MANIFEST)


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


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({**manifest, "sha256": _manifest_digest(manifest)}, indent=1) + "\n")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"found no {path.name} in {path.parent}; build a bundle with `feedrank train`") from None
    except ValueError as problem:
        raise BundleError(f"{path} is not JSON: {problem}") from None
    format_found = manifest.get("format") if isinstance(manifest, dict) else manifest
    if format_found != FORMAT:
        raise BundleError(
            f"{path} is of format {format_found!r}; this version reads format {FORMAT}: "
            "train again with `feedrank train`"
        )
    if manifest.pop("sha256", None) != _manifest_digest(manifest):
        raise BundleError(f"{path} is damaged: its sha256 differs from the stated one; build the bundle again")
    return dict(manifest)


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
