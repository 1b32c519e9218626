"""The items that can be recommended, as columns; a row is an item's place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.events import FieldValue, ItemEvent, parse_timestamp
from engine.ids import Ids
from engine.types import Offsets, Rows, Times

STANDARD_FIELDS = ("title", "text", "category", "tags", "published")
"""The item fields that the engine knows by name; `category` and `tags` may be one string or a list."""


REMOVED, RANK_ONLY = "removed", "rank_only"
"""Fields that keep an item out of feeds where they are true: it was taken out; nothing but a list to be ranked, which
described it, has named it so far."""


def told_on(before: Mapping[str, FieldValue], fields: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
    """The fields of an item after an event: a later one replaces one of the same name.

    What a list says of an item never hides one that was known, and an event of its own ends its being hidden.
    """
    after = {**before, **fields}
    if RANK_ONLY in after:
        after[RANK_ONLY] = bool(fields.get(RANK_ONLY, False)) and bool(before.get(RANK_ONLY, not before))
    return after


def hidden(fields: Mapping[str, FieldValue]) -> bool:
    """Whether no feed may show an item of these fields."""
    return fields.get(REMOVED) is True or fields.get(RANK_ONLY) is True


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Columns of n items. Built once by `from_items`; immutable after that."""

    ids: Ids
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    published: Times
    """(n,) unix seconds, NaN where unknown."""
    categories: Ids
    """Category names; a code is a row here."""
    category_codes: NDArray[np.int32]
    """Category codes of all items, flattened; an item's own in the order it names them, each once."""
    category_offsets: Offsets
    """(n + 1,) bounds of each item's codes."""
    fields: tuple[Mapping[str, FieldValue], ...]
    """Any further fields, as they came."""

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
        """From item id -> fields; the standard fields become columns, the rest is kept as it is."""
        categories = Ids()
        codes: list[int] = []
        bounds = [0]
        for fields in items.values():
            codes += dict.fromkeys(categories.add(name) for name in _strings(fields.get("category")))
            bounds.append(len(codes))
        return cls(
            ids=Ids(items),
            titles=tuple(str(fields.get("title", "")) for fields in items.values()),
            texts=tuple(str(fields.get("text", "")) for fields in items.values()),
            tags=tuple(tuple(_strings(fields.get("tags"))) for fields in items.values()),
            published=np.array([_moment(fields.get("published")) for fields in items.values()], np.float64),
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
        """Fold item events in order of timestamp, ties as they come: a later field replaces one of the same name.

        Rows are in order of arrival, so that an older event that comes in late moves no item to another row.
        """
        arrived = list(events)
        items: dict[str, dict[str, FieldValue]] = {event.item: {} for event in arrived}
        for event in sorted(arrived, key=lambda event: event.timestamp):
            items[event.item] = told_on(items[event.item], event.fields)
        return cls.from_items(items)

    def to_items(self) -> dict[str, dict[str, FieldValue]]:
        """The mapping that `from_items` takes; the round trip is exact for standard fields."""
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
                fields["published"] = float(round(self.published[row] * 1000))  # whole milliseconds, as they came
            items[item] = fields
        return items

    def category_names(self, row: int) -> list[str]:
        """The category names of one item."""
        codes = self.category_codes[self.category_offsets[row] : self.category_offsets[row + 1]]
        return self.categories.names(codes)

    def codes(self, field: str) -> tuple[NDArray[np.int32], Offsets]:
        """Codes of the values of any field, flattened, an item's own each once, and their (n + 1) bounds."""
        if field == "category":
            return self.category_codes, self.category_offsets
        values = Ids()
        codes: list[int] = []
        bounds = [0]
        for row in range(len(self)):
            named = self.tags[row] if field == "tags" else _strings(self.fields[row].get(field))
            codes += dict.fromkeys(values.add(name) for name in named)
            bounds.append(len(codes))
        return np.array(codes, np.int32), np.array(bounds, np.int64)

    def documents(self, parts: Sequence[str] = ("title", "text", "category")) -> list[str]:
        """(n,) the text of each item: the parts that are there, joined by '. '.

        Parts are `title`, `text`, `category` (names joined by spaces), `tags`, or the name of a further field.
        """
        return [". ".join(filter(None, (self._part(row, part) for part in parts))) for row in range(len(self))]

    @cached_property
    def category_members(self) -> tuple[NDArray[np.int32], Offsets]:
        """Item rows by category code, flattened, with (codes + 1) bounds."""
        owners = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.category_offsets))
        order = np.argsort(self.category_codes, kind="stable")
        counts = np.bincount(self.category_codes, minlength=len(self.categories))
        return owners[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def first_categories(self, rows: Rows) -> NDArray[np.int32]:
        """(N,) the code of each item's first category; -1 where it has none, or the row is of no item."""
        starts, stops = self.category_offsets[rows], self.category_offsets[rows + 1]
        codes = np.append(self.category_codes, np.int32(-1))
        return np.where((rows >= 0) & (stops > starts), codes[starts], -1).astype(np.int32)

    @cached_property
    def hidden_rows(self) -> Rows:
        """Rows of the items that no feed may show: those that were removed, and those that only lists name."""
        return np.array([row for row, fields in enumerate(self.fields) if hidden(fields)], np.int32)

    def in_categories(self, codes: NDArray[np.int32]) -> Rows:
        """Rows of the items in any of these categories."""
        members, bounds = self.category_members
        found = [members[bounds[code] : bounds[code + 1]] for code in codes.tolist()]
        return np.unique(np.concatenate(found)).astype(np.int32) if found else np.empty(0, np.int32)

    def _part(self, row: int, part: str) -> str:
        if part == "title":
            return self.titles[row]
        if part == "text":
            return self.texts[row]
        if part == "category":
            return " ".join(self.category_names(row))
        if part == "tags":
            return " ".join(self.tags[row])
        value = self.fields[row].get(part, "")
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _strings(value: FieldValue | None) -> list[str]:
    """The strings of a field that may hold one or a list; empty ones say nothing."""
    given = value if isinstance(value, list) else [] if value is None else [value]
    return [text for one in given if (text := str(one))]


def _moment(value: FieldValue | None) -> float:
    return float("nan") if value is None or value == "" else parse_timestamp(value) / 1000
