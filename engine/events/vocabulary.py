"""Maps string ids to int rows and back. Ids are used at the API boundary, rows inside."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import UNKNOWN_ROW, Rows

_UTF8 = ("utf-8", "surrogatepass")
_SESSION = "session\x1f"
"""What the name of a session begins with, in a vocabulary of visitors: users, and sessions that name no user."""


class Vocabulary:
    """A growing two-way map of string ids (or other names) and rows, which are given in order of insertion.

    All names are stored in one byte array and looked up through an open-addressing hash table. A name takes its bytes
    and about 16 more; in a dict of strings it would take 200.
    """

    __slots__ = ("_bounds", "_checksums", "_mask", "_table", "_text")

    def __init__(self, names: Iterable[str] = ()) -> None:
        keys = [name.encode(*_UTF8) for name in dict.fromkeys(names)]
        self._text = bytearray().join(keys)
        self._bounds = array("q", accumulate(map(len, keys), initial=0))
        self._checksums = bytearray()
        self._mask = 7
        self._make_room()

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[str]:
        return (self.name(row) for row in range(len(self)))

    def __contains__(self, name: str) -> bool:
        return self._lookup(name.encode(*_UTF8))[0] >= 0

    def add(self, name: str) -> int:
        """Return the row of `name`; add the name if it is new."""
        key = name.encode(*_UTF8)
        row, slot = self._lookup(key)
        if row >= 0:
            return row
        row = len(self)
        self._text += key
        self._bounds.append(len(self._text))
        self._table[slot] = row + 1
        if 3 * len(self) > 2 * self._mask:
            self._make_room()
        return row

    def row(self, name: str | None) -> int:
        """Return the row of `name`; UNKNOWN_ROW if it has none."""
        return UNKNOWN_ROW if name is None else self._lookup(name.encode(*_UTF8))[0]

    def rows(self, names: Sequence[str]) -> Rows:
        """Return the rows (len(names),) of names; UNKNOWN_ROW for unknown ones."""
        return np.fromiter((self._lookup(name.encode(*_UTF8))[0] for name in names), np.int32, len(names))

    def name(self, row: int) -> str:
        """Return the name at `row`. Raises IndexError."""
        if not 0 <= row < len(self):
            raise IndexError(f"found row {row}, expected one of {len(self)} rows")
        return self._text[self._bounds[row] : self._bounds[row + 1]].decode(*_UTF8)

    def names(self, rows: Rows) -> list[str]:
        """Return the names at `rows`. Raises IndexError."""
        return [self.name(row) for row in rows.tolist()]

    def rows_with_checksum(self, checksum: int) -> Rows:
        """Return the rows of the names whose bytes have this sum, modulo 256."""
        if (known := len(self._checksums)) < len(self):  # only those of new names, as each of many erasures looks here
            bounds = np.array(self._bounds[known:], np.int64)
            text, bounds = np.frombuffer(bytes(self._text[bounds[0] :]), np.uint8), bounds - bounds[0]
            sums = np.concatenate([np.zeros(1, np.uint8), np.cumsum(text, dtype=np.uint8)])
            self._checksums += (sums[bounds[1:]] - sums[bounds[:-1]]).tobytes()
        return np.flatnonzero(np.frombuffer(bytes(self._checksums), np.uint8) == checksum).astype(np.int32)

    def to_arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the bytes of all names and their (len + 1,) offsets, as `from_arrays` takes them."""
        return np.frombuffer(bytes(self._text), np.uint8), np.array(self._bounds, np.int64)

    @classmethod
    def from_arrays(cls, text: NDArray[np.uint8], bounds: NDArray[np.int64]) -> Vocabulary:
        """Restore a vocabulary from the result of `to_arrays`."""
        ids = cls()
        ids._text = bytearray(text.tobytes())
        ids._bounds = array("q", bounds.astype(np.int64).tobytes())
        ids._make_room()
        return ids

    def _lookup(self, key: bytes) -> tuple[int, int]:
        """Return the row of a key, or UNKNOWN_ROW, and its slot in the hash table."""
        table, bounds, mask = self._table, self._bounds, self._mask
        slot = hash(key) & mask
        while row := table[slot]:
            if self._text[bounds[row - 1] : bounds[row]] == key:
                return row - 1, slot
            slot = (slot + 1) & mask
        return UNKNOWN_ROW, slot

    def _make_room(self) -> None:
        """Make the hash table again, large enough for all names."""
        while 3 * len(self) > 2 * self._mask:
            self._mask = 2 * self._mask + 1
        self._table = table = array("i", bytes(4 * (self._mask + 1)))
        for row in range(len(self)):
            slot = hash(bytes(self._text[self._bounds[row] : self._bounds[row + 1]])) & self._mask
            while table[slot]:
                slot = (slot + 1) & self._mask
            table[slot] = row + 1


def visitor_name(user: str | None, session: str | None) -> str | None:
    """Return the name of a visitor: the user, else the session; None if an event names neither."""
    if user is not None or session is None:
        return user
    return f"{_SESSION}{session}"


def session_of(name: str) -> str | None:
    """Return the session that a visitor's name stands for; None for a user."""
    return name[len(_SESSION) :] if name.startswith(_SESSION) else None


def joined_session(visitors: Vocabulary, user: str | None, session: str | None) -> int:
    """Return the row of the visitor that turns out to be the user, as an event names both; UNKNOWN_ROW if none does."""
    if user is None or session is None:
        return UNKNOWN_ROW
    return visitors.row(f"{_SESSION}{session}")
