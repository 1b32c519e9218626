"""Converts events to and from JSON-ready dicts.

`parse` validates events from requests and from imports alike. Its errors name the field, what was found and what was
expected. Whatever it accepts can be written as JSON in UTF-8 and read as columns of floats.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from feedrank.engine.events import checks
from feedrank.engine.events.checks import EventError, FieldValue
from feedrank.engine.events.events import (
    PROVENANCES,
    RANKING_FIELDS,
    TEXT_FIELDS,
    Event,
    ExperimentEvent,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
)
from feedrank.engine.events.item_fields import ItemFields, columns_of, fields_of_entry, parse_columns, rows_of

MAX_TIME_MS = 10**15 - 1
"""The largest time of an event before and after 1970, in epoch milliseconds."""
MAX_ITEMS = 100_000
"""Items of a ranking."""


def parse_timestamp(value: object, name: str = "timestamp") -> int:
    """Convert a number, a numeric string or an ISO-8601 string with a time zone to epoch milliseconds.

    name: field name for the message. Raises EventError.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise EventError(
            name, f"found {checks.short_repr(value)}, expected epoch milliseconds or ISO-8601 with a time zone"
        )
    number = checks.as_float(value)
    if number is None and isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise EventError(
                name, f"found {checks.short_repr(value)}, expected epoch milliseconds or ISO-8601"
            ) from None
        if parsed.tzinfo is None:
            raise EventError(name, f"{checks.short_repr(value)} has no zone; add a time zone such as 'Z' or '+01:00'")
        number = parsed.timestamp() * 1000
    if number is None or not math.isfinite(number) or abs(round(number)) > MAX_TIME_MS:
        raise EventError(name, f"found {checks.short_repr(value)}, expected epoch milliseconds below 1e15")
    return round(number)


def parse(body: object) -> Event:
    """Parse an event from a decoded JSON object. Raises EventError."""
    if not isinstance(body, Mapping):
        raise EventError("event", f"found {type(body).__name__}, expected an object")
    kind = body.get("event")
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise EventError("event", f"found {checks.short_repr(kind)}, expected one of {', '.join(_PARSERS)}")
    return parser(body)


def to_dict(event: Event, as_columns: bool = False) -> dict[str, Any]:
    """Convert an event to a JSON-ready dict; `parse` is the inverse.

    as_columns: write the fields of a ranking's items as the journal stores them, one list for each field.
    """
    body: dict[str, Any] = {"event": _KINDS[type(event)], "id": event.id, "timestamp": event.timestamp}
    if isinstance(event, RankingEvent):
        labels: tuple[float, ...] = event.labels or (math.nan,) * len(event.items)
        body["items"] = [
            {"id": item} if math.isnan(label) else {"id": item, "label": label}
            for item, label in zip(event.items, labels, strict=True)
        ]
        if event.item_fields and as_columns:
            body["item_fields"] = {name: list(column) for name, column in event.item_fields.items()}
        elif event.item_fields:
            for entry, fields in zip(body["items"], rows_of(event.item_fields, len(event.items)), strict=True):
                entry |= {"fields": _named(fields)} if fields else {}
        body |= {"user": event.user, "session": event.session}
        parts = {name: getattr(event, name) for name in RANKING_FIELDS}
        body |= {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}
        body["provenance"] = event.provenance
    elif isinstance(event, InteractionEvent):
        body |= {name: getattr(event, name) for name in _INTERACTION_FIELDS}
    elif isinstance(event, ItemEvent):
        body["item"] = event.item
    elif isinstance(event, ExperimentEvent):
        body |= {"experiment": event.experiment, "change": event.change, "payload": event.payload or None}
    else:
        body["user"] = event.user
    body["received"] = event.received
    if not isinstance(event, ExperimentEvent) and event.fields:
        body["fields"] = _named(event.fields)
    return {name: value for name, value in body.items() if value is not None}


def _item(body: Mapping[str, Any]) -> ItemEvent:
    fields = checks.parse_fields(body)
    if (published := fields.get("published", "")) != "":
        parse_timestamp(published, "fields.published")
    return ItemEvent(
        checks.required_str(body, "id"), _timestamp(body), checks.required_str(body, "item"), fields, _received(body)
    )


def _user(body: Mapping[str, Any]) -> UserEvent:
    return UserEvent(
        checks.required_str(body, "id"),
        _timestamp(body),
        checks.required_str(body, "user"),
        checks.parse_fields(body),
        _received(body),
    )


