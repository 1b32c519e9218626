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

from feedrank.engine.events.events import JOIN_WINDOW_S
from feedrank.engine.types import Matrix, Offsets, Rows, Scores, Times
from feedrank.features import counter_table, dislikes, history_store
from feedrank.features.counter_table import MAX_EXPONENT, CounterTable
from feedrank.features.custom_counters import IMPRESSION_BIT
from feedrank.features.dislikes import MAX_MARKS
from feedrank.features.history_store import IMPRESSIONS, INTERACTIONS, HistoryStore
from feedrank.features.jit import jit

OP_IMPRESSION, OP_INTERACTION, OP_PRE_LOG, OP_READ, OP_NEGATIVE, OP_SEEN, OP_OTHER, OP_CODES = 0, 1, 2, 3, 4, 5, 6, 7
"""Operation codes: impressions of a ranking; an interaction; an interaction from before the log; a read; a dislike; an
impression event, unless a ranking counted it; an event that only custom counters count; new codes, by four `rows`:
the item, the field, and the bounds in `StateArrays.codes`."""
NO_HISTORY, NO_COUNTS = 16, 32
"""Flags of an interaction's code: it does not enter the user's history; it does not count for the item."""
CODE_MASK = 15
"""The bits of an operation code without its flags."""
COUNTER_KINDS = ("impressions", "uniform_share", "interactions", "pre_log")
"""Counters of an entity: impressions; 1 / list length per impression; interactions; interactions before the log."""
_UNIFORM_SHARE = 1
_COUNTER_OF_OP = (0, 2, 3)
"""The index in COUNTER_KINDS that an operation code increments."""
MAX_RECENT_IMPRESSIONS = 400
"""How many of the user's latest impressions a read scans."""


class StateArrays(NamedTuple):
    """Arrays of the state. Entities are items, then categories, then one row for the whole catalogue."""

    decay_rates: Times
    """(L,) decay per second of each half-life: ln 2 / half-life, 0 for no decay."""
    landmarks: Times
    """(L,) landmark times of the counters, unix seconds; NaN before the first event."""
    counts: Times
    """(entities, kinds, L) counters, decayed to the landmarks."""
    dislikes: Times
    """(n + 1, L) dislikes of each item, and of all, decayed to the landmarks."""
    first_at: Times
    """(n,) time of an item's first impression or interaction in the log; NaN: none."""
    last_at: Times
    """(n,) time of an item's last interaction; NaN: none."""
    now: Times
    """(1,) unix seconds of the latest event; reads never go back before it."""
    codes: NDArray[np.int32]
    """Codes of the values of the counted item fields; codes in use are never changed, new ones are appended."""
    code_bounds: NDArray[np.int32]
    """(fields, n, 2) bounds of each item's codes in `codes`; the first field is the category."""
    histories: HistoryStore
    dislike_marks: HistoryStore
    """One list of each user; see `features.dislikes`."""
    custom_counters: CounterTable


