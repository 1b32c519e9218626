"""The compiled kernel that advances and reads the behavioural state, for the live feed and for replay alike.

Operations run in order. READ copies what is known out before anything later is observed: read before observe.
Counters are exponentially decayed sums: value(t) = sum over events of 2^(-(t - t_event) / half_life).
Touches and shown items of a person stand in a chain of small blocks drawn from a shared pool, so that one person costs
what their history costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Matrix, Offsets, Rows, Scores, Times
from features.compiled import compiled

SHOWN, TOUCHED, PRIOR, READ = 0, 1, 2, 3
"""Operation codes: items shown in a ranking; an item touched; one touched before the log began; a read."""
KINDS = ("shown", "share", "touched", "prior")
"""What is counted: times shown; 1 / length of the list it was shown in; touches; touches from before the log."""
_SHARE = 1
_COLUMN = (0, 2, 3)
"""The place in KINDS that an operation code counts into."""
BLOCK = 8
"""Entries in a block of a chain."""
SHOWN_DEPTH = 400
"""How many of the latest shown items a read looks through."""


class Tables(NamedTuple):
    """The state. Entities are items, then categories, then everything (one row)."""

    rates: Times
    """(L,) decay a second of each half-life: ln 2 / half-life, 0 for none."""
    counts: Times
    """(entities, kinds x L) decayed counters as of `counted_at`."""
    counted_at: Times
    """(entities,) unix seconds."""
    first_at: Times
    """(n,) when an item was first shown or touched in the log, NaN: never."""
    last_at: Times
    """(n,) when an item was last touched, NaN: never."""
    category_codes: NDArray[np.int32]
    category_offsets: Offsets
    tails: NDArray[np.int32]
    """(people, 2) last block of the touched and of the shown chain, -1: none."""
    lengths: NDArray[np.int64]
    """(people, 2) entries in each chain."""
    previous: NDArray[np.int32]
    """(blocks,) the block before, -1: none."""
    entries: Rows
    """(blocks, BLOCK) item rows."""
    times: Times
    """(blocks, BLOCK) unix seconds."""
    used: NDArray[np.int64]
    """(1,) blocks in use."""


class Ops(NamedTuple):
    """M operations over flattened item rows; operation m has rows [start, stop)."""

    code: NDArray[np.uint8]
    at: Times
    person: NDArray[np.int32]
    start: Offsets
    stop: Offsets
    rows: Rows


class Reads(NamedTuple):
    """Where READ operations write: one line a read for the person, one line a row of a READ for the pair."""

    history: Rows
    history_at: Times
    touches: NDArray[np.int64]
    shown: Scores
    age: Scores
    since_touch: Scores
    counters: Matrix


@compiled
def advance(tables: Tables, ops: Ops, reads: Reads) -> None:
    """Run the operations in order. The pool must have room: one block an observed row is always enough."""
    read = 0
    line = 0
    items = len(tables.category_offsets) - 1
    everything = len(tables.counted_at) - 1
    for m in range(len(ops.code)):
        code, at, person = ops.code[m], ops.at[m], ops.person[m]
        if code == READ:
            if person >= 0:
                _read_chain(tables, person, 0, reads.history[read], reads.history_at[read])
                reads.touches[read] = tables.lengths[person, 0]
            for place in range(ops.start[m], ops.stop[m]):
                row = ops.rows[place]
                if person >= 0 and row >= 0:
                    reads.shown[line] = _times_shown(tables, person, row)
                if row >= 0:
                    _read_counters(tables, row, items, everything, at, reads.counters[line])
                    reads.age[line] = at - tables.first_at[row]
                    reads.since_touch[line] = at - tables.last_at[row]
                line += 1
            read += 1
            continue
        share = 1.0 / max(ops.stop[m] - ops.start[m], 1)
        for place in range(ops.start[m], ops.stop[m]):
            row = ops.rows[place]
            if row < 0:
                continue
            _count(tables, row, code, share, at)
            _count(tables, everything, code, share, at)
            for c in range(tables.category_offsets[row], tables.category_offsets[row + 1]):
                _count(tables, items + tables.category_codes[c], code, share, at)
            if code != PRIOR and not tables.first_at[row] <= at:
                tables.first_at[row] = at
            if code == TOUCHED and not tables.last_at[row] >= at:
                tables.last_at[row] = at
            if person >= 0:
                _append(tables, person, 1 if code == SHOWN else 0, row, at)


@compiled
def _count(tables: Tables, entity: int, code: int, share: float, at: float) -> None:
    halves = len(tables.rates)
    passed = at - tables.counted_at[entity]
    if passed > 0:
        tables.counted_at[entity] = at
        for half in range(halves):
            if tables.rates[half] > 0:
                kept = np.exp(-passed * tables.rates[half])
                for kind in range(len(KINDS)):
                    tables.counts[entity, kind * halves + half] *= kept
    for half in range(halves):
        # an event that comes late counts as much as it would have kept by now
        worth = np.exp(passed * tables.rates[half]) if passed < 0 else 1.0
        tables.counts[entity, _COLUMN[code] * halves + half] += worth
        if code == SHOWN:
            tables.counts[entity, _SHARE * halves + half] += worth * share


@compiled
def _read_counters(tables: Tables, row: int, items: int, everything: int, at: float, out: Matrix) -> None:
    width = tables.counts.shape[1]
    for column in range(3 * width):
        out[column] = 0.0
    _add_counters(tables, row, at, out, 0)
    for c in range(tables.category_offsets[row], tables.category_offsets[row + 1]):
        _add_counters(tables, items + tables.category_codes[c], at, out, width)
    _add_counters(tables, everything, at, out, 2 * width)


@compiled
def _add_counters(tables: Tables, entity: int, at: float, out: Matrix, first: int) -> None:
    halves = len(tables.rates)
    passed = max(at - tables.counted_at[entity], 0.0)
    for half in range(halves):
        kept = _kept(tables, half, passed)
        for kind in range(len(KINDS)):
            column = kind * halves + half
            out[first + column] += tables.counts[entity, column] * kept


@compiled
def _kept(tables: Tables, half: int, passed: float) -> float:
    """The share of a counter that is left: all without decay, also where nothing was counted and `passed` is inf."""
    return float(np.exp(-passed * tables.rates[half])) if tables.rates[half] > 0 else 1.0


@compiled
def _append(tables: Tables, person: int, chain: int, row: int, at: float) -> None:
    place = tables.lengths[person, chain] % BLOCK
    if place == 0:
        block = tables.used[0]
        tables.used[0] += 1
        tables.previous[block] = tables.tails[person, chain]
        tables.tails[person, chain] = block
    tail = tables.tails[person, chain]
    tables.entries[tail, place] = row
    tables.times[tail, place] = at
    tables.lengths[person, chain] += 1


@compiled
def _read_chain(tables: Tables, person: int, chain: int, rows: Rows, times: Times) -> None:
    left = min(tables.lengths[person, chain], len(rows))
    block = tables.tails[person, chain]
    place = (tables.lengths[person, chain] - 1) % BLOCK
    for out in range(left):
        rows[out] = tables.entries[block, place]
        times[out] = tables.times[block, place]
        place -= 1
        if place < 0:
            block = tables.previous[block]
            place = BLOCK - 1


@compiled
def _times_shown(tables: Tables, person: int, row: int) -> float:
    found = 0.0
    left = min(tables.lengths[person, 1], SHOWN_DEPTH)
    block = tables.tails[person, 1]
    place = (tables.lengths[person, 1] - 1) % BLOCK
    for _ in range(left):
        if tables.entries[block, place] == row:
            found += 1.0
        place -= 1
        if place < 0:
            block = tables.previous[block]
            place = BLOCK - 1
    return found


@compiled
def chain(tables: Tables, person: int, rows: Rows, times: Times) -> None:
    """The latest touches of a person, latest first, as many as fit."""
    _read_chain(tables, person, 0, rows, times)


@compiled
def item_counts(tables: Tables, kind: int, half: int, at: float, out: Times) -> None:
    """(n,) one counter of every item as of `at`."""
    halves = len(tables.rates)
    for row in range(len(out)):
        passed = max(at - tables.counted_at[row], 0.0)
        out[row] = tables.counts[row, kind * halves + half] * _kept(tables, half, passed)
