"""Growable arrays take new rows without a copy of the old ones; ragged arrays hold rows of different lengths.

A ragged array is a flattened array of values with (n + 1,) offsets: row i is values[offsets[i] : offsets[i + 1]].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Offsets, Rows

Array = NDArray[Any]


class GrowableArrays(dict[str, tuple[Array, Array]]):
    """Arrays by name with spare capacity: appending to the latest array copies nothing and changes no older one."""

    def append(self, name: str, old: Array, new: Array, force_copy: bool = False) -> Array:
        """Append new rows; force_copy: into a new copy, so that the caller may write to any row."""
        latest, buffer = self.get(name, (None, old))
        total = len(old) + len(new)
        if force_copy or latest is not old or total > len(buffer):
            buffer = np.zeros((total + total // 8 + 1_024, *old.shape[1:]), old.dtype)
            buffer[: len(old)] = old
        buffer[len(old) : total] = new
        self[name] = buffer[:total], buffer
        return self[name][0]

    def put_rows(self, name: str, old: Array, rows: Rows, values: Array) -> Array:
        """Put values into these rows, existing or new."""
        exists = rows < len(old)
        extended = self.append(name, old, values[~exists], bool(exists.any()))
        extended[rows[exists]] = values[exists]
        return extended

    def put_ragged(
        self, name: str, old: Array, offsets: Offsets, rows: Rows, values: Array, value_offsets: Offsets
    ) -> Array:
        """Put ragged rows, given as flattened values with offsets, into these rows."""
        if rows.min() < len(offsets) - 1:
            return splice_ragged(old, offsets, rows, values, value_offsets)
        return self.append(name, old, values)


def splice_ragged(old: Array, offsets: Offsets, rows: Rows, values: Array, value_offsets: Offsets) -> Array:
    """Replace ragged rows in a flattened array; rows past the end are appended."""
    old_rows, copied_until, pieces = len(offsets) - 1, 0, []
    for index in np.argsort(rows).tolist():
        pieces += [
            old[copied_until : offsets[min(rows[index], old_rows)]],
            values[value_offsets[index] : value_offsets[index + 1]],
        ]
        copied_until = int(offsets[min(rows[index] + 1, old_rows)])
    return np.concatenate([*pieces, old[copied_until:]]).astype(old.dtype)


def spliced_offsets(offsets: Offsets, rows: Rows, value_offsets: Offsets) -> Offsets:
    """Return the offsets of the result of `splice_ragged`."""
    sizes = np.pad(np.diff(offsets), (0, max(int(rows.max(initial=0)) + 2 - len(offsets), 0)))
    sizes[rows] = np.diff(value_offsets)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
