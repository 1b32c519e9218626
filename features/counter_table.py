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
from feedrank.features.jit import compiled, grown

WIDEST = 140.0
"""Largest exponent x of e^x relative to a landmark; beyond it the landmark moves. A float64 overflows at 709."""
ITEM, NO_CODE = -1, -2
"""Code sources: the item row itself; no code."""
PARTS = 4
"""Values read per half-life: numerator and denominator of the key, then both summed over all keys."""
_PERSON, _DECLARATION = 27, 58
"""Bit positions of the user and of the counter in a key."""


class Keyed(NamedTuple):
    """Arrays of the table: D counters of up to L half-lives each, S key slots."""

    counted: NDArray[np.int64]
    """(D,) type masks of the counted events."""
    per: NDArray[np.int64]
    """(D,) type masks of the events in the denominator."""
    by_person: NDArray[np.bool_]
    """(D,) whether keys contain the user."""
    source: NDArray[np.int64]
    """(D,) where codes come from: a row of `bounds`, ITEM or NO_CODE."""
    codes: NDArray[np.int32]
    """Codes of all sources and items, flattened."""
    bounds: NDArray[np.int64]
    """(sources, n + 1) bounds of each item's codes in `codes`."""
    rates: NDArray[np.float64]
    """(D, L) decay per second; -1 if a counter has fewer half-lives."""
    landmarks: NDArray[np.float64]
    """(D, L) landmark times, unix seconds; NaN before the first event."""
    totals: NDArray[np.float64]
    """(D, L, 2) numerator and denominator over all keys, decayed to the landmarks."""
    table: NDArray[np.int32]
    """(power of two,) slot + 1 of a key; 0: empty."""
    keys: NDArray[np.int64]
    """(S,) key of each slot."""
    sums: NDArray[np.float64]
    """(S, L, 2) numerator and denominator, decayed to the landmarks."""
    used: NDArray[np.int64]
    """(1,) slots in use."""


@compiled
def count(keyed: Keyed, row: int, person: int, bits: int, at: float) -> None:
    """Count one event of an item and a user. The caller reserves room for its keys."""
    for d in range(len(keyed.counted)):
        in_numerator, in_denominator = bits & keyed.counted[d] != 0, bits & keyed.per[d] != 0
        if not (in_numerator or in_denominator) or (keyed.by_person[d] and person < 0):
            continue
        increment = np.zeros(keyed.rates.shape[1])
        for half in range(len(increment)):
            rate = keyed.rates[d, half]
            if rate < 0:
                continue
            if np.isnan(keyed.landmarks[d, half]):
                keyed.landmarks[d, half] = at
            if rate * (at - keyed.landmarks[d, half]) > WIDEST:
                _move(keyed, d, half, at)
            increment[half] = np.exp(rate * (at - keyed.landmarks[d, half]))
            keyed.totals[d, half, 0] += increment[half] * in_numerator
            keyed.totals[d, half, 1] += increment[half] * in_denominator
        source = keyed.source[d]
        first, stop = (0, 1) if source < 0 else (keyed.bounds[source, row], keyed.bounds[source, row + 1])
        for c in range(first, stop):
            slot = _claim(keyed, _key(keyed, d, row, person, c))
            for half in range(len(increment)):
                keyed.sums[slot, half, 0] += increment[half] * in_numerator
                keyed.sums[slot, half, 1] += increment[half] * in_denominator


def clear(keyed: Keyed, person: int) -> None:
    """Set the sums of a user's keys to zero; the totals over all keys stay."""
    used = int(keyed.used[0])
    keys = keyed.keys[:used]
    has_user = keyed.by_person[keys >> _DECLARATION]
    user_code = (keys >> _PERSON) & ((1 << (_DECLARATION - _PERSON)) - 1)
    keyed.sums[:used][has_user & (user_code == person + 1)] = 0


