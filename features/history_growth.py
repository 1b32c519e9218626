"""Encodes histories again when the state gets room for more items: an entry is (seconds x number of rows + row)."""

from __future__ import annotations

import numpy as np

from feedrank.engine.types import Rows, Times
from feedrank.features import history_store
from feedrank.features.history_store import BLOCK_BYTES, HistoryStore
from feedrank.features.jit import jit


def reencoded(store: HistoryStore, n_items: int, new_n_items: int) -> HistoryStore:
    """Return a store with the same entries, encoded for more items."""
    used, n_users = int(store.used[0]), len(store.lengths)
    if not used:
        return store
    digits = 1  # upper bound of additional digits per entry
    while n_items << (7 * digits) < new_n_items:
        digits += 1
    room = used + int(store.lengths.sum(dtype=np.int64)) * digits // BLOCK_BYTES + store.heads.shape[1] * n_users + 1
    new = HistoryStore(
        heads=np.zeros_like(store.heads),
        fills=np.zeros_like(store.fills),
        lengths=np.zeros_like(store.lengths),
        latest=np.zeros_like(store.latest),
        previous=np.zeros(room, np.int32),
        pool=np.zeros((room, BLOCK_BYTES), np.uint8),
        used=np.zeros(1, np.int64),
    )
    longest = int(store.lengths.max())
    _reencode(store, new, n_items, new_n_items, np.empty(longest, np.int32), np.empty(longest))
    n_blocks = int(new.used[0])
    return new._replace(previous=new.previous[:n_blocks], pool=new.pool[:n_blocks])


def warm_up() -> None:
    """Compile what the first item beyond the spare rows would wait for."""
    store = history_store.with_room(history_store.with_users(history_store.empty_store(), 1), 1)
    history_store.append(store, 0, history_store.INTERACTIONS, 0, 0.0, 1)
    reencoded(store, 1, 2)


@jit
def _reencode(
    store: HistoryStore, target: HistoryStore, n_items: int, new_n_items: int, rows: Rows, times: Times
) -> None:
    """Copy entries one by one, oldest first; rows, times: buffers as long as the longest list."""
    for user in range(len(store.lengths)):
        for list_index in range(store.lengths.shape[1]):
            count = history_store.read(store, user, list_index, n_items, rows[: store.lengths[user, list_index]], times)
            for entry in range(count - 1, -1, -1):
                history_store.append(target, user, list_index, rows[entry], times[entry], new_n_items)
