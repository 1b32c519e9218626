"""Bundles: all that serving needs, in one immutable folder, with the sha256 of every file."""

from __future__ import annotations

import gzip
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
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.indexes import AnnoyIndex
from engine.space import Space, View
from features.bm25 import TermWeights
from features.builder import FeatureBuilder, FeatureSettings
from features.items import ItemKnowledge, Table, VectorPair
from features.state import StateSpec
from models.drift import Sketch
from models.files import digest, synced, written_aside
from models.ranker import LambdaRanker

FORMAT = 1
MANIFEST = "manifest.json"
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
    ranker: LambdaRanker | None
    """None: recall order is the final order."""

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
) -> Path:
    """Write a bundle aside, rename it into `bundles` and return its folder; never over one that is there.

    index: the arguments of `AnnoyIndex.build`. about: anything else for the manifest, JSON-ready. made: what two
    bundles of the same log, config and seed may differ in. sketch: the distribution of the training features.
    """
    folder = place(bundles, name)
    aside = bundles / f".{name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        knowledge = builder.knowledge
        AnnoyIndex.build(aside / INDEX, knowledge.space.targets, **index)
        _write_catalogue(aside / "catalogue.jsonl.gz", knowledge.catalogue)
        _write_knowledge(aside, knowledge)
        if ranker is not None:
            ranker.save(aside)
        if sketch is not None:
            sketch.save(aside / SKETCH)
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
    knowledge = _read_knowledge(folder, manifest, _read_catalogue(folder / "catalogue.jsonl.gz"))
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
    except (ValueError, FileNotFoundError) as problem:
        raise BundleError(f"{folder}: {problem}") from None
    return Bundle(folder, manifest, builder, AnnoyIndex.load(folder / INDEX), ranker)


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


def _write_catalogue(path: Path, catalogue: Catalogue) -> None:
    lines = [json.dumps([item, fields], ensure_ascii=False) + "\n" for item, fields in catalogue.to_items().items()]
    with written_aside(path) as aside:
        # no time in the header: the same items give the same bytes
        aside.write_bytes(gzip.compress("".join(lines).encode("utf-8"), mtime=0))


def _read_catalogue(path: Path) -> Catalogue:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return Catalogue.from_items(dict(json.loads(line) for line in lines))


def _write_knowledge(folder: Path, knowledge: ItemKnowledge) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "space/targets": knowledge.space.targets,
        "space/sources": knowledge.space.sources,
    }
    for name, pair in knowledge.vectors.items():
        arrays[f"vectors/{name}/sources"] = pair.sources
        if pair.targets is not pair.sources:
            arrays[f"vectors/{name}/targets"] = pair.targets
    for name, table in knowledge.tables.items():
        arrays |= {f"tables/{name}/{column}": getattr(table, column) for column in Table._fields}
    arrays |= {f"statistics/{name}": values for name, values in knowledge.statistics.items()}
    for column in ("codes", "weights", "counts", "offsets"):
        arrays[f"terms/{column}"] = getattr(knowledge.terms, column)
    with written_aside(folder / "knowledge.npz") as aside:
        np.savez(aside, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for allow_pickle
    (folder / "terms.json").write_text(json.dumps(list(knowledge.terms.terms), ensure_ascii=False))


def _read_knowledge(folder: Path, manifest: Mapping[str, Any], catalogue: Catalogue) -> ItemKnowledge:
    from engine.ids import Ids

    with np.load(folder / "knowledge.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    places = manifest["space"]
    views = tuple(View(*view) for view in places["views"])
    space = Space(views, arrays["space/targets"], arrays["space/sources"], places["decay"], places["depth"])
    vectors = {
        name: VectorPair(
            arrays[f"vectors/{name}/sources"],
            arrays.get(f"vectors/{name}/targets", arrays[f"vectors/{name}/sources"]),
        )
        for name in _second(arrays, "vectors")
    }
    return ItemKnowledge(
        catalogue=catalogue,
        space=space,
        vectors=vectors,
        tables={
            name: Table(*(arrays[f"tables/{name}/{column}"] for column in Table._fields))
            for name in _second(arrays, "tables")
        },
        terms=TermWeights(
            Ids(json.loads((folder / "terms.json").read_text())),
            arrays["terms/codes"],
            arrays["terms/weights"],
            arrays["terms/counts"],
            arrays["terms/offsets"],
        ),
        statistics={name: arrays[f"statistics/{name}"] for name in _second(arrays, "statistics")},
    )


def _second(arrays: Mapping[str, NDArray[Any]], first: str) -> list[str]:
    """The second parts of the names under `first`, in the order they were written in."""
    return list(dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith(first + "/")))
