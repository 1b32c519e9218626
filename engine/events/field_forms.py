"""The forms in which declared fields are read: as numbers, or as values, each a hash of 64 bits.

What a form makes of a value is up to its function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from feedrank.engine.events.checks import FieldValue

ITEM, USER, REQUEST, LIST = "item", "user", "request", "list"
"""Sources of fields: item events, user events, the request of a ranking, and what a given list brings for its items."""
SOURCES = (ITEM, USER, REQUEST, LIST)
ALL_FIELDS = "*"
"""Stands for all fields of a request or of an item of a list: a form of it encodes the mapping of them."""


def id_hash(name: str) -> int:
    """Return the hash of an id: 64 bits of BLAKE2, the same in all processes."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


value_hash = lru_cache(maxsize=100_000)(id_hash)
"""Returns the hash of a value: as of an id, but kept, since values repeat and ids do not."""


def hash_or_zero(name: str | None) -> int:
    """Return the hash of an id; 0 if there is none."""
    return 0 if name is None else id_hash(name)


@dataclass(frozen=True, slots=True)
class FieldForm:
    """One way of reading a field."""

    source: str
    """One of SOURCES."""
    field: str
    name: str
    """Name of the form: with source and field it says which values a column holds."""
    is_number: bool
    """Whether it is a number; otherwise a list of hashes."""
    encode: Callable[[FieldValue], float | Sequence[int]]
    """Makes the number (NaN: missing) or the hashes of a value."""
    texts: Callable[[FieldValue], list[str]] | None = None
    """Returns the texts behind the hashes, whose frequencies a table counts; None: they are not counted."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells two forms apart."""
        return self.source, self.field, self.name


class Forms:
    """All forms of a feature list, in columns: of each source the numbers, then the values."""

    def __init__(self, forms: Sequence[FieldForm] = ()) -> None:
        """Sort forms into columns; equal ones share a column."""
        distinct = {form.key: form for form in forms}
        self.numbers = {
            source: [form for form in distinct.values() if form.source == source and form.is_number]
            for source in SOURCES
        }
        self.values = {
            source: [form for form in distinct.values() if form.source == source and not form.is_number]
            for source in SOURCES
        }
        self._columns = {
            form.key: column
            for part in (self.numbers, self.values)
            for of_source in part.values()
            for column, form in enumerate(of_source)
        }
        self.of_field: dict[tuple[str, str], list[tuple[int, FieldForm]]] = {}
        for source in SOURCES:
            for index, form in enumerate((*self.numbers[source], *self.values[source])):
                self.of_field.setdefault((source, form.field), []).append((index, form))

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """The keys of all forms, by source: the numbers, then the values."""
        return [key for source in SOURCES for key in self.indices(source)]

    def indices(self, source: str) -> dict[tuple[str, str, str], int]:
        """Return the key of each form of a source, with its index: the numbers, then the values."""
        return {form.key: index for index, form in enumerate((*self.numbers[source], *self.values[source]))}

    def column(self, form: FieldForm) -> int:
        """Return the column of a form among the numbers, or among the values, of its source."""
        return self._columns[form.key]
