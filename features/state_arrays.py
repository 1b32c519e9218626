"""The arrays of a behavioural state by name, to save and to restore them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.features.counter_table import CounterTable
from feedrank.features.history_store import HistoryStore
from feedrank.features.kernel import StateArrays

_FIXED_SHAPE = (
    "decay_rates", "counts", "dislikes", "category_codes", "category_offsets", "first_at", "last_at",
    "custom_counters.codes", "custom_counters.bounds",
)  # fmt: skip


def named_arrays(state: StateArrays) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and the array of each part; a part of a store has the store's name in front."""
    for name, value in state._asdict().items():
        if isinstance(value, HistoryStore | CounterTable):
            yield from ((f"{name}.{part}", array) for part, array in value._asdict().items())
        else:
            yield name, value


def with_arrays(state: StateArrays, arrays: Mapping[str, NDArray[Any]]) -> StateArrays:
    """Return a state with copies of saved arrays. Raises ValueError if they are not of the same catalogue and spec."""
    for name, array in named_arrays(state):
        saved = arrays.get(name)
        if saved is None or saved.dtype != array.dtype or saved.shape[1:] != array.shape[1:]:
            raise ValueError(f"the saved state has no {name} as expected; it is of another version or another spec")
        if name in _FIXED_SHAPE and saved.shape != array.shape:
            raise ValueError(f"the saved {name} has the shape {saved.shape}, expected {array.shape}")
    parts = {name: np.array(arrays[name]) for name, _ in named_arrays(state)}
    return state._replace(
        **{name: array for name, array in parts.items() if "." not in name},
        histories=history_store_of(parts, "histories"),
        dislike_marks=history_store_of(parts, "dislike_marks"),
        custom_counters=CounterTable(*(parts[f"custom_counters.{name}"] for name in CounterTable._fields)),
    )


def history_store_of(arrays: Mapping[str, NDArray[Any]], name: str) -> HistoryStore:
    """Return the history store of this name from named arrays."""
    return HistoryStore(*(arrays[f"{name}.{part}"] for part in HistoryStore._fields))


def used_bytes(state: StateArrays) -> int:
    """Return the memory in use, in bytes, without spare capacity."""
    counters, keys = state.custom_counters, int(state.custom_counters.used[0])
    lengths = {id(counters.keys): keys, id(counters.sums): keys}
    for store in (state.histories, state.dislike_marks):
        lengths |= {id(store.previous): int(store.used[0]), id(store.pool): int(store.used[0])}
    return sum(array[: lengths.get(id(array))].nbytes for _, array in named_arrays(state))
