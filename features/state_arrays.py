"""The arrays of a behavioural state by name, to save and to restore them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.features import history_store
from feedrank.features.counter_table import CounterTable
from feedrank.features.history_growth import reencoded
from feedrank.features.history_store import HistoryStore
from feedrank.features.item_codes import ItemCodes
from feedrank.features.kernel import COUNTER_KINDS, StateArrays

SECONDS_PER_HOUR = 3_600.0

_FIXED_SHAPE = ("decay_rates", "counts", "dislikes", "code_bounds", "first_at", "last_at")


def capacity_of(n: int) -> int:
    """Return the number of rows that arrays of n items, or of n categories, have: an eighth more than they need."""
    return n + n // 8 + 64


def empty_arrays(items: ItemCodes, half_lives_h: Sequence[float], counters: CounterTable) -> StateArrays:
    """Return the arrays of a state without events, with spare rows for new items and categories.

    Entities are the rows for items, then those for categories, then the whole catalogue.
    """
    n_rows, halves = items.bounds.shape[1], np.array(half_lives_h)
    entities = n_rows + capacity_of(len(items.values[0])) + 1
    return StateArrays(
        decay_rates=np.where(np.isinf(halves), 0.0, np.log(2) / (halves * SECONDS_PER_HOUR)),
        landmarks=np.full(len(halves), np.nan),
        counts=np.zeros((entities, len(COUNTER_KINDS), len(halves))),
        dislikes=np.zeros((n_rows + 1, len(halves))),
        first_at=np.full(n_rows, np.nan),
        last_at=np.full(n_rows, np.nan),
        now=np.full(1, -np.inf),
        codes=items.codes,
        code_bounds=items.bounds,
        histories=history_store.empty_store(),
        dislike_marks=history_store.empty_store(1),
        custom_counters=counters,
    )


def with_items(state: StateArrays, items: ItemCodes) -> StateArrays:
    """Return arrays with the codes of these items and a row for each item and category; they and `items` grow."""
    n_rows, n_categories = len(state.first_at), len(items.values[0])
    if len(items.ids) > n_rows or n_categories >= len(state.counts) - n_rows:
        state = _with_room(state, len(items.ids), n_categories)
        items.grow(len(state.first_at))
    return state._replace(codes=items.codes, code_bounds=items.bounds)


def _with_room(state: StateArrays, n_items: int, n_categories: int) -> StateArrays:
    """Return larger arrays with the same content. Histories are encoded again, which takes a while.

    How many rows they get depends on how many they had at first, and not on how often they grew.
    """
    old_rows, old_categories = len(state.first_at), len(state.counts) - len(state.first_at) - 1
    n_rows, categories = _grown(old_rows, n_items), _grown(old_categories, n_categories)
    counts = np.zeros((n_rows + categories + 1, *state.counts.shape[1:]))
    counts[:old_rows] = state.counts[:old_rows]
    counts[n_rows : n_rows + old_categories] = state.counts[old_rows:-1]
    dislikes = np.zeros((n_rows + 1, state.dislikes.shape[1]))
    dislikes[:old_rows] = state.dislikes[:old_rows]
    counts[-1], dislikes[-1] = state.counts[-1], state.dislikes[-1]
    more = (0, n_rows - old_rows)
    histories, marks = state.histories, state.dislike_marks
    if n_rows > old_rows:
        histories = reencoded(histories, old_rows, n_rows)
        marks = reencoded(marks, 2 * old_rows, 2 * n_rows)  # a dislike is an entry of twice as many items
    return state._replace(
        counts=counts,
        dislikes=dislikes,
        first_at=np.pad(state.first_at, more, constant_values=np.nan),
        last_at=np.pad(state.last_at, more, constant_values=np.nan),
        histories=histories,
        dislike_marks=marks,
    )


def _grown(size: int, needed: int) -> int:
    while size < needed:
        size = capacity_of(size)
    return size


def named_arrays(state: StateArrays) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and the array of each part; a part of a store has the store's name in front."""
    for name, value in state._asdict().items():
        if isinstance(value, HistoryStore | CounterTable):
            yield from ((f"{name}.{part}", array) for part, array in value._asdict().items())
        else:
            yield name, value


def with_arrays(state: StateArrays, arrays: Mapping[str, NDArray[Any]]) -> StateArrays:
    """Return a state with copies of saved arrays. Raises ValueError if they do not fit."""
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
