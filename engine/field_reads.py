"""What a batch knows of declared fields: the values as of each request, and the counts by them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FieldReads(NamedTuple):
    """Values and counts of R requests with N candidate rows and H items of history.

    The columns are those of the feature list's forms. Values are hashes, given by their bounds in a pool.
    """

    item_numbers: NDArray[np.float64]
    """(N, item numbers)"""
    item_bounds: NDArray[np.int64]
    """(N, item values, 2) bounds in `state_pool`."""
    user_numbers: NDArray[np.float64]
    """(R, user numbers)"""
    user_bounds: NDArray[np.int64]
    """(R, user values, 2) bounds in `state_pool`."""
    history_numbers: NDArray[np.float64]
    """(R, H, item numbers) of the user's latest items."""
    counts: NDArray[np.float64]
    """(N, C, L, 2) numerators and denominators of the keyed counters."""
    totals: NDArray[np.float64]
    """(R, C, L, 2) the same over all keys."""
    request_numbers: NDArray[np.float64]
    """(R, request numbers)"""
    request_bounds: NDArray[np.int64]
    """(R, request values, 2) bounds in `request_pool`."""
    list_numbers: NDArray[np.float64]
    """(N, list numbers) of what the list brought for its items."""
    list_bounds: NDArray[np.int64]
    """(N, list values, 2) bounds in `request_pool`."""
    state_pool: NDArray[np.int64]
    request_pool: NDArray[np.int64]
