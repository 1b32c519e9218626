"""Read gorse's feedback, items and users, as CSV exports or as the JSON of its REST API.

gorse logs no rankings. Its feedback becomes interactions for counters, histories and item co-occurrence, and a ranker
is trained on the candidates of recall. Feedback of type `read`, gorse's word for an impression, keeps its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines, records, values
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import with_content_id
from feedrank.engine.events.checks import EventError, as_float
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event

_CANONICAL_NAMES = {
    "feedbacktype": "type", "userid": "user", "itemid": "item", "timestamp": "timestamp", "value": "value",
    "categories": "categories", "labels": "labels", "comment": "comment", "ishidden": "hidden",
}  # fmt: skip


def is_gorse(names: Any) -> bool:
    """Return whether column names, or the keys of a JSON value, are gorse's."""
    normalised = {_normalised_name(name) for name in names}
    return ("feedbacktype" in normalised and {"userid", "itemid"} <= normalised) or (
        "itemid" in normalised and bool(normalised & {"categories", "labels", "ishidden", "comment"})
    )


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read feedback, items or users from a CSV with a header or from JSON; the columns tell which.

    Rows that can't be read go to `rejects`.
    """
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
        yield from values.read_json_values(lines.read_lines(path, rejects), source, rejects)
        return
    header: list[str] = []
    for number, text, cells in records.split_csv(lines.read_lines(path, rejects), source, rejects):
        if not header:
            header = cells
            continue
        yield number, text, dict(zip(header, cells, strict=True))


def _event(row: Any) -> Event:
    if not isinstance(row, Mapping):
        raise EventError("event", f"found {type(row).__name__}, expected an object")
    cells = {
        _CANONICAL_NAMES.get(_normalised_name(name), name): value
        for name, value in row.items()
        if value not in ("", None)
    }
    if any(_normalised_name(name) == "feedbacktype" for name in row):
        value = cells.get("value")
        return with_content_id(
            parse(
                {
                    "event": "interaction", "id": "set below", "timestamp": cells.get("timestamp"),
                    "user": cells.get("user"), "item": cells.get("item"), "type": cells.get("type"),
                    "value": _number(value) if isinstance(value, str) else value,
                }
            )
        )  # fmt: skip
    kind = "item" if "item" in cells else "user"
    categories = _decode_cell(cells.get("categories"))
    fields: dict[str, Any] = {"title": cells.get("comment")} if kind == "item" else {"comment": cells.get("comment")}
    fields["category"] = [str(category) for category in categories] if isinstance(categories, list) else categories
    labels = _decode_cell(cells.get("labels"))
    named = labels.items() if isinstance(labels, Mapping) else [("tags", labels)]
    fields |= {name: _field_value(value) for name, value in named}
    return with_content_id(
        parse(
            {
                "event": kind, "id": "set below", "timestamp": cells.get("timestamp", 0), kind: cells.get(kind),
                "fields": [{"name": name, "value": value} for name, value in fields.items() if value not in (None, [])],
            }
        )
    )  # fmt: skip


def _normalised_name(name: str) -> str:
    return str(name).strip().lower().replace("_", "")


def _decode_cell(value: Any) -> Any:
    """Decode a CSV cell that holds JSON, or names separated by '|'."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value.split("|")


def _field_value(value: Any) -> Any:
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool) else None


def _number(value: str) -> Any:
    number = as_float(value)
    return value if number is None else number
