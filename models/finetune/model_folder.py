"""Write a trained text model's folder atomically, with a model card that records how it was made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from feedrank.models.atomic_files import fsync
from feedrank.models.text.model_weights import weights_digest

CARD_FILE = "feedrank.json"
CARD_FORMAT = 1


def provenance(folder: Path, name: str, revision: str | None) -> dict[str, Any]:
    """Describe a base model for the model card: name, revision, weights digest and licence."""
    return {"name": name, "revision": revision, "digest": weights_digest(folder), "licence": licence(folder)}


def licence(folder: Path) -> str:
    """Return the licence from a model folder's card or its README front matter, or else "unknown"."""
    card_licence = read_card(folder).get("licence")
    if isinstance(card_licence, str):
        return card_licence
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


def read_card(folder: Path) -> dict[str, Any]:
    """Read a folder's model card; an empty dict if there is no readable card."""
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def run_fingerprint(run_inputs: Mapping[str, Any]) -> str:
    """Hash what defines a run: the same model, data and settings give the same fingerprint."""
    return hashlib.sha256(json.dumps(run_inputs, sort_keys=True).encode()).hexdigest()[:16]


def work_folder(out: Path, fingerprint: str) -> Path:
    """Return the folder of a run's checkpoints until it finishes; each fingerprint has its own folder.

    Raises ValueError if `out` holds something other than this run's own unfinished model.
    """
    check_output_folder(out)
    if out.exists() and read_card(out).get("fingerprint") != fingerprint:
        raise ValueError(
            f"found the unfinished model of another base, other data or settings at {out}; choose another folder with "
            "--out, remove it, or use the base, data and settings that it was started with"
        )
    return out.parent / f".{out.name}.{fingerprint}.unfinished"


def check_output_folder(out: Path) -> None:
    """Check that `out` is free or holds an unfinished model. Raises ValueError otherwise."""
    if out.exists() and read_card(out).get("finished") is not False:
        raise ValueError(f"found a folder or file at {out}, expected none; choose another with --out or remove it")


def publish(out: Path, save: Callable[[Path], None], card: Mapping[str, Any]) -> None:
    """Write a model and its card to a temporary folder, then move it to `out`, replacing an unfinished model there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = out.parent / f".{out.name}.tmp", out.parent / f".{out.name}.old"
    for folder in (temporary, old):
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    try:
        save(temporary)
        (temporary / CARD_FILE).write_text(
            json.dumps({"format": CARD_FORMAT, **card}, indent=1) + "\n", encoding="utf-8"
        )
        for file in sorted(temporary.rglob("*")):
            fsync(file)
        fsync(temporary)
        if out.exists():
            os.replace(out, old)
        os.replace(temporary, out)
        fsync(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
