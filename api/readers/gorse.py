"""Read gorse's feedback, items and users: the dashboard's exports (CSV or JSON lines) and the JSON of its REST API.

gorse logs no rankings. Its feedback becomes interactions for counters, histories and item co-occurrence, and a ranker
is trained on the candidates of recall. Feedback of type `read`, gorse's word for an impression, keeps its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines, values
from feedrank.api.readers.columns import SAMPLE_ROWS, float_columns, float_note
from feedrank.api.readers.delimited import split_table
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.rows import ContentIds
from feedrank.api.readers.streams import begins_as_json
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.catalogue import REMOVED, is_true
from feedrank.engine.events.checks import EventError, as_float, is_finite
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import canonical_event

_CANONICAL_NAMES = {
    "feedbacktype": "type", "userid": "user", "itemid": "item", "timestamp": "timestamp", "value": "value",
    "categories": "categories", "labels": "labels", "comment": "comment", "description": "comment",
    "ishidden": "hidden", "updated": "updated",
}  # fmt: skip
_COLUMNS = frozenset(
    ("feedback_type", "user_id", "item_id", "time_stamp", "is_hidden", "categories", "labels", "description", "comment")
).union(_CANONICAL_NAMES)  # fmt: skip
_PAGES = ("Items", "Users", "Feedback")
"""Keys under which the REST API answers a page of entries, beside its Cursor."""
_ZERO_TIME = "0001-01-01"
"""What gorse writes for a time that it does not know."""


def is_gorse(names: Any) -> bool:
    """Return whether column names, or the keys of a JSON value, are gorse's."""
    normalised = {_normalised_name(name) for name in names}
    return (
        ("feedbacktype" in normalised and {"userid", "itemid"} <= normalised)
        or (
            "itemid" in normalised
            and bool(normalised & {"categories", "labels", "ishidden", "comment"})
            and "userid" not in normalised
        )
        or (
            "userid" in normalised
            and "labels" in normalised
            and normalised <= {"userid", "labels", "comment", "subscribe"}
        )
        or ("Cursor" in names and any(page in names for page in _PAGES))
    )


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read feedback, items or users from a CSV with a header or from JSON; the columns tell which.

    An item with `is_hidden` gets the field `removed`, so that it is never recommended until a later event of it says
    otherwise. Times without a zone are UTC. Rows that can't be read go to `rejects`.
    """
    source = str(path)
    first, rows = peek(_rows(path, source, rejects, options), SAMPLE_ROWS)
    in_utc = options if options.zone else replace(options, zone="UTC")
    times = TimeReader(in_utc, sample=[_time(row) for _, _, row in first if isinstance(row, Mapping)])
    ids = ContentIds()
    for number, text, row in rows:
        try:
            event = ids.identify(parse(canonical_event(_body(row, times))))
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept(number)
            yield event


def _rows(path: Path, source: str, rejects: Rejects, options: ImportOptions) -> Iterator[tuple[int, str, Any]]:
    numbered = lines.read_lines(path, rejects, options.encoding, may_be_western=True)
    if begins_as_json(path):
        for number, text, value in values.read_json_values(numbered, source, rejects):
            pages = [value[page] for page in _PAGES if isinstance(value.get(page), list)] if _is_page(value) else []
            yield from ((number, text, entry) for entry in (pages[0] if pages else [value]))
        return
    if (table := split_table(numbered, source, rejects, options, (), _COLUMNS)) is None:
        return
    header, found = table.header, [_CANONICAL_NAMES.get(_normalised_name(name), name) for name in table.header]
    first, all_records = peek(table.records, SAMPLE_ROWS)

    def again() -> Iterator[list[str]]:
        ignored = Rejects()
        lines_again = lines.read_lines(path, ignored, options.encoding, may_be_western=True)
        reopened = split_table(lines_again, source, ignored, options, (), _COLUMNS)
        return iter(()) if reopened is None else (record.cells for record in reopened.records)

    floats = float_columns(found, [record.cells for record in first], again)
    rejects.note(*map(float_note, sorted(floats)))
    indexes = [index for index, name in enumerate(found) if name in floats]
    for number, text, cells in all_records:
        for index in indexes:
            cells[index] = cells[index].removesuffix(".0")
        yield number, text, dict(zip(header, cells, strict=True))


def _is_page(value: Any) -> bool:
    return isinstance(value, Mapping) and "Cursor" in value


def _body(row: Any, times: TimeReader) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise EventError("event", f"found {type(row).__name__}, expected an object")
    cells: dict[str, Any] = {
        _CANONICAL_NAMES.get(_normalised_name(name), str(name)): value
        for name, value in row.items()
        if value not in ("", None) and not (isinstance(value, str) and value.startswith(_ZERO_TIME))
    }
    if "timestamp" in cells:
        cells["timestamp"] = times.read(cells["timestamp"])
    body: dict[str, Any] = {"id": "set below", "timestamp": cells.get("timestamp")}
    if any(_normalised_name(name) == "feedbacktype" for name in row):
        value = cells.get("value")
        fields = _fields(cells)
        body |= {"event": "interaction", "value": _number(value) if isinstance(value, str) else value}
        body |= {part: cells.get(part) for part in ("user", "item", "type")}
    elif "item" in cells:
        fields = _item_fields(cells)
        body |= {"event": "item", "item": cells.get("item"), "timestamp": cells.get("timestamp", 0)}
    else:
        fields = _fields(cells)
        body |= {"event": "user", "user": cells.get("user"), "timestamp": cells.get("timestamp", 0)}
    body["fields"] = [{"name": name, "value": value} for name, value in fields.items() if value not in (None, [], "")]
    return body


def _time(row: Mapping[str, Any]) -> Any:
    return next((value for name, value in row.items() if _normalised_name(name) == "timestamp"), None)


def _item_fields(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item's fields; the comment is its title, or its text if a label is the title."""
    fields = _fields(cells)
    comment = fields.pop("comment", None)
    categories = _decode_cell(cells.get("categories"))
    names = categories if isinstance(categories, list) else [] if categories is None else [categories]
    named = {"text" if "title" in fields else "title": comment, "category": [str(name) for name in names if name != ""]}
    hidden = cells.get("hidden")
    if hidden is not None:
        fields[REMOVED] = is_true(hidden)
    return {**named, **fields}


def _fields(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comment, and the labels: each under its own name, or all under the name tags."""
    labels = _decode_cell(cells.get("labels"))
    named = _flattened(labels) if isinstance(labels, Mapping) else {"tags": _field_value(labels)}
    return {"comment": cells.get("comment"), **named}


def _normalised_name(name: str) -> str:
    return str(name).strip().lower().replace("_", "")


def _decode_cell(value: Any) -> Any:
    """Decode a CSV cell that holds JSON, or names separated by '|'."""
    if not isinstance(value, str):
        return value
    if value[:1] in ("[", "{", '"') or value == "null":
        try:
            return json.loads(value)
        except ValueError:
            pass
    return [part.strip() for part in value.split("|") if part.strip()]


def _flattened(labels: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the labels that can be fields; those of inner objects get names such as size.width."""
    fields: dict[str, Any] = {}
    for name, value in labels.items():
        if isinstance(value, Mapping):
            fields |= _flattened(value, f"{prefix}{name}.")
        elif name:
            fields[prefix + name] = _field_value(value)
    return fields


def _field_value(value: Any) -> Any:
    if isinstance(value, list):
        return value if value and all(map(is_finite, value)) else [str(entry) for entry in value if entry is not None]
    return value if isinstance(value, str | int | float | bool) else None


def _number(value: str) -> Any:
    number = as_float(value)
    return value if number is None else number
