"""String ids at the edge, int rows inside: translated here, once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.types import NOBODY, Rows

_UTF8 = ("utf-8", "surrogatepass")


class Ids:
    """A growing two-way table of string ids and the rows they were given, in order of arrival.

    The ids stand one after the other in one run of bytes, found again by an open-addressing hash table: an id costs its
    bytes and some 16 more, where a dict of strings would take 200.
    """

    __slots__ = ("_bounds", "_mask", "_table", "_text")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text = bytearray()
        self._bounds = array("q", [0])
        self._mask = 7
        self._table = array("i", bytes(4 * 8))
        for name in names:
            self.add(name)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[str]:
        return (self.name(row) for row in range(len(self)))

    def __contains__(self, name: str) -> bool:
        return self._find(name.encode(*_UTF8))[0] >= 0

    def add(self, name: str) -> int:
        """The row of `name`, given now if it had none."""
        key = name.encode(*_UTF8)
        row, place = self._find(key)
        if row >= 0:
            return row
        row = len(self)
        self._text += key
        self._bounds.append(len(self._text))
        self._table[place] = row + 1
        if 3 * len(self) > 2 * self._mask:
            self._widen()
        return row

    def row(self, name: str | None) -> int:
        """The row of `name`, NOBODY if it has none."""
        return NOBODY if name is None else self._find(name.encode(*_UTF8))[0]

    def rows(self, names: Sequence[str]) -> Rows:
        """(len(names),) rows, NOBODY for unknown names."""
        return np.fromiter((self._find(name.encode(*_UTF8))[0] for name in names), np.int32, len(names))

    def name(self, row: int) -> str:
        """The id at `row`."""
        if not 0 <= row < len(self):
            raise IndexError(f"no id at row {row}; there are {len(self)}")
        return self._text[self._bounds[row] : self._bounds[row + 1]].decode(*_UTF8)

    def names(self, rows: Rows) -> list[str]:
        """The ids at `rows`."""
        return [self.name(row) for row in rows.tolist()]

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The bytes of all ids and the (len + 1,) bounds of each: what `of` takes."""
        return np.frombuffer(bytes(self._text), np.uint8), np.array(self._bounds, np.int64)

    @classmethod
    def of(cls, text: NDArray[np.uint8], bounds: NDArray[np.int64]) -> Ids:
        """The ids that `arrays` gave."""
        ids = cls()
        ids._text = bytearray(text.tobytes())
        ids._bounds = array("q", bounds.astype(np.int64).tobytes())
        while 3 * len(ids) > 2 * ids._mask:
            ids._mask = 2 * ids._mask + 1
        ids._fill()
        return ids

    def _find(self, key: bytes) -> tuple[int, int]:
        """The row of a key, or NOBODY, and the place in the table where it is or would be."""
        table, bounds, mask = self._table, self._bounds, self._mask
        place = hash(key) & mask
        while row := table[place]:
            if self._text[bounds[row - 1] : bounds[row]] == key:
                return row - 1, place
            place = (place + 1) & mask
        return NOBODY, place

    def _widen(self) -> None:
        self._mask = 2 * self._mask + 1
        self._fill()

    def _fill(self) -> None:
        self._table = table = array("i", bytes(4 * (self._mask + 1)))
        for row in range(len(self)):
            place = hash(bytes(self._text[self._bounds[row] : self._bounds[row + 1]])) & self._mask
            while table[place]:
                place = (place + 1) & self._mask
            table[place] = row + 1
