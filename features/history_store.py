"""The history store keeps each user's interactions and impressions in linked lists of small byte blocks.

An entry is one variable-length integer (7-bit digits): the item's row and the whole seconds since the entry before. So
a user's memory is proportional to their history. Blocks come from one pool. Lists are read from their end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows, Times
from feedrank.features.jit import jit, zero_padded

MAX_SPARE = 1 << 20
"""Maximum spare users or blocks."""
BLOCK_BYTES = 28
"""Bytes in a block; 32 with the 4-byte link to the block before it."""
INTERACTIONS, IMPRESSIONS = 0, 1
"""Indices of a user's two lists."""


class HistoryStore(NamedTuple):
    """Arrays of the store: U users with L lists each, B blocks; zero means empty."""

    heads: NDArray[np.int32]
    """(U, L) number of the last block, counted from 1."""
    fills: NDArray[np.uint8]
    """(U, L) bytes in use in the last block."""
    lengths: NDArray[np.int32]
    """(U, L) number of entries."""
    latest: NDArray[np.int64]
    """(U, L) unix seconds of the last entry."""
    previous: NDArray[np.int32]
    """(B,) number of the block before, counted from 1."""
    pool: NDArray[np.uint8]
    """(B, BLOCK_BYTES) encoded entries."""
    used: NDArray[np.int64]
    """(1,) blocks in use."""


def empty_store(lists: int = 2) -> HistoryStore:
    """Create a store without users and blocks. lists: number of lists of a user."""
    return HistoryStore(
        heads=np.zeros((0, lists), np.int32),
        fills=np.zeros((0, lists), np.uint8),
        lengths=np.zeros((0, lists), np.int32),
        latest=np.zeros((0, lists), np.int64),
        previous=np.zeros(0, np.int32),
        pool=np.zeros((0, BLOCK_BYTES), np.uint8),
        used=np.zeros(1, np.int64),
    )


@jit
def append(store: HistoryStore, user: int, list_index: int, row: int, at: float, n_items: int) -> None:
    """Append an entry to a user's list. The caller reserves room for one more block."""
    second = np.int64(np.floor(at))
    elapsed = second - store.latest[user, list_index]
    entry = abs(elapsed) * n_items + row
    size = 1
    while entry >> (7 * size) > 0:
        size += 1
    if elapsed < 0:
        size += 1  # a leading zero digit, which no other entry has, marks a negative time step
    fill = np.int64(store.fills[user, list_index])
    if store.heads[user, list_index] == 0:
        fill = np.int64(BLOCK_BYTES)
    for digit in range(size - 1, -1, -1):
        if fill == BLOCK_BYTES:
            store.previous[store.used[0]] = store.heads[user, list_index]
            store.used[0] += 1
            store.heads[user, list_index] = store.used[0]
            fill = np.int64(0)
        part = (entry >> (7 * digit)) & 127
        # entries are read backwards: a high bit means that more digits follow
        store.pool[store.heads[user, list_index] - 1, fill] = part if digit == size - 1 else part | 128
        fill += 1
    store.fills[user, list_index] = fill
    store.lengths[user, list_index] += 1
    store.latest[user, list_index] = second


def clear(store: HistoryStore, user: int) -> None:
    """Erase a user's lists and overwrite their blocks with zeros. The blocks are not reused."""
    for list_index in range(store.heads.shape[1]):
        block = int(store.heads[user, list_index])
        while block:
            store.pool[block - 1] = 0
            block, store.previous[block - 1] = int(store.previous[block - 1]), 0
        for column in (store.heads, store.fills, store.lengths, store.latest):
            column[user, list_index] = 0


def with_users(store: HistoryStore, n_users: int) -> HistoryStore:
    """Return the store with room for at least `n_users` users; its arrays double, but grow by at most `MAX_SPARE`."""
    size = max(n_users, len(store.heads) + min(len(store.heads), MAX_SPARE))
    names = ("heads", "fills", "lengths", "latest")
    return store._replace(**{name: zero_padded(getattr(store, name), size) for name in names})


def with_room(store: HistoryStore, n_blocks: int) -> HistoryStore:
    """Return the store with room for `n_blocks` more blocks; its arrays double, but grow by at most `MAX_SPARE`."""
    needed = int(store.used[0]) + n_blocks
    if needed <= len(store.previous):
        return store
    size = max(needed, len(store.previous) + min(len(store.previous), MAX_SPARE))
    return store._replace(previous=zero_padded(store.previous, size), pool=zero_padded(store.pool, size))


@jit
def read(store: HistoryStore, user: int, list_index: int, n_items: int, rows: Rows, times: Times) -> int:
    """Read the latest entries into `rows` and `times`, latest first, as many as fit; returns their number."""
    count = min(int(store.lengths[user, list_index]), len(rows))
    block = store.heads[user, list_index] - 1
    position = np.int64(store.fills[user, list_index]) - 1
    at = store.latest[user, list_index]
    for out in range(count):
        entry, shift, more, part = np.int64(0), 0, True, np.int64(0)
        while more:
            if position < 0:
                block = store.previous[block] - 1
                position = np.int64(BLOCK_BYTES - 1)
            part = np.int64(store.pool[block, position])
            entry |= (part & 127) << shift
            more = bool(part > 127)
            shift += 7
            position -= 1
        rows[out] = entry % n_items
        times[out] = at
        time_went_back = part == 0 and shift > 7
        at += entry // n_items if time_went_back else -(entry // n_items)
    return count


@jit
def read_both(
    store: HistoryStore, user: int, session: int, list_index: int, n_items: int, rows: Rows, times: Times
) -> int:
    """Read as `read` does, as if the entries of a session had been moved behind those of the user; -1: none."""
    count = 0
    if session >= 0:
        count = read(store, session, list_index, n_items, rows, times)
    if user >= 0:
        count += read(store, user, list_index, n_items, rows[count:], times[count:])
    return count


@jit
def move(store: HistoryStore, source: int, target: int, n_items: int) -> None:
    """Move all entries of a user behind those of another one. The caller reserves a block for each entry."""
    for list_index in range(store.lengths.shape[1]):
        length = int(store.lengths[source, list_index])
        if not length:
            continue
        rows, times = np.empty(length, np.int32), np.empty(length)
        read(store, source, list_index, n_items, rows, times)
        for entry in range(length - 1, -1, -1):
            append(store, target, list_index, rows[entry], times[entry], n_items)
        block = np.int64(store.heads[source, list_index])
        while block:
            store.pool[block - 1] = 0
            before = np.int64(store.previous[block - 1])
            store.previous[block - 1] = 0
            block = before
        store.heads[source, list_index] = 0
        store.fills[source, list_index] = 0
        store.lengths[source, list_index] = 0
        store.latest[source, list_index] = 0
