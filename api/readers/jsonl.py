"""Read events as JSON, in our format or Metarank's: one per line, concatenated, or the entries of an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines, values
from feedrank.api.readers.columns import SAMPLE_ROWS, TIME_COLUMNS
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.rows import RowParser, check_event_kinds
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.checks import EventError, is_finite
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import canonical_event, is_missing


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a JSON or JSONL file, plain or compressed, in file order; blank lines are skipped.

    All four event types of Metarank are read unchanged. The `relevancy` of a ranking's items becomes the ranking's
    scores if all items have one. The fields of an item within a ranking belong to that list (`item_fields`). The
    tenant is dropped. A null part or field is absent. A file whose objects have no `event` is read as a table, each
    object a row; ValueError if its keys fit no event type.
    """
    source = str(path)
    numbered = values.read_json_values(lines.read_lines(path, rejects, options.encoding), source, rejects)
    renamed = _renamed(numbered, options) if options.map else numbered
    first, all_values = peek(renamed, SAMPLE_ROWS)
    bodies = [body for _, _, body in first if isinstance(body, Mapping)]
    is_table = bool(bodies) and not any("event" in body for body in bodies)
    keys = list(dict.fromkeys(key for body in bodies for key in body)) if is_table else ["event"]
    if options.map and not any(name in body for body in bodies for name in options.map.values()):
        raise ValueError(f"{source}: found none of {', '.join(options.map)}, which --map or --type-column names")
    if any({"user", "item"} <= body.keys() and not is_table for body in bodies):
        check_event_kinds((body.get("event") for body in bodies), source)
    rows = RowParser(keys, source)
    times = _Times(options, bodies)
    for number, text, body in all_values:
        try:
            if is_table and isinstance(body, Mapping):
                event = rows.parse(times.read({name: value for name, value in body.items() if name}))
            else:
                event = parse(canonical_event(times.read_event(_with_scores(body))))
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept(number)
            yield event
    rejects.note(*times.notes(), *rows.notes())


def _renamed(numbered: Iterable[tuple[int, str, Any]], options: ImportOptions) -> Iterator[tuple[int, str, Any]]:
    for number, text, body in numbered:
        yield number, text, options.rename_keys(body) if isinstance(body, Mapping) else body


class _Times:
    """Reads the times of JSON objects by decisions that hold for the whole file."""

    def __init__(self, options: ImportOptions, bodies: list[Mapping[str, Any]]) -> None:
        published = [_field(body, "published") or body.get("published") for body in bodies]
        samples = {"timestamp": [body.get("timestamp") for body in bodies], "published": published}
        self._readers = {name: TimeReader(options, name, samples[name]) for name in TIME_COLUMNS}

    def read(self, row: dict[str, Any]) -> dict[str, Any]:
        """Replace the times of a row by epoch milliseconds; missing ones stay. Raises EventError."""
        for name, reader in self._readers.items():
            if not is_missing(row.get(name)):
                row[name] = reader.read(row[name])
        return row

    def read_event(self, body: Any) -> Any:
        """Return the body of an event with its times as epoch milliseconds. Raises EventError."""
        if not isinstance(body, Mapping):
            return body
        timestamp = body.get("timestamp")
        if not is_missing(timestamp):
            body = {**body, "timestamp": self._readers["timestamp"].read(timestamp)}
        if body.get("event") == "item" and not is_missing(_field(body, "published")):
            body = {**body, "fields": [self._field_entry(entry) for entry in body["fields"]]}
        return body

    def notes(self) -> list[str]:
        """Return what was decided, in sentences."""
        return [note for reader in self._readers.values() for note in reader.notes()]

    def _field_entry(self, entry: Any) -> Any:
        if not isinstance(entry, Mapping) or entry.get("name") != "published" or is_missing(entry.get("value")):
            return entry
        return {**entry, "value": self._readers["published"].read(entry["value"])}


def _field(body: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field of an item event; None if there is none."""
    fields = body.get("fields") if body.get("event") == "item" else None
    named = fields if isinstance(fields, list) else ()
    return next(
        (field.get("value") for field in named if isinstance(field, Mapping) and field.get("name") == name), None
    )


def _with_scores(body: Any) -> Any:
    if not isinstance(body, Mapping) or body.get("event") != "ranking" or "scores" in body:
        return body
    listed = body.get("items")
    if not isinstance(listed, list) or not all(isinstance(entry, Mapping) for entry in listed):
        return body
    scores = [_relevancy(entry) for entry in listed]
    return {**body, "scores": scores} if scores and all(is_finite(score) for score in scores) else body


def _relevancy(entry: Mapping[str, Any]) -> Any:
    if "relevancy" in entry:
        return entry["relevancy"]
    fields = entry.get("fields")
    named = fields if isinstance(fields, list) else []
    return next(
        (field.get("value") for field in named if isinstance(field, Mapping) and field.get("name") == "relevancy"),
        None,
    )
