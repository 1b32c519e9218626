"""The compiled kernel that advances and reads the behavioural state, for the live feed and for replay alike.

Operations run in order. READ copies what is known out before anything later is observed: read before observe.
Counters are exponentially decayed sums: value(t) = sum over events of 2^(-(t - t_event) / half_life). They are kept as
they would have been at a landmark in time: an event then costs one power a half-life, whatever it counts for, and a
read one factor (Cormode et al., Forward Decay: A Practical Time Decay Model for Streaming Systems, 2009).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Matrix, Offsets, Rows, Scores, Times
from features import chains, keyed
from features.chains import IMPRESSIONS, TOUCHES, Chains
from features.compiled import compiled
from features.keyed import WIDEST, Keyed

SHOWN, TOUCHED, PRIOR, READ = 0, 1, 2, 3
"""Operation codes: items shown in a ranking; an item touched; one touched before the log began; a read."""
KINDS = ("shown", "share", "touched", "prior")
"""What is counted: times shown; 1 / length of the list it was shown in; touches; touches from before the log."""
_SHARE = 1
_COLUMN = (0, 2, 3)
"""The place in KINDS that an operation code counts into."""
SHOWN_DEPTH = 400
"""How many of the latest shown items a read looks through."""


class Tables(NamedTuple):
    """The state. Entities are items, then categories, then everything (one row)."""

    rates: Times
    """(L,) decay a second of each half-life: ln 2 / half-life, 0 for none."""
    landmarks: Times
    """(L,) unix seconds that the counters are as of, NaN before the first event."""
    counts: Times
    """(entities, kinds, L) decayed counters as of the landmarks."""
    first_at: Times
    """(n,) when an item was first shown or touched in the log, NaN: never."""
    last_at: Times
    """(n,) when an item was last touched, NaN: never."""
    now: Times
    """(1,) unix seconds of the latest event: nothing is read as of before it."""
    category_codes: NDArray[np.int32]
    category_offsets: Offsets
    chains: Chains
    keyed: Keyed


class Ops(NamedTuple):
    """M operations over flattened item rows; operation m has rows [start, stop)."""

    code: NDArray[np.uint8]
    at: Times
    person: NDArray[np.int32]
    start: Offsets
    stop: Offsets
    rows: Rows
    bits: NDArray[np.int64]
    """(M,) which of the types that declared counters name it is of."""

    def part(self, first: int, last: int) -> Ops:
        """Operations [first, last)."""
        cut = slice(first, last)
        return Ops(
            self.code[cut], self.at[cut], self.person[cut], self.start[cut], self.stop[cut], self.rows, self.bits[cut]
        )


class Reads(NamedTuple):
    """Where READ operations write: one line a read for the person, one line a row of a READ for the pair."""

    history: Rows
    history_at: Times
    touches: NDArray[np.int64]
    shown: Scores
    age: Scores
    since_touch: Scores
    counters: Matrix
    declared: Matrix


@compiled
def advance(tables: Tables, ops: Ops, first: int, last: int, reads: Reads, done: NDArray[np.int64]) -> None:
    """Run operations [first, last) in order; `done` (2,) counts reads and their rows, from call to call.

    There must be room for one block of a chain an observed row, and for the keys that it may make.
    """
    items = len(tables.category_offsets) - 1
    everything = len(tables.counts) - 1
    halves = len(tables.rates)
    worth, kept = np.empty(halves), np.empty(halves)
    lately, times = np.empty(SHOWN_DEPTH, np.int32), np.empty(SHOWN_DEPTH)
    overall = np.empty(len(KINDS) * halves, np.float32)
    for m in range(first, last):
        code, at, person = ops.code[m], ops.at[m], ops.person[m]
        if code == READ:
            read, at = done[0], max(at, tables.now[0])
            shown = 0
            if person >= 0:
                history, history_at = reads.history[read], reads.history_at[read]
                chains.read(tables.chains, person, TOUCHES, items, history, history_at)
                reads.touches[read] = tables.chains.lengths[person, TOUCHES]
                shown = chains.read(tables.chains, person, IMPRESSIONS, items, lately, times)
            _factors(tables, at, kept)
            overall[:] = 0
            _add_counters(tables.counts[everything], kept, overall)
            for place in range(ops.start[m], ops.stop[m]):
                row, line = ops.rows[place], done[1]
                done[1] += 1
                if row < 0:
                    continue
                if person >= 0:
                    found = np.float32(0)
                    for entry in range(shown):
                        found += np.float32(lately[entry] == row)
                    reads.shown[line] = found
                out = reads.counters[line]
                width = len(overall)
                out[: 2 * width] = 0
                _add_counters(tables.counts[row], kept, out[:width])
                for c in range(tables.category_offsets[row], tables.category_offsets[row + 1]):
                    _add_counters(tables.counts[items + tables.category_codes[c]], kept, out[width : 2 * width])
                out[2 * width :] = overall
                reads.age[line] = at - tables.first_at[row]
                reads.since_touch[line] = at - tables.last_at[row]
                if len(tables.keyed.counted):
                    keyed.read(tables.keyed, row, person, at, reads.declared[line])
            done[0] += 1
            continue
        if not tables.now[0] >= at:
            tables.now[0] = at
        _worths(tables, at, worth)
        share = 1.0 / max(ops.stop[m] - ops.start[m], 1)
        for place in range(ops.start[m], ops.stop[m]):
            row = ops.rows[place]
            if row < 0:
                continue
            _count(tables.counts[row], code, share, worth)
            _count(tables.counts[everything], code, share, worth)
            for c in range(tables.category_offsets[row], tables.category_offsets[row + 1]):
                _count(tables.counts[items + tables.category_codes[c]], code, share, worth)
            if code != PRIOR and not tables.first_at[row] <= at:
                tables.first_at[row] = at
            if code == TOUCHED and not tables.last_at[row] >= at:
                tables.last_at[row] = at
            if person >= 0:
                chains.add(tables.chains, person, IMPRESSIONS if code == SHOWN else TOUCHES, row, at, items)
            if ops.bits[m]:
                keyed.count(tables.keyed, row, person, ops.bits[m], at)


@compiled
def item_counts(tables: Tables, kind: int, half: int, at: float, out: Times) -> None:
    """(n,) one counter of every item as of `at`."""
    kept = np.empty(len(tables.rates))
    _factors(tables, max(at, tables.now[0]), kept)
    for row in range(len(out)):
        out[row] = tables.counts[row, kind, half] * kept[half]


@compiled
def _worths(tables: Tables, at: float, worth: Times) -> None:
    """(L,) what an event at `at` counts for as of the landmarks, which are moved where it would be too much."""
    for half in range(len(worth)):
        rate = tables.rates[half]
        if np.isnan(tables.landmarks[half]):
            tables.landmarks[half] = at
        if rate * (at - tables.landmarks[half]) > WIDEST:
            tables.counts[:, :, half] *= np.exp(-rate * (at - tables.landmarks[half]))
            tables.landmarks[half] = at
        worth[half] = np.exp(rate * (at - tables.landmarks[half]))


@compiled
def _factors(tables: Tables, at: float, kept: Times) -> None:
    """(L,) from the landmarks to `at`."""
    for half in range(len(kept)):
        known = tables.rates[half] > 0 and not np.isnan(tables.landmarks[half])
        kept[half] = np.exp(-tables.rates[half] * (at - tables.landmarks[half])) if known else 1.0


@compiled
def _count(counts: Times, code: int, share: float, worth: Times) -> None:
    column = _COLUMN[code]
    for half in range(len(worth)):
        counts[column, half] += worth[half]
    if code == SHOWN:
        for half in range(len(worth)):
            counts[_SHARE, half] += worth[half] * share


@compiled
def _add_counters(counts: Times, kept: Times, out: Scores) -> None:
    halves = len(kept)
    for kind in range(len(KINDS)):
        for half in range(halves):
            out[kind * halves + half] += counts[kind, half] * kept[half]
