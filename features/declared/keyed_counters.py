"""Keyed counters: decayed counts of events by one or two declared fields, in one hash table.

A key is a counter and up to two parts: the item, the user, or the values of a field of the item, the user or the
request. A list of values counts once for each. Sums are stored relative to a landmark time (forward decay; Cormode et
al., Forward Decay: A Practical Time Decay Model for Streaming Systems, 2009).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.features.jit import jit, zero_padded

NO_PART, ITEM_ROW, USER_ROW, ITEM_VALUES, USER_VALUES, REQUEST_VALUES, SESSION_ID = 0, 1, 2, 3, 4, 5, 6
"""Kinds of the parts of a key."""
MAX_EXPONENT = 140.0
"""Largest exponent x of e^x relative to a landmark; beyond it the landmark moves. A float64 overflows at 709."""
BYTES_PER_KEY = 40
"""Memory of a key with one half-life, in bytes, its share of the hash index included; 16 more per half-life."""


class KeyedCounters(NamedTuple):
    """Arrays of the table: C counters of up to L half-lives, S key slots."""

    numerator: NDArray[np.int64]
    """(C,) type masks of the counted events."""
    denominator: NDArray[np.int64]
    """(C,) type masks of the events in the denominator."""
    parts: NDArray[np.int64]
    """(C, 2, 2) kind and column of each part of the key."""
    decay_rates: NDArray[np.float64]
    """(C, L) decay per second; -1 where a counter has fewer half-lives."""
    landmarks: NDArray[np.float64]
    """(C, L) landmark times, unix seconds; NaN before the first event."""
    totals: NDArray[np.float64]
    """(C, L, 2) numerator and denominator over all events that have a key, decayed to the landmarks."""
    hash_index: NDArray[np.int32]
    """(power of two,) slot + 1 of a key; 0: empty."""
    keys: NDArray[np.int64]
    """(S,) hash of each key."""
    counter_of: NDArray[np.int16]
    """(S,) counter of each key."""
    owners: NDArray[np.int32]
    """(S,) row of the user in the key; UNKNOWN_ROW: none."""
    sums: NDArray[np.float64]
    """(S, L, 2) numerator and denominator, decayed to the landmarks."""
    used: NDArray[np.int64]
    """(1,) slots in use."""


def empty_counters(
    numerator: NDArray[np.int64], denominator: NDArray[np.int64], parts: NDArray[np.int64],
    decay_rates: NDArray[np.float64],
) -> KeyedCounters:  # fmt: skip
    """Return a table without keys; the arrays are those of `KeyedCounters`."""
    halves = decay_rates.shape[1]
    return KeyedCounters(
        numerator, denominator, parts, decay_rates, np.full(decay_rates.shape, np.nan),
        np.zeros((*decay_rates.shape, 2)), np.zeros(2, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int16),
        np.zeros(0, np.int32), np.zeros((0, halves, 2)), np.zeros(1, np.int64),
    )  # fmt: skip


def reserve(table: KeyedCounters, n_keys: int) -> KeyedCounters:
    """Return a table with room for `n_keys` more keys; arrays grow by a quarter at least, and only if needed."""
    if not (table.decay_rates >= 0).any():
        return table
    needed = int(table.used[0]) + n_keys
    if needed > len(table.keys):
        size = max(needed, len(table.keys) + len(table.keys) // 4 + 64)
        grown = {name: zero_padded(getattr(table, name), size) for name in ("keys", "counter_of", "owners", "sums")}
        table = table._replace(**grown)
    if 2 * len(table.keys) > len(table.hash_index):
        hash_index = np.zeros(1 << (2 * len(table.keys) - 1).bit_length(), np.int32)
        rehash(table.keys, int(table.used[0]), hash_index)
        table = table._replace(hash_index=hash_index)
    return table


def clear_user(table: KeyedCounters, user: int) -> None:
    """Set the sums of a user's keys to zero; what they added to other keys and to the totals stays."""
    used = int(table.used[0])
    table.sums[:used][table.owners[:used] == user] = 0


