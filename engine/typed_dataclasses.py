"""Checks the types of the fields of a dataclass that was built from JSON, by its annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from feedrank.engine.events.checks import MAX_INTEGER, is_finite, short_repr


def check_types(instance: Any, path: str = "") -> None:
    """Check that all fields have the types of their annotations, those of inner dataclasses too.

    A float must be a finite number, and an integer have 64 bits. Raises TypeError that names the field.
    """
    hints = _hints(instance.__class__)
    for field in fields(instance):
        value, where = getattr(instance, field.name), f"{path}{field.name}"
        if not _has_type(value, hints[field.name], where):
            raise TypeError(f"{where}: found {short_repr(value)}, expected {field.type}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _has_type(value: Any, hint: Any, path: str) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_has_type(value, argument, path) for argument in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(entry, arguments[0], path) for entry in value)
    if origin is list:
        return isinstance(value, list) and all(_has_type(entry, arguments[0], path) for entry in value)
    if origin is Mapping:
        key, entry = arguments
        return isinstance(value, Mapping) and all(
            _has_type(name, key, path) and _has_type(inner, entry, f"{path}.{name}") for name, inner in value.items()
        )
    if is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]  # it is a class
            check_types(value, f"{path}.")
            return True
        return False
    return _is_scalar(value, hint)


def _is_scalar(value: Any, hint: Any) -> bool:
    if hint is NoneType:
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    if hint is float:
        return is_finite(value)
    return isinstance(value, hint)
