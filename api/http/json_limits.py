"""Limits on what a JSON body may hold: numbers that are finite, and no more keys, lists and levels than a caller needs.

They are checked in one place, before any route reads a body. Only a body that could exceed a limit is looked through.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from feedrank.engine.events.checks import EventError, short_repr

MAX_DEPTH = 32
"""Levels of lists and objects within each other."""
MAX_KEYS = 1_000
"""Keys of one object."""
MAX_CONTAINERS = 400_000
"""Lists and objects of a whole body."""
SMALL_BYTES = 2_048
"""A body of this size can't hold too many keys; whether it is nested too deeply is clear from its brackets."""
MAX_DIGITS = 308
"""Digits of an integer; more are beyond the range of a float."""
LARGE_NUMBER = re.compile(rb"(?:^|[\s:,\[])-?\d+(?:\.\d+)?[eE]\+?\d{3}|\d{200}")
"""What each number that is too large for a float matches, among others; ids in quotes seldom do."""


_TOO_DEEP = f"found lists or objects nested more than {MAX_DEPTH} deep, expected fewer levels"
_CONTAINERS = (dict, list)
_FLOATS_AND_CONTAINERS = (float, dict, list)


class _NonFinite(ValueError):
    """Raised where a number is not finite; its path is not known yet."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NonFinite(name)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _NonFinite(digits)
    return number


def _finite_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise _NonFinite(digits)
    return int(digits)


FAST_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_CAREFUL_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float, parse_int=_finite_int)


def decode_json(raw: bytes) -> Any:
    """Decode a JSON body in UTF-8, UTF-16 or UTF-32.

    Raises EventError, which names the path, for a number that is not finite and for a body beyond a limit; ValueError
    for what is no JSON.
    """
    containers = raw.count(b"{") + raw.count(b"[")
    if containers > MAX_CONTAINERS:
        raise EventError("body", f"found {containers:,} lists and objects, expected at most {MAX_CONTAINERS:,}")
    encoding = json.detect_encoding(raw)
    text = raw.decode(encoding, "surrogatepass")
    may_overflow = encoding != "utf-8" or LARGE_NUMBER.search(raw) is not None
    decoder = _CAREFUL_DECODER if may_overflow else FAST_DECODER
    try:
        value = decoder.decode(text)
    except _NonFinite as problem:
        found = str(problem)
        expected = "a finite number; send null for a missing one"
        raise EventError(_path_in(text, found) or "body", f"found {_shortened(found)}, expected {expected}") from None
    except RecursionError:
        raise EventError("body", _TOO_DEEP) from None
    if containers > MAX_DEPTH or raw.count(b":") > MAX_KEYS:
        _check_shape(value)
    return value


def _check_shape(value: Any) -> None:
    """Check the depth of a decoded body and the number of keys of its objects, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                if len(container) > MAX_KEYS:
                    example = short_repr(next(iter(container)))
                    detail = f"found an object of {len(container):,} keys ({example}, ...)"
                    raise EventError("body", f"{detail}, expected at most {MAX_KEYS:,}")
                below += [entry for entry in container.values() if isinstance(entry, _CONTAINERS)]
            elif isinstance(container, list):
                below += [entry for entry in container if isinstance(entry, _CONTAINERS)]
        if not below:
            return
        level = below
    raise EventError("body", _TOO_DEEP)


def _path_in(text: str, found: str) -> str | None:
    """Return the path of the first number of a JSON text that is not finite; None if it is not found."""
    is_integer = found.lstrip("-").isdecimal()
    try:
        value = json.loads(text, parse_int=_int_or_inf) if is_integer else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _path_of_non_finite(value)


def _path_of_non_finite(value: Any, depth: int = 0) -> str | None:
    """Return the path of the first number that is not finite, such as context.price or items.0.label."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if depth > MAX_DEPTH or not isinstance(value, dict | list):
        return None
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(entry, _FLOATS_AND_CONTAINERS):
            below = _path_of_non_finite(entry, depth + 1)
            if below is not None:
                return f"{key}.{below}" if below else str(key)
    return None


def _int_or_inf(digits: str) -> float:
    return math.inf if len(digits.lstrip("-")) > MAX_DIGITS else int(digits)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}... of {len(text):,} characters"
