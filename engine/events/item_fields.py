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
    is_finite,
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
_FLOATS = frozenset((float, type(None)))


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


def columns_of(rows: Sequence[Mapping[str, FieldValue] | Mapping[str, FieldValue | None]]) -> ItemFields | None:
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
    first = tuple(rows[0])
    if all(map(first.__eq__, map(tuple, rows))):  # the usual list: all items have the same fields, in one order
        return dict(zip(first, zip(*(row.values() for row in rows), strict=True), strict=True))
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
    return _with_values({name: tuple(map((*column, None).__getitem__, indices)) for name, column in fields.items()})


def loggable(fields: ItemFields | None) -> ItemFields | None:
    """Return columns without the values that can't travel with a list: texts longer than `MAX_TEXT_CHARS`."""
    if fields is None:
        return None
    found = {
        name: column if _is_numeric(column) else tuple(value if _is_short(value) else None for value in column)
        for name, column in fields.items()
    }
    return _with_values(found)


def parse_columns(columns: object, n_items: int) -> ItemFields | None:
    """Parse the fields of n items from an object {name: one value per item}; None if it is empty. Raises EventError.

    Numbers become floats; null is a missing value.
    """
    if not isinstance(columns, Mapping) or not all(isinstance(column, list) for column in columns.values()):
        raise EventError("item_fields", f"found {short_repr(columns)}, expected an object {{name: [values]}}")
    parsed = {
        name: tuple(column) if _is_numeric(column) else tuple(map(_as_field_value, column))
        for name, column in columns.items()
    }
    check_columns(parsed, n_items)
    return _with_values(parsed)


def check_columns(fields: ItemFields, n_items: int) -> None:
    """Check that the fields of n items can be logged and read back. Raises EventError if not."""
    if len(fields) > MAX_FIELDS or len(fields) * n_items > MAX_VALUES:
        expected = f"at most {MAX_FIELDS:,} fields and {MAX_VALUES:,} values"
        raise EventError("item_fields", f"found {len(fields):,} fields of {n_items:,} items, expected {expected}")
    for name, column in fields.items():
        if not isinstance(name, str) or not name:
            raise EventError("item_fields", f"found the name {short_repr(name)}, expected a non-empty string")
        parse_field_value(name, "item_fields")
        if len(column) != n_items:
            raise EventError(f"item_fields.{name}", f"found {len(column)} values, expected {n_items}, one per item")
        if _is_numeric(column) and _are_finite(column):
            continue
        for index, value in enumerate(column):
            if value is not None:
                parse_field_value(value, f"item_fields.{name}[{index}]")


def check_lengths(fields: ItemFields) -> None:
    """Check the lengths of the names and texts of columns from outside. Raises EventError."""
    for name, column in fields.items():
        if len(name) > MAX_ID_CHARS:
            raise EventError(
                "item_fields", f"found a name of {len(name):,} characters, expected at most {MAX_ID_CHARS}"
            )
        for index, value in enumerate(() if _is_numeric(column) else column):
            if not _is_short(value):
                expected = f"texts of at most {MAX_TEXT_CHARS:,} characters"
                raise EventError(f"item_fields.{name}[{index}]", f"found {short_repr(value)}, expected {expected}")


def _with_values(fields: ItemFields) -> ItemFields | None:
    """Return the columns that have a value; None if there are none."""
    return {name: column for name, column in fields.items() if column.count(None) < len(column)} or None


def _is_numeric(column: Iterable[object]) -> bool:
    """Return whether a column holds floats and missing values only; quick, as most columns do."""
    return _FLOATS.issuperset(map(type, column))


def _is_short(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(not isinstance(text, str) or len(text) <= MAX_TEXT_CHARS for text in texts)


def _are_finite(column: Iterable[Any]) -> bool:
    return all(value is None or isfinite(value) for value in column)


def _as_field_value(value: Any) -> Any:
    """Return a value with its numbers as floats; one that no field can have stays as it is, to be refused."""
    if isinstance(value, list):
        return [_as_field_value(entry) for entry in value]
    is_number = isinstance(value, int) and not isinstance(value, bool) and is_finite(value)
    return float(value) if is_number else value
