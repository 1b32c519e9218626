"""Reads a JSON object whose parts may have any shape, for records that a client may have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from feedrank.engine.events.checks import MAX_INTEGER, is_finite


class ObjectReader:
    """Reads the parts of a JSON object by type; remembers the names of those that have another shape."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.malformed: list[str] = []

    def string(self, name: str) -> str:
        """Return a string; empty if it is absent."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else self._absent(name, "")

    def integer(self, name: str) -> int | None:
        """Return an integer from 0 to `MAX_INTEGER`; None if it is absent."""
        value = self.values.get(name)
        if value is None or _is_integer(value, 0):
            return value
        self._absent(name, None)
        return None

    def mapping(self, name: str) -> ObjectReader:
        """Return a reader of an object; of an empty one if it is absent."""
        value = self.values.get(name, {})
        return ObjectReader(value if isinstance(value, Mapping) else self._absent(name, {}))

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        return tuple(self._list(name, lambda entry: isinstance(entry, str)))

    def numbers(self, name: str) -> tuple[float | None, ...]:
        """Return a list of finite numbers, with None where a number is missing."""
        return tuple(self._list(name, lambda entry: entry is None or is_finite(entry)))

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return a list of pairs of strings."""
        entries = self._list(
            name,
            lambda entry: isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry),
        )
        return tuple((first, second) for first, second in entries)

    def integer_lists(self, name: str, n: int) -> tuple[tuple[int, ...], ...]:
        """Return lists of n integers from -1 each."""
        lists = self._list(
            name, lambda ranks: isinstance(ranks, list) and len(ranks) == n and all(_is_integer(r, -1) for r in ranks)
        )
        return tuple(map(tuple, lists))

    def _list(self, name: str, is_valid: Callable[[Any], bool]) -> list[Any]:
        value = self.values.get(name, [])
        if isinstance(value, list) and all(map(is_valid, value)):
            return value
        empty: list[Any] = self._absent(name, [])
        return empty

    def _absent(self, name: str, default: Any) -> Any:
        self.malformed.append(name)
        return default


def _is_integer(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= MAX_INTEGER
