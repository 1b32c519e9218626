"""The bundle registry lists, promotes, rolls back and prunes the bundles of a home folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedrank.engine.private_files import create_private_file
from feedrank.models.bundles import bundle
from feedrank.models.bundles.bundle import CURRENT, Bundle, BundleError

PROMOTIONS_FILE = "promotions.jsonl"
"""Promotion log: one JSON line per promotion, oldest first."""


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """A bundle as listed, from its manifest."""

    name: str
    manifest: Mapping[str, Any]
    build_info: Mapping[str, Any]
    bytes: int
    current: bool
    problem: str = ""
    """Why the bundle can't be used; empty: no known problem."""


def current_name(bundles: Path) -> str | None:
    """Return the name of the bundle that serves; None if none was promoted."""
    link = bundles / CURRENT
    return link.readlink().name if link.is_symlink() else None


def list_bundles(bundles: Path) -> list[BundleEntry]:
    """List all bundles, oldest first; only manifests are read."""
    listed: list[BundleEntry] = []
    for folder in bundles.iterdir() if bundles.is_dir() else ():
        if folder.is_symlink() or not folder.is_dir() or folder.name.startswith("."):
            continue
        manifest: Mapping[str, Any] = {}
        problem = ""
        try:
            manifest = bundle.read_manifest(folder)
        except BundleError as error:
            problem = str(error)
        build_info = bundle.read_build_info(folder)
        listed.append(
            BundleEntry(
                folder.name, manifest, build_info, bundle_size(folder), folder.name == current_name(bundles), problem
            )
        )
    return sorted(listed, key=lambda entry: (entry.build_info.get("at", ""), entry.name))


def bundle_size(folder: Path) -> int:
    """Return the size of a bundle in bytes."""
    return sum((folder / file).stat().st_size for file in bundle.bundle_files(folder))


def promote(bundles: Path, name: str) -> None:
    """Check every file of a bundle, make it current atomically and record the promotion; raises BundleError."""
    bundle.load(bundle.path_of(bundles, name))
    bundle.promote(bundles, name)
    record_promotion(bundles, name)


def record_promotion(bundles: Path, name: str) -> None:
    """Append a promotion to the promotion log."""
    create_private_file(bundles / PROMOTIONS_FILE)
    with (bundles / PROMOTIONS_FILE).open("a") as file:
        file.write(json.dumps({"name": name}) + "\n")


def promoted_names(bundles: Path) -> list[str]:
    """Return the promoted names, oldest first; a line truncated by a crash is skipped."""
    path = bundles / PROMOTIONS_FILE
    names = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            names.append(str(json.loads(line)["name"]))
        except (ValueError, KeyError, TypeError):
            continue
    return names


def previous(bundles: Path) -> list[str]:
    """List earlier current bundles that still exist, latest first, without duplicates."""
    serving = current_name(bundles)
    names = dict.fromkeys(reversed(promoted_names(bundles)))
    return [name for name in names if name != serving and bundle.is_bundle_name(name) and (bundles / name).is_dir()]


def rollback(bundles: Path) -> str:
    """Promote the previous bundle and return its name; raises BundleError if there is none."""
    for name in previous(bundles):
        promote(bundles, name)
        return name
    raise BundleError(f"found no previous bundle in {bundles}; there is nothing to roll back to")


def load_current(bundles: Path, warn: Callable[[str], None]) -> Bundle:
    """Load the current bundle; if it is damaged, warn and load the latest previous bundle that is intact.

    Raises the current bundle's BundleError if no previous bundle is intact.
    """
    try:
        return bundle.load(bundles / CURRENT)
    except BundleError as problem:
        for name in previous(bundles):
            try:
                opened = bundle.load(bundle.path_of(bundles, name))
            except BundleError:
                continue
            warn(f"{problem}. Serving the previous bundle instead: {name}")
            return opened
        raise


def load_before(bundles: Path, name: str) -> Bundle | None:
    """Load the latest intact bundle that was promoted before this one; None if there is none."""
    names = list(dict.fromkeys(reversed(promoted_names(bundles))))
    for earlier in names[names.index(name) + 1 if name in names else 0 :]:
        if earlier != name and bundle.is_bundle_name(earlier):
            try:
                return bundle.load(bundle.path_of(bundles, earlier))
            except BundleError:
                continue
    return None


def prune(bundles: Path, keep: int, dry_run: bool = False, keep_also: Collection[str] = ()) -> list[str]:
    """Remove all bundles but the current, the previous, the `keep` newest and `keep_also`; return removed names."""
    names = [entry.name for entry in list_bundles(bundles)]
    kept = {current_name(bundles), *keep_also, *previous(bundles)[:1], *(names[-keep:] if keep else ())}
    removed = [name for name in names if name not in kept]
    for name in () if dry_run else removed:
        hidden = bundles / f".{name}.gone"
        (bundles / name).rename(hidden)  # hide it first, so that no reader opens a partial bundle
        shutil.rmtree(hidden)
    return removed


def manifest_differences(
    left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> both values where two manifests differ; files are compared by digest."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*left, *right]):
        a, b = left.get(key), right.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changes |= manifest_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            changes[f"{prefix}{key}"] = (a, b)
    return changes
