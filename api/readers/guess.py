"""Recognise the formats of other systems by the names of files, by columns, by JSON keys or by the first rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedrank.api.readers import (
    amazon,
    feature_table,
    gorse,
    hm,
    lastfm,
    layouts,
    letor,
    lines,
    mind,
    movielens,
    open_bandit,
    otto,
    recbole,
    retailrocket,
    sequences,
    ubi,
)
from feedrank.api.readers.folders import Folder
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import EVENT_COLUMNS

FIRST_ROWS = 20
"""Rows of a file that are looked at."""


def by_files(folder: Folder) -> str | None:
    """Return the format that the names of a folder's files say; None if they are of none."""
    recognised = {
        "mind": mind.is_mind, "movielens": movielens.is_movielens, "recbole": recbole.is_recbole,
        "retailrocket": retailrocket.is_retailrocket, "hm": hm.is_hm, "lastfm": lastfm.is_lastfm,
        "ubi": ubi.is_ubi_folder, "letor": letor.is_letor,
    }  # fmt: skip
    return next((name for name, is_format in recognised.items() if is_format(folder)), None)


def by_file_name(folder: Folder) -> str | None:
    """Return the format of a single file that its name says, such as ratings.dat; None if it says none."""
    name = folder.names[0]
    if any(folder.match("*" + suffix) for suffix in recbole.SUFFIXES):
        return "recbole"
    if lastfm.is_lastfm(folder):
        return "lastfm"
    first = _first_lines(folder, name)
    if movielens.is_movielens(folder) and first and ("::" in first[0] or folder.match("u.*")):
        return "movielens"
    if letor.is_letor(folder):
        return "letor"
    return "sequences" if folder.match("*.txt") and sequences.is_sequences(first) else None


def by_columns(columns: Sequence[str]) -> str | None:
    """Return the format that has these columns in its tables; None if none has."""
    names = [name.strip() for name in columns]
    if open_bandit.is_log(names) or open_bandit.is_item_context(names):
        return "open-bandit"
    if gorse.is_gorse(names):
        return "gorse"
    if movielens.is_columns(names):
        return "movielens"
    if feature_table.is_feature_table(names):
        return "letor"
    tables = {
        "retailrocket": retailrocket.LAYOUTS, "hm": hm.LAYOUTS, "otto": (otto.TABLE,),
        "amazon": (amazon.RATINGS_2023,),
    }  # fmt: skip
    return next((name for name, forms in tables.items() if layouts.fitting(names, forms)), None)


def by_first_row(columns: Sequence[str], cells: Sequence[str]) -> str | None:
    """Return the format of a table whose column `event` holds types of interactions instead of kinds of events."""
    row = dict(zip((name.strip() for name in columns), cells, strict=False))
    is_renamed = "event" in row and retailrocket.EVENTS.fits(row, ours=True)
    return "retailrocket" if is_renamed and row["event"] not in EVENT_COLUMNS else None


def by_rows(rows: Sequence[Sequence[str]]) -> str | None:
    """Return the format whose tables have no header and rows like these; None if none has."""
    return "amazon" if amazon.is_ratings_only(rows) else None


def by_values(values: Sequence[Any]) -> str | None:
    """Return the format of the first JSON values of a file; None if they are of none, or events of ours."""
    documents = [value for value in values if not ubi.is_bulk_action(value)]
    if not documents or not isinstance(documents[0], Mapping) or "event" in documents[0]:
        return None
    first = documents[0]
    recognised = {"ubi": ubi.is_ubi, "otto": otto.is_otto, "gorse": gorse.is_gorse, "amazon": amazon.is_amazon}
    return next((name for name, is_format in recognised.items() if is_format(first)), None)


def by_line(text: str) -> str | None:
    """Return the format whose lines look like this one, which is no JSON; None if none does."""
    return "amazon" if amazon.is_literal(text) else None


def _first_lines(folder: Folder, name: str) -> list[str]:
    with folder.open(name) as stream:
        numbered = lines.decode_lines(stream, name, Rejects(), "latin-1")
        return [text for _, (_, text) in zip(range(FIRST_ROWS), numbered, strict=False)]
