"""Read RecBole's atomic files: .inter, .item and .user, with headers such as user_id:token.

Zhao et al., RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation Algorithms, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from feedrank.api.readers import layouts, synthetic_times
from feedrank.api.readers.folders import Folder, open_files
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.layouts import Layout, Row
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.synthetic_times import SyntheticTimes
from feedrank.engine.events.checks import as_float
from feedrank.engine.events.events import Event

SUFFIXES = {".item": "item", ".user": "user", ".inter": "interaction"}
"""Suffix of an atomic file -> the events that its rows become."""

_TITLES = ("title", "movie_title", "movie_name", "book_title", "item_name", "name")
_CATEGORIES = ("class", "genre", "genres", "category", "categories", "categories_name", "type")
_RATINGS = ("rating", "stars")
_VALUES = (*_RATINGS, "weight", "count", "click_times", "interactions")
_OTHER_IDS = ("user_id", "session_id", "review_id", "event_id", "order_id", "transaction_id")
_TYPES = ("token", "token_seq", "float", "float_seq")


def is_recbole(folder: Folder) -> bool:
    """Return whether a folder, or a single file, is one of atomic files of interactions."""
    return bool(folder.match("*.inter"))


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the items, the users and then the interactions of a folder, a zip or one file.

    A rating, weight or count becomes the value. Interactions with a rating have the type `rating`, those with a label
    of 0 the type `impression`, and others `click`. Titles and genres become `title` and `category`; other columns
    become fields of their type. Times are seconds or milliseconds, as their size says. Where the file has none, they
    are synthetic: see `SyntheticTimes`. Raises ValueError for a file without atomic columns.
    """
    with open_files(path) as folder:
        names = [(name, suffix) for suffix in SUFFIXES for name in folder.match("*" + suffix)]
        if not names:
            raise ValueError(f"{path}: found {', '.join(folder.names[:5])}, expected .inter, .item or .user")
        item_column = "item_id"
        for name, suffix in names:
            columns = layouts.columns_of(folder, name, "\t", options)
            if suffix == ".item" and columns:
                item_column = columns[0].partition(":")[0]
            layout = _layout(folder.source(name), SUFFIXES[suffix], columns, item_column, rejects)
            yield from layouts.read_file(folder, name, layout, rejects, options)


def _layout(source: str, kind: Any, header: Sequence[str], item_column: str, rejects: Rejects) -> Layout:
    types: dict[str, str] = {}
    for cell in header:
        name, _, type_ = cell.strip().partition(":")
        if type_ not in _TYPES:
            raise ValueError(f"{source}: found the column {cell!r}, expected a type after it, such as user_id:token")
        types[name] = type_
    parts = _parts(kind, types, item_column)
    if missing := [
        part for part in (("item", "user") if kind == "interaction" else (kind,)) if part not in parts.values()
    ]:
        raise ValueError(f"{source}: found the columns {', '.join(header)}, expected also a column of the {missing[0]}")
    value_types = {parts.get(name, name): type_ for name, type_ in types.items()}
    has_time = "timestamp" in parts.values()
    is_rating = "label" not in types and any(parts.get(name) == "value" for name in _RATINGS)

    def converter() -> Any:
        times = SyntheticTimes()

        def convert(row: Row) -> Iterator[Row]:
            typed = {
                name: _typed(cell, name, value_types.get(name, "token")) for name, cell in row.items() if cell != ""
            }
            if kind == "interaction":
                label = typed.pop("label", None)
                typed["type"] = "rating" if is_rating else "impression" if label == 0 else "click"
                if not has_time:
                    typed["timestamp"] = times.next_ms(str(typed.get("user")))
                    rejects.tally(synthetic_times.NOTE)
            yield typed

        return convert

    columns = {f"{name}:{type_}": parts.get(name, name) for name, type_ in types.items()}
    return Layout(kind, columns, (), separator="\t", time_unit="auto", converter=converter)


def _parts(kind: str, types: dict[str, str], item_column: str) -> dict[str, str]:
    """Return column -> part of the event or field that has a meaning of its own.

    item_column: the first column of the file of items, if there is one.
    """
    if kind == "user":
        return {"user_id": "user"} if "user_id" in types else {next(iter(types)): "user"}
    ids = [name for name, type_ in types.items() if type_ == "token" and name.endswith("_id")]
    known = (name for name in (item_column, "item_id") if name in types)
    item = next(known, next((name for name in ids if name not in _OTHER_IDS), ""))
    parts = {item: "item"} if item else {}
    if kind == "item":
        for field, usual in (("title", _TITLES), ("category", _CATEGORIES)):
            name = next((name for name in usual if name in types), None)
            if name is not None:
                parts[name] = field
        return parts
    user = next((name for name in ("user_id", "session_id") if name in types), None)
    value = next((name for name in _VALUES if types.get(name) == "float"), None)
    parts |= {"timestamp": "timestamp"} if "timestamp" in types else {}
    parts |= {user: "user"} if user else {}
    parts |= {"session_id": "session"} if user == "user_id" and "session_id" in types else {}
    return parts | ({value: "value"} if value else {})


def _typed(cell: Any, name: str, type_: str) -> Any:
    """Return a cell as its column's type says; titles stay text, and categories are lists."""
    text = str(cell)
    if name == "title" or (type_ == "token" and name != "category"):
        return text
    words = text.split(" ")
    if type_ in ("token", "token_seq"):
        return [word for word in words if word] if type_ == "token_seq" else [text]
    if name == "timestamp":
        return text
    numbers = [as_float(word) for word in (words if type_ == "float_seq" else [text])]
    if None in numbers:
        raise ValueError(f"{name}: found {text!r}, expected {'numbers' if type_ == 'float_seq' else 'a number'}")
    return numbers if type_ == "float_seq" else numbers[0]
