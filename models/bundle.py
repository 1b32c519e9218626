"""Bundles: all that serving needs, in one immutable folder, with the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.indexes import AnnoyIndex
from engine.protocols import WholeIndex
from engine.scan import whole_index
from features.builder import FeatureBuilder, FeatureSettings
from features.items import ItemKnowledge
from features.state import StateSpec
from models import knowledge_files
from models.drift import Sketch
from models.files import digest, synced
from models.ranker import LambdaRanker
from models.text import pair_model
from models.text.pair_model import PairModel, TokenIds

FORMAT = 2
MANIFEST = "manifest.json"
PAIR_ITEMS = "pair-items.npz"
INDEX = "index.ann"
SKETCH = "sketch.json"
MADE = "made.json"
"""What may differ between two bundles of the same log, config and seed: when it was made and how long that took."""
CURRENT = "current"
"""The link, beside the bundles, to the one that serves."""


class BundleError(RuntimeError):
    """A bundle that can't be used; the message names the file."""


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """An opened bundle."""

    folder: Path
    manifest: Mapping[str, Any]
    builder: FeatureBuilder
    index: AnnoyIndex
    whole: WholeIndex
    """Over the same vectors."""
    ranker: LambdaRanker | None
    """None: recall order is the final order."""
    first: LambdaRanker | None = None
    """The cheap ranker of the first phase, where a cross-encoder makes two."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def knowledge(self) -> ItemKnowledge:
        """What was learnt of the items."""
        return self.builder.knowledge


def place(bundles: Path, name: str) -> Path:
    """The folder that a new bundle of this name gets; raises BundleError where it can't have one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == CURRENT:
        raise BundleError(
            f"found the bundle name {name!r}, expected up to 100 letters, digits, dots, dashes and underscores, with a "
            f"letter or digit first, and not {CURRENT!r}"
        )
    folder = bundles / name
    if folder.exists():
        raise BundleError(f"there is a bundle at {folder} already; bundles are never changed, choose another name")
    return folder


def save(
    bundles: Path,
    name: str,
    builder: FeatureBuilder,
    ranker: LambdaRanker | None,
    index: Mapping[str, Any],
    about: Mapping[str, Any],
    made: Mapping[str, Any] | None = None,
    sketch: Sketch | None = None,
    first: LambdaRanker | None = None,
    pairs: PairModel | None = None,
) -> Path:
    """Write a bundle aside, rename it into `bundles` and return its folder; never over one that is there.

    index: the arguments of `AnnoyIndex.build`. about: anything else for the manifest, JSON-ready. made: what two
    bundles of the same log, config and seed may differ in. sketch: the distribution of the training features. first:
    the ranker of the first phase. pairs: the cross-encoder, which knows these items.
    """
    folder = place(bundles, name)
    aside = bundles / f".{name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        knowledge = builder.knowledge
        AnnoyIndex.build(aside / INDEX, knowledge.space.targets, **index)
        knowledge_files.write(aside, knowledge)
        if ranker is not None:
            ranker.save(aside)
        if sketch is not None:
            sketch.save(aside / SKETCH)
        if first is not None:
            first.save(aside, "first")
        if pairs is not None:
            for part in pair_model.FILES:
                shutil.copyfile(pairs.folder / part, aside / part)
            np.savez(aside / PAIR_ITEMS, ids=pairs.items.ids, offsets=pairs.items.offsets)
        manifest = {
            "format": FORMAT,
            "name": name,
            **about,
            "items": len(knowledge.catalogue),
            "index": dict(index),
            "space": {
                "views": [[view.name, view.start, view.stop, view.weight] for view in knowledge.space.views],
                "decay": knowledge.space.decay,
                "depth": knowledge.space.depth,
            },
            "state": builder.spec.plain(),
            "features": {
                "families": builder.settings.families, "fingerprint": builder.fingerprint, "names": builder.names
            },
            "ranker": ranker is not None,
            "two_phases": first is not None,
            "made_by": dict(knowledge.made_by),
            "files": {file.name: digest(file) for file in sorted(aside.iterdir())},
        }  # fmt: skip
        _write_manifest(aside / MANIFEST, manifest)
        (aside / MADE).write_text(json.dumps(dict(made or {}), indent=1) + "\n")
        for file in aside.iterdir():
            synced(file)
        synced(aside)
        os.replace(aside, folder)
        synced(bundles)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def load(folder: Path) -> Bundle:
    """Open a bundle; raises BundleError that names the file where one is missing, damaged or foreign."""
    folder = folder.resolve()
    manifest = read_manifest(folder)
    for file in sorted({file.name for file in folder.iterdir()} - manifest["files"].keys() - {MANIFEST, MADE}):
        raise BundleError(f"{folder / file} is foreign: it is not in {MANIFEST}; bundles are never changed, remove it")
    for file, expected in manifest["files"].items():
        if not (folder / file).is_file():
            raise BundleError(f"{folder / file} is missing; make the bundle again, or go back to another one")
        if digest(folder / file) != expected:
            raise BundleError(f"{folder / file} is damaged: its sha256 is not the one in {MANIFEST}")
    knowledge = knowledge_files.read(folder, manifest)
    state = manifest["state"]
    spec = StateSpec.of(state)
    features = manifest["features"]
    builder = FeatureBuilder(knowledge, spec, FeatureSettings(tuple(features["families"])))
    if builder.fingerprint != features["fingerprint"]:
        raise BundleError(
            f"{folder} was made with features {features['fingerprint']}, but this version makes {builder.fingerprint}; "
            "train again with this version"
        )
    try:
        ranker = LambdaRanker.load(folder, builder.names, builder.fingerprint) if manifest["ranker"] else None
        first = None
        if manifest["two_phases"]:
            first = LambdaRanker.load(folder, builder.names, builder.fingerprint, "first")
    except (ValueError, FileNotFoundError) as problem:
        raise BundleError(f"{folder}: {problem}") from None
    index = AnnoyIndex.load(folder / INDEX)
    return Bundle(folder, manifest, builder, index, whole_index(knowledge.space.targets, index.metric), ranker, first)


