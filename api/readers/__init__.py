"""Readers parse files of many formats into engine events. They write nothing but the file of rejected lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from feedrank.api.readers import (
    amazon,
    gorse,
    guess,
    hm,
    jsonl,
    lastfm,
    letor,
    lines,
    mind,
    movielens,
    open_bandit,
    otto,
    parquet_rows,
    recbole,
    records,
    retailrocket,
    sequences,
    tables,
    ubi,
    values,
)
from feedrank.api.readers.custom import CustomReader
from feedrank.api.readers.folders import ARCHIVE_SUFFIXES, COMPRESSION_SUFFIXES, Folder, SingleFile
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import RejectedLine, Rejects
from feedrank.api.readers.separators import FIRST_LINES, find_start
from feedrank.api.readers.streams import only_member
from feedrank.api.readers.ubi_joins import KnownEvents
from feedrank.engine.events.events import Event

__all__ = ["FORMATS", "ImportOptions", "Reader", "RejectedLine", "Rejects", "guess_format", "read_events"]


class Reader(Protocol):
    """Reads the events of a file; a function of this shape is a reader.

    `feedrank import --format package.module:function` takes one of the user's own, which may read folders too. It
    yields events in an order that is the same each time, so that an interrupted import can resume, and gives the same
    record the same id each time, so that it counts once. `feedrank.engine.testing.check_reader` checks both.
    """

    def __call__(self, path: Path, rejects: Rejects, /) -> Iterator[Event]:
        """Yield the events of a path one by one, and report each line that can't be read to `rejects.reject`.

        Raises ValueError if the file as a whole is not of the reader's format.
        """
        ...


class FormatReader(Protocol):
    """Reads the events of a file of a format of ours, with the options of the import."""

    def __call__(self, path: Path, rejects: Rejects, options: ImportOptions, /) -> Iterator[Event]:
        """Yield the events of a path, as `Reader` does."""
        ...


FORMATS: dict[str, FormatReader] = {
    "jsonl": jsonl.read_events,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "movielens": movielens.read_events,
    "mind": mind.read_events,
    "ubi": ubi.read_events,
    "gorse": gorse.read_events,
    "open-bandit": open_bandit.read_events,
    "recbole": recbole.read_events,
    "retailrocket": retailrocket.read_events,
    "hm": hm.read_events,
    "otto": otto.read_events,
    "amazon": amazon.read_events,
    "lastfm": lastfm.read_events,
    "sequences": sequences.read_events,
    "letor": letor.read_events,
}

_TABLE_OPTIONS = ("map", "type_column", "separator", "encoding", "time_unit", "zone")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "jsonl": ("map", "type_column", "encoding", "time_unit", "zone"),
    "csv": _TABLE_OPTIONS,
    "parquet": ("map", "type_column", "time_unit", "zone"),
    "movielens": ("encoding",),
    "mind": (),
    "ubi": ("encoding", "time_unit", "zone"),
    "gorse": ("separator", "encoding", "time_unit", "zone"),
    "open-bandit": (),
    "recbole": ("separator", "encoding", "time_unit", "zone"),
    "retailrocket": _TABLE_OPTIONS,
    "hm": _TABLE_OPTIONS,
    "otto": _TABLE_OPTIONS,
    "amazon": ("encoding",),
    "lastfm": ("encoding", "zone"),
    "sequences": ("separator", "encoding"),
    "letor": ("map", "separator", "encoding", "missing"),
}
"""Format -> the import options that its reader understands."""
_FORMAT_BY_SUFFIX = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".psv": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_FOLDER_FORMATS = ("movielens", "mind", "ubi", "recbole", "retailrocket", "hm", "otto", "lastfm", "letor")


def guess_format(path: Path) -> str:
    """Guess the format of a file from its suffix and content, or of a folder or zip from its files.

    Raises ValueError if no format is recognised and FileNotFoundError if the path does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a file or folder of events")
    if path.is_dir() or path.suffix.lower() in ARCHIVE_SUFFIXES:
        with Folder(path) as folder:
            if format := guess.by_files(folder):
                return format
            member = only_member(folder.names)
            if member is not None and (format := _by_name(member)) not in (None, "parquet"):
                return _refine_by_content(path, format)
            content = ", ".join(folder.names[:5]) + (", ..." if len(folder.names) > 5 else "") or "nothing"
    else:
        if (format := guess.by_file_name(SingleFile(path))) is not None:
            return format
        if (format := _by_name(path.name)) is not None:
            return _refine_by_content(path, format)
        content = f"the ending {path.suffix!r}"
    raise ValueError(
        f"can't tell the format of {path}: found {content}. Name one of {', '.join(FORMATS)}, or a reader"
        " of your own as package.module:function. Recognised are files that end with .jsonl, .ndjson, .json, .csv or"
        " .tsv (also with .gz, .zst, .bz2, .xz or .zip after it), .parquet or .pq, atomic files of RecBole, .dat files"
        " of MovieLens and Last.fm, feature files with lines such as '2 qid:10 1:0.5' or the columns qid and label"
        " (letor), and folders or zips with behaviors.tsv (mind), with u.data, ratings.dat or"
        " ratings.csv (movielens), with *.inter (recbole), events.csv and item_properties_part1.csv (retailrocket),"
        " transactions_train.csv (hm), user_artists.dat (lastfm) or ubi_events.ndjson (ubi)"
    )


