"""The counter table holds the custom counters: decayed sums by key, such as (user, category), in one hash table.

A key is a counter, a user or none, and a code: an item row, or the code of a category or field value. Sums are stored
relative to a landmark time (forward decay), so counting needs no decay and a read one factor (Cormode et al., Forward
Decay: A Practical Time Decay Model for Streaming Systems, 2009).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Scores
from feedrank.features.jit import jit, zero_padded

MAX_EXPONENT = 140.0
"""Largest exponent x of e^x relative to a landmark; beyond it the landmark moves. A float64 overflows at 709."""
ITEM, NO_CODE = -1, -2
"""Code sources: the item row itself; no code."""
VALUES_PER_HALF_LIFE = 4
"""Values read per half-life: numerator and denominator of the key, then both summed over all keys."""
_USER_SHIFT, _COUNTER_SHIFT = 27, 58
"""Bit positions of the user and of the counter in a key."""


class CounterTable(NamedTuple):
    """Arrays of the table: D counters of up to L half-lives each, S key slots."""

    numerator: NDArray[np.int64]
    """(D,) type masks of the counted events."""
    denominator: NDArray[np.int64]
    """(D,) type masks of the events in the denominator."""
    per_user: NDArray[np.bool_]
    """(D,) whether keys contain the user."""
    code_source: NDArray[np.int64]
    """(D,) where codes come from: a counted field of the state, ITEM or NO_CODE."""
    decay_rates: NDArray[np.float64]
    """(D, L) decay per second; -1 if a counter has fewer half-lives."""
    landmarks: NDArray[np.float64]
    """(D, L) landmark times, unix seconds; NaN before the first event."""
    totals: NDArray[np.float64]
    """(D, L, 2) numerator and denominator over all keys, decayed to the landmarks."""
    hash_index: NDArray[np.int32]
    """(power of two,) slot + 1 of a key; 0: empty."""
    keys: NDArray[np.int64]
    """(S,) key of each slot."""
    sums: NDArray[np.float64]
    """(S, L, 2) numerator and denominator, decayed to the landmarks."""
    used: NDArray[np.int64]
    """(1,) slots in use."""


@jit
def count(
    table: CounterTable, codes: NDArray[np.int32], bounds: NDArray[np.int32], row: int, user: int, type_bits: int,
    at: float,
) -> None:  # fmt: skip
    """Count one event of an item and a user. The caller reserves room for its keys.

    codes, bounds: those of the state's items (`StateArrays`).
    """
    for d in range(len(table.numerator)):
        in_numerator, in_denominator = type_bits & table.numerator[d] != 0, type_bits & table.denominator[d] != 0
        if not (in_numerator or in_denominator) or (table.per_user[d] and user < 0):
            continue
        increment = np.zeros(table.decay_rates.shape[1])
        for half in range(len(increment)):
            rate = table.decay_rates[d, half]
            if rate < 0:
                continue
            if np.isnan(table.landmarks[d, half]):
                table.landmarks[d, half] = at
            if rate * (at - table.landmarks[d, half]) > MAX_EXPONENT:
                _move_landmark(table, d, half, at)
            increment[half] = np.exp(rate * (at - table.landmarks[d, half]))
            table.totals[d, half, 0] += increment[half] * in_numerator
            table.totals[d, half, 1] += increment[half] * in_denominator
        source = table.code_source[d]
        first, stop = (0, 1) if source < 0 else (bounds[source, row, 0], bounds[source, row, 1])
        for c in range(first, stop):
            slot = _find_or_insert(table, _key(table, codes, d, row, user, c))
            for half in range(len(increment)):
                table.sums[slot, half, 0] += increment[half] * in_numerator
                table.sums[slot, half, 1] += increment[half] * in_denominator


def clear(table: CounterTable, user: int) -> None:
    """Set the sums of a user's keys to zero; the totals over all keys stay."""
    used = int(table.used[0])
    keys = table.keys[:used]
    has_user = table.per_user[keys >> _COUNTER_SHIFT]
    user_code = (keys >> _USER_SHIFT) & ((1 << (_COUNTER_SHIFT - _USER_SHIFT)) - 1)
    table.sums[:used][has_user & (user_code == user + 1)] = 0


