"""Convert table rows to events, for all tabular file formats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from feedrank.api.python.columns import ALIASES
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse, parse_timestamp, to_dict
from feedrank.engine.events.events import (
    RANKING_FIELDS,
    TEXT_FIELDS,
    Event,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
)
from feedrank.engine.events.ids import canonical_id, check_id, is_missing

EVENT_COLUMNS = {
    "item": ("item",),
    "user": ("user",),
    "ranking": ("items", "labels", "user", "session", *RANKING_FIELDS),
    "experiment": ("experiment", "change", "payload"),
    "interaction": ("item", "type", "ranking", "user", "session", "value", "dwell_ms", "position"),
}
"""Event type -> columns that are parts of the event, besides event, id and timestamp; others become its fields."""

_ENCODER = json.JSONEncoder(sort_keys=True)
_ID_COLUMNS = frozenset(("item", "user", "ranking", "session"))
_NUMBER_COLUMNS = ("value", "dwell_ms", "position", "seed")


_DESCRIPTIONS = {"title", "name", "text", "description", "category", "categories", "tags", "published"}


class RowParser:
    """Parses the rows of one table; its columns determine their event type.

    A column `event` names the type of each row. Without it, a table with `items` but no `item` holds rankings, a table
    without `user` holds items (with `id` as the item if there is no `item`), and any other holds interactions. Raises
    ValueError for columns that fit none of these.
    """

    def __init__(self, columns: Collection[str], source: str) -> None:
        self._has_type = "type" in columns or "event" in columns
        self._counts: Counter[str] = Counter()
        self._content_ids = ContentIds()
        self._kind: str | None = None
        self._item = "item"
        if "event" not in columns:
            self._kind = "item" if "user" not in columns else "interaction"
            if "items" in columns and "item" not in columns:
                self._kind = "ranking"
            elif self._kind == "item" and "item" not in columns:
                self._item = "id"
            if self._kind == "item" and _looks_like_interactions(columns):
                raise ValueError(
                    f"{source}: found the columns {', '.join(columns)}, which look like interactions without the names"
                    " `user` and `item`; give them with --map, such as --map user_id=user,item_id=item"
                )
            if self._kind != "ranking" and self._item not in columns:
                raise ValueError(
                    f"{source}: found the columns {', '.join(columns) or '(none)'}, expected `event`, or `item` or"
                    " `id` for a table of items, or `item` and `user` for a table of interactions; rename the columns,"
                    " or give --map"
                )

    def parse(self, row: Mapping[str, Any]) -> Event:
        """Parse a row (column -> value) into an event; None, NaN and '' are missing values. Raises EventError.

        A missing id is a hash of the content, so the same row is the same event in every file and import. Equal
        interactions and rankings of one file are different events, with different numbers in their ids.
        """
        # inline, because it is done for every cell: None, '' and NaN, which is not equal to itself
        cells = {name: value for name, value in row.items() if value is not None and value != "" and value == value}
        kind = cells.pop("event", self._kind)
        event_columns = EVENT_COLUMNS.get(kind, ()) if isinstance(kind, str) else ()
        body: dict[str, Any] = {"event": kind}
        identifier = self._id("id", cells.pop("id", None))
        if kind == "item" and self._item == "id" and identifier is not None:
            body["item"], identifier = identifier, None
        body["id"] = "set below" if identifier is None else identifier
        body["timestamp"] = cells.pop("timestamp", 0 if kind in ("item", "user") else None)
        for name in event_columns:
            if name in cells:
                value = cells.pop(name)
                part = self._id(name, value) if name in _ID_COLUMNS else _event_part(name, value)
                if part is not None:
                    body[name] = part
        if kind == "ranking":
            body["items"] = _ranking_items(body.get("items"), body.pop("labels", None))
        elif kind == "interaction" and "type" not in body:
            body["type"] = "click"
            self._counts["type"] += 1
        body["fields"] = [{"name": name, "value": value} for name, value in cells.items()]
        event = parse(body)
        if isinstance(event, ItemEvent) and (published := event.fields.get("published", "")) != "":
            # as a number in every case, because the id is a hash of the content
            event = replace(event, fields={**event.fields, "published": float(parse_timestamp(published))})
        return event if identifier is not None else self._content_ids.identify(event)

    def notes(self) -> list[str]:
        """Return what was assumed and how often, in sentences."""
        notes = [
            f"{count:,} rows have {name!r} as a word for a missing value, such as NaN or null, and were read without it"
            for name, count in sorted(self._counts.items()) if name != "type"
        ]  # fmt: skip
        if untyped := self._counts["type"]:
            why = "have no interaction type" if self._has_type else "have no column of interaction types"
            notes.append(f"{untyped:,} rows {why}; they were read as 'click' (--type-column names the column)")
        if repeated := self._content_ids.repeated:
            notes.append(f"{repeated:,} rows are equal to an earlier row of the file; each is an event of its own")
        return notes

    def _id(self, name: str, value: Any) -> Any:
        identifier = canonical_id(value)
        if identifier is None:
            if value is not None:
                self._counts[name] += 1
        else:
            check_id(identifier, name, one_line=True)
        return identifier


class ContentIds:
    """Gives the events of one file ids that are hashes of their content; equal ones differ in their number."""

    def __init__(self) -> None:
        self.repeated = 0
        """Events that are equal to an earlier one."""
        self._seen: set[int] = set()
        self._numbers: Counter[str] = Counter()

    def identify(self, event: Event) -> Event:
        """Return the event with its id. Only interactions and rankings are counted; items and users are states."""
        event = with_content_id(event)
        if not isinstance(event, InteractionEvent | RankingEvent):
            return event
        digest = int(event.id[-16:], 16)
        if digest not in self._seen:
            self._seen.add(digest)
            return event
        self.repeated += 1
        self._numbers[event.id] += 1
        return replace(event, id=f"{event.id}:{self._numbers[event.id] + 1}")


def _looks_like_interactions(columns: Collection[str]) -> bool:
    """Return whether a table without `user` has users and items under other names, and nothing that describes items."""
    plain = {column.lower().replace("_", "").replace(" ", "") for column in columns}
    has_items = "item" in columns or bool(plain & set(ALIASES["interactions"]["item"]))
    return has_items and bool(plain & set(ALIASES["interactions"]["user"])) and not plain & _DESCRIPTIONS


def check_event_kinds(kinds: Iterable[object], source: str) -> None:
    """Check that the first values of a column `event` name types of events. Raises ValueError if none does."""
    found = list(dict.fromkeys(str(kind).strip() for kind in kinds if not is_missing(kind)))
    if found and not set(found) & set(EVENT_COLUMNS):
        named = ", ".join(map(repr, found[:5]))
        raise ValueError(
            f"{source}: found {named} in `event`, expected one of {', '.join(EVENT_COLUMNS)}; if these are interaction"
            " types, give --type-column event"
        )


def _integral(value: Any) -> Any:
    # Tools that mark missing numbers as NaN turn a column of integer ids into floats.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _event_part(name: str, value: Any) -> Any:
    if name in TEXT_FIELDS:
        return _integral(value)
    if name == "type":
        return canonical_id(value)
    if name in _NUMBER_COLUMNS:
        return _number(name, value)
    return value


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if "_" in value:  # float() would accept 1_000.
            raise ValueError
        number = float(value)
        return int(value) if number.is_integer() and value.strip("+- ").isdecimal() else number
    except ValueError:
        raise EventError(name, f"found {value!r}, expected a number") from None


def _ranking_items(items: Any, labels: Any) -> Any:
    """Build the `items` of a ranking body from a column of ids and a column of labels of the same length."""
    if not isinstance(items, list):
        return items
    entries = [dict(item) if isinstance(item, Mapping) else {"id": item} for item in items]
    for index, entry in enumerate(entries):
        entry["id"] = canonical_id(entry.get("id"))
        check_id(entry["id"], f"items[{index}].id", one_line=True)
    if labels is None:
        return entries
    if not isinstance(labels, list) or len(labels) != len(items):
        actual = f"{len(labels)} labels" if isinstance(labels, list) else repr(labels)
        raise EventError("labels", f"found {actual}, expected {len(items)}, one per item")
    for entry, label in zip(entries, labels, strict=True):
        if not is_missing(label):
            entry["label"] = _number("labels", label)
    return entries


def with_content_id(event: Event) -> Event:
    """Give an event an id that is a hash of its content, so equal content is one event in every file and import."""
    body = to_dict(event)
    del body["id"]
    content = _ENCODER.encode(body).encode()
    return replace(event, id=f"{body['event']}:{blake2b(content, digest_size=12).hexdigest()}")
