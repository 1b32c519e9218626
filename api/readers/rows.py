"""One event from one row of a table, whatever kind of file the table came from."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from engine.events import RANKING_EXTRA, TEXT_EXTRA, Event, EventError, ItemEvent, parse, parse_timestamp, to_dict

COLUMNS = {
    "item": ("item",),
    "user": ("user",),
    "ranking": ("items", "labels", "user", "session", *RANKING_EXTRA),
    "experiment": ("experiment", "change", "told"),
    "interaction": ("item", "type", "ranking", "user", "session", "value", "dwell_ms", "position"),
}
"""By kind of event, the columns that are parts of the event (beside event, id, timestamp); others are its fields."""

_IDS = ("id", "item", "user", "ranking", "session", *TEXT_EXTRA)
_NUMBERS = ("value", "dwell_ms", "position", "seed")


class Rows:
    """Reads the rows of one table; its columns say of what kind they are.

    `event` names the kind row by row. Without it a table with `items` and no `item` is of rankings, one without `user`
    is of items (where `id` is the item when there is no `item`), and any other is of interactions. Raises ValueError
    for columns that can't be any of these.
    """

    def __init__(self, columns: Collection[str], source: str) -> None:
        self._kind: str | None = None
        self._item = "item"
        if "event" not in columns:
            self._kind = "item" if "user" not in columns else "interaction"
            if "items" in columns and "item" not in columns:
                self._kind = "ranking"
            elif self._kind == "item" and "item" not in columns:
                self._item = "id"
            if self._kind != "ranking" and self._item not in columns:
                raise ValueError(
                    f"{source}: found the columns {', '.join(columns) or '(none)'}, expected `event`, or `item` or"
                    " `id` for a table of items, or `item` and `user` for one of interactions; rename them"
                )

    def event(self, row: Mapping[str, Any]) -> Event:
        """The event of a row, column -> value; None, NaN and '' are missing. Raises EventError.

        A missing id is made of the content, so that the same row is the same event in any file and any import.
        """
        cells = {name: value for name, value in row.items() if not _missing(value)}
        kind = cells.pop("event", self._kind)
        own = COLUMNS.get(kind, ()) if isinstance(kind, str) else ()
        body: dict[str, Any] = {"event": kind}
        if kind == "item" and self._item == "id" and "id" in cells:
            body["item"] = _whole(cells.pop("id"))
        named = "id" in cells
        body["id"] = _whole(cells.pop("id", "made below"))
        body["timestamp"] = cells.pop("timestamp", 0 if kind in ("item", "user") else None)
        body |= {name: _part(name, cells.pop(name)) for name in own if name in cells}
        if kind == "ranking":
            body["items"] = _shown(body.get("items"), body.pop("labels", None))
        elif kind == "interaction":
            body.setdefault("type", "click")
        body["fields"] = [{"name": name, "value": value} for name, value in cells.items()]
        event = parse(body)
        if isinstance(event, ItemEvent) and (moment := event.fields.get("published", "")) != "":
            # as a number, whatever form it came in: the content makes the id
            event = replace(event, fields={**event.fields, "published": float(parse_timestamp(moment))})
        return event if named else made_id(event)


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _whole(value: Any) -> Any:
    # Tools that mark a missing number by NaN turn a column of whole ids into floats.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _part(name: str, value: Any) -> Any:
    if name in _IDS:
        return _whole(value)
    if name in _NUMBERS:
        return _number(name, value)
    return value


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if "_" in value:  # float() would take 1_000.
            raise ValueError
        number = float(value)
        return int(value) if number.is_integer() and value.strip("+- ").isdecimal() else number
    except ValueError:
        raise EventError(name, f"found {value!r}, expected a number") from None


def _shown(items: Any, labels: Any) -> Any:
    """The `items` of a ranking body, from a column of ids and one of labels with as many entries."""
    if not isinstance(items, list):
        return items
    entries = [dict(item) if isinstance(item, Mapping) else {"id": _whole(item)} for item in items]
    if labels is None:
        return entries
    if not isinstance(labels, list) or len(labels) != len(items):
        found = f"{len(labels)} labels" if isinstance(labels, list) else repr(labels)
        raise EventError("labels", f"found {found}, expected {len(items)}, one an item")
    for entry, label in zip(entries, labels, strict=True):
        if not _missing(label):
            entry["label"] = _number("labels", label)
    return entries


def made_id(event: Event) -> Event:
    """The event with an id made of its content: the same content is the same event in any file and any import."""
    body = to_dict(event)
    del body["id"]
    content = json.dumps(body, sort_keys=True).encode()
    return replace(event, id=f"{body['event']}:{blake2b(content, digest_size=12).hexdigest()}")
