"""The items of a state: their ids by row, and which categories and other counted field values each of them has.

They begin as those of a catalogue and grow with item events. Ids, values and codes are only ever appended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import STANDARD_FIELDS, Catalogue, string_values
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.item_arrivals import ItemChanges
from feedrank.engine.types import Offsets
from feedrank.features.jit import zero_padded

NEVER = -(2**62)
"""Epoch milliseconds since when a value holds of which no item event was observed."""


class NewCodes(NamedTuple):
    """K changes of the codes of an item's field, each from a point of the event order on."""

    before_event: Offsets
    """(K,) position in the event order."""
    values: NDArray[np.int32]
    """(K, 4) item row, index of the field, and the bounds of the codes."""


class ItemCodes:
    """The ids of a state's items and, for each counted field, the values by code and the codes of each item."""

    def __init__(self, catalogue: Catalogue, fields: Sequence[str], capacity: int) -> None:
        """fields: the counted ones, the category first. capacity: rows that the arrays have.

        Raises ValueError for a field that no item has.
        """
        self.ids, self.fields = deepcopy(catalogue.ids), tuple(fields)
        columns = [catalogue.field_values(name) for name in fields]
        for name, (_, codes, _) in zip(fields, columns, strict=True):
            if not len(codes) and len(catalogue) and name not in STANDARD_FIELDS:
                raise ValueError(f"a counter is declared for the item field {name!r}, which no item has")
        self.values = tuple(deepcopy(values) for values, _, _ in columns)
        self._catalogue_sizes = len(catalogue), *map(len, self.values)
        self.codes = np.concatenate([codes for _, codes, _ in columns]).astype(np.int32)
        """Codes of all fields and items, flattened; with spare room."""
        self.bounds = np.zeros((len(fields), capacity, 2), np.int32)
        """(fields, rows, 2) bounds of the codes of each item."""
        self.valid_from = np.full((len(fields), capacity), NEVER, np.int64)
        """(fields, rows) since when the value holds, epoch milliseconds."""
        self.most_codes = np.zeros((len(fields), capacity), np.int32)
        """(fields, rows) the most codes that each item has had."""
        self._used = self._n_catalogue_codes = len(self.codes)
        self._n_coded, start = len(catalogue), 0
        for field, (_, codes, offsets) in enumerate(columns):
            self.bounds[field, : len(catalogue), 0] = start + offsets[:-1]
            self.bounds[field, : len(catalogue), 1] = start + offsets[1:]
            self.most_codes[field, : len(catalogue)] = np.diff(offsets)
            start += len(codes)

    @property
    def is_as_catalogue(self) -> bool:
        """Whether no item event has added an item or changed a code."""
        return len(self.ids) == self._catalogue_sizes[0] and self._used == self._n_catalogue_codes

    def note(self, row: int, valid_from_ms: int, fields: Mapping[str, FieldValue]) -> None:
        """Note since when values hold that the catalogue has already, so that an older one does not replace them."""
        for field, name in enumerate(self.fields):
            if name in fields:
                self.valid_from[field, row] = max(self.valid_from[field, row], valid_from_ms)

    def observe(self, changes: ItemChanges) -> NewCodes:
        """Encode the values of item events; return the codes that differ from those before, in order.

        The arrays have a row for each item already. The first codes of a new item are set at once.
        """
        latest: dict[tuple[int, int], tuple[int, int]] = {}
        seen: set[int] = set()
        before: list[int] = []
        values: list[tuple[int, int, int, int]] = []
        columns = changes.before_event.tolist(), changes.rows.tolist(), changes.valid_from_ms.tolist(), changes.fields
        for position, row, valid_from_ms, fields in zip(*columns, strict=True):
            is_first = row >= self._n_coded and row not in seen
            seen.add(row)
            for field, name in enumerate(self.fields):
                if name not in fields or valid_from_ms < self.valid_from[field, row]:
                    continue
                self.valid_from[field, row] = valid_from_ms
                first, stop = latest.get((field, row)) or self.bounds[field, row].tolist()
                codes = list(dict.fromkeys(self.values[field].add(text) for text in string_values(fields[name])))
                if codes != self.codes[first:stop].tolist():
                    first, stop = self._append(codes)
                    self.most_codes[field, row] = max(self.most_codes[field, row], len(codes))
                    if not is_first:
                        before.append(position)
                        values.append((row, field, first, stop))
                if is_first:
                    self.bounds[field, row] = first, stop
                latest[field, row] = first, stop
        self._n_coded = len(self.ids)
        return NewCodes(np.array(before, np.int64), np.array(values, np.int32).reshape(len(values), 4))

    def grow(self, capacity: int) -> None:
        """Make room for the rows of more items."""
        more = capacity - self.bounds.shape[1]
        self.bounds = np.pad(self.bounds, ((0, 0), (0, more), (0, 0)))
        self.most_codes = np.pad(self.most_codes, ((0, 0), (0, more)))
        self.valid_from = np.pad(self.valid_from, ((0, 0), (0, more)), constant_values=NEVER)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, for `restore`; of ids and values those that the catalogue does not have."""
        names = [list(ids)[n:] for ids, n in zip((self.ids, *self.values), self._catalogue_sizes, strict=True)]
        text = np.frombuffer(json.dumps(names).encode(), np.uint8)
        return {
            "codes": self.codes[: self._used],
            "code_bounds": self.bounds,
            "items.valid_from": self.valid_from,
            "items.names": text,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the result of `arrays` of the same catalogue and fields. Raises ValueError for one of other fields."""
        names = json.loads(arrays["items.names"].tobytes())
        if len(names) != 1 + len(self.fields):
            raise ValueError(f"the saved state has values of {len(names) - 1} item fields, expected {self.fields}")
        for ids, added in zip((self.ids, *self.values), names, strict=True):
            for name in added:
                ids.add(name)
        self.codes, self.bounds = np.array(arrays["codes"]), np.array(arrays["code_bounds"])
        self.valid_from = np.array(arrays["items.valid_from"])
        self.most_codes = self.bounds[:, :, 1] - self.bounds[:, :, 0]
        self._used, self._n_coded = len(self.codes), len(self.ids)

    def _append(self, codes: list[int]) -> tuple[int, int]:
        first, stop = self._used, self._used + len(codes)
        if stop > len(self.codes):
            self.codes = zero_padded(self.codes, stop + len(self.codes) // 8 + 64)
        self.codes[first:stop] = codes
        self._used = stop
        return first, stop
