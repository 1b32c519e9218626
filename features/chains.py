"""What each person touched and was shown, latest last: chains of small blocks of bytes from one pool.

An entry is the item's row and the whole seconds since the entry before, in one number of as few 7-bit digits as it
takes; one person costs what their history costs. Chains are read from their end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Rows, Times
from features.compiled import compiled

BLOCK = 28
"""Bytes in a block; with the number of the block before it, 32."""
TOUCHES, IMPRESSIONS = 0, 1
"""The chains that a person has."""


class Chains(NamedTuple):
    """P people, B blocks; what is zero is empty."""

    heads: NDArray[np.int32]
    """(P, 2) number of the last block, from 1."""
    fills: NDArray[np.uint8]
    """(P, 2) bytes in use in it."""
    lengths: NDArray[np.int32]
    """(P, 2) entries."""
    latest: NDArray[np.int64]
    """(P, 2) unix seconds of the last entry."""
    previous: NDArray[np.int32]
    """(B,) number of the block before."""
    pool: NDArray[np.uint8]
    """(B, BLOCK)"""
    used: NDArray[np.int64]
    """(1,) blocks in use."""


def empty() -> Chains:
    """No people, no blocks."""
    return Chains(
        heads=np.zeros((0, 2), np.int32),
        fills=np.zeros((0, 2), np.uint8),
        lengths=np.zeros((0, 2), np.int32),
        latest=np.zeros((0, 2), np.int64),
        previous=np.zeros(0, np.int32),
        pool=np.zeros((0, BLOCK), np.uint8),
        used=np.zeros(1, np.int64),
    )


@compiled
def add(chains: Chains, person: int, chain: int, row: int, at: float, items: int) -> None:
    """Put an entry at the end of a chain; there must be room for one more block."""
    second = np.int64(np.floor(at))
    passed = second - chains.latest[person, chain]
    entry = abs(passed) * items + row
    size = 1
    while entry >> (7 * size) > 0:
        size += 1
    if passed < 0:
        size += 1  # a leading zero, which no other entry has, says that time went back
    fill = np.int64(chains.fills[person, chain])
    if chains.heads[person, chain] == 0:
        fill = np.int64(BLOCK)
    for place in range(size - 1, -1, -1):
        if fill == BLOCK:
            chains.previous[chains.used[0]] = chains.heads[person, chain]
            chains.used[0] += 1
            chains.heads[person, chain] = chains.used[0]
            fill = np.int64(0)
        part = (entry >> (7 * place)) & 127
        # read from the end, the high bit says that the entry goes on
        chains.pool[chains.heads[person, chain] - 1, fill] = part if place == size - 1 else part | 128
        fill += 1
    chains.fills[person, chain] = fill
    chains.lengths[person, chain] += 1
    chains.latest[person, chain] = second


def clear(chains: Chains, person: int) -> None:
    """Make a person's chains empty, and nothing of them readable in their blocks, which are not used again."""
    for chain in (TOUCHES, IMPRESSIONS):
        block = int(chains.heads[person, chain])
        while block:
            chains.pool[block - 1] = 0
            block, chains.previous[block - 1] = int(chains.previous[block - 1]), 0
        for column in (chains.heads, chains.fills, chains.lengths, chains.latest):
            column[person, chain] = 0


@compiled
def read(chains: Chains, person: int, chain: int, items: int, rows: Rows, times: Times) -> int:
    """The latest entries, latest first, as many as fit; how many that are."""
    count = min(int(chains.lengths[person, chain]), len(rows))
    block = chains.heads[person, chain] - 1
    place = np.int64(chains.fills[person, chain]) - 1
    at = chains.latest[person, chain]
    for out in range(count):
        entry, shift, more, part = np.int64(0), 0, True, np.int64(0)
        while more:
            if place < 0:
                block = chains.previous[block] - 1
                place = np.int64(BLOCK - 1)
            part = np.int64(chains.pool[block, place])
            entry |= (part & 127) << shift
            more = bool(part > 127)
            shift += 7
            place -= 1
        rows[out] = entry % items
        times[out] = at
        late = part == 0 and shift > 7
        at += entry // items if late else -(entry // items)
    return count
