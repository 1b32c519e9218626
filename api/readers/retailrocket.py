"""Read the RetailRocket data set: events.csv, item_properties_part1.csv and part2, category_tree.csv."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from feedrank.api.readers import layouts
from feedrank.api.readers.folders import Folder, open_files
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.layouts import Layout, Row
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.events import Event

EVENTS = Layout(
    "interaction",
    {"timestamp": "timestamp", "visitorid": "user", "event": "type", "itemid": "item"},
    ("events.csv",),
)
_PROPERTIES = {"timestamp": "timestamp", "itemid": "item", "property": "property", "value": "value"}
LAYOUTS = (Layout("item", _PROPERTIES, ("item_properties*.csv",)), EVENTS)

_NUMBER = re.compile(r"n(-?\d+\.\d{3})", re.ASCII)


def is_retailrocket(folder: Folder) -> bool:
    """Return whether a folder holds events.csv beside item properties or the category tree."""
    named = folder.match("item_properties*.csv") or folder.match("category_tree.csv")
    return bool(named) and bool(folder.match("events.csv"))


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the properties of items, each as of its own time, then the events, from a folder, a zip or one file.

    The column `event` (view, addtocart, transaction) is the interaction type. An item's `categoryid` becomes its
    category, followed by the categories above it if the folder has category_tree.csv. A value such as n277.200 is a
    number; other properties are fields under their hashed names.
    """
    with open_files(path) as folder:
        tree = _category_tree(folder, rejects)
    properties = Layout("item", _PROPERTIES, ("item_properties*.csv",), converter=lambda: _property(tree))
    yield from layouts.read_layouts(path, (properties, EVENTS), rejects, options)


def _property(parents: dict[str, str]) -> Callable[[Row], Iterator[Row]]:
    def convert(row: Row) -> Iterator[Row]:
        name, value = str(row.pop("property")), str(row.pop("value"))
        if name == "categoryid":
            yield {**row, "category": _with_parents(value, parents)}
        else:
            number = _NUMBER.fullmatch(value)
            yield {**row, name: float(number[1]) if number else value}

    return convert


def _with_parents(category: str, parents: dict[str, str]) -> list[str]:
    path = [category]
    while (parent := parents.get(path[-1])) and parent not in path:
        path.append(parent)
    return path


def _category_tree(folder: Folder, rejects: Rejects) -> dict[str, str]:
    """Return category -> the category above it; empty if the folder has no such file."""
    layout = Layout("item", {"categoryid": "id", "parentid": "category"}, ())
    return {
        row["id"]: row["category"]
        for name in folder.match("category_tree.csv")
        for _, _, row in layouts.rows(folder, name, layout, rejects, DEFAULTS)
        if row.get("category")
    }