@compiled
def read(keyed: Keyed, row: int, person: int, at: float, out: Scores) -> None:
    """Read all counters as of `at` into `out` (D x L x VALUES_PER_HALF_LIFE,), summed over the item's codes.

    A key that was never counted is 0.
    """
    out[:] = 0
    halves = keyed.rates.shape[1]
    for d in range(len(keyed.counted)):
        source = keyed.source[d]
        first, stop = (0, 1) if source < 0 else (keyed.bounds[source, row], keyed.bounds[source, row + 1])
        decay = np.zeros(halves)
        for half in range(halves):
            if keyed.rates[d, half] >= 0 and not np.isnan(keyed.landmarks[d, half]):
                decay[half] = np.exp(-keyed.rates[d, half] * (at - keyed.landmarks[d, half]))
            column = (d * halves + half) * PARTS
            out[column + 2] = keyed.totals[d, half, 0] * decay[half]
            out[column + 3] = keyed.totals[d, half, 1] * decay[half]
        if keyed.by_person[d] and person < 0:
            continue
        for c in range(first, stop):
            position = _find(keyed.table, keyed.keys, _key(keyed, d, row, person, c))
            if keyed.table[position] == 0:
                continue
            sums = keyed.sums[keyed.table[position] - 1]
            for half in range(halves):
                column = (d * halves + half) * PARTS
                out[column] += sums[half, 0] * decay[half]
                out[column + 1] += sums[half, 1] * decay[half]


@compiled
def rehash(keys: NDArray[np.int64], used: int, table: NDArray[np.int32]) -> None:
    """Insert the keys in use into an empty hash index."""
    for slot in range(used):
        table[_find(table, keys, keys[slot])] = slot + 1


@compiled
def _key(keyed: Keyed, d: int, row: int, person: int, c: int) -> np.int64:
    source = keyed.source[d]
    code = row if source == ITEM else 0 if source == NO_CODE else keyed.codes[c]
    user_code = person + 1 if keyed.by_person[d] else 0
    return (np.int64(d) << _DECLARATION) | (np.int64(user_code) << _PERSON) | np.int64(code)


@compiled
def _find(table: NDArray[np.int32], keys: NDArray[np.int64], key: np.int64) -> np.int64:
    """Return the position of a key in the hash index, or the empty position where it belongs (linear probing)."""
    mixed = np.uint64(key)  # the finaliser of splitmix64 (Steele et al., 2014)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mask = np.int64(len(table) - 1)
    position = np.int64(mixed ^ (mixed >> np.uint64(31))) & mask
    while table[position] != 0 and keys[table[position] - 1] != key:
        position = (position + 1) & mask
    return position


@compiled
def _claim(keyed: Keyed, key: np.int64) -> np.int32:
    position = _find(keyed.table, keyed.keys, key)
    if keyed.table[position] == 0:
        keyed.keys[keyed.used[0]] = key
        keyed.used[0] += 1
        keyed.table[position] = keyed.used[0]
    return np.int32(keyed.table[position] - 1)


@compiled
def _move(keyed: Keyed, d: int, half: int, at: float) -> None:
    """Move the landmark of one counter and half-life to `at`, and decay all its sums."""
    decay = np.exp(-keyed.rates[d, half] * (at - keyed.landmarks[d, half]))
    keyed.landmarks[d, half] = at
    keyed.totals[d, half] *= decay
    for slot in range(keyed.used[0]):
        if keyed.keys[slot] >> _DECLARATION == d:
            keyed.sums[slot, half] *= decay


def roomy(keyed: Keyed, keys: int) -> Keyed:
    """Return a table with room for `n_keys` more keys; arrays grow only if needed."""
    needed = int(keyed.used[0]) + keys
    if needed > len(keyed.keys):
        size = max(needed, len(keyed.keys) + len(keyed.keys) // 4)
        keyed = keyed._replace(keys=grown(keyed.keys, size), sums=grown(keyed.sums, size))
    if 2 * needed > len(keyed.table):
        hash_index = np.zeros(1 << (2 * needed - 1).bit_length(), np.int32)
        rehash(keyed.keys, int(keyed.used[0]), hash_index)
        keyed = keyed._replace(table=hash_index)
    return keyed