@jit
def read(
    table: CounterTable, codes: NDArray[np.int32], bounds: NDArray[np.int32], row: int, user: int, at: float,
    out: Scores,
) -> None:  # fmt: skip
    """Read all counters as of `at` into `out` (D x L x VALUES_PER_HALF_LIFE,), summed over the item's codes.

    A key that was never counted is 0. codes, bounds: as in `count`.
    """
    out[:] = 0
    halves = table.decay_rates.shape[1]
    for d in range(len(table.numerator)):
        source = table.code_source[d]
        first, stop = (0, 1) if source < 0 else (bounds[source, row, 0], bounds[source, row, 1])
        decay = np.zeros(halves)
        for half in range(halves):
            if table.decay_rates[d, half] >= 0 and not np.isnan(table.landmarks[d, half]):
                decay[half] = np.exp(-table.decay_rates[d, half] * (at - table.landmarks[d, half]))
            column = (d * halves + half) * VALUES_PER_HALF_LIFE
            out[column + 2] = table.totals[d, half, 0] * decay[half]
            out[column + 3] = table.totals[d, half, 1] * decay[half]
        if table.per_user[d] and user < 0:
            continue
        for c in range(first, stop):
            position = _find(table.hash_index, table.keys, _key(table, codes, d, row, user, c))
            if table.hash_index[position] == 0:
                continue
            sums = table.sums[table.hash_index[position] - 1]
            for half in range(halves):
                column = (d * halves + half) * VALUES_PER_HALF_LIFE
                out[column] += sums[half, 0] * decay[half]
                out[column + 1] += sums[half, 1] * decay[half]


@jit
def rehash(keys: NDArray[np.int64], used: int, hash_index: NDArray[np.int32]) -> None:
    """Insert the keys in use into an empty hash index."""
    for slot in range(used):
        hash_index[_find(hash_index, keys, keys[slot])] = slot + 1


@jit
def _key(table: CounterTable, codes: NDArray[np.int32], d: int, row: int, user: int, c: int) -> np.int64:
    source = table.code_source[d]
    code = row if source == ITEM else 0 if source == NO_CODE else codes[c]
    user_code = user + 1 if table.per_user[d] else 0
    return (np.int64(d) << _COUNTER_SHIFT) | (np.int64(user_code) << _USER_SHIFT) | np.int64(code)


@jit
def _find(hash_index: NDArray[np.int32], keys: NDArray[np.int64], key: np.int64) -> np.int64:
    """Return the position of a key in the hash index, or the empty position where it belongs (linear probing)."""
    mixed = np.uint64(key)  # the finaliser of splitmix64 (Steele et al., 2014)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mask = np.int64(len(hash_index) - 1)
    position = np.int64(mixed ^ (mixed >> np.uint64(31))) & mask
    while hash_index[position] != 0 and keys[hash_index[position] - 1] != key:
        position = (position + 1) & mask
    return position


@jit
def _find_or_insert(table: CounterTable, key: np.int64) -> np.int32:
    position = _find(table.hash_index, table.keys, key)
    if table.hash_index[position] == 0:
        table.keys[table.used[0]] = key
        table.used[0] += 1
        table.hash_index[position] = table.used[0]
    return np.int32(table.hash_index[position] - 1)


@jit
def _move_landmark(table: CounterTable, d: int, half: int, at: float) -> None:
    """Move the landmark of one counter and half-life to `at`, and decay all its sums."""
    decay = np.exp(-table.decay_rates[d, half] * (at - table.landmarks[d, half]))
    table.landmarks[d, half] = at
    table.totals[d, half] *= decay
    for slot in range(table.used[0]):
        if table.keys[slot] >> _COUNTER_SHIFT == d:
            table.sums[slot, half] *= decay


def reserve(table: CounterTable, n_keys: int) -> CounterTable:
    """Return a table with room for `n_keys` more keys; arrays grow only if needed."""
    needed = int(table.used[0]) + n_keys
    if needed > len(table.keys):
        size = max(needed, len(table.keys) + len(table.keys) // 4)
        table = table._replace(keys=zero_padded(table.keys, size), sums=zero_padded(table.sums, size))
    if 2 * needed > len(table.hash_index):
        hash_index = np.zeros(1 << (2 * needed - 1).bit_length(), np.int32)
        rehash(table.keys, int(table.used[0]), hash_index)
        table = table._replace(hash_index=hash_index)
    return table
