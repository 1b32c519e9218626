"""Reads and checks one field of a decoded JSON object at a time; errors name the path of the field.

Accepted values can be written as JSON in UTF-8, and accepted numbers are finite as floats. Numbers that become columns
have a `NumberRange` each, so that every reader of the log can hold, add and multiply them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

FieldValue: TypeAlias = str | float | bool | list[str] | list[float]

MAX_EXACT_INT = 2**53
"""Integers up to this are exact as floats."""
MAX_INTEGER = 2**63 - 1
"""The largest integer of 64 bits, as databases hold them."""

MAX_POSITION = 2**31 - 1
"""Positions are columns of 32-bit integers."""
MAX_SCORE = 3.4028234663852886e38
"""Scores are numbers of 32 bits; this is the largest one."""


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The numbers that a part of an event may have."""

    minimum: float
    maximum: float
    expected: str
    """The numbers in words, for messages."""
    whole: bool = False
    """Only whole numbers; 2.0 is one."""

    def __contains__(self, value: object) -> bool:
        """Check whether a value is such a number; booleans, NaN and infinity are not."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.minimum <= value <= self.maximum:
            return False
        return not self.whole or isinstance(value, int) or value.is_integer()


POSITION = NumberRange(1, MAX_POSITION, f"a whole number from 1 to {MAX_POSITION}", whole=True)
AMOUNT = NumberRange(-MAX_EXACT_INT, MAX_EXACT_INT, f"a number from -{MAX_EXACT_INT} to {MAX_EXACT_INT}")
DURATION = NumberRange(0, MAX_EXACT_INT, f"a number from 0 to {MAX_EXACT_INT}")
SCORE = NumberRange(-MAX_SCORE, MAX_SCORE, "a finite number of 32 bits")
PROBABILITY = NumberRange(sys.float_info.min, 1, "a number above 0 and at most 1")


class EventError(ValueError):
    """Raised for an event that can't be parsed; `field` is the path of the invalid field."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(f"{field_name}: {message}")
        self.field = field_name


def required_str(body: Mapping[str, Any], name: str, path: str | None = None, *, allow_empty: bool = False) -> str:
    """Return a required string; an integer is converted to its digits. Raises EventError.

    path: path for the message, if it is not `name`. allow_empty: accept an empty string.
    """
    value = body.get(name)
    if isinstance(value, int) and is_finite(value):
        return str(value)
    if not isinstance(value, str) or not (value or allow_empty):
        expected = "a string" if allow_empty else "a non-empty string"
        raise EventError(path or name, f"found {short_repr(value)}, expected {expected}")
    return _check_encodable(value, path or name)


def optional_str(body: Mapping[str, Any], name: str, *, allow_empty: bool = False) -> str | None:
    """Return an optional string, as `required_str`; None if it is absent or null."""
    return None if body.get(name) is None else required_str(body, name, allow_empty=allow_empty)


def optional_number(body: Mapping[str, Any], name: str, allowed: NumberRange, path: str | None = None) -> float | None:
    """Return an optional number of a range; None if it is absent or null. Raises EventError."""
    value = body.get(name)
    if value is None:
        return None
    if value not in allowed:
        raise EventError(path or name, f"found {short_repr(value)}, expected {allowed.expected}")
    return float(value)


