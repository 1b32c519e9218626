"""The manifest of a bundle: what it was made of, and the sha256 of each of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from feedrank.models.atomic_files import digest

FORMAT = 4
MANIFEST = "manifest.json"
BUILD_INFO = "build.json"
"""Build time and duration: what may differ between two bundles of the same log, config and seed."""


class BundleError(RuntimeError):
    """Raised for a bundle that can't be used; the message names the file."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error within the block into a BundleError that names the file and the cause.

    A file may have the right checksum and be damaged all the same: as it was written, or with its manifest.
    """
    try:
        yield
    except BundleError:
        raise
    except Exception as problem:  # each format has its own errors, and a bug of a library is one more
        cause = f"{type(problem).__name__}: {problem}" if not isinstance(problem, ValueError) else str(problem)
        raise BundleError(f"{path} can't be used: {cause}; build the bundle again, or roll back") from problem


def bundle_files(folder: Path) -> list[str]:
    """List the files of a bundle: sorted paths below its folder, with / between their parts."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, with its own sha256."""
    path.write_text(json.dumps({**manifest, "sha256": _manifest_digest(manifest)}, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle; raises BundleError if it is missing, damaged or of another format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"found no {path.name} in {path.parent}; build a bundle with `feedrank train`, or promote one of"
            " `feedrank bundles list`"
        ) from None
    except OSError as problem:
        raise BundleError(f"can't read {path}: {problem.strerror}; check its owner and mode") from None
    except (ValueError, RecursionError) as problem:
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


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check that a bundle has exactly the files of its manifest, unchanged.

    Raises BundleError, which names the file, for one that is missing, damaged or foreign, and for a name that leaves
    the folder: by its parts, or as a link.
    """
    with reading(folder / MANIFEST):
        expected = {str(name): str(value) for name, value in manifest["files"].items()}
    for name in expected:
        if not _is_inside(name):
            raise BundleError(f"{folder / MANIFEST} names the file {name!r}, expected a path below the bundle's folder")
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise BundleError(f"{path} is a link, expected a file or folder of the bundle's own")
    for name in sorted(set(bundle_files(folder)) - expected.keys() - {MANIFEST, BUILD_INFO}):
        raise BundleError(f"{folder / name} is foreign: it is not in {MANIFEST}; bundles are immutable, remove it")
    for name, stated in expected.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing; build the bundle again, or roll back to another one")
        try:
            is_whole = digest(path) == stated
        except OSError as problem:
            raise BundleError(f"can't read {path}: {problem.strerror}; check its mode and the disk") from None
        if not is_whole:
            raise BundleError(f"{path} is damaged: its sha256 differs from {MANIFEST}; build the bundle again")


def _is_inside(name: str) -> bool:
    """Return whether a file name stays in its folder on any platform."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    is_relative = not (posix.is_absolute() or windows.anchor or "\\" in name or "\0" in name)
    return is_relative and bool(posix.parts) and ".." not in posix.parts and posix.as_posix() == name


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