def pair_model_of(opened: Bundle, threads: int = 0) -> PairModel | None:
    """The cross-encoder of a bundle, which knows its items; None where it has none."""
    if pair_model.MODEL not in opened.manifest["files"]:
        return None
    with np.load(opened.folder / PAIR_ITEMS, allow_pickle=False) as file:
        items = TokenIds(file["ids"], file["offsets"])
    return PairModel(opened.folder, threads).with_items(items)


def promote(bundles: Path, name: str) -> None:
    """Make `current` point at a bundle, in one step."""
    if not (bundles / name / MANIFEST).is_file():
        raise BundleError(f"no bundle {name!r} in {bundles}")
    aside = bundles / f".{CURRENT}.tmp"
    aside.unlink(missing_ok=True)
    aside.symlink_to(name, target_is_directory=True)
    os.replace(aside, bundles / CURRENT)
    synced(bundles)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle; raises BundleError where there is none, or it is damaged or of another format."""
    return _read_manifest(folder / MANIFEST)


def read_for(opened: Bundle) -> int:
    """The offset of the journal up to which its items are in a bundle; 0 where it does not say."""
    return int(opened.manifest.get("window", {}).get("offset", 0))


def read_made(folder: Path) -> dict[str, Any]:
    """When a bundle was made, and what else may differ; nothing where that is not known."""
    try:
        found = json.loads((folder / MADE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_sketch(folder: Path) -> Sketch | None:
    """The distribution of the features that a bundle's ranker was trained on; None where it has none."""
    path = folder / SKETCH
    return Sketch.load(path) if path.exists() else None


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({**manifest, "sha256": _sealed(manifest)}, indent=1) + "\n")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"no bundle at {path.parent}: no {path.name} there; make one with `feedrank train`") from None
    except ValueError as problem:
        raise BundleError(f"{path} is not JSON: {problem}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else manifest
    if found != FORMAT:
        raise BundleError(f"{path} is of format {found!r}; this version reads format {FORMAT}")
    if manifest.pop("sha256", None) != _sealed(manifest):
        raise BundleError(f"{path} is damaged: its sha256 is not the one it states")
    return dict(manifest)


def _sealed(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
