"""Read OpenSearch User Behavior Insights (https://ubisearch.dev): queries as rankings, events as interactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines, values
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import with_content_id
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event

_HIT_FIELDS = ("query_response_hit_ids", "query_response_object_ids")


def is_ubi(body: Any) -> bool:
    """Return whether a JSON value looks like a UBI query or event, wrapped by OpenSearch or not."""
    unwrapped = _unwrap(body)
    return isinstance(unwrapped, Mapping) and not {"action_name", "user_query", *_HIT_FIELDS}.isdisjoint(unwrapped)


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read UBI queries, UBI events, or both from JSON or JSONL files, search hits or bulk files.

    A query becomes a ranking with the query's id, its text as the field `query`, and the hits as items. The order of
    the hits is taken as the order in which they were shown. `client_id` is the user, because UBI has no other user id.
    An event becomes an interaction of type `action_name` with its object, linked to the query's ranking. Queries
    without hits and events without an object (such as a scroll) are rejected.
    """
    source = str(path)
    for number, text, value in values.read_json_values(lines.read_lines(path, rejects), source, rejects):
        body = _unwrap(value)
        if isinstance(body, Mapping) and set(body) <= {"index", "create"} and len(body) == 1:
            continue  # the action line of a bulk file
        try:
            event = _event(body)
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept()
            yield event


def _unwrap(body: Any) -> Any:
    return body["_source"] if isinstance(body, Mapping) and isinstance(body.get("_source"), Mapping) else body


def _event(body: Any) -> Event:
    if not isinstance(body, Mapping):
        raise EventError("event", f"found {type(body).__name__}, expected an object")
    return _interaction(body) if "action_name" in body else _ranking(body)


def _ranking(body: Mapping[str, Any]) -> Event:
    hits = next((body[name] for name in _HIT_FIELDS if body.get(name)), None)
    if not isinstance(hits, list):
        raise EventError(
            _HIT_FIELDS[0], "found nothing, expected the ids of the hits: a query without hits shows no items"
        )
    unique = list(dict.fromkeys(str(hit) for hit in hits))
    fields = {"query": body.get("user_query"), "application": body.get("application")}
    return parse(
        {
            "event": "ranking",
            "id": body.get("query_id"),
            "timestamp": body.get("timestamp"),
            "user": body.get("client_id"),
            "session": body.get("session_id"),
            "items": [{"id": hit} for hit in unique],
            "positions": list(range(1, len(unique) + 1)),
            "fields": [{"name": name, "value": value} for name, value in fields.items() if isinstance(value, str)],
        }
    )


def _interaction(body: Mapping[str, Any]) -> Event:
    attributes = body.get("event_attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    target, position = attributes.get("object"), attributes.get("position")
    if not isinstance(target, Mapping) or target.get("object_id") is None:
        raise EventError("event_attributes.object.object_id", "found nothing, expected the id of the item")
    ordinal = position.get("ordinal") if isinstance(position, Mapping) else None
    interaction = {
        "event": "interaction",
        "id": "set below",
        "timestamp": body.get("timestamp"),
        "user": body.get("client_id"),
        "session": body.get("session_id"),
        "ranking": body.get("query_id"),
        "item": target["object_id"],
        "type": body.get("action_name"),
        # some clients count from 0, which is not a valid position
        "position": ordinal if isinstance(ordinal, int) and ordinal >= 1 else None,
    }
    return with_content_id(parse(interaction))
