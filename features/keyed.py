"""The declared counters: decayed sums under keys of one's choice, such as a user and a category, in one hash table.

A key is a declaration, a person or nobody, and a code: an item's row, a category's or a field value's. Sums are kept as
they would have been at a landmark in time, so that counting needs no decay and reading one factor (forward decay:
Cormode et al., Forward Decay: A Practical Time Decay Model for Streaming Systems, 2009).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Scores
from features.compiled import compiled, grown

WIDEST = 140.0
"""How far e^x may be from the landmark before the sums are moved to a new one; floats end at 709."""
ITEM, NO_CODE = -1, -2
"""Sources of codes: the item's row itself; none."""
PARTS = 4
"""Numbers read for each half-life: the sum and the sum it is divided by, then both over all keys."""
_PERSON, _DECLARATION = 27, 58
"""Bits of a key below the person's, and below the declaration's."""


class Keyed(NamedTuple):
    """D declarations of up to L half-lives each, S keys."""

    counted: NDArray[np.int64]
    """(D,) bits of the interaction types that are counted."""
    per: NDArray[np.int64]
    """(D,) bits of those that the count is divided by."""
    by_person: NDArray[np.bool_]
    source: NDArray[np.int64]
    """(D,) where codes come from: a line of `bounds`, ITEM or NO_CODE."""
    codes: NDArray[np.int32]
    bounds: NDArray[np.int64]
    """(sources, n + 1) bounds of each item's codes in `codes`."""
    rates: NDArray[np.float64]
    """(D, L) decay a second, -1 where a declaration has fewer half-lives."""
    landmarks: NDArray[np.float64]
    """(D, L) unix seconds, NaN before the first event."""
    totals: NDArray[np.float64]
    """(D, L, 2)"""
    table: NDArray[np.int32]
    """(power of two,) slot + 1 of a key, 0: none."""
    keys: NDArray[np.int64]
    """(S,)"""
    sums: NDArray[np.float64]
    """(S, L, 2) as of the landmarks."""
    used: NDArray[np.int64]
    """(1,) slots in use."""


@compiled
def count(keyed: Keyed, row: int, person: int, bits: int, at: float) -> None:
    """Count one event of an item and a person; there must be room for its keys."""
    for d in range(len(keyed.counted)):
        counts, divides = bits & keyed.counted[d] != 0, bits & keyed.per[d] != 0
        if not (counts or divides) or (keyed.by_person[d] and person < 0):
            continue
        worth = np.zeros(keyed.rates.shape[1])
        for half in range(len(worth)):
            rate = keyed.rates[d, half]
            if rate < 0:
                continue
            if np.isnan(keyed.landmarks[d, half]):
                keyed.landmarks[d, half] = at
            if rate * (at - keyed.landmarks[d, half]) > WIDEST:
                _move(keyed, d, half, at)
            worth[half] = np.exp(rate * (at - keyed.landmarks[d, half]))
            keyed.totals[d, half, 0] += worth[half] * counts
            keyed.totals[d, half, 1] += worth[half] * divides
        source = keyed.source[d]
        first, stop = (0, 1) if source < 0 else (keyed.bounds[source, row], keyed.bounds[source, row + 1])
        for c in range(first, stop):
            slot = _claim(keyed, _key(keyed, d, row, person, c))
            for half in range(len(worth)):
                keyed.sums[slot, half, 0] += worth[half] * counts
                keyed.sums[slot, half, 1] += worth[half] * divides


def clear(keyed: Keyed, person: int) -> None:
    """Let the sums under a person's keys be as if nothing had been counted; those over all keys stay."""
    used = int(keyed.used[0])
    keys = keyed.keys[:used]
    of_people = keyed.by_person[keys >> _DECLARATION]
    who = (keys >> _PERSON) & ((1 << (_DECLARATION - _PERSON)) - 1)
    keyed.sums[:used][of_people & (who == person + 1)] = 0


