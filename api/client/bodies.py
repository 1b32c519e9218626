"""What is sent: questions and events, as JSON in UTF-8."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

MOST_EVENTS = 10_000
MOST_BYTES = 8 * 1024 * 1024
"""Of a body, before it is packed."""
_OPENS, _CLOSES = b'{"events":[', b"]}"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which items may come back."""

    seen: bool = False
    """May items come back that the person has touched before?"""
    categories: Collection[str] | None = None
    """Only these categories; None: all."""
    allow: Collection[str] | None = None
    """Only these items; None: all."""
    deny: Collection[str] = ()
    """None of these items."""

    def body(self) -> dict[str, Any]:
        """As the service reads it."""
        return _given(
            seen=self.seen,
            categories=listed("categories", self.categories),
            allow=listed("allow", self.allow),
            deny=listed("deny", self.deny),
        )


@dataclass(frozen=True, slots=True)
class Diversity:
    """How mixed the feed should be."""

    per_category: int = 0
    """Items of one category at most; 0: any."""
    weight: float = 0.0
    """Maximal marginal relevance: 0 the ranker's order alone, towards 1 ever more variety."""

    def body(self) -> dict[str, Any]:
        """As the service reads it."""
        return {"per_category": self.per_category, "weight": self.weight}


def question(
    *,
    history: Iterable[str] | None,
    context: Mapping[str, Any] | None,
    filters: Filters | None = None,
    diversity: Diversity | None,
    **plain: Any,
) -> bytes:
    """The body of a question, with what was given; the rest is left to the service. Raises TypeError and ValueError."""
    return encoded(
        "the request",
        _given(
            **plain,
            history=listed("history", history),
            context=None if context is None else dict(context),
            filters=None if filters is None else filters.body(),
            diversity=None if diversity is None else diversity.body(),
        ),
    )


def interaction(item: str, kind: str, fields: Mapping[str, Any] | None, **plain: Any) -> dict[str, Any]:
    """An interaction event."""
    told = None if fields is None else [{"name": name, "value": value} for name, value in fields.items()]
    return {"event": "interaction", "item": item, "type": kind, **_given(**plain, fields=told)}


def stamped(event: object, place: int, now: float) -> dict[str, Any]:
    """The event with an id and a time, those it has or new ones: so it can be sent twice and count once."""
    if not isinstance(event, Mapping):
        raise TypeError(
            f"events[{place}]: found {type(event).__name__}, expected a mapping with 'event' and its fields"
        )
    if "events" in event:
        raise ValueError(f"events[{place}]: found a mapping with 'events', expected an event; pass the list of events")
    return {"id": str(uuid.uuid4()), "timestamp": round(now * 1000), **event}


def batches(events: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """(first, after the last, body) of parts that the service takes at once; ValueError where one event is too long."""
    room = MOST_BYTES - len(_OPENS) - len(_CLOSES)
    first, size = 0, 0
    for place, event in enumerate(events):
        if len(event) > room:
            raise ValueError(
                f"events[{place}]: found {len(event):,} bytes of JSON, expected at most {room:,}: cut it short"
            )
        if place - first == MOST_EVENTS or size + len(event) > room:
            yield first, place, _body(events[first:place])
            first, size = place, 0
        size += len(event) + 1
    if first < len(events):
        yield first, len(events), _body(events[first:])


def encoded(what: str, body: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8. Raises TypeError and ValueError that name what can't be written."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{what} can't be written as JSON: {error}; expected text, finite numbers, lists, mappings"
        ) from None


def segment(name: str) -> str:
    """An id as one segment of a path, whatever it holds. Raises ValueError where it is empty."""
    if not name:
        raise ValueError("found an empty id, expected at least one character")
    # a segment of dots means another folder, unless the dots are escaped too
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def listed(name: str, ids: Iterable[str] | None) -> list[str] | None:
    """Ids as a list. Raises TypeError for a string, which would be read letter by letter."""
    if isinstance(ids, str):
        raise TypeError(f"{name}: found the string {ids!r}, expected several ids: write [{ids!r}]")
    return None if ids is None else list(ids)


def described(items: Iterable[str | Mapping[str, Any]]) -> list[str | dict[str, Any]]:
    """Items as ids, or as mappings with an id and fields. Raises TypeError for one alone."""
    if isinstance(items, str | Mapping):
        raise TypeError(f"items: found {items!r} alone, expected several items: write [{items!r}]")
    return [one if isinstance(one, str) else dict(one) for one in items]


def _body(events: Sequence[bytes]) -> bytes:
    return _OPENS + b",".join(events) + _CLOSES


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
