"""The history store keeps each user's interactions and impressions in linked lists of small byte blocks.

An entry is one variable-length integer (7-bit digits): the item's row and the whole seconds since the entry before. So
a user's memory is proportional to their history. Blocks come from one pool. Lists are read from their end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows, Times
from feedrank.features.jit import compiled

BLOCK = 28
"""Bytes in a block; 32 with the 4-byte link to the block before it."""
TOUCHES, IMPRESSIONS = 0, 1
"""Indices of a user's two lists."""


class Chains(NamedTuple):
    """Arrays of the store: U users, B blocks; zero means empty."""

    heads: NDArray[np.int32]
    """(U, 2) number of the last block, counted from 1."""
    fills: NDArray[np.uint8]
    """(U, 2) bytes in use in the last block."""
    lengths: NDArray[np.int32]
    """(U, 2) number of entries."""
    latest: NDArray[np.int64]
    """(U, 2) unix seconds of the last entry."""
    previous: NDArray[np.int32]
    """(B,) number of the block before, counted from 1."""
    pool: NDArray[np.uint8]
    """(B, BLOCK_BYTES) encoded entries."""
    used: NDArray[np.int64]
    """(1,) blocks in use."""


def empty() -> Chains:
    """Create a store without users and blocks."""
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
    """Append an entry to a user's list. The caller reserves room for one more block."""
    second = np.int64(np.floor(at))
    elapsed = second - chains.latest[person, chain]
    entry = abs(elapsed) * items + row
    size = 1
    while entry >> (7 * size) > 0:
        size += 1
    if elapsed < 0:
        size += 1  # a leading zero digit, which no other entry has, marks a negative time step
    fill = np.int64(chains.fills[person, chain])
    if chains.heads[person, chain] == 0:
        fill = np.int64(BLOCK)
    for digit in range(size - 1, -1, -1):
        if fill == BLOCK:
            chains.previous[chains.used[0]] = chains.heads[person, chain]
            chains.used[0] += 1
            chains.heads[person, chain] = chains.used[0]
            fill = np.int64(0)
        part = (entry >> (7 * digit)) & 127
        # entries are read backwards: a high bit means that more digits follow
        chains.pool[chains.heads[person, chain] - 1, fill] = part if digit == size - 1 else part | 128
        fill += 1
    chains.fills[person, chain] = fill
    chains.lengths[person, chain] += 1
    chains.latest[person, chain] = second


def clear(chains: Chains, person: int) -> None:
    """Erase a user's lists and overwrite their blocks with zeros. The blocks are not reused."""
    for list_index in (TOUCHES, IMPRESSIONS):
        block = int(chains.heads[person, list_index])
        while block:
            chains.pool[block - 1] = 0
            block, chains.previous[block - 1] = int(chains.previous[block - 1]), 0
        for column in (chains.heads, chains.fills, chains.lengths, chains.latest):
            column[person, list_index] = 0


@compiled
def read(chains: Chains, person: int, chain: int, items: int, rows: Rows, times: Times) -> int:
    """Read the latest entries into `rows` and `times`, latest first, as many as fit; returns their number."""
    count = min(int(chains.lengths[person, chain]), len(rows))
    block = chains.heads[person, chain] - 1
    position = np.int64(chains.fills[person, chain]) - 1
    at = chains.latest[person, chain]
    for out in range(count):
        entry, shift, more, part = np.int64(0), 0, True, np.int64(0)
        while more:
            if position < 0:
                block = chains.previous[block] - 1
                position = np.int64(BLOCK - 1)
            part = np.int64(chains.pool[block, position])
            entry |= (part & 127) << shift
            more = bool(part > 127)
            shift += 7
            position -= 1
        rows[out] = entry % items
        times[out] = at
        time_went_back = part == 0 and shift > 7
        at += entry // items if time_went_back else -(entry // items)
    return count