def _by_name(name: str) -> str | None:
    """Return the format that the suffix of a file says; None if it says none."""
    plain = name.lower()
    for compression_suffix in (*COMPRESSION_SUFFIXES[1:], ".bz2", ".xz", ".zip"):
        plain = plain.removesuffix(compression_suffix)
    return _FORMAT_BY_SUFFIX.get(Path(plain).suffix)


def _refine_by_content(path: Path, format: str) -> str:
    """Return the format whose columns or keys the first records have; `format` if they have those of none."""
    ignored = Rejects()
    if format == "csv":
        start = [text for _, text in islice(lines.read_lines(path, ignored), FIRST_LINES)]
        found = find_start(start, tables.KNOWN_COLUMNS)
        numbered = enumerate(start[found.skipped :], 1)
        rows = [row.cells for row in records.split_csv(numbered, str(path), ignored, found.separator)]
        if not rows:
            return format
        named = guess.by_columns(rows[0]) or (guess.by_first_row(rows[0], rows[1]) if len(rows) > 1 else None)
        return named or guess.by_rows(rows[: guess.FIRST_ROWS]) or format
    if format == "parquet":
        return guess.by_columns(parquet_rows.columns_of(path)) or format
    texts = lines.read_lines(path, ignored)
    first = list(islice(texts, 1))
    if first and (named := guess.by_line(first[0][1])):
        return named
    found_values = (value for _, _, value in values.read_json_values(chain(first, texts), str(path), ignored))
    return guess.by_values(list(islice(found_values, 3))) or format


def read_events(
    path: Path,
    rejects: Rejects,
    format: str | None = None,
    options: ImportOptions = DEFAULTS,
    known: KnownEvents | None = None,
) -> Iterator[Event]:
    """Read the events of a file, folder or zip; the format is guessed if it is None.

    format: one of FORMATS, or "package.module:function", a `Reader` of the user's own. options: what the user says
    about the file; ValueError for an option that the format does not understand. known: what was imported earlier, to
    which the events of some formats refer; the journal is one.

    Lines that can't be read go to `rejects`. Raises ValueError or FileNotFoundError: at once for an unknown format or
    path, and at the first event if the file as a whole is not of that format.
    """
    path = Path(path)
    name = guess_format(path) if format is None else format
    if name not in FORMATS and ":" not in name:
        raise ValueError(
            f"found the format {name!r}, expected one of {', '.join(FORMATS)}, or a reader of your own as "
            "package.module:function"
        )
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a file or folder of events")
    if unknown := [option for option in options.given if option not in _OPTIONS.get(name, ())]:
        flags = ", ".join("--" + option.replace("_", "-") for option in unknown)
        understood = ", ".join("--" + option.replace("_", "-") for option in _OPTIONS.get(name, ())) or "none"
        table = None if path.is_dir() else _by_name(path.name)
        as_table = table != name and set(unknown) <= set(_OPTIONS.get(table or "", ()))
        raise ValueError(
            f"the format {name} does not understand {flags}; of the options about a file it has {understood}"
            + (f". Give --format {table} to read it as a table" if as_table else "")
        )
    if name not in FORMATS:
        return CustomReader(name)(path, rejects)
    if path.is_dir() and name not in _FOLDER_FORMATS:
        raise ValueError(f"{path} is a folder, expected a {name} file; import its files one by one")
    return ubi.read_events(path, rejects, options, known) if name == "ubi" else FORMATS[name](path, rejects, options)