@jit
def add(table: KeyedCounters, c: int, first: int, second: int, owner: int, bits: int, at: float) -> None:
    """Count one event for the key of two part hashes; the caller reserves room for it and moves the landmarks."""
    slot = _find_or_insert(table, c, key_of(c, first, second), owner)
    for half in range(table.decay_rates.shape[1]):
        rate = table.decay_rates[c, half]
        if rate >= 0:
            increment = np.exp(rate * (at - table.landmarks[c, half]))
            table.sums[slot, half, 0] += increment * (bits & table.numerator[c] != 0)
            table.sums[slot, half, 1] += increment * (bits & table.denominator[c] != 0)


@jit
def add_total(table: KeyedCounters, c: int, bits: int, at: float) -> None:
    """Count one event in the totals of a counter, and move its landmarks where they are too far away."""
    for half in range(table.decay_rates.shape[1]):
        rate = table.decay_rates[c, half]
        if rate < 0:
            continue
        if np.isnan(table.landmarks[c, half]):
            table.landmarks[c, half] = at
        if rate * (at - table.landmarks[c, half]) > MAX_EXPONENT:
            factor = np.exp(-rate * (at - table.landmarks[c, half]))
            table.landmarks[c, half] = at
            table.totals[c, half] *= factor
            for slot in range(table.used[0]):
                if table.counter_of[slot] == c:
                    table.sums[slot, half] *= factor
        increment = np.exp(rate * (at - table.landmarks[c, half]))
        table.totals[c, half, 0] += increment * (bits & table.numerator[c] != 0)
        table.totals[c, half, 1] += increment * (bits & table.denominator[c] != 0)


@jit
def decay_factors(table: KeyedCounters, at: float, out: NDArray[np.float64]) -> None:
    """Compute the (C, L) factors from the landmarks to `at`; 0 where nothing was counted."""
    for c in range(len(table.numerator)):
        for half in range(table.decay_rates.shape[1]):
            rate, landmark = table.decay_rates[c, half], table.landmarks[c, half]
            out[c, half] = 0.0 if rate < 0 or np.isnan(landmark) else np.exp(-rate * (at - landmark))


@jit
def key_of(c: int, first: int, second: int) -> np.int64:
    """Return the hash of a counter's key; never 0."""
    mixed = _mix(_mix(np.uint64(c + 1)) ^ np.uint64(first))
    return np.int64(_mix(mixed * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(second)) | np.uint64(1))


@jit
def _mix(x: np.uint64) -> np.uint64:
    """Return the finaliser of splitmix64 (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014)."""
    mixed = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@jit
def find(hash_index: NDArray[np.int32], keys: NDArray[np.int64], key: np.int64) -> np.int64:
    """Return the position of a key in the hash index, or the empty position where it belongs (linear probing)."""
    mask = np.int64(len(hash_index) - 1)
    position = np.int64(key >> np.int64(1)) & mask
    while hash_index[position] != 0 and keys[hash_index[position] - 1] != key:
        position = (position + 1) & mask
    return position


@jit
def _find_or_insert(table: KeyedCounters, c: int, key: np.int64, owner: int) -> np.int64:
    position = find(table.hash_index, table.keys, key)
    if table.hash_index[position] == 0:
        slot = table.used[0]
        table.keys[slot], table.counter_of[slot], table.owners[slot] = key, c, owner
        table.used[0] += 1
        table.hash_index[position] = table.used[0]
    return np.int64(table.hash_index[position] - 1)


@jit
def rehash(keys: NDArray[np.int64], used: int, hash_index: NDArray[np.int32]) -> None:
    """Enter the slots of the first `used` keys into an empty hash index."""
    for slot in range(used):
        hash_index[find(hash_index, keys, keys[slot])] = slot + 1
