"""Build the request bodies that the client sends: ranking requests and events, as UTF-8 JSON."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

MAX_EVENTS = 10_000
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Maximum size of a body before compression."""
_EVENTS_PREFIX, _EVENTS_SUFFIX = b'{"events":[', b"]}"


@dataclass(frozen=True, slots=True)
class Filters:
    """Filters on the items that may be recommended."""

    include_seen: bool = False
    """Include items that the user has already interacted with."""
    categories: Collection[str] | None = None
    """Only these categories; None: all."""
    allow: Collection[str] | None = None
    """Only these item ids; None: all."""
    deny: Collection[str] = ()
    """Exclude these item ids."""
    include_disliked: bool = False
    """Include items that the user dislikes, or has hidden."""

    def to_dict(self) -> dict[str, Any]:
        """Return the filters as JSON fields. Raises TypeError for a string in place of a list."""
        return _without_none(
            include_seen=self.include_seen,
            include_disliked=self.include_disliked or None,
            categories=id_list("categories", self.categories),
            allow=id_list("allow", self.allow),
            deny=id_list("deny", self.deny),
        )


@dataclass(frozen=True, slots=True)
class Diversity:
    """Diversity of the ranking."""

    per_category: int = 0
    """Maximum number of items per category; 0: no limit."""
    weight: float = 0.0
    """Weight of diversity in maximal marginal relevance (MMR), 0 to 1; 0: the ranker's order."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON fields."""
        return {"per_category": self.per_category, "weight": self.weight}


def encode_request(
    *,
    history: Iterable[str] | None,
    context: Mapping[str, Any] | None,
    filters: Filters | None = None,
    diversity: Diversity | None,
    **values: Any,
) -> bytes:
    """Encode the body of a ranking request without the fields that are None; the service has defaults for these.

    Raises TypeError and ValueError for values that can't be encoded.
    """
    return encode_json(
        "the request",
        _without_none(
            **values,
            history=id_list("history", history),
            context=None if context is None else dict(context),
            filters=None if filters is None else filters.to_dict(),
            diversity=None if diversity is None else diversity.to_dict(),
        ),
    )


def interaction_event(item: str, kind: str, fields: Mapping[str, Any] | None, **values: Any) -> dict[str, Any]:
    """Build an interaction event; `kind` is its type, such as click. Values that are None are left out."""
    field_list = None if fields is None else [{"name": name, "value": value} for name, value in fields.items()]
    return {"event": "interaction", "item": item, "type": kind, **_without_none(**values, fields=field_list)}


def with_id_and_timestamp(event: object, index: int, now: float) -> dict[str, Any]:
    """Add an id and a timestamp to an event that lacks them, so that it can be sent twice but counts once.

    index: position in the list, for errors. now: unix seconds. Raises TypeError and ValueError for no event.
    """
    if not isinstance(event, Mapping):
        raise TypeError(
            f"events[{index}]: found {type(event).__name__}, expected a mapping with 'event' and its fields"
        )
    if "events" in event:
        raise ValueError(f"events[{index}]: found a mapping with 'events', expected an event; pass the list of events")
    return {"id": str(uuid.uuid4()), "timestamp": round(now * 1000), **event}


def batches(events: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Split encoded events into batches that fit one request; yield (start, stop, body) of each.

    Raises ValueError for an event that is too long for one request.
    """
    max_bytes = MAX_BODY_BYTES - len(_EVENTS_PREFIX) - len(_EVENTS_SUFFIX)
    first, size = 0, 0
    for index, event in enumerate(events):
        if len(event) > max_bytes:
            raise ValueError(
                f"events[{index}]: found {len(event):,} bytes of JSON, expected at most {max_bytes:,}: shorten it"
            )
        if index - first == MAX_EVENTS or size + len(event) > max_bytes:
            yield first, index, _join_events(events[first:index])
            first, size = index, 0
        size += len(event) + 1
    if first < len(events):
        yield first, len(events), _join_events(events[first:])


def encode_json(what: str, body: Mapping[str, Any]) -> bytes:
    """Encode a mapping as UTF-8 JSON; `what` names it in errors. Raises TypeError and ValueError."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{what} can't be written as JSON: {error}; expected text, finite numbers, lists, mappings"
        ) from None


def path_segment(name: str) -> str:
    """Quote an id as one path segment. Raises ValueError for an empty id."""
    if not name:
        raise ValueError("found an empty id, expected at least one character")
    # "." and ".." would be resolved as relative paths unless the dots are escaped
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def id_list(name: str, ids: Iterable[str] | None) -> list[str] | None:
    """Return ids as a list. Raises TypeError for a string, which would be split into characters."""
    if isinstance(ids, str):
        raise TypeError(f"{name}: found the string {ids!r}, expected several ids: write [{ids!r}]")
    return None if ids is None else list(ids)


def item_list(items: Iterable[str | Mapping[str, Any]]) -> list[str | dict[str, Any]]:
    """Return items as a list of ids, or of mappings with an id and fields. Raises TypeError for a single item."""
    if isinstance(items, str | Mapping):
        raise TypeError(f"items: found the single item {items!r}, expected several items: write [{items!r}]")
    return [item if isinstance(item, str) else dict(item) for item in items]


def _join_events(events: Sequence[bytes]) -> bytes:
    return _EVENTS_PREFIX + b",".join(events) + _EVENTS_SUFFIX


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
