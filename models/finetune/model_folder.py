"""A trained text model's folder: written aside, and with a card that says what it was made of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.files import synced
from models.text.weights import weights_digest

CARD = "feedrank.json"
FORMAT = 1


def origin(folder: Path, name: str, revision: str | None) -> dict[str, Any]:
    """What a card says of the model that another one was made from."""
    return {"name": name, "revision": revision, "digest": weights_digest(folder), "licence": licence(folder)}


def licence(folder: Path) -> str:
    """The licence that a model folder names in its card or in the front matter of its README, or else "unknown"."""
    named = read(folder).get("licence")
    if isinstance(named, str):
        return named
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "unknown"
    if not lines or lines[0].strip() != "---":
        return "unknown"
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if line.strip() == "---":
            break
        if name == "license" and value.strip():
            return value.strip().strip("\"'")
    return "unknown"


def read(folder: Path) -> dict[str, Any]:
    """The card of a folder; nothing where there is none that can be read."""
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def fingerprint(about: Mapping[str, Any]) -> str:
    """What tells one run from another: the same model, data and settings give the same."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def unfinished(out: Path, mark: str) -> Path:
    """Where a run keeps its checkpoints until it is done; another model, data or settings have another place.

    Raises ValueError where `out` holds something that this run did not put there itself, and may go on with.
    """
    check_free(out)
    if out.exists() and read(out).get("fingerprint") != mark:
        raise ValueError(
            f"found the unfinished model of another base, other data or settings at {out}; choose another folder with "
            "--out, remove it, or go on with what it was begun with"
        )
    return out.parent / f".{out.name}.{mark}.unfinished"


def check_free(out: Path) -> None:
    """Raises ValueError where there is something that no run can go on with."""
    if out.exists() and read(out).get("finished") is not False:
        raise ValueError(f"found a folder or file at {out}, expected none; choose another with --out or remove it")


def publish(out: Path, save: Callable[[Path], None], card: Mapping[str, Any]) -> None:
    """Write a model aside with its card and put it at `out`, in the place of what an unfinished run had put there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside, old = out.parent / f".{out.name}.tmp", out.parent / f".{out.name}.old"
    for folder in (aside, old):
        shutil.rmtree(folder, ignore_errors=True)
    aside.mkdir()
    try:
        save(aside)
        (aside / CARD).write_text(json.dumps({"format": FORMAT, **card}, indent=1) + "\n", encoding="utf-8")
        for file in sorted(aside.rglob("*")):
            synced(file)
        synced(aside)
        if out.exists():
            os.replace(out, old)
        os.replace(aside, out)
        synced(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
