"""Read events as JSON, in our format or Metarank's: one per line, concatenated, or the entries of an array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines, values
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.checks import EventError, is_finite
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a JSON or JSONL file (plain, gzip or zstd) in file order; blank lines are skipped.

    All four event types of Metarank are read unchanged. The `relevancy` of a ranking's items becomes the ranking's
    scores if all items have one. Other fields of an item within a ranking, and the tenant, are dropped.
    """
    source = str(path)
    for number, text, value in values.read_json_values(lines.read_lines(path, rejects), source, rejects):
        try:
            if options.map and isinstance(value, Mapping):
                value = options.rename_keys(value)
            event = parse(_with_scores(value))
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept()
            yield event


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
