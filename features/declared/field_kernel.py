"""The compiled kernel of declared fields sets values, counts events by them, and reads both, in the order of the log.

It runs after the kernel of the behavioural state, over the same operations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows, Times
from feedrank.features.declared import keyed_counters, keyed_windows, recent_interactions
from feedrank.features.declared.field_arrays import FieldArrays, FieldBuffers, FieldInputs
from feedrank.features.declared.keyed_counters import (
    ITEM_ROW,
    ITEM_VALUES,
    NO_PART,
    REQUEST_VALUES,
    SESSION_ID,
    USER_ROW,
    USER_VALUES,
)
from feedrank.features.jit import jit
from feedrank.features.kernel import CODE_MASK, OP_IMPRESSION, OP_READ, Operations

MAX_KEY_VALUES, MAX_REQUEST_VALUES = 16, 4
"""Values of a list that make keys of counters, and of a list of a request; further ones are left out."""
_STATE, _INPUT, _RANKING = 0, 1, 2
"""Where the hashes of a part of a key lie: in the pool of the state, in that of the inputs, in `rankings`."""


@jit
def advance_fields(
    state: FieldArrays, operations: Operations, inputs: FieldInputs, history: Rows, buffers: FieldBuffers,
    cursor: NDArray[np.int64],
) -> bool:  # fmt: skip
    """Run operations in order; return whether all are done, False where the counters need room for more keys.

    history: (R, H) item rows of each read. cursor: (5,) the next change, operation, row of it, read and line; it is
    carried from call to call. The caller reserves room in the pool for all hashes of the changes.
    """
    counters = state.counters
    n_counters, halves = counters.decay_rates.shape
    decay = np.empty((n_counters, halves))
    while cursor[1] < len(operations.code):
        m = cursor[1]
        _apply_changes(state, inputs, inputs.position[m], cursor)
        at, user = operations.at[m], operations.user[m]
        if operations.code[m] & CODE_MASK == OP_READ:
            at = max(at, state.now[0])
            keyed_counters.decay_factors(counters, at, decay)
            _read(state, operations, inputs, m, history[cursor[3]], buffers, decay, cursor)
            cursor[3] += 1
        else:
            if not state.now[0] >= at:
                state.now[0] = at
            bits = operations.type_bits[m]
            slot = _remember(state, inputs, m, user, operations.code[m] & CODE_MASK == OP_IMPRESSION)
            start = operations.start[m] + cursor[2]
            for i in range(start, operations.stop[m] if n_counters and bits else start):
                row = operations.rows[i]
                if row >= 0 and not _count(state, inputs, row, user, m, slot, bits, at):
                    cursor[2] = i - operations.start[m]
                    return False
            cursor[2] = 0
        cursor[1] += 1
    return True


@jit
def apply_all_changes(state: FieldArrays, inputs: FieldInputs, cursor: NDArray[np.int64]) -> None:
    """Apply the changes that stand after the last operation."""
    _apply_changes(state, inputs, np.iinfo(np.int64).max, cursor)


@jit
def _apply_changes(state: FieldArrays, inputs: FieldInputs, position: int, cursor: NDArray[np.int64]) -> None:
    """Apply the next changes that stand before a position of the log."""
    changes = inputs.changes
    while cursor[0] < len(changes.position) and changes.position[cursor[0]] <= position:
        k = cursor[0]
        cursor[0] += 1
        row, form = changes.row[k], changes.form[k]
        if row < 0:
            continue
        valid = state.user_valid_s if changes.is_user[k] else state.item_valid_s
        columns = state.users if changes.is_user[k] else state.items
        if row >= valid.shape[1] or changes.valid_s[k] < valid[form, row]:
            continue
        valid[form, row] = changes.valid_s[k]
        if form < len(columns.numbers):
            columns.numbers[form, row] = changes.number[k]
            continue
        column, used, length = form - len(columns.numbers), state.pool_used[0], changes.stop[k] - changes.start[k]
        state.pool[used : used + length] = inputs.pool[changes.start[k] : changes.stop[k]]
        columns.starts[column, row], columns.stops[column, row] = used, used + length
        state.pool_used[0] += length


@jit
def _remember(state: FieldArrays, inputs: FieldInputs, m: int, user: int, is_ranking: bool) -> int:
    """Remember the request of a ranking; return the slot of an interaction's ranking, -1: none is known.

    That is the ranking which the interaction names, else the user's latest one.
    """
    slots, ranking, request = len(state.rankings.of_slot), inputs.ranking[m], inputs.request[m]
    if not slots:
        return -1
    if not is_ranking:
        if ranking == 0 and 0 <= user < len(state.rankings.of_user):
            ranking = state.rankings.of_user[user]
        slot = ranking & (slots - 1)
        return slot if ranking != 0 and state.rankings.of_slot[slot] == ranking else -1
    slot = ranking & (slots - 1)
    state.rankings.of_slot[slot] = ranking
    if 0 <= user < len(state.rankings.of_user):
        state.rankings.of_user[user] = ranking
    columns = state.rankings.sizes.shape[1]
    for column in range(columns):
        start, stop = inputs.requests.starts[column, request], inputs.requests.stops[column, request]
        size = min(stop - start, MAX_REQUEST_VALUES)
        first = (slot * columns + column) * MAX_REQUEST_VALUES
        state.rankings.values[first : first + size] = inputs.pool[start : start + size]
        state.rankings.sizes[slot, column] = size
    return -1


@jit
def _values(
    state: FieldArrays, inputs: FieldInputs, part: NDArray[np.int64], row: int, user: int, m: int, slot: int
) -> tuple[int, int, int]:
    """Return the bounds of the hashes of a part of a key, and where they lie.

    A part without hashes, such as the item itself, has the bounds (0, 1). slot: of a ranking whose request stands in
    for values that the own one lacks; -1: none.
    """
    kind, column, request = part[0], part[1], inputs.request[m]
    if kind == ITEM_VALUES:
        start, stop = state.items.starts[column, row], state.items.stops[column, row]
        return start, min(stop, start + MAX_KEY_VALUES), _STATE
    if kind == USER_VALUES:
        if user < 0 or user >= state.users.starts.shape[1]:
            return 0, 0, _STATE
        start, stop = state.users.starts[column, user], state.users.stops[column, user]
        return start, min(stop, start + MAX_KEY_VALUES), _STATE
    if kind == REQUEST_VALUES:
        start, stop = 0, 0
        if request >= 0:
            start, stop = inputs.requests.starts[column, request], inputs.requests.stops[column, request]
        if start == stop and slot >= 0:
            start = (slot * state.rankings.sizes.shape[1] + column) * MAX_REQUEST_VALUES
            return start, start + state.rankings.sizes[slot, column], _RANKING
        return start, min(stop, start + MAX_REQUEST_VALUES), _INPUT
    is_missing = (kind == USER_ROW and user < 0) or (kind == SESSION_ID and inputs.session[m] == 0)
    return 0, 0 if is_missing else 1, _STATE


@jit
def _hash(
    state: FieldArrays, inputs: FieldInputs, kind: int, place: int, where: int, row: int, user: int, m: int
) -> int:
    """Return the hash of one value of a part."""
    if kind == NO_PART:
        return 0
    if kind == ITEM_ROW:
        return row + 1
    if kind == USER_ROW:
        return user + 1
    if kind == SESSION_ID:
        return int(inputs.session[m])
    if where == _RANKING:
        return int(state.rankings.values[place])
    return int(inputs.pool[place] if where == _INPUT else state.pool[place])


@jit
def _count(
    state: FieldArrays, inputs: FieldInputs, row: int, user: int, m: int, slot: int, bits: int, at: float
) -> bool:
    """Count one event of one item; return False, and count nothing, if there is no room for its keys."""
    table, windows, recent = state.counters, state.windows, state.recent
    needed, in_windows, buckets, in_recent, places = 0, 0, 0, 0, 0
    for c in range(len(table.numerator)):
        if bits & (table.numerator[c] | table.denominator[c]):
            a, b, _ = _values(state, inputs, table.parts[c, 0], row, user, m, slot)
            p, q, _ = _values(state, inputs, table.parts[c, 1], row, user, m, slot)
            if recent.sizes[c]:
                in_recent += b - a
                places += (b - a) * recent.sizes[c]
            elif windows.buckets[c]:
                in_windows += (b - a) * (q - p) + 1
                buckets += ((b - a) * (q - p) + 1) * windows.buckets[c]
            else:
                needed += (b - a) * (q - p)
    if (
        table.used[0] + needed > len(table.keys)
        or not keyed_windows.has_room(windows, in_windows, buckets)
        or not recent_interactions.has_room(recent, in_recent, places)
    ):
        return False
    for c in range(len(table.numerator)):
        if not bits & (table.numerator[c] | table.denominator[c]):
            continue
        kinds = table.parts[c, :, 0]
        a, b, a_where = _values(state, inputs, table.parts[c, 0], row, user, m, slot)
        p, q, p_where = _values(state, inputs, table.parts[c, 1], row, user, m, slot)
        owner = user if (kinds == USER_ROW).any() else -1
        if recent.sizes[c]:
            if a < b:
                who = _hash(state, inputs, kinds[0], a, a_where, row, user, m)
                recent_interactions.add(recent, c, who, owner, row, at)
            continue
        if b <= a or q <= p:
            continue
        counts = (int(bits & table.numerator[c] != 0), int(bits & table.denominator[c] != 0))
        if windows.buckets[c]:
            keyed_windows.add_overall(windows, c, counts, at)
        else:
            keyed_counters.add_total(table, c, bits, at)
        for i in range(a, b):
            first = _hash(state, inputs, kinds[0], i, a_where, row, user, m)
            for j in range(p, q):
                second = _hash(state, inputs, kinds[1], j, p_where, row, user, m)
                if windows.buckets[c]:
                    keyed_windows.add(windows, c, first, second, owner, counts, at)
                else:
                    keyed_counters.add(table, c, first, second, owner, bits, at)
    return True


@jit
def _read(
    state: FieldArrays, operations: Operations, inputs: FieldInputs, m: int, history: Rows, buffers: FieldBuffers,
    decay: Times, cursor: NDArray[np.int64],
) -> None:  # fmt: skip
    """Read the values and counts of one request's candidates."""
    read, user = cursor[3], operations.user[m]
    table, items = state.counters, state.items
    for f in range(len(items.numbers)):
        for h in range(len(history)):
            if 0 <= history[h] < items.numbers.shape[1]:
                buffers.history_numbers[read, h, f] = items.numbers[f, history[h]]
    if 0 <= user < state.users.numbers.shape[1]:
        for f in range(len(state.users.numbers)):
            buffers.user_numbers[read, f] = state.users.numbers[f, user]
    if 0 <= user < state.users.starts.shape[1]:
        for f in range(len(state.users.starts)):
            buffers.user_bounds[read, f, 0] = state.users.starts[f, user]
            buffers.user_bounds[read, f, 1] = state.users.stops[f, user]
    windows, recent, at = state.windows, state.recent, max(operations.at[m], state.now[0])
    slots = np.full(len(table.numerator), -1)
    for c in range(len(table.numerator)):
        for half in range(table.decay_rates.shape[1]):
            buffers.totals[read, c, half] = table.totals[c, half] * decay[c, half]
        if windows.buckets[c]:
            keyed_windows.add_overall_windows(windows, c, at, buffers.totals[read, c])
        elif recent.sizes[c]:
            a, b, where = _values(state, inputs, table.parts[c, 0], -1, user, m, -1)
            if a < b:
                who = _hash(state, inputs, table.parts[c, 0, 0], a, where, -1, user, m)
                slots[c] = recent_interactions.slot_of(recent, c, who)
            if slots[c] >= 0:
                recent_interactions.count_all(recent, c, slots[c], at, buffers.totals[read, c])
    for i in range(operations.start[m], operations.stop[m]):
        row, line = operations.rows[i], cursor[4]
        cursor[4] += 1
        if row < 0:
            continue
        for f in range(len(items.numbers)):
            buffers.item_numbers[line, f] = items.numbers[f, row]
        for f in range(len(items.starts)):
            buffers.item_bounds[line, f, 0], buffers.item_bounds[line, f, 1] = items.starts[f, row], items.stops[f, row]
        for c in range(len(table.numerator)):
            if recent.sizes[c]:
                if slots[c] >= 0:
                    recent_interactions.count_shared(
                        recent, c, slots[c], at, row, items, state.pool, buffers.counts[line, c]
                    )
                continue
            a, b, a_where = _values(state, inputs, table.parts[c, 0], row, user, m, -1)
            p, q, p_where = _values(state, inputs, table.parts[c, 1], row, user, m, -1)
            for x in range(a, b):
                first = _hash(state, inputs, table.parts[c, 0, 0], x, a_where, row, user, m)
                for y in range(p, q):
                    second = _hash(state, inputs, table.parts[c, 1, 0], y, p_where, row, user, m)
                    if windows.buckets[c]:
                        keyed_windows.add_windows(windows, c, first, second, at, buffers.counts[line, c])
                    else:
                        keyed_counters.add_sums(table, c, first, second, decay[c], buffers.counts[line, c])
