"""Holds the catalogue of items as columns, indexed by item row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue, field_text
from feedrank.engine.events.codec import parse_timestamp
from feedrank.engine.events.events import ItemEvent, valid_from
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import Offsets, Rows, Times

STANDARD_FIELDS = ("title", "text", "category", "tags", "published")
"""Item fields with a column of their own; `category` and `tags` may be one string or a list."""


REMOVED, RANK_ONLY = "removed", "rank_only"
"""Boolean fields that hide an item from recommendations. removed: the item was deleted. rank_only: the item is known
only from the request of a caller who had a list ranked."""


_YES = ("true", "t", "1", "1.0", "yes", "y")


def merge_fields(before: Mapping[str, FieldValue], fields: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
    """Merge the fields of an item event into the item's fields; a new value replaces one of the same name.

    A ranking request that describes an item never hides an item that was known before. An item event without
    `rank_only` makes the item visible.
    """
    after = {**before, **fields}
    if RANK_ONLY in after:
        after[RANK_ONLY] = bool(fields.get(RANK_ONLY, False)) and bool(before.get(RANK_ONLY, not before))
    return after


def is_hidden(fields: Mapping[str, FieldValue]) -> bool:
    """Check whether an item with these fields is hidden from recommendations."""
    return is_true(fields.get(REMOVED)) or is_true(fields.get(RANK_ONLY))


def is_true(value: FieldValue | None) -> bool:
    """Check whether a field says yes: true, 1, or the text that tables have for it, such as True, 1 or yes."""
    return value is True or value == 1 or (isinstance(value, str) and value.strip().lower() in _YES)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Columns of n items. Immutable; built by `from_items` or `from_events`."""

    ids: Vocabulary
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    published: Times
    """(n,) unix seconds, NaN if unknown."""
    categories: Vocabulary
    """Category names; a category code is a row of this vocabulary."""
    category_codes: NDArray[np.int32]
    """Category codes of all items, flattened; distinct for each item, in the item's own order."""
    category_offsets: Offsets
    """(n + 1,) offsets of each item in `category_codes`."""
    fields: tuple[Mapping[str, FieldValue], ...]
    """All non-standard fields, unchanged."""

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name in ("titles", "texts", "tags", "published", "fields"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {n} items")
        if len(self.category_offsets) != n + 1:
            raise ValueError(f"category_offsets has {len(self.category_offsets)} bounds for {n} items")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_items(cls, items: Mapping[str, Mapping[str, FieldValue]]) -> Catalogue:
        """Build a catalogue from item id -> fields. Standard fields become columns; others are kept unchanged."""
        categories = Vocabulary()
        codes: list[int] = []
        bounds = [0]
        for fields in items.values():
            codes += dict.fromkeys(categories.add(name) for name in string_values(fields.get("category")))
            bounds.append(len(codes))
        return cls(
            ids=Vocabulary(items),
            titles=tuple(_joined_text(fields.get("title", "")) for fields in items.values()),
            texts=tuple(_joined_text(fields.get("text", "")) for fields in items.values()),
            tags=tuple(tuple(string_values(fields.get("tags"))) for fields in items.values()),
            published=np.array([_unix_seconds(fields.get("published")) for fields in items.values()], np.float64),
            categories=categories,
            category_codes=np.array(codes, np.int32),
            category_offsets=np.array(bounds, np.int64),
            fields=tuple(
                {name: value for name, value in fields.items() if name not in STANDARD_FIELDS}
                for fields in items.values()
            ),
        )

    @classmethod
    def from_events(cls, events: Iterable[ItemEvent]) -> Catalogue:
        """Build a catalogue by merging item events; of each field the latest value wins, by `valid_from`.

        Ties keep the order of arrival. A timestamp ahead of the time at which the service received the event counts as
        that time. A running service applies the same rule to new events. Rows follow the order of arrival, so a late
        event with an old timestamp does not change any item's row.
        """
        arrived = list(events)
        items: dict[str, dict[str, FieldValue]] = {event.item: {} for event in arrived}
        for event in sorted(arrived, key=valid_from):
            items[event.item] = merge_fields(items[event.item], event.fields)
        return cls.from_items(items)

    def to_items(self) -> dict[str, dict[str, FieldValue]]:
        """Return item id -> fields, as `from_items` takes it. The round trip is exact for standard fields."""
        items: dict[str, dict[str, FieldValue]] = {}
        for row, item in enumerate(self.ids):
            fields: dict[str, FieldValue] = dict(self.fields[row])
            if self.titles[row]:
                fields["title"] = self.titles[row]
            if self.texts[row]:
                fields["text"] = self.texts[row]
            if names := self.category_names(row):
                fields["category"] = names
            if self.tags[row]:
                fields["tags"] = list(self.tags[row])
            if not np.isnan(self.published[row]):
                fields["published"] = float(round(self.published[row] * 1000))  # whole milliseconds, as in the event
            items[item] = fields
        return items

    def category_names(self, row: int) -> list[str]:
        """Return the category names of one item."""
        codes = self.category_codes[self.category_offsets[row] : self.category_offsets[row + 1]]
        return self.categories.names(codes)

    def field_codes(self, field: str) -> tuple[NDArray[np.int32], Offsets]:
        """Return codes of the values of any field, flattened and distinct for each item, and their (n + 1,) offsets."""
        return self.field_values(field)[1:]

    def field_values(self, field: str) -> tuple[Vocabulary, NDArray[np.int32], Offsets]:
        """Return the values of any field by code, and the codes as `field_codes` does."""
        if field == "category":
            return self.categories, self.category_codes, self.category_offsets
        values = Vocabulary()
        codes: list[int] = []
        bounds = [0]
        for row in range(len(self)):
            strings = self.tags[row] if field == "tags" else string_values(self.fields[row].get(field))
            codes += dict.fromkeys(values.add(value) for value in strings)
            bounds.append(len(codes))
        return values, np.array(codes, np.int32), np.array(bounds, np.int64)

    def documents(self, parts: Sequence[str] = ("title", "text", "category")) -> list[str]:
        """Return the text of each of the n items: its non-empty parts, joined by '. '.

        Parts are `title`, `text`, `category` (names joined by spaces), `tags`, or the name of any other field.
        """
        return [". ".join(filter(None, (self._document_part(row, part) for part in parts))) for row in range(len(self))]

    def field_texts(self, parts: Sequence[str], rows: Iterable[int] | None = None) -> dict[str, list[str]]:
        """Return part -> the text of that part of each item, or of each of `rows`; the parts are as in `documents`."""
        chosen = range(len(self)) if rows is None else list(rows)
        return {part: [self._document_part(row, part) for row in chosen] for part in parts}

    @cached_property
    def category_members(self) -> tuple[NDArray[np.int32], Offsets]:
        """Item rows grouped by category code, flattened, and their (codes + 1,) offsets."""
        owners = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.category_offsets))
        order = np.argsort(self.category_codes, kind="stable")
        counts = np.bincount(self.category_codes, minlength=len(self.categories))
        return owners[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def first_categories(self, rows: Rows) -> NDArray[np.int32]:
        """Return the code (N,) of each item's first category; -1 for an item without one and for unknown rows."""
        starts, stops = self.category_offsets[rows], self.category_offsets[rows + 1]
        codes = np.append(self.category_codes, np.int32(-1))
        return np.where((rows >= 0) & (stops > starts), codes[starts], -1).astype(np.int32)

    @cached_property
    def hidden_rows(self) -> Rows:
        """Rows of the items that are hidden from recommendations (`is_hidden`)."""
        return np.array([row for row, fields in enumerate(self.fields) if is_hidden(fields)], np.int32)

    def rows_in_categories(self, codes: NDArray[np.int32]) -> Rows:
        """Return the rows (distinct, ascending) of the items in any of these categories."""
        members, bounds = self.category_members
        parts = [members[bounds[code] : bounds[code + 1]] for code in codes.tolist()]
        return np.unique(np.concatenate(parts)).astype(np.int32) if parts else np.empty(0, np.int32)

    def _document_part(self, row: int, part: str) -> str:
        if part == "title":
            return self.titles[row]
        if part == "text":
            return self.texts[row]
        if part == "category":
            return " ".join(self.category_names(row))
        if part == "tags":
            return " ".join(self.tags[row])
        return _joined_text(self.fields[row].get(part, ""))


def _joined_text(value: FieldValue) -> str:
    return " ".join(map(field_text, value)) if isinstance(value, list) else field_text(value)


def string_values(value: FieldValue | None) -> list[str]:
    """Return the non-empty strings of a field that holds one value or a list; whole numbers become their digits."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [text for entry in values if (text := field_text(entry))]


def _unix_seconds(value: FieldValue | None) -> float:
    return float("nan") if value is None or value == "" else parse_timestamp(value) / 1000
