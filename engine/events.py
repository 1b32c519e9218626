"""The four events, with the field names of Metarank's open format, and their plain-dict form.

`parse` is one of the three doors where input is validated: it says which field is wrong, what was found and
what was expected. Our optional additions to the format are marked + in the docstrings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

FieldValue: TypeAlias = str | float | bool | list[str] | list[float]


class EventError(ValueError):
    """An event that can't be read; `field` names the place."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(f"{field_name}: {message}")
        self.field = field_name


@dataclass(frozen=True, slots=True)
class ItemEvent:
    """What is known of an item, from `timestamp` on; later fields replace earlier ones of the same name."""

    id: str
    timestamp: int
    """Epoch milliseconds."""
    item: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UserEvent:
    """What is known of a person, from `timestamp` on."""

    id: str
    timestamp: int
    user: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankingEvent:
    """What was shown, in order."""

    id: str
    timestamp: int
    items: tuple[str, ...]
    user: str | None = None
    session: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    labels: tuple[float, ...] | None = None
    """One an item, where the log says; NaN where it is silent about one."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """+positions, +scores, +propensities, +surface, +bundle, +experiment, +variant, +team, +seed, +features."""


@dataclass(frozen=True, slots=True)
class InteractionEvent:
    """What a person did with an item."""

    id: str
    timestamp: int
    item: str
    type: str
    """click, rating, purchase, ...; `history` is a touch from before the log began."""
    ranking: str | None = None
    """The ranking it answers; None: the last one of that user that showed the item within 30 minutes."""
    user: str | None = None
    session: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    value: float | None = None
    """+ a rating, a price, a count."""
    dwell_ms: float | None = None
    """+ how long it lasted."""
    position: int | None = None
    """+ the place it was shown at, from 1."""


Event: TypeAlias = ItemEvent | UserEvent | RankingEvent | InteractionEvent

RANKING_EXTRA = (
    "positions", "scores", "propensities", "surface", "bundle", "experiment", "variant", "team", "seed", "features",
)  # fmt: skip


def parse_timestamp(value: object) -> int:
    """Epoch milliseconds from a number, a string of one, or ISO-8601 with a zone."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise EventError("timestamp", f"found {value!r}, expected epoch milliseconds or ISO-8601 with a zone")
    try:
        number = float(value)
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise EventError("timestamp", f"found {value!r}, expected epoch milliseconds or ISO-8601") from None
        if moment.tzinfo is None:
            raise EventError("timestamp", f"{value!r} has no zone; add one, such as 'Z' or '+01:00'") from None
        number = moment.timestamp() * 1000
    if not math.isfinite(number) or abs(number) >= 1e15:
        raise EventError("timestamp", f"found {value!r}, which is not a moment in epoch milliseconds")
    return round(number)


def parse(body: object) -> Event:
    """The event in a decoded JSON object; raises EventError."""
    if not isinstance(body, Mapping):
        raise EventError("event", f"found {type(body).__name__}, expected an object")
    kind = body.get("event")
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise EventError("event", f"found {kind!r}, expected one of {', '.join(_PARSERS)}")
    return parser(body)


def to_dict(event: Event) -> dict[str, Any]:
    """The event as a JSON-ready object; `parse` of it gives the event back."""
    body: dict[str, Any] = {"event": _KINDS[type(event)], "id": event.id, "timestamp": event.timestamp}
    if isinstance(event, RankingEvent):
        labels: tuple[float, ...] = event.labels or (math.nan,) * len(event.items)
        body["items"] = [
            {"id": item} if math.isnan(label) else {"id": item, "label": label}
            for item, label in zip(event.items, labels, strict=True)
        ]
        body |= {"user": event.user, "session": event.session, **event.extra}
    elif isinstance(event, InteractionEvent):
        body |= {name: getattr(event, name) for name in _INTERACTION_FIELDS}
    elif isinstance(event, ItemEvent):
        body["item"] = event.item
    else:
        body["user"] = event.user
    if event.fields:
        body["fields"] = [{"name": name, "value": value} for name, value in event.fields.items()]
    return {name: value for name, value in body.items() if value is not None}


