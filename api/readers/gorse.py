"""What gorse keeps: feedback, items and users, as CSV exports or as the JSON of its REST API.

gorse has no lists of what was shown. Its feedback feeds counters, histories and co-clicks, but makes no rankings, so
a ranker is trained on what recall finds. Feedback of type `read`, gorse's word for an impression, stays a type of its
own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from api.readers import lines, records, values
from api.readers.rejects import Rejects
from api.readers.rows import made_id
from engine.checks import as_float
from engine.events import Event, EventError, parse

_NAMES = {
    "feedbacktype": "type", "userid": "user", "itemid": "item", "timestamp": "timestamp", "value": "value",
    "categories": "categories", "labels": "labels", "comment": "comment", "ishidden": "hidden",
}  # fmt: skip


def is_record(names: Any) -> bool:
    """Whether column names, or the keys of a JSON value, are gorse's."""
    known = {_plain(name) for name in names}
    return ("feedbacktype" in known and {"userid", "itemid"} <= known) or (
        "itemid" in known and bool(known & {"categories", "labels", "ishidden", "comment"})
    )


def read(path: Path, rejects: Rejects) -> Iterator[Event]:
    """The events of a CSV with a header, or of JSON: feedback, items, or users, told apart by their columns."""
    source = str(path)
    for number, text, row in _rows(path, source, rejects):
        try:
            event = _event(row)
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept()
            yield event


def _rows(path: Path, source: str, rejects: Rejects) -> Iterator[tuple[int, str, Any]]:
    if ".csv" not in path.name.lower():
        yield from values.read(lines.read(path, rejects), source, rejects)
        return
    header: list[str] = []
    for number, text, cells in records.split_csv(lines.read(path, rejects), source, rejects):
        if not header:
            header = cells
            continue
        yield number, text, dict(zip(header, cells, strict=True))


def _event(row: Any) -> Event:
    if not isinstance(row, Mapping):
        raise EventError("event", f"found {type(row).__name__}, expected an object")
    cells = {_NAMES.get(_plain(name), name): value for name, value in row.items() if value not in ("", None)}
    if any(_plain(name) == "feedbacktype" for name in row):
        value = cells.get("value")
        return made_id(
            parse(
                {
                    "event": "interaction", "id": "made below", "timestamp": cells.get("timestamp"),
                    "user": cells.get("user"), "item": cells.get("item"), "type": cells.get("type"),
                    "value": _number(value) if isinstance(value, str) else value,
                }
            )
        )  # fmt: skip
    kind = "item" if "item" in cells else "user"
    categories = _decoded(cells.get("categories"))
    fields: dict[str, Any] = {"title": cells.get("comment")} if kind == "item" else {"comment": cells.get("comment")}
    fields["category"] = [str(one) for one in categories] if isinstance(categories, list) else categories
    labels = _decoded(cells.get("labels"))
    named = labels.items() if isinstance(labels, Mapping) else [("tags", labels)]
    fields |= {name: _field(value) for name, value in named}
    return made_id(
        parse(
            {
                "event": kind, "id": "made below", "timestamp": cells.get("timestamp", 0), kind: cells.get(kind),
                "fields": [{"name": name, "value": value} for name, value in fields.items() if value not in (None, [])],
            }
        )
    )  # fmt: skip


def _plain(name: str) -> str:
    return str(name).strip().lower().replace("_", "")


def _decoded(value: Any) -> Any:
    """A cell of CSV that holds JSON, or names with a bar between them."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value.split("|")


def _field(value: Any) -> Any:
    if isinstance(value, list):
        return [str(one) for one in value]
    return value if isinstance(value, str | int | float | bool) else None


def _number(value: str) -> Any:
    number = as_float(value)
    return value if number is None else number
