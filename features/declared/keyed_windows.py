"""Windows of keyed counters: counts of events in the last hours, in rings of buckets with bounded memory per key.

A bucket is a stretch of time that begins at a multiple of its length since 1970. A window of W hours has the bucket
that has begun and the ceil(W / length) before it, so it covers at least W hours, and less than one bucket more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.features.declared.keyed_counters import find, key_of, rehash
from feedrank.features.jit import jit, zero_padded

BYTES_PER_KEY, BYTES_PER_BUCKET = 38, 8
"""Memory of a key with its share of the hash index, and of each of its buckets, in bytes."""
_OVERALL = -7_046_029_254_386_353_131
"""Stands for a part of the key under which all events of a counter are counted."""


class KeyedWindows(NamedTuple):
    """Arrays of the table: C counters of up to L windows, S key slots, P buckets."""

    bucket_s: NDArray[np.float64]
    """(C,) length of a bucket in seconds."""
    buckets: NDArray[np.int64]
    """(C,) number of buckets of a key; 0: the counter has no windows."""
    spans: NDArray[np.int64]
    """(C, L) number of buckets of each window; 0 where a counter has fewer windows."""
    hash_index: NDArray[np.int32]
    """(power of two,) slot + 1 of a key; 0: empty."""
    keys: NDArray[np.int64]
    """(S,) hash of each key."""
    owners: NDArray[np.int32]
    """(S,) row of the user in the key; UNKNOWN_ROW: none."""
    latest: NDArray[np.int64]
    """(S,) number of the latest bucket, counted from 1970."""
    starts: NDArray[np.int64]
    """(S,) first bucket of each key in `rings`."""
    rings: NDArray[np.float32]
    """(P, 2) numerator and denominator of each bucket."""
    used: NDArray[np.int64]
    """(2,) slots and buckets in use."""


def empty_windows(bucket_s: NDArray[np.float64], buckets: NDArray[np.int64], spans: NDArray[np.int64]) -> KeyedWindows:
    """Return a table without keys; the arrays are those of `KeyedWindows`."""
    return KeyedWindows(
        bucket_s, buckets, spans, np.zeros(2, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32),
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(2, np.int64),
    )  # fmt: skip


def reserve(table: KeyedWindows, n_keys: int) -> KeyedWindows:
    """Return a table with room for `n_keys` more keys; arrays grow by a quarter at least, and only if needed."""
    if not table.buckets.any():
        return table
    needed, in_rings = int(table.used[0]) + n_keys, int(table.used[1]) + n_keys * int(table.buckets.max())
    if needed > len(table.keys):
        size = max(needed, len(table.keys) + len(table.keys) // 4 + 64)
        grown = {name: zero_padded(getattr(table, name), size) for name in ("keys", "owners", "latest", "starts")}
        table = table._replace(**grown)
    if in_rings > len(table.rings):
        size = max(in_rings, len(table.rings) + len(table.rings) // 4)
        table = table._replace(rings=zero_padded(table.rings, size))
    if 2 * len(table.keys) > len(table.hash_index):
        hash_index = np.zeros(1 << (2 * len(table.keys) - 1).bit_length(), np.int32)
        rehash(table.keys, int(table.used[0]), hash_index)
        table = table._replace(hash_index=hash_index)
    return table


def clear_user(table: KeyedWindows, user: int) -> None:
    """Set the buckets of a user's keys to zero; what they added to other keys stays."""
    used = int(table.used[0])
    bounds = np.append(table.starts[:used], table.used[1])
    for slot in np.flatnonzero(table.owners[:used] == user):
        table.rings[bounds[slot] : bounds[slot + 1]] = 0


@jit
def has_room(table: KeyedWindows, n_keys: int, n_buckets: int) -> bool:
    """Return whether there is room for more keys, which have this many buckets together."""
    return bool(table.used[0] + n_keys <= len(table.keys) and table.used[1] + n_buckets <= len(table.rings))


@jit
def add(table: KeyedWindows, c: int, first: int, second: int, owner: int, counts: tuple[int, int], at: float) -> None:
    """Count one event for the key of two part hashes; the caller reserves room for it.

    counts: what it adds to the numerator and the denominator. An event that is older than all buckets is left out.
    """
    key, n = key_of(c, first, second), table.buckets[c]
    bucket, position = np.int64(np.floor(at / table.bucket_s[c])), find(table.hash_index, table.keys, key)
    if table.hash_index[position] == 0:
        slot = table.used[0]
        table.keys[slot], table.owners[slot] = key, owner
        table.latest[slot], table.starts[slot] = bucket, table.used[1]
        table.used[0] += 1
        table.used[1] += n
        table.hash_index[position] = table.used[0]
    slot = table.hash_index[position] - 1
    start = table.starts[slot]
    for passed in range(max(table.latest[slot] + 1, bucket - n + 1), bucket + 1):
        table.rings[start + passed % n] = 0
    table.latest[slot] = max(table.latest[slot], bucket)
    if table.latest[slot] - bucket < n:
        table.rings[start + bucket % n, 0] += counts[0]
        table.rings[start + bucket % n, 1] += counts[1]


@jit
def add_overall(table: KeyedWindows, c: int, counts: tuple[int, int], at: float) -> None:
    """Count one event among all events of a counter; the caller reserves room for one more key."""
    add(table, c, _OVERALL, _OVERALL, -1, counts, at)


@jit
def add_windows(table: KeyedWindows, c: int, key: np.int64, at: float, out: NDArray[np.float64]) -> None:
    """Add the (L, 2) counts of a key in each window before `at` to `out`; a key never counted adds nothing."""
    position, n = find(table.hash_index, table.keys, key), table.buckets[c]
    if table.hash_index[position] == 0:
        return
    slot = table.hash_index[position] - 1
    now, start, latest = np.int64(np.floor(at / table.bucket_s[c])), table.starts[slot], table.latest[slot]
    for age in range(max(now - latest, 0), n):
        if latest - (now - age) >= n:
            return
        numerator, denominator = table.rings[start + (now - age) % n]
        for window in range(table.spans.shape[1]):
            if age < table.spans[c, window]:
                out[window, 0] += numerator
                out[window, 1] += denominator


@jit
def add_overall_windows(table: KeyedWindows, c: int, at: float, out: NDArray[np.float64]) -> None:
    """Add the (L, 2) counts of all events of a counter in each window before `at` to `out`."""
    add_windows(table, c, key_of(c, _OVERALL, _OVERALL), at, out)
