"""The latest interactions of each user or session, as rings of items with their times, and what they share with items.

Unlike counts by the values of a field, they are compared by the values that the items have at the time of the request.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_table import ValueColumns
from feedrank.features.declared.keyed_counters import find, key_of, rehash
from feedrank.features.jit import jit, zero_padded

BYTES_PER_OWNER, BYTES_PER_INTERACTION = 38, 12
"""Memory of a user or session, and of each of the latest interactions that are kept of it, in bytes."""


class RecentInteractions(NamedTuple):
    """Arrays of the table: C counters of up to L windows, S slots of users or sessions, P interactions."""

    sizes: NDArray[np.int64]
    """(C,) number of interactions that are kept; 0: the counter is none of the latest ones."""
    columns: NDArray[np.int64]
    """(C,) column of the items' values that are compared."""
    spans_s: NDArray[np.float64]
    """(C, L) length of each window in seconds; -1 where a counter has fewer windows."""
    hash_index: NDArray[np.int32]
    """(power of two,) slot + 1 of a user or session; 0: empty."""
    keys: NDArray[np.int64]
    """(S,) hash of the counter with the user or session."""
    owners: NDArray[np.int32]
    """(S,) row of the user; UNKNOWN_ROW: none."""
    lengths: NDArray[np.int64]
    """(S,) number of interactions so far; those beyond the size have replaced the oldest."""
    starts: NDArray[np.int64]
    """(S,) first place of each slot in `rows` and `times`."""
    rows: NDArray[np.int32]
    """(P,) item rows."""
    times: NDArray[np.float64]
    """(P,) unix seconds."""
    used: NDArray[np.int64]
    """(2,) slots and places in use."""


def empty_recent(
    sizes: NDArray[np.int64], columns: NDArray[np.int64], spans_s: NDArray[np.float64]
) -> RecentInteractions:
    """Return a table without interactions; the arrays are those of `RecentInteractions`."""
    return RecentInteractions(
        sizes, columns, spans_s, np.zeros(2, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32),
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(2, np.int64),
    )  # fmt: skip


def reserve(table: RecentInteractions, n_keys: int) -> RecentInteractions:
    """Return a table with room for `n_keys` more slots; arrays grow by a quarter at least, and only if needed."""
    if not table.sizes.any():
        return table
    needed, places = int(table.used[0]) + n_keys, int(table.used[1]) + n_keys * int(table.sizes.max())
    if needed > len(table.keys):
        size = max(needed, len(table.keys) + len(table.keys) // 4 + 64)
        grown = {name: zero_padded(getattr(table, name), size) for name in ("keys", "owners", "lengths", "starts")}
        table = table._replace(**grown)
    if places > len(table.rows):
        size = max(places, len(table.rows) + len(table.rows) // 4)
        table = table._replace(rows=zero_padded(table.rows, size), times=zero_padded(table.times, size))
    if 2 * len(table.keys) > len(table.hash_index):
        hash_index = np.zeros(1 << (2 * len(table.keys) - 1).bit_length(), np.int32)
        rehash(table.keys, int(table.used[0]), hash_index)
        table = table._replace(hash_index=hash_index)
    return table


def clear_user(table: RecentInteractions, user: int) -> None:
    """Forget the interactions of a user."""
    used = int(table.used[0])
    table.lengths[:used][table.owners[:used] == user] = 0


@jit
def has_room(table: RecentInteractions, n_keys: int, n_places: int) -> bool:
    """Return whether there is room for more slots, which have this many places together."""
    return bool(table.used[0] + n_keys <= len(table.keys) and table.used[1] + n_places <= len(table.rows))


@jit
def add(table: RecentInteractions, c: int, who: int, owner: int, row: int, at: float) -> None:
    """Remember an interaction of a user or session, by its hash; the caller reserves room for it."""
    key = key_of(c, who, 0)
    position = find(table.hash_index, table.keys, key)
    if table.hash_index[position] == 0:
        slot = table.used[0]
        table.keys[slot], table.owners[slot], table.starts[slot] = key, owner, table.used[1]
        table.used[0] += 1
        table.used[1] += table.sizes[c]
        table.hash_index[position] = table.used[0]
    slot = table.hash_index[position] - 1
    place = table.starts[slot] + table.lengths[slot] % table.sizes[c]
    table.rows[place], table.times[place] = row, at
    table.lengths[slot] += 1


@jit
def slot_of(table: RecentInteractions, c: int, who: int) -> int:
    """Return the slot of a user or session, by its hash; -1 without interactions."""
    return int(table.hash_index[find(table.hash_index, table.keys, key_of(c, who, 0))]) - 1


@jit
def count_all(table: RecentInteractions, c: int, slot: int, at: float, out: NDArray[np.float64]) -> None:
    """Add the number of interactions in each window before `at` to the numerators of `out`, (L, 2)."""
    for i in range(min(table.lengths[slot], table.sizes[c])):
        age = at - table.times[table.starts[slot] + i]
        for window in range(table.spans_s.shape[1]):
            out[window, 0] += age <= table.spans_s[c, window]


@jit
def count_shared(
    table: RecentInteractions, c: int, slot: int, at: float, row: int, items: ValueColumns,
    pool: NDArray[np.int64], out: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add how many values an item shares with the items of these interactions to the numerators of `out`, (L, 2).

    A value that several of the items have counts for each.
    """
    column = table.columns[c]
    first, stop = items.starts[column, row], items.stops[column, row]
    if first == stop:
        return
    for i in range(min(table.lengths[slot], table.sizes[c])):
        place = table.starts[slot] + i
        other, age = table.rows[place], at - table.times[place]
        shared = 0
        for n in range(items.starts[column, other], items.stops[column, other]):
            for own in range(first, stop):
                shared += pool[n] == pool[own]
        if shared:
            for window in range(table.spans_s.shape[1]):
                if age <= table.spans_s[c, window]:
                    out[window, 0] += shared