def _item(body: Mapping[str, Any]) -> ItemEvent:
    return ItemEvent(_text(body, "id"), _timestamp(body), _text(body, "item"), _fields(body))


def _user(body: Mapping[str, Any]) -> UserEvent:
    return UserEvent(_text(body, "id"), _timestamp(body), _text(body, "user"), _fields(body))


def _ranking(body: Mapping[str, Any]) -> RankingEvent:
    listed = body.get("items")
    if not isinstance(listed, list) or not listed:
        raise EventError("items", f"found {_brief(listed)}, expected a list of {{id, label?}} with at least one")
    items: list[str] = []
    labels: list[float] = []
    for place, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise EventError(f"items[{place}]", f"found {_brief(entry)}, expected an object with an id")
        items.append(_text(entry, "id", f"items[{place}].id"))
        label = _number(entry, "label", f"items[{place}].label")
        labels.append(math.nan if label is None else label)
    if len(set(items)) != len(items):
        twice = next(item for place, item in enumerate(items) if item in items[:place])
        raise EventError("items", f"{twice!r} stands in the list twice")
    return RankingEvent(
        _text(body, "id"),
        _timestamp(body),
        tuple(items),
        _optional_text(body, "user"),
        _optional_text(body, "session"),
        _fields(body),
        None if all(math.isnan(label) for label in labels) else tuple(labels),
        {name: body[name] for name in RANKING_EXTRA if body.get(name) is not None},
    )


def _interaction(body: Mapping[str, Any]) -> InteractionEvent:
    position = _number(body, "position")
    return InteractionEvent(
        _text(body, "id"),
        _timestamp(body),
        _text(body, "item"),
        _text(body, "type"),
        _optional_text(body, "ranking"),
        _optional_text(body, "user"),
        _optional_text(body, "session"),
        _fields(body),
        _number(body, "value"),
        _number(body, "dwell_ms"),
        None if position is None else int(position),
    )


_PARSERS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    "item": _item,
    "user": _user,
    "ranking": _ranking,
    "interaction": _interaction,
}
_KINDS = {ItemEvent: "item", UserEvent: "user", RankingEvent: "ranking", InteractionEvent: "interaction"}
_INTERACTION_FIELDS = ("item", "type", "ranking", "user", "session", "value", "dwell_ms", "position")


def _timestamp(body: Mapping[str, Any]) -> int:
    return parse_timestamp(body.get("timestamp"))


def _text(body: Mapping[str, Any], name: str, place: str | None = None) -> str:
    value = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise EventError(place or name, f"found {_brief(value)}, expected a string that is not empty")
    return value


def _optional_text(body: Mapping[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else _text(body, name)


def _number(body: Mapping[str, Any], name: str, place: str | None = None) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EventError(place or name, f"found {_brief(value)}, expected a finite number")
    return float(value)


def _fields(body: Mapping[str, Any]) -> dict[str, FieldValue]:
    listed = body.get("fields") or []
    if not isinstance(listed, list):
        raise EventError("fields", f"found {_brief(listed)}, expected a list of {{name, value}}")
    fields: dict[str, FieldValue] = {}
    for place, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise EventError(f"fields[{place}]", f"found {_brief(entry)}, expected an object with name and value")
        name = _text(entry, "name", f"fields[{place}].name")
        fields[name] = _value(entry.get("value"), f"fields[{place}].value")
    return fields


def _value(value: object, place: str) -> FieldValue:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value):
            return [str(one) for one in value]
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
            return [float(one) for one in value]
    raise EventError(place, f"found {_brief(value)}, expected a string, a number, a boolean or a list of one kind")


def _brief(value: object) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
