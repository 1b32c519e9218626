"""The arrays that the kernel of declared fields reads and writes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_table import FieldChanges, ValueColumns
from feedrank.engine.types import Times
from feedrank.features.declared.keyed_counters import KeyedCounters
from feedrank.features.declared.keyed_windows import KeyedWindows
from feedrank.features.declared.recent_interactions import RecentInteractions


class RankingRequests(NamedTuple):
    """The requests of the latest rankings, for the interactions with them."""

    of_slot: NDArray[np.int64]
    """(slots,) hash of the latest ranking of each slot, 0: none. The last bits of its hash are a ranking's slot."""
    values: NDArray[np.int64]
    """(slots x request values x MAX_REQUEST_VALUES,) hashes that the request had."""
    sizes: NDArray[np.int64]
    """(slots, request values) number of hashes of each."""
    of_user: NDArray[np.int64]
    """(users,) hash of each user's latest ranking; 0: none."""


class FieldArrays(NamedTuple):
    """The present values of items and users, and the counters by them."""

    items: ValueColumns
    users: ValueColumns
    item_valid_s: Times
    """(numbers + values, items) unix seconds from which each value holds; -inf: none was set."""
    user_valid_s: Times
    pool: NDArray[np.int64]
    """Hashes of the lists of both."""
    pool_used: NDArray[np.int64]
    """(1,)"""
    counters: KeyedCounters
    windows: KeyedWindows
    recent: RecentInteractions
    rankings: RankingRequests
    now: Times
    """(1,) unix seconds of the latest event; reads never go back before it."""


class FieldInputs(NamedTuple):
    """What the operations of a segment bring."""

    position: NDArray[np.int64]
    """(M,) how many rankings and interactions of the log stand before each operation."""
    request: NDArray[np.int64]
    """(M,) row of `requests` of each operation; -1: none."""
    requests: ValueColumns
    changes: FieldChanges
    pool: NDArray[np.int64]
    """Hashes of the changes and the requests."""
    ranking: NDArray[np.int64]
    """(M,) hash of the ranking of each operation: itself, or the one that an interaction names; 0: none."""
    session: NDArray[np.int64]
    """(M,) hash of the session of each operation; 0: none."""


class FieldBuffers(NamedTuple):
    """Output of R reads with N candidate rows, and H items of history each."""

    item_numbers: NDArray[np.float64]
    """(N, item numbers)"""
    item_bounds: NDArray[np.int64]
    """(N, item values, 2) bounds in the pool."""
    user_numbers: NDArray[np.float64]
    """(R, user numbers)"""
    user_bounds: NDArray[np.int64]
    history_numbers: NDArray[np.float64]
    """(R, H, item numbers) of the user's latest items."""
    counts: NDArray[np.float64]
    """(N, C, L, 2) numerators and denominators by key."""
    totals: NDArray[np.float64]
    """(R, C, L, 2) over all keys."""