def optional_int(body: Mapping[str, Any], name: str, minimum: int, maximum: int) -> int | None:
    """Return an optional integer in [minimum, maximum]; None if it is absent or null. 2.0 is accepted as 2."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise EventError(name, f"found {short_repr(value)}, expected an integer from {minimum} to {maximum}")
    return value


def optional_number_list(
    body: Mapping[str, Any], name: str, length: int, allowed: NumberRange
) -> tuple[float, ...] | None:
    """Return an optional list of `length` numbers of a range; None if it is absent or null. Raises EventError."""
    column = body.get(name)
    if column is None:
        return None
    if not isinstance(column, list) or len(column) != length:
        found = f"{len(column)} entries" if isinstance(column, list) else short_repr(column)
        raise EventError(name, f"found {found}, expected a list of {length} numbers, one per item")
    for index, value in enumerate(column):
        if value not in allowed:
            raise EventError(f"{name}[{index}]", f"found {short_repr(value)}, expected {allowed.expected}")
    return tuple(column)


def optional_str_list(body: Mapping[str, Any], name: str, length: int) -> list[str] | None:
    """Return an optional list of `length` strings, which may be empty; None if it is absent or null."""
    column = body.get(name)
    if column is None:
        return None
    if not isinstance(column, list) or len(column) != length or not all(isinstance(value, str) for value in column):
        raise EventError(name, f"found {short_repr(column)}, expected a list of {length} strings, one per item")
    return [_check_encodable(value, f"{name}[{index}]") for index, value in enumerate(column)]


def optional_object(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return an optional object that JSON in UTF-8 can hold; None if it is absent or null. Raises EventError."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise EventError(name, f"found {short_repr(value)}, expected an object")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as problem:
        expected = "values that JSON in UTF-8 can hold; use null for a missing number"
        raise EventError(name, f"found {short_repr(value)}, expected {expected} ({short_repr(str(problem))})") from None
    return value


def parse_fields(body: Mapping[str, Any], path: str = "fields") -> dict[str, FieldValue]:
    """Parse `fields`, a list of {name, value}, to a dict; empty if it is absent or null. Raises EventError.

    path: path for the message. A field whose value is null is absent, and a null within a list of texts is passed over.
    """
    listed = body.get("fields")
    if listed is None:
        return {}
    if not isinstance(listed, list):
        raise EventError(path, f"found {short_repr(listed)}, expected a list of {{name, value}}")
    parsed: dict[str, FieldValue] = {}
    for index, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise EventError(f"{path}[{index}]", f"found {short_repr(entry)}, expected an object with name and value")
        name = required_str(entry, "name", f"{path}[{index}].name")
        value = entry.get("value", entry)  # without `value`, the entry itself is the invalid value
        if isinstance(value, list) and None in value:
            texts = [text for text in value if text is not None]
            value = (texts or None) if all(isinstance(text, str) for text in texts) else value
        if value is not None:
            parsed[name] = parse_field_value(value, f"{path}[{index}].value")
    return parsed


def as_float(value: float | str) -> float | None:
    """Convert a number or numeric string to a float, finite or not; None if it is too large or not numeric."""
    if isinstance(value, str) and "_" in value:  # float() would accept 1_000
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def is_finite(value: object) -> bool:
    """Check whether a value is a number that is finite as a float; booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    number = as_float(value)
    return number is not None and math.isfinite(number)


def check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    """Check that a setting is within its bounds. Raises ValueError."""
    if not minimum <= value <= maximum:
        raise ValueError(f"{name} is {value}; expected {minimum:,} to {maximum:,}")


def short_repr(value: object) -> str:
    """Format a value for an error message: at most 60 characters, 'nothing' for None."""
    try:
        text = "nothing" if value is None else repr(value)
    except (ValueError, RecursionError):  # too many digits or too deeply nested for repr
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def parse_field_value(value: object, path: str) -> FieldValue:
    """Return the value of a field; numbers become floats. Raises EventError for a value that no field can have."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _check_encodable(value, path)
    if isinstance(value, int | float) and is_finite(value):
        return float(value)
    if isinstance(value, list):
        if all(isinstance(entry, str) for entry in value):
            return [_check_encodable(entry, path) for entry in value]
        if all(is_finite(entry) for entry in value):
            return [float(entry) for entry in value]
    expected = "a string, finite number, boolean, list of strings or list of finite numbers"
    raise EventError(path, f"found {short_repr(value)}, expected {expected}")


def field_text(value: str | float) -> str:
    """Return a value of a field as text; a whole number as its digits, as 101.0 comes from the JSON number 101."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check_encodable(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        half = "which holds half of a surrogate pair (\\ud800 to \\udfff); send whole characters"
        raise EventError(path, f"found {short_repr(value)}, {half}") from None
    return value
