"""The arrays of a behavioural state by name, to save and to restore them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.types import Offsets
from feedrank.features import history_store
from feedrank.features.counter_table import CounterTable
from feedrank.features.history_store import HistoryStore
from feedrank.features.kernel import COUNTER_KINDS, StateArrays

SECONDS_PER_HOUR = 3_600.0

_FIXED_SHAPE = (
    "decay_rates", "counts", "dislikes", "category_codes", "category_offsets", "first_at", "last_at",
    "custom_counters.codes", "custom_counters.bounds",
)  # fmt: skip


def capacity_of(n: int) -> int:
    """Return the number of rows that arrays of n items, or of n categories, have: an eighth more than they need."""
    return n + n // 8 + 64


def empty_arrays(catalogue: Catalogue, half_lives_h: Sequence[float], counters: CounterTable) -> StateArrays:
    """Return the arrays of a state without events, with spare rows for new items and categories.

    Entities are the rows for items, then those for categories, then the whole catalogue.
    """
    items, halves = capacity_of(len(catalogue)), np.array(half_lives_h)
    entities = items + capacity_of(len(catalogue.categories)) + 1
    return StateArrays(
        decay_rates=np.where(np.isinf(halves), 0.0, np.log(2) / (halves * SECONDS_PER_HOUR)),
        landmarks=np.full(len(halves), np.nan),
        counts=np.zeros((entities, len(COUNTER_KINDS), len(halves))),
        dislikes=np.zeros((items + 1, len(halves))),
        first_at=np.full(items, np.nan),
        last_at=np.full(items, np.nan),
        now=np.full(1, -np.inf),
        category_codes=catalogue.category_codes,
        category_offsets=padded_offsets(catalogue.category_offsets, items),
        histories=history_store.empty_store(),
        dislike_marks=history_store.empty_store(1),
        custom_counters=counters._replace(bounds=padded_offsets(counters.bounds, items)),
    )


def padded_offsets(offsets: Offsets, n: int) -> Offsets:
    """Return (..., n + 1) offsets in which the rows that (..., m + 1) ones do not have are empty."""
    more = np.repeat(offsets[..., -1:], n + 1 - offsets.shape[-1], axis=-1)
    return np.concatenate([offsets, more], axis=-1)


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
