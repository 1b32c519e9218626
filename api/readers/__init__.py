"""Readers: the bytes of files in, engine events out. Nothing here writes, but for the file of rejected lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from api.readers import gorse, jsonl, lines, mind, movielens, open_bandit, tables, ubi, values
from api.readers.folders import PACKED, Folder
from api.readers.rejects import RejectedLine, Rejects
from engine.events import Event

__all__ = ["FORMATS", "Reader", "RejectedLine", "Rejects", "guess", "read"]

Reader: TypeAlias = Callable[[Path, Rejects], Iterator[Event]]

FORMATS: dict[str, Reader] = {
    "jsonl": jsonl.read,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "movielens": movielens.read,
    "mind": mind.read,
    "ubi": ubi.read,
    "gorse": gorse.read,
    "open-bandit": open_bandit.read,
}

_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_FOLDERS = ("movielens", "mind")
_ARCHIVES = (".zip", ".whl")


def guess(path: Path) -> str:
    """The format of a file by its ending, or of a folder or zip by what it holds.

    Raises ValueError where nothing is recognised and FileNotFoundError where there is nothing.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a file or folder of events")
    if path.is_dir() or path.suffix.lower() in _ARCHIVES:
        with Folder(path) as folder:
            if mind.recognise(folder):
                return "mind"
            if movielens.recognise(folder):
                return "movielens"
            found = ", ".join(folder.names[:5]) + (", ..." if len(folder.names) > 5 else "") or "nothing"
    else:
        name = path.name.lower()
        for packed in PACKED[1:]:
            name = name.removesuffix(packed)
        suffix = Path(name).suffix
        if suffix in _SUFFIXES:
            return _told_by_content(path, _SUFFIXES[suffix])
        found = f"the ending {suffix!r}"
    raise ValueError(
        f"can't tell the format of {path}: found {found}. Say which of {', '.join(FORMATS)} it is. Recognised are files"
        " that end with .jsonl, .ndjson, .json, .csv (also with .gz or .zst after it), .parquet or .pq, and folders or"
        " zips with behaviors.tsv (mind), or with u.data, ratings.csv or *.inter (movielens)"
    )


def _told_by_content(path: Path, format: str) -> str:
    """The format whose marks the first record of a file has; `format` where it has none."""
    unheard = Rejects()
    if format == "csv":
        header = next((text for _, text in lines.read(path, unheard) if text.strip()), "")
        columns = [name.strip().strip('"') for name in header.split(",")]
        if open_bandit.is_log(columns) or open_bandit.is_context(columns):
            return "open-bandit"
        return "gorse" if gorse.is_record(columns) else format
    if format == "jsonl":
        first = next((value for _, _, value in values.read(lines.read(path, unheard), str(path), unheard)), None)
        if isinstance(first, dict) and "event" not in first:
            return "ubi" if ubi.is_record(first) else "gorse" if gorse.is_record(first) else format
    return format


def read(path: Path, rejects: Rejects, format: str | None = None) -> Iterator[Event]:
    """The events of a file, folder or zip; the format is guessed where none is given.

    Raises ValueError or FileNotFoundError: at once for an unknown format or path, and at the first event where a whole
    file can't be that format. Lines that can't be read go to `rejects`.
    """
    path = Path(path)
    name = guess(path) if format is None else format
    if name not in FORMATS:
        raise ValueError(f"found the format {name!r}, expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a file or folder of events")
    if path.is_dir() and name not in _FOLDERS:
        raise ValueError(f"{path} is a folder, expected a {name} file; import its files one by one")
    return FORMATS[name](path, rejects)
