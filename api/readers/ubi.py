"""OpenSearch User Behavior Insights (https://ubisearch.dev): queries become rankings, events become interactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from api.readers import lines, values
from api.readers.rejects import Rejects
from api.readers.rows import made_id
from engine.events import Event, EventError, parse

_HITS = ("query_response_hit_ids", "query_response_object_ids")


def is_record(body: Any) -> bool:
    """Whether a JSON value looks like a UBI query or event, wrapped by OpenSearch or not."""
    found = _unwrapped(body)
    return isinstance(found, Mapping) and not {"action_name", "user_query", *_HITS}.isdisjoint(found)


def read(path: Path, rejects: Rejects) -> Iterator[Event]:
    """The events of a file of UBI queries, UBI events, or both (JSON or JSONL; also search hits and bulk files).

    A query is a ranking: its id is the query's, its items are the hits in the order they were returned, which is taken
    as the order they were shown in; its text is the field `query`. `client_id` is the user, as UBI knows no other. An
    event is an interaction of the type `action_name` with the object it names, and answers its query's ranking. A query
    without hits showed nothing, an event without an object (such as a scroll) touched nothing: both are rejected.
    """
    source = str(path)
    for number, text, value in values.read(lines.read(path, rejects), source, rejects):
        body = _unwrapped(value)
        if isinstance(body, Mapping) and set(body) <= {"index", "create"} and len(body) == 1:
            continue  # the action line of a bulk file
        try:
            event = _event(body)
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept()
            yield event


def _unwrapped(body: Any) -> Any:
    return body["_source"] if isinstance(body, Mapping) and isinstance(body.get("_source"), Mapping) else body


def _event(body: Any) -> Event:
    if not isinstance(body, Mapping):
        raise EventError("event", f"found {type(body).__name__}, expected an object")
    return _interaction(body) if "action_name" in body else _ranking(body)


def _ranking(body: Mapping[str, Any]) -> Event:
    hits = next((body[name] for name in _HITS if body.get(name)), None)
    if not isinstance(hits, list):
        raise EventError(_HITS[0], "found nothing, expected the ids of the hits: this query showed nothing")
    once = list(dict.fromkeys(str(hit) for hit in hits))
    fields = {"query": body.get("user_query"), "application": body.get("application")}
    return parse(
        {
            "event": "ranking",
            "id": body.get("query_id"),
            "timestamp": body.get("timestamp"),
            "user": body.get("client_id"),
            "session": body.get("session_id"),
            "items": [{"id": hit} for hit in once],
            "positions": list(range(1, len(once) + 1)),
            "fields": [{"name": name, "value": value} for name, value in fields.items() if isinstance(value, str)],
        }
    )


def _interaction(body: Mapping[str, Any]) -> Event:
    attributes = body.get("event_attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    thing, place = attributes.get("object"), attributes.get("position")
    if not isinstance(thing, Mapping) or thing.get("object_id") is None:
        raise EventError(
            "event_attributes.object.object_id", "found nothing, expected the item that this was done with"
        )
    ordinal = place.get("ordinal") if isinstance(place, Mapping) else None
    made = {
        "event": "interaction",
        "id": "made below",
        "timestamp": body.get("timestamp"),
        "user": body.get("client_id"),
        "session": body.get("session_id"),
        "ranking": body.get("query_id"),
        "item": thing["object_id"],
        "type": body.get("action_name"),
        # some clients count from 0, which is no place
        "position": ordinal if isinstance(ordinal, int) and ordinal >= 1 else None,
    }
    return made_id(parse(made))