def _ranking(body: Mapping[str, Any]) -> RankingEvent:
    listed = body.get("items")
    if not isinstance(listed, list) or not listed:
        raise EventError(
            "items", f"found {checks.short_repr(listed)}, expected a list of {{id, label?, fields?}} with at least one"
        )
    if len(listed) > MAX_ITEMS:
        raise EventError("items", f"found {len(listed):,} items, expected at most {MAX_ITEMS:,}")
    items: list[str] = []
    labels: list[float] = []
    fields: dict[int, dict[str, FieldValue]] = {}
    for index, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise EventError(f"items[{index}]", f"found {checks.short_repr(entry)}, expected an object with an id")
        items.append(checks.required_str(entry, "id", f"items[{index}].id"))
        label = checks.optional_number(entry, "label", checks.AMOUNT, f"items[{index}].label")
        labels.append(math.nan if label is None else label)
        if "fields" in entry or "relevancy" in entry:
            fields[index] = fields_of_entry(entry, f"items[{index}]")
    if len(set(items)) != len(items):
        duplicate = Counter(items).most_common(1)[0][0]
        raise EventError("items", f"found {checks.short_repr(duplicate)} more than once, expected each item once")
    return RankingEvent(
        checks.required_str(body, "id"),
        _timestamp(body),
        tuple(items),
        checks.optional_str(body, "user"),
        checks.optional_str(body, "session"),
        checks.parse_fields(body),
        None if all(math.isnan(label) for label in labels) else tuple(labels),
        _received(body),
        item_fields=_item_fields(body, fields, len(items)),
        **_ranking_fields(body, len(items)),
    )


def _item_fields(body: Mapping[str, Any], fields: Mapping[int, dict[str, FieldValue]], n: int) -> ItemFields | None:
    """Return the fields of n items, which stand in `items`, or in `item_fields` as columns."""
    columns = body.get("item_fields")
    if columns is None:
        return columns_of([fields.get(index, {}) for index in range(n)]) if fields else None
    if any(fields.values()):
        raise EventError("item_fields", "found fields in `items` too, expected one of both")
    return parse_columns(columns, n)


def _ranking_fields(body: Mapping[str, Any], n_items: int) -> dict[str, Any]:
    team = checks.optional_str_list(body, "team", n_items)
    return {
        **{name: checks.optional_number_list(body, name, n_items, allowed) for name, allowed in _PER_ITEM.items()},
        "team": None if team is None else tuple(team),
        **{name: checks.optional_str(body, name, allow_empty=True) for name in TEXT_FIELDS},
        "seed": checks.optional_int(body, "seed", -(2**63), 2**64 - 1),
        "features": checks.optional_object(body, "features"),
        "served": checks.optional_object(body, "served"),
        "provenance": _provenance(body),
    }


def _provenance(body: Mapping[str, Any]) -> str | None:
    value = body.get("provenance")
    if value not in (None, *PROVENANCES):
        raise EventError("provenance", f"found {checks.short_repr(value)}, expected {' or '.join(PROVENANCES)}")
    return None if value is None else str(value)


def _interaction(body: Mapping[str, Any]) -> InteractionEvent:
    return InteractionEvent(
        checks.required_str(body, "id"),
        _timestamp(body),
        checks.required_str(body, "item"),
        checks.required_str(body, "type"),
        checks.optional_str(body, "ranking"),
        checks.optional_str(body, "user"),
        checks.optional_str(body, "session"),
        checks.parse_fields(body),
        checks.optional_number(body, "value", checks.AMOUNT),
        checks.optional_number(body, "dwell_ms", checks.DURATION),
        checks.optional_int(body, "position", 1, checks.MAX_POSITION),
        _received(body),
    )


def _experiment(body: Mapping[str, Any]) -> ExperimentEvent:
    return ExperimentEvent(
        checks.required_str(body, "id"),
        _timestamp(body),
        checks.required_str(body, "experiment"),
        checks.required_str(body, "change"),
        checks.optional_object(body, "payload") or {},
        _received(body),
    )


_PARSERS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    "item": _item,
    "user": _user,
    "ranking": _ranking,
    "interaction": _interaction,
    "experiment": _experiment,
}
_KINDS = {
    ItemEvent: "item", UserEvent: "user", RankingEvent: "ranking", InteractionEvent: "interaction",
    ExperimentEvent: "experiment",
}  # fmt: skip
_PER_ITEM = {"positions": checks.POSITION, "scores": checks.SCORE, "propensities": checks.PROBABILITY}
_INTERACTION_FIELDS = ("item", "type", "ranking", "user", "session", "value", "dwell_ms", "position")


def _named(fields: Mapping[str, FieldValue]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in fields.items()]


def _timestamp(body: Mapping[str, Any]) -> int:
    return parse_timestamp(body.get("timestamp"))


def _received(body: Mapping[str, Any]) -> int | None:
    received = body.get("received")
    return None if received is None else parse_timestamp(received, "received")