@compiled
def read(keyed: Keyed, row: int, person: int, at: float, out: Scores) -> None:
    """(D x L x PARTS,) as of `at`, the sums over the item's codes; all zero for a key that was never counted."""
    out[:] = 0
    halves = keyed.rates.shape[1]
    for d in range(len(keyed.counted)):
        source = keyed.source[d]
        first, stop = (0, 1) if source < 0 else (keyed.bounds[source, row], keyed.bounds[source, row + 1])
        kept = np.zeros(halves)
        for half in range(halves):
            if keyed.rates[d, half] >= 0 and not np.isnan(keyed.landmarks[d, half]):
                kept[half] = np.exp(-keyed.rates[d, half] * (at - keyed.landmarks[d, half]))
            place = (d * halves + half) * PARTS
            out[place + 2] = keyed.totals[d, half, 0] * kept[half]
            out[place + 3] = keyed.totals[d, half, 1] * kept[half]
        if keyed.by_person[d] and person < 0:
            continue
        for c in range(first, stop):
            slot = _find(keyed.table, keyed.keys, _key(keyed, d, row, person, c))
            if keyed.table[slot] == 0:
                continue
            sums = keyed.sums[keyed.table[slot] - 1]
            for half in range(halves):
                place = (d * halves + half) * PARTS
                out[place] += sums[half, 0] * kept[half]
                out[place + 1] += sums[half, 1] * kept[half]


@compiled
def rehash(keys: NDArray[np.int64], used: int, table: NDArray[np.int32]) -> None:
    """Put the keys in use into an empty table."""
    for slot in range(used):
        table[_find(table, keys, keys[slot])] = slot + 1


@compiled
def _key(keyed: Keyed, d: int, row: int, person: int, c: int) -> np.int64:
    source = keyed.source[d]
    code = row if source == ITEM else 0 if source == NO_CODE else keyed.codes[c]
    who = person + 1 if keyed.by_person[d] else 0
    return (np.int64(d) << _DECLARATION) | (np.int64(who) << _PERSON) | np.int64(code)


@compiled
def _find(table: NDArray[np.int32], keys: NDArray[np.int64], key: np.int64) -> np.int64:
    """The place in the table of a key, or of the hole where it would be."""
    mixed = np.uint64(key)  # the finaliser of splitmix64 (Steele et al., 2014)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mask = np.int64(len(table) - 1)
    place = np.int64(mixed ^ (mixed >> np.uint64(31))) & mask
    while table[place] != 0 and keys[table[place] - 1] != key:
        place = (place + 1) & mask
    return place


@compiled
def _claim(keyed: Keyed, key: np.int64) -> np.int32:
    place = _find(keyed.table, keyed.keys, key)
    if keyed.table[place] == 0:
        keyed.keys[keyed.used[0]] = key
        keyed.used[0] += 1
        keyed.table[place] = keyed.used[0]
    return np.int32(keyed.table[place] - 1)


@compiled
def _move(keyed: Keyed, d: int, half: int, at: float) -> None:
    """To a landmark at `at`, all sums of one declaration and half-life."""
    kept = np.exp(-keyed.rates[d, half] * (at - keyed.landmarks[d, half]))
    keyed.landmarks[d, half] = at
    keyed.totals[d, half] *= kept
    for slot in range(keyed.used[0]):
        if keyed.keys[slot] >> _DECLARATION == d:
            keyed.sums[slot, half] *= kept


def roomy(keyed: Keyed, keys: int) -> Keyed:
    """The same with room for so many more keys."""
    wanted = int(keyed.used[0]) + keys
    if wanted > len(keyed.keys):
        size = max(wanted, len(keyed.keys) + len(keyed.keys) // 4)
        keyed = keyed._replace(keys=grown(keyed.keys, size), sums=grown(keyed.sums, size))
    if 2 * wanted > len(keyed.table):
        table = np.zeros(1 << (2 * wanted - 1).bit_length(), np.int32)
        rehash(keyed.keys, int(keyed.used[0]), table)
        keyed = keyed._replace(table=table)
    return keyed
