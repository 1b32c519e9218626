"""One part of a decoded JSON object at a time: read, checked, or refused with its place in the message.

What passes can be written as JSON in UTF-8, and its numbers are finite as floats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

FieldValue: TypeAlias = str | float | bool | list[str] | list[float]

MOST_EXACT = 2**53
"""Whole numbers up to this are exact as floats."""


class EventError(ValueError):
    """An event that can't be read; `field` names the place."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(f"{field_name}: {message}")
        self.field = field_name


def text(body: Mapping[str, Any], name: str, place: str | None = None, *, empty: bool = False) -> str:
    """A string, not empty unless `empty` allows it; a whole number is taken as its digits."""
    value = body.get(name)
    if isinstance(value, int) and is_finite(value):
        return str(value)
    if not isinstance(value, str) or not (value or empty):
        expected = "a string" if empty else "a string that is not empty"
        raise EventError(place or name, f"found {shown(value)}, expected {expected}")
    return _characters(value, place or name)


def optional_text(body: Mapping[str, Any], name: str, *, empty: bool = False) -> str | None:
    """As `text`; None where it is absent or null."""
    return None if body.get(name) is None else text(body, name, empty=empty)


def optional_number(body: Mapping[str, Any], name: str, place: str | None = None) -> float | None:
    """A finite number; None where it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if not is_finite(value):
        raise EventError(place or name, f"found {shown(value)}, expected a finite number")
    return float(value)


def optional_whole(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number in [least, most], 2.0 as well as 2; None where it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise EventError(name, f"found {shown(value)}, expected a whole number from {least} to {most}")
    return value


def optional_column(body: Mapping[str, Any], name: str, length: int, share: bool = False) -> list[float] | None:
    """A list of `length` finite numbers, in (0, 1] where each is a share; None where it is absent or null."""
    column = body.get(name)
    if column is None:
        return None
    if not isinstance(column, list) or len(column) != length:
        found = f"{len(column)} entries" if isinstance(column, list) else shown(column)
        raise EventError(name, f"found {found}, expected a list of {length} numbers, one an item")
    for index, value in enumerate(column):
        if not is_finite(value) or (share and not 0 < value <= 1):
            expected = "a number above 0 and at most 1" if share else "a finite number"
            raise EventError(f"{name}[{index}]", f"found {shown(value)}, expected {expected}")
    return column


def optional_texts(body: Mapping[str, Any], name: str, length: int) -> list[str] | None:
    """A list of `length` strings, empty ones among them; None where it is absent or null."""
    column = body.get(name)
    if column is None:
        return None
    if not isinstance(column, list) or len(column) != length or not all(isinstance(one, str) for one in column):
        raise EventError(name, f"found {shown(column)}, expected a list of {length} strings, one an item")
    return [_characters(one, f"{name}[{index}]") for index, one in enumerate(column)]


def optional_object(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """An object, whatever it holds; None where it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise EventError(name, f"found {shown(value)}, expected an object")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as problem:
        expected = "what JSON in UTF-8 can hold; null stands for a number that is missing"
        raise EventError(name, f"found {shown(value)}, expected {expected} ({shown(str(problem))})") from None
    return value


def fields(body: Mapping[str, Any]) -> dict[str, FieldValue]:
    """The `fields`, a list of {name, value}, as name -> value; none where it is absent or null."""
    listed = body.get("fields")
    if listed is None:
        return {}
    if not isinstance(listed, list):
        raise EventError("fields", f"found {shown(listed)}, expected a list of {{name, value}}")
    found: dict[str, FieldValue] = {}
    for index, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise EventError(f"fields[{index}]", f"found {shown(entry)}, expected an object with name and value")
        name = text(entry, "name", f"fields[{index}].name")
        found[name] = _value(entry.get("value"), f"fields[{index}].value")
    return found


def as_float(value: float | str) -> float | None:
    """The number as a float, finite or not; None where it is too large for one, or a string of something else."""
    if isinstance(value, str) and "_" in value:  # float() would take 1_000
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def is_finite(value: object) -> bool:
    """Is it a number (True and False are none) that is finite as a float?"""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    number = as_float(value)
    return number is not None and math.isfinite(number)


def within(name: str, value: float, least: float, most: float) -> None:
    """Raises ValueError where a setting is out of its bounds."""
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; expected {least:,} to {most:,}")


def shown(value: object) -> str:
    """How a message shows what was found: cut where it is long, 'nothing' for None."""
    try:
        whole = "nothing" if value is None else repr(value)
    except (ValueError, RecursionError):  # more digits, or deeper, than Python writes out
        whole = f"a very long {type(value).__name__}"
    return whole if len(whole) <= 60 else whole[:57] + "..."


def _value(value: object, place: str) -> FieldValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _characters(value, place)
    if isinstance(value, int | float) and is_finite(value):
        return float(value)
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value):
            return [_characters(one, place) for one in value]
        if all(is_finite(one) for one in value):
            return [float(one) for one in value]
    expected = "a string, a finite number, a boolean or a list of strings or of finite numbers"
    raise EventError(place, f"found {shown(value)}, expected {expected}")


def _characters(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        half = "which holds half of a surrogate pair (\\ud800 to \\udfff); send whole characters"
        raise EventError(place, f"found {shown(value)}, {half}") from None
    return value
