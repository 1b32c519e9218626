"""Read the OTTO data set: sessions of clicks, carts and orders, as JSON lines or as Kaggle's tables.

Normann, Baumeister and Wilm, OTTO Recommender Systems Dataset, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feedrank.api.readers import layouts, lines, values
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.layouts import Layout, Row
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import ContentIds
from feedrank.api.readers.streams import begins_as_json
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import canonical_event

TYPES = ("clicks", "carts", "orders")
"""Types in the order of the numbers that the smaller copies on Kaggle have in their place."""


def _named_type(row: Row) -> Iterator[Row]:
    type_ = str(row["type"]).removesuffix(".0")
    yield {**row, "type": TYPES[int(type_)] if type_ in ("0", "1", "2") else type_}


TABLE = Layout(
    "interaction",
    {"session": "user", "aid": "item", "ts": "timestamp", "type": "type"},
    ("train*.parquet", "test*.parquet"),
    time_unit="auto",
    converter=lambda: _named_type,
)


def is_otto(body: Any) -> bool:
    """Return whether a JSON value is a session of the data set."""
    return isinstance(body, Mapping) and "session" in body and isinstance(body.get("events"), list)


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read sessions as JSON lines, or a CSV or Parquet file with the columns session, aid, ts and type.

    A session is all that one user did in four weeks, and becomes the user. Times are milliseconds; in tables also
    seconds, as their size says. An invalid event is rejected, and the others of its session are kept.
    """
    if path.is_file() and begins_as_json(path):
        yield from _read_sessions(path, rejects, options)
    else:
        yield from layouts.read_layouts(path, (TABLE,), rejects, options)


def _read_sessions(path: Path, rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    source = str(path)
    ids = ContentIds()
    numbered = lines.read_lines(path, rejects, options.encoding)
    for number, text, session in values.read_json_values(numbered, source, rejects):
        if not is_otto(session):
            rejects.reject(source, number, "found no session, expected an object with session and events", text)
            continue
        for entry in session["events"]:
            try:
                event = ids.identify(parse(canonical_event(_body(session["session"], entry))))
            except EventError as problem:
                rejects.reject(source, number, str(problem), repr(entry))
            else:
                rejects.accept(number)
                yield event


def _body(session: Any, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise EventError("events", f"found {type(entry).__name__}, expected an object with aid, ts and type")
    return {
        "event": "interaction", "id": "set below", "timestamp": entry.get("ts"), "user": session,
        "item": entry.get("aid"), "type": entry.get("type"),
    }  # fmt: skip
