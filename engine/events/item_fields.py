"""The fields that a list brings for its items, such as the price shown now: field name -> one value per item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import Any, TypeAlias

from feedrank.engine.events.checks import (
    SCORE,
    EventError,
    FieldValue,
    optional_number,
    parse_field_value,
    parse_fields,
    short_repr,
)
from feedrank.engine.events.ids import MAX_FIELDS, MAX_ID_CHARS, MAX_TEXT_CHARS

ItemFields: TypeAlias = Mapping[str, tuple[FieldValue | None, ...]]
"""Field name -> one value per item of the list, in its order; None where an item has none."""

MAX_VALUES = 1_000_000
"""Fields of a list times its items."""


def fields_of_entry(entry: Mapping[str, Any], path: str) -> dict[str, FieldValue]:
    """Return the `fields` of an entry of `items`: a list of {name, value}, or an object. Raises EventError.

    path: the path of the entry. A field whose value is null is absent. Metarank's older `relevancy` of an item is a
    field too.
    """
    fields = parse_fields({"fields": as_list(entry.get("fields"))}, f"{path}.fields")
    relevancy = optional_number(entry, "relevancy", SCORE, f"{path}.relevancy")
    return fields if relevancy is None else {"relevancy": relevancy, **fields}


def as_list(fields: object) -> object:
    """Return fields as a list of {name, value} if they are an object {name: value}; anything else as it is."""
    if not isinstance(fields, Mapping):
        return fields
    return [{"name": name, "value": value} for name, value in fields.items()]


def columns_of(rows: Sequence[Mapping[str, FieldValue]]) -> ItemFields | None:
    """Return the fields of items, one mapping per item, as columns; None if no item has any.

    Raises EventError for a list with too many of them.
    """
    names = dict.fromkeys(chain.from_iterable(rows))
    if not names:
        return None
    if len(names) > MAX_FIELDS:
        raise EventError("items", f"found {len(names):,} different fields, expected at most {MAX_FIELDS:,}")
    if len(names) * len(rows) > MAX_VALUES:
        found = f"{len(names):,} different fields of {len(rows):,} items"
        raise EventError("items", f"found {found}, expected at most {MAX_VALUES:,} values")
    return {name: tuple(row.get(name) for row in rows) for name in names}


def rows_of(fields: ItemFields, n_items: int) -> list[dict[str, FieldValue]]:
    """Return the fields of each item, without those that it does not have. Raises ValueError for other lengths."""
    rows: list[dict[str, FieldValue]] = [{} for _ in range(n_items)]
    for name, column in fields.items():
        for row, value in zip(rows, column, strict=True):
            if value is not None:
                row[name] = value
    return rows


def select(fields: ItemFields | None, items: Sequence[str], wanted: Iterable[str]) -> ItemFields | None:
    """Return the fields of the wanted items, in that order, from those of a list of items."""
    if not fields:
        return None
    index_of = {item: index for index, item in enumerate(items)}
    indices = [index_of.get(item, -1) for item in wanted]
    selected = {name: tuple(map((*column, None).__getitem__, indices)) for name, column in fields.items()}
    return {name: column for name, column in selected.items() if column.count(None) < len(column)} or None


def is_loggable(value: object) -> bool:
    """Return whether a value can travel with a list: no text in it is longer than `MAX_TEXT_CHARS`."""
    texts = value if isinstance(value, list) else [value]
    return all(not isinstance(text, str) or len(text) <= MAX_TEXT_CHARS for text in texts)


def check_columns(fields: ItemFields, n_items: int) -> None:
    """Check that the fields of a list of items can be logged and read back. Raises EventError if not."""
    if len(fields) > MAX_FIELDS or len(fields) * n_items > MAX_VALUES:
        expected = f"at most {MAX_FIELDS:,} fields and {MAX_VALUES:,} values"
        raise EventError("item_fields", f"found {len(fields):,} fields of {n_items:,} items, expected {expected}")
    for name, column in fields.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARS:
            raise EventError(
                "item_fields", f"found the name {short_repr(name)}, expected text of 1 to {MAX_ID_CHARS} characters"
            )
        parse_field_value(name, "item_fields")
        if len(column) != n_items:
            raise EventError(f"item_fields.{name}", f"found {len(column)} values, expected {n_items}, one per item")
        if {*map(type, column)} == {float} and all(map(isfinite, column)):  # type: ignore[arg-type]  # only floats
            continue
        for index, value in enumerate(column):
            if value is not None:
                _check_value(value, f"item_fields.{name}[{index}]")


def _check_value(value: object, path: str) -> None:
    parse_field_value(value, path)
    if not is_loggable(value):
        raise EventError(path, f"found {short_repr(value)}, expected texts of at most {MAX_TEXT_CHARS:,} characters")
