"""The compiled kernel advances and reads the behavioural state, both for live requests and for replay.

Operations run in order. OP_READ copies the state out before later events are observed (read before observe). Counters
are exponentially decayed sums: value(t) = sum over events of 2^(-(t - t_event) / half_life). They are stored relative
to a landmark time (forward decay), so an event costs one exponential per half-life, and a read one factor (Cormode et
al., Forward Decay: A Practical Time Decay Model for Streaming Systems, 2009).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Matrix, Offsets, Rows, Scores, Times
from feedrank.features import counter_table as keyed
from feedrank.features import history_store as chains
from feedrank.features.counter_table import WIDEST, Keyed
from feedrank.features.history_store import IMPRESSIONS, TOUCHES, Chains
from feedrank.features.jit import compiled

SHOWN, TOUCHED, PRIOR, READ = 0, 1, 2, 3
"""Operation codes: impressions of a ranking; an interaction; an interaction from before the log; a read."""
KINDS = ("shown", "share", "touched", "prior")
"""Counters of an entity: impressions; 1 / list length per impression; interactions; interactions before the log."""
_SHARE = 1
_COLUMN = (0, 2, 3)
"""The index in COUNTER_KINDS that an operation code increments."""
SHOWN_DEPTH = 400
"""How many of the user's latest impressions a read scans."""


class Tables(NamedTuple):
    """Arrays of the state. Entities are items, then categories, then one row for the whole catalogue."""

    rates: Times
    """(L,) decay per second of each half-life: ln 2 / half-life, 0 for no decay."""
    landmarks: Times
    """(L,) landmark times of the counters, unix seconds; NaN before the first event."""
    counts: Times
    """(entities, kinds, L) counters, decayed to the landmarks."""
    first_at: Times
    """(n,) time of an item's first impression or interaction in the log; NaN: none."""
    last_at: Times
    """(n,) time of an item's last interaction; NaN: none."""
    now: Times
    """(1,) unix seconds of the latest event; reads never go back before it."""
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
    """(M,) bit mask of the custom counters' event types."""

    def part(self, first: int, last: int) -> Ops:
        """Return operations [first, last)."""
        cut = slice(first, last)
        return Ops(
            self.code[cut], self.at[cut], self.person[cut], self.start[cut], self.stop[cut], self.rows, self.bits[cut]
        )


class Reads(NamedTuple):
    """Output buffers of OP_READ: R reads with N candidate rows; the columns are those of `feedrank.engine.types.Batch`."""

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
    """Run operations [first, last) in order.

    cursor: (2,) number of reads and of their rows so far; it is carried from call to call. The caller reserves one
    history block per observed row, and the counter keys that the rows can add.
    """
    items = len(tables.category_offsets) - 1
    everything = len(tables.counts) - 1
    halves = len(tables.rates)
    increment, decay = np.empty(halves), np.empty(halves)
    recent, times = np.empty(SHOWN_DEPTH, np.int32), np.empty(SHOWN_DEPTH)
    overall = np.empty(len(KINDS) * halves, np.float32)
    for m in range(first, last):
        code, at, user = ops.code[m], ops.at[m], ops.person[m]
        if code == READ:
            read, at = done[0], max(at, tables.now[0])
            n_recent = 0
            if user >= 0:
                history, history_at = reads.history[read], reads.history_at[read]
                chains.read(tables.chains, user, TOUCHES, items, history, history_at)
                reads.touches[read] = tables.chains.lengths[user, TOUCHES]
                n_recent = chains.read(tables.chains, user, IMPRESSIONS, items, recent, times)
            _factors(tables, at, decay)
            overall[:] = 0
            _add_counters(tables.counts[everything], decay, overall)
            for i in range(ops.start[m], ops.stop[m]):
                row, line = ops.rows[i], done[1]
                done[1] += 1
                if row < 0:
                    continue
                if user >= 0:
                    impressions = np.float32(0)
                    for entry in range(n_recent):
                        impressions += np.float32(recent[entry] == row)
                    reads.shown[line] = impressions
                out = reads.counters[line]
                width = len(overall)
                out[: 2 * width] = 0
                _add_counters(tables.counts[row], decay, out[:width])
                for c in range(tables.category_offsets[row], tables.category_offsets[row + 1]):
                    _add_counters(tables.counts[items + tables.category_codes[c]], decay, out[width : 2 * width])
                out[2 * width :] = overall
                reads.age[line] = at - tables.first_at[row]
                reads.since_touch[line] = at - tables.last_at[row]
                if len(tables.keyed.counted):
                    keyed.read(tables.keyed, row, user, at, reads.declared[line])
            done[0] += 1
            continue
        if not tables.now[0] >= at:
            tables.now[0] = at
        _worths(tables, at, increment)
        share = 1.0 / max(ops.stop[m] - ops.start[m], 1)
        for i in range(ops.start[m], ops.stop[m]):
            row = ops.rows[i]
            if row < 0:
                continue
            _count(tables.counts[row], code, share, increment)
            _count(tables.counts[everything], code, share, increment)
            for c in range(tables.category_offsets[row], tables.category_offsets[row + 1]):
                _count(tables.counts[items + tables.category_codes[c]], code, share, increment)
            if code != PRIOR and not tables.first_at[row] <= at:
                tables.first_at[row] = at
            if code == TOUCHED and not tables.last_at[row] >= at:
                tables.last_at[row] = at
            if user >= 0:
                chains.add(tables.chains, user, IMPRESSIONS if code == SHOWN else TOUCHES, row, at, items)
            if ops.bits[m]:
                keyed.count(tables.keyed, row, user, ops.bits[m], at)


@compiled
def item_counts(tables: Tables, kind: int, half: int, at: float, out: Times) -> None:
    """Read one counter of every item as of `at` into `out` (n,)."""
    decay = np.empty(len(tables.rates))
    _factors(tables, max(at, tables.now[0]), decay)
    for row in range(len(out)):
        out[row] = tables.counts[row, kind, half] * decay[half]


@compiled
def _worths(tables: Tables, at: float, worth: Times) -> None:
    """Compute the (L,) increments of an event at `at`, relative to the landmarks; moves landmarks to avoid overflow."""
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
    """Compute the (L,) decay factors from the landmarks to `at`."""
    for half in range(len(kept)):
        decays = tables.rates[half] > 0 and not np.isnan(tables.landmarks[half])
        kept[half] = np.exp(-tables.rates[half] * (at - tables.landmarks[half])) if decays else 1.0


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
