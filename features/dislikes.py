"""The dislikes of users: an item is disliked from a dislike on until the next interaction of its user with it.

Each user has one list in a history store. A dislike is the entry 2 x row + 1, and its end the entry 2 x row, so the
latest entry of an item decides. The store is encoded for twice as many items as there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feedrank.engine.types import Rows, Times
from feedrank.features import history_store
from feedrank.features.history_store import HistoryStore
from feedrank.features.jit import jit

MAX_MARKS, MAX_RECENT_DISLIKES = 1_000, 20
"""How many of a user's latest entries a read searches for dislikes, and how many dislikes it returns."""


@jit
def add(store: HistoryStore, user: int, row: int, at: float, n_items: int) -> None:
    """Append a dislike. The caller reserves room for one more block."""
    history_store.append(store, user, 0, 2 * row + 1, at, 2 * n_items)


@jit
def end(store: HistoryStore, user: int, row: int, at: float, n_items: int, marks: Rows, times: Times) -> None:
    """End the dislike of an item, if there is one. marks, times: buffers. The caller reserves room for a block."""
    count = history_store.read(store, user, 0, 2 * n_items, marks, times)
    for entry in range(count):
        if marks[entry] >> 1 == row:
            if marks[entry] & 1:
                history_store.append(store, user, 0, 2 * row, at, 2 * n_items)
            return
    if count < store.lengths[user, 0]:  # an older entry may be a dislike
        history_store.append(store, user, 0, 2 * row, at, 2 * n_items)


@jit
def select_recent(marks: Rows, times: Times, rows: Rows, rows_at: Times) -> None:
    """Select the items that the latest entries of a user say are disliked, latest first, as many as fit into `rows`."""
    found = 0
    for entry in range(len(marks)):
        if found == len(rows):
            return
        row, is_latest = marks[entry] >> 1, marks[entry] & 1 == 1
        for later in range(entry):
            is_latest &= marks[later] >> 1 != row
        if is_latest:
            rows[found], rows_at[found] = row, times[entry]
            found += 1


def all_of(store: HistoryStore, users: Sequence[int], lengths: Sequence[int], n_items: int) -> Rows:
    """Return the items that these users dislike as if they were one, latest first; lengths: of their lists."""
    marks, first = np.empty(sum(lengths), np.int32), 0
    for user, length in zip(users, lengths, strict=True):
        if length:
            read_marks(store, user, n_items, marks[first : first + length], np.empty(length))
        first += length
    _, latest = np.unique(marks >> 1, return_index=True)  # the first mark of an item is its latest
    latest_marks = marks[np.sort(latest)]
    disliked: Rows = latest_marks[latest_marks & 1 == 1] >> 1
    return disliked


@jit
def read_marks(store: HistoryStore, user: int, n_items: int, marks: Rows, times: Times) -> None:
    """Read the entries of a user, latest first, as many as fit."""
    history_store.read(store, user, 0, 2 * n_items, marks, times)
