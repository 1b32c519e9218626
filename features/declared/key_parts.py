"""The values that the parts of counters' keys have for one event or request.

Values of the user, the session and the request are the same for all items of it, so they are looked up once; those of
items are read item by item. The functions that run for each item take single arrays: passing a table of many arrays to
a compiled function costs more than the work here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.features.declared.field_arrays import FieldArrays, FieldInputs
from feedrank.features.declared.keyed_counters import (
    ITEM_ROW,
    ITEM_VALUES,
    NO_PART,
    REQUEST_VALUES,
    SESSION_ID,
    USER_ROW,
    USER_VALUES,
)
from feedrank.features.jit import jit

MAX_KEY_VALUES, MAX_REQUEST_VALUES = 16, 4
"""Values of a list that make keys of counters, and of a list of a request; further ones are left out."""


@jit
def read_fixed_parts(
    state: FieldArrays, inputs: FieldInputs, m: int, user: int, slot: int, hashes: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:  # fmt: skip
    """Write the hashes of the parts that all items of operation m share to `hashes`, (C, 2, MAX_KEY_VALUES).

    sizes: (C, 2) gets their numbers. slot: of a ranking whose request stands in for values that the own one lacks; -1:
    none.
    """
    parts, request = state.counters.parts, inputs.request[m]
    for c in range(len(parts)):
        for p in range(2):
            kind, column = parts[c, p, 0], parts[c, p, 1]
            sizes[c, p] = 0
            if kind == NO_PART:
                hashes[c, p, 0], sizes[c, p] = 0, 1
            elif kind == USER_ROW and user >= 0:
                hashes[c, p, 0], sizes[c, p] = user + 1, 1
            elif kind == SESSION_ID and inputs.session[m] != 0:
                hashes[c, p, 0], sizes[c, p] = inputs.session[m], 1
            elif kind == USER_VALUES and 0 <= user < state.users.starts.shape[1]:
                start, stop = state.users.starts[column, user], state.users.stops[column, user]
                sizes[c, p] = min(stop - start, MAX_KEY_VALUES)
                hashes[c, p, : sizes[c, p]] = state.pool[start : start + sizes[c, p]]
            elif kind == REQUEST_VALUES:
                start, stop = 0, 0
                if request >= 0:
                    start, stop = inputs.requests.starts[column, request], inputs.requests.stops[column, request]
                if start < stop:
                    sizes[c, p] = min(stop - start, MAX_REQUEST_VALUES)
                    hashes[c, p, : sizes[c, p]] = inputs.pool[start : start + sizes[c, p]]
                elif slot >= 0:
                    start = (slot * state.rankings.sizes.shape[1] + column) * MAX_REQUEST_VALUES
                    sizes[c, p] = state.rankings.sizes[slot, column]
                    hashes[c, p, : sizes[c, p]] = state.rankings.values[start : start + sizes[c, p]]


@jit
def n_values(
    parts: NDArray[np.int64], c: int, p: int, row: int, starts: NDArray[np.int64], stops: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> int:  # fmt: skip
    """Return how many values part p of counter c has for an item. starts, stops: of the items' values."""
    if parts[c, p, 0] == ITEM_ROW:
        return 1
    if parts[c, p, 0] == ITEM_VALUES:
        column = parts[c, p, 1]
        return int(min(stops[column, row] - starts[column, row], MAX_KEY_VALUES))
    return int(sizes[c, p])


@jit
def value_of(
    parts: NDArray[np.int64], c: int, p: int, row: int, index: int, starts: NDArray[np.int64],
    pool: NDArray[np.int64], hashes: NDArray[np.int64],
) -> int:  # fmt: skip
    """Return the hash of one value of part p of counter c for an item. pool: of the items' values."""
    if parts[c, p, 0] == ITEM_ROW:
        return row + 1
    if parts[c, p, 0] == ITEM_VALUES:
        return int(pool[starts[parts[c, p, 1], row] + index])
    return int(hashes[c, p, index])