class Operations(NamedTuple):
    """M operations over flattened item rows; operation m has rows [start, stop)."""

    code: NDArray[np.uint8]
    at: Times
    user: NDArray[np.int32]
    session: NDArray[np.int32]
    """(M,) row of the visitor without a name who turns out to be the user, or of whom a read is too; -1: none."""
    start: Offsets
    stop: Offsets
    rows: Rows
    type_bits: NDArray[np.int64]
    """(M,) bit mask of the custom counters' event types."""

    def segment(self, first: int, last: int) -> Operations:
        """Return operations [first, last)."""
        cut = slice(first, last)
        return Operations(
            self.code[cut],
            self.at[cut],
            self.user[cut],
            self.session[cut],
            self.start[cut],
            self.stop[cut],
            self.rows,
            self.type_bits[cut],
        )

    def observed_rows(self) -> Rows:
        """Return the item rows of all events: of the operations that are no reads and no new codes."""
        sizes = np.where((self.code == OP_READ) | (self.code == OP_CODES), 0, self.stop - self.start)
        indices = np.repeat(self.start - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        return self.rows.take(indices)


def ranking_operation(at: float, user: int, session: int, rows: Rows, type_bits: int) -> Operations:
    """Return the one operation of a ranking that showed these items. at: unix seconds."""
    return Operations(
        np.array([OP_IMPRESSION], np.uint8), np.array([at]), np.array([user], np.int32), np.array([session], np.int32),
        np.zeros(1, np.int64), np.array([len(rows)], np.int64), rows, np.array([type_bits], np.int64),
    )  # fmt: skip


class ReadBuffers(NamedTuple):
    """Output buffers of OP_READ: R reads with N candidate rows; the columns are those of `engine.types.Batch`."""

    history: Rows
    history_at: Times
    interaction_count: NDArray[np.int64]
    impressions: Scores
    item_age: Scores
    since_interaction: Scores
    counters: Matrix
    custom_counters: Matrix
    disliked: Rows
    disliked_at: Times
    dislikes: Matrix


@jit
def advance(
    state: StateArrays, operations: Operations, first: int, last: int, buffers: ReadBuffers, cursor: NDArray[np.int64]
) -> None:
    """Run operations [first, last) in order.

    cursor: (2,) number of reads and of their rows so far; it is carried from call to call. The caller reserves one
    history block per observed row, and the counter keys that the rows can add.
    """
    items = len(state.first_at)
    everything = len(state.counts) - 1
    halves = len(state.decay_rates)
    increment, decay = np.empty(halves), np.empty(halves)
    recent, times = np.empty(MAX_RECENT_IMPRESSIONS, np.int32), np.empty(MAX_RECENT_IMPRESSIONS)
    overall = np.empty(len(COUNTER_KINDS) * halves, np.float32)
    marks, mark_times = np.empty(MAX_MARKS, np.int32), np.empty(MAX_MARKS)
    # taken once: to pass the whole state at each event would copy all its arrays
    decay_rates, landmarks, n_marks = state.decay_rates, state.landmarks, state.dislike_marks.used
    item_counters, item_dislikes, codes, bounds = state.counts, state.dislikes, state.codes, state.code_bounds
    for m in range(first, last):
        code, at, user = operations.code[m] & CODE_MASK, operations.at[m], operations.user[m]
        if code == OP_READ:
            read, at = cursor[0], max(at, state.now[0])
            n_recent, session = 0, operations.session[m]
            if user >= 0 or session >= 0:
                history, history_at = buffers.history[read], buffers.history_at[read]
                history_store.read_both(state.histories, user, session, INTERACTIONS, items, history, history_at)
                for visitor in (user, session):
                    if visitor >= 0:
                        buffers.interaction_count[read] += state.histories.lengths[visitor, INTERACTIONS]
                n_recent = history_store.read_both(state.histories, user, session, IMPRESSIONS, items, recent, times)
                if n_marks[0]:
                    rows, rows_at = buffers.disliked[read], buffers.disliked_at[read]
                    count = history_store.read_both(state.dislike_marks, user, session, 0, 2 * items, marks, mark_times)
                    dislikes.select_recent(marks[:count], mark_times, rows, rows_at)
            _decay_factors(state, at, decay)
            overall[:] = 0
            has_dislikes = state.dislikes[items].any()
            _add_counters(state.counts[everything], decay, overall)
            for i in range(operations.start[m], operations.stop[m]):
                row, line = operations.rows[i], cursor[1]
                cursor[1] += 1
                if row < 0:
                    continue
                if user >= 0 or session >= 0:
                    impressions = np.float32(0)
                    for entry in range(n_recent):
                        impressions += np.float32(recent[entry] == row)
                    buffers.impressions[line] = impressions
                out = buffers.counters[line]
                width = len(overall)
                out[: 2 * width] = 0
                _add_counters(state.counts[row], decay, out[:width])
                for c in range(bounds[0, row, 0], bounds[0, row, 1]):
                    _add_counters(state.counts[items + codes[c]], decay, out[width : 2 * width])
                out[2 * width :] = overall
                if has_dislikes:
                    for half in range(halves):
                        buffers.dislikes[line, half] = state.dislikes[row, half] * decay[half]
                        buffers.dislikes[line, halves + half] = state.dislikes[items, half] * decay[half]
                buffers.item_age[line] = at - state.first_at[row]
                buffers.since_interaction[line] = at - state.last_at[row]
                if len(state.custom_counters.numerator):
                    out = buffers.custom_counters[line]
                    counter_table.read(state.custom_counters, codes, bounds, row, user, at, out)
            cursor[0] += 1
            continue
        if code == OP_CODES:
            start = operations.start[m]
            bounds[operations.rows[start + 1], operations.rows[start]] = operations.rows[start + 2 : start + 4]
            continue
        if not state.now[0] >= at:
            state.now[0] = at
        bits = operations.type_bits[m]
        if operations.session[m] >= 0 and user >= 0:
            history_store.move(state.histories, operations.session[m], user, items)
            history_store.move(state.dislike_marks, operations.session[m], user, 2 * items)
        if code >= OP_NEGATIVE:
            row = operations.rows[operations.start[m]]
            if row < 0:
                continue
            if code == OP_SEEN:
                n_recent = 0
                if user >= 0:
                    n_recent = history_store.read(state.histories, user, IMPRESSIONS, items, recent, times)
                for entry in range(n_recent):
                    if recent[entry] == row and abs(at - times[entry]) <= JOIN_WINDOW_S:
                        code, bits = OP_OTHER, bits & ~IMPRESSION_BIT
                        operations.type_bits[m] = bits  # for the kernel of declared fields
                        break
            if code != OP_SEEN:
                if code == OP_NEGATIVE:
                    _increments(decay_rates, landmarks, item_counters, item_dislikes, at, increment)
                    for half in range(halves):
                        state.dislikes[row, half] += increment[half]
                        state.dislikes[items, half] += increment[half]
                    if not state.first_at[row] <= at:
                        state.first_at[row] = at
                    if user >= 0:
                        dislikes.add(state.dislike_marks, user, row, at, items)
                if bits:
                    counter_table.count(state.custom_counters, codes, bounds, row, user, bits, at)
                continue
            code = OP_IMPRESSION
        in_history, counts = operations.code[m] & NO_HISTORY == 0, operations.code[m] & NO_COUNTS == 0
        if counts:
            _increments(decay_rates, landmarks, item_counters, item_dislikes, at, increment)
        share = 1.0 / max(operations.stop[m] - operations.start[m], 1)
        for i in range(operations.start[m], operations.stop[m]):
            row = operations.rows[i]
            if row < 0:
                continue
            if counts:
                _count(state.counts[row], code, share, increment)
                _count(state.counts[everything], code, share, increment)
                for c in range(bounds[0, row, 0], bounds[0, row, 1]):
                    _count(state.counts[items + codes[c]], code, share, increment)
                if code == OP_INTERACTION and not state.last_at[row] >= at:
                    state.last_at[row] = at
            if code != OP_PRE_LOG and not state.first_at[row] <= at:
                state.first_at[row] = at
            if user >= 0:
                if in_history:
                    history_store.append(
                        state.histories, user, IMPRESSIONS if code == OP_IMPRESSION else INTERACTIONS, row, at, items
                    )
                if n_marks[0] and code != OP_IMPRESSION:
                    dislikes.end(state.dislike_marks, user, row, at, items, marks, mark_times)
            if bits:
                counter_table.count(state.custom_counters, codes, bounds, row, user, bits, at)


@jit
def interactions_of(state: StateArrays, user: int, rows: Rows, times: Times) -> None:
    """Read the latest interactions of a known user, latest first, as many as fit into `rows` and `times`."""
    history_store.read(state.histories, user, INTERACTIONS, len(state.first_at), rows, times)


@jit
def item_counts(state: StateArrays, kind: int, half_life: int, at: float, out: Times) -> None:
    """Read one counter of every item as of `at` into `out` (n,)."""
    decay = np.empty(len(state.decay_rates))
    _decay_factors(state, max(at, state.now[0]), decay)
    for row in range(len(out)):
        out[row] = state.counts[row, kind, half_life] * decay[half_life]


@jit
def _increments(
    decay_rates: Times, landmarks: Times, counts: Times, dislikes_of: Times, at: float, increment: Times
) -> None:
    """Compute the (L,) increments of an event at `at`, relative to the landmarks; moves landmarks to avoid overflow."""
    for half in range(len(increment)):
        rate = decay_rates[half]
        if np.isnan(landmarks[half]):
            landmarks[half] = at
        if rate * (at - landmarks[half]) > MAX_EXPONENT:
            _move_landmark(counts[:, :, half], dislikes_of[:, half], np.exp(-rate * (at - landmarks[half])))
            landmarks[half] = at
        increment[half] = np.exp(rate * (at - landmarks[half]))


@jit
def _move_landmark(counts: Times, dislikes_of: Times, factor: float) -> None:
    """Decay the counters of one half-life; a function of its own, which keeps the code of each event small."""
    counts *= factor
    dislikes_of *= factor


@jit
def _decay_factors(state: StateArrays, at: float, decay: Times) -> None:
    """Compute the (L,) decay factors from the landmarks to `at`."""
    for half in range(len(decay)):
        decays = state.decay_rates[half] > 0 and not np.isnan(state.landmarks[half])
        decay[half] = np.exp(-state.decay_rates[half] * (at - state.landmarks[half])) if decays else 1.0


@jit
def _count(counts: Times, code: int, share: float, increment: Times) -> None:
    column = _COUNTER_OF_OP[code]
    for half in range(len(increment)):
        counts[column, half] += increment[half]
    if code == OP_IMPRESSION:
        for half in range(len(increment)):
            counts[_UNIFORM_SHARE, half] += increment[half] * share


@jit
def _add_counters(counts: Times, decay: Times, out: Scores) -> None:
    halves = len(decay)
    for kind in range(len(COUNTER_KINDS)):
        for half in range(halves):
            out[kind * halves + half] += counts[kind, half] * decay[half]
