"""The bundles of a home: which there are, which serves, which served before, and which may go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import bundle
from models.bundle import CURRENT, Bundle, BundleError

HISTORY = "promotions.jsonl"
"""One line a promotion, oldest first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One bundle, by its manifest."""

    name: str
    manifest: Mapping[str, Any]
    made: Mapping[str, Any]
    bytes: int
    current: bool
    problem: str = ""
    """Why it can't be used; empty: nothing is known against it."""


def current(bundles: Path) -> str | None:
    """The name of the bundle that serves; None where none was promoted."""
    link = bundles / CURRENT
    return link.readlink().name if link.is_symlink() else None


def entries(bundles: Path) -> list[Entry]:
    """All bundles, oldest first; only manifests are read."""
    found: list[Entry] = []
    for folder in bundles.iterdir() if bundles.is_dir() else ():
        if folder.is_symlink() or not folder.is_dir() or folder.name.startswith("."):
            continue
        manifest: Mapping[str, Any] = {}
        problem = ""
        try:
            manifest = bundle.read_manifest(folder)
        except BundleError as error:
            problem = str(error)
        made = bundle.read_made(folder)
        found.append(Entry(folder.name, manifest, made, size_of(folder), folder.name == current(bundles), problem))
    return sorted(found, key=lambda entry: (entry.made.get("at", ""), entry.name))


def size_of(folder: Path) -> int:
    """Bytes of a bundle."""
    return sum(file.stat().st_size for file in folder.iterdir())


def promote(bundles: Path, name: str) -> None:
    """Check every file of a bundle, make it the one that serves in one step, and note it in the history."""
    bundle.load(bundles / name)
    bundle.promote(bundles, name)
    note(bundles, name)


def note(bundles: Path, name: str) -> None:
    """Add a promotion to the history."""
    with (bundles / HISTORY).open("a") as file:
        file.write(json.dumps({"name": name}) + "\n")


def history(bundles: Path) -> list[str]:
    """The names that were promoted, oldest first; a line that was cut short by a crash is passed over."""
    path = bundles / HISTORY
    names = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            names.append(str(json.loads(line)["name"]))
        except (ValueError, KeyError, TypeError):
            continue
    return names


def before(bundles: Path) -> list[str]:
    """Bundles that served before the current one and are still there, latest first, each once."""
    now = current(bundles)
    names = dict.fromkeys(reversed(history(bundles)))
    return [name for name in names if name != now and (bundles / name).is_dir()]


def rollback(bundles: Path) -> str:
    """Promote the bundle that served before the current one; its name."""
    for name in before(bundles):
        promote(bundles, name)
        return name
    raise BundleError(f"no bundle in {bundles} served before the current one; there is nothing to go back to")


def load_current(bundles: Path, warn: Callable[[str], None]) -> Bundle:
    """The bundle that serves; where it is damaged, the last one before it that is whole, with a warning.

    Raises BundleError of the current one where none is whole.
    """
    try:
        return bundle.load(bundles / CURRENT)
    except BundleError as problem:
        for name in before(bundles):
            try:
                opened = bundle.load(bundles / name)
            except BundleError:
                continue
            warn(f"{problem}. The bundle that served before it goes on: {name}")
            return opened
        raise


def prune(bundles: Path, keep: int, dry: bool = False, also: Collection[str] = ()) -> list[str]:
    """Remove all but the current bundle, the one before it, the `keep` newest and those of `also`; who goes."""
    found = [entry.name for entry in entries(bundles)]
    stay = {current(bundles), *also, *before(bundles)[:1], *(found[-keep:] if keep else ())}
    gone = [name for name in found if name not in stay]
    for name in () if dry else gone:
        aside = bundles / f".{name}.gone"
        (bundles / name).rename(aside)  # first out of sight, so that nobody opens half of it
        shutil.rmtree(aside)
    return gone


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> both values, where two manifests differ; a file is compared by its digest."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*one, *other]):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found
