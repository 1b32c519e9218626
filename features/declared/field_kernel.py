"""The compiled kernel of declared fields sets values, counts events by them, and reads both, in the order of the log.

It runs after the kernel of the behavioural state, over the same operations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows, Times
from feedrank.features.declared import key_parts, keyed_counters, keyed_windows, recent_interactions
from feedrank.features.declared.field_arrays import FieldArrays, FieldBuffers, FieldInputs
from feedrank.features.declared.key_parts import MAX_KEY_VALUES, MAX_REQUEST_VALUES
from feedrank.features.declared.keyed_counters import USER_ROW
from feedrank.features.jit import jit
from feedrank.features.kernel import CODE_MASK, OP_IMPRESSION, OP_READ, Operations


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
    hashes, sizes = np.empty((n_counters, 2, MAX_KEY_VALUES), np.int64), np.empty((n_counters, 2), np.int64)
    while cursor[1] < len(operations.code):
        m = cursor[1]
        _apply_changes(state, inputs, inputs.position[m], cursor)
        at, user = operations.at[m], operations.user[m]
        if operations.code[m] & CODE_MASK == OP_READ:
            at = max(at, state.now[0])
            read, first, line = cursor[3], operations.start[m], cursor[4]
            keyed_counters.decay_factors(counters, at, decay)
            key_parts.read_fixed_parts(state, inputs, m, user, -1, hashes, sizes)
            _read_request(state, user, history[read], read, buffers, decay)
            slots = _read_totals(state, at, read, buffers, hashes, sizes)
            rows = operations.rows[first : operations.stop[m]]
            _read_items(state, rows, line, buffers)
            _read_counts(state, rows, at, buffers.counts[line : line + len(rows)], decay, hashes, sizes, slots)
            cursor[4] += len(rows)
            cursor[3] += 1
        else:
            if not state.now[0] >= at:
                state.now[0] = at
            bits = operations.type_bits[m]
            slot = _remember(state, inputs, m, user, operations.code[m] & CODE_MASK == OP_IMPRESSION)
            start = operations.start[m] + cursor[2]
            if n_counters and bits:
                key_parts.read_fixed_parts(state, inputs, m, user, slot, hashes, sizes)
                done = _count(state, operations.rows[start : operations.stop[m]], user, bits, at, hashes, sizes)
                if done < operations.stop[m] - start:
                    cursor[2] += done
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
def _count(
    state: FieldArrays, rows: Rows, user: int, bits: int, at: float, hashes: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> int:  # fmt: skip
    """Count one event of each item; return how many items are done: fewer, if there is no room for the next one's keys.

    hashes, sizes: of the parts of keys that all items share.
    """
    table, windows, recent = state.counters, state.windows, state.recent
    parts, starts, stops, pool = table.parts, state.items.starts, state.items.stops, state.pool
    for i in range(len(rows)):
        row = rows[i]
        if row < 0:
            continue
        needed, in_windows, buckets, in_recent, places = 0, 0, 0, 0, 0
        for c in range(len(parts)):
            if bits & (table.numerator[c] | table.denominator[c]):
                n = key_parts.n_values(parts, c, 0, row, starts, stops, sizes)
                keys = n * key_parts.n_values(parts, c, 1, row, starts, stops, sizes)
                in_recent += n if recent.sizes[c] else 0
                places += n * recent.sizes[c]
                in_windows += keys + 1 if windows.buckets[c] else 0
                buckets += (keys + 1) * windows.buckets[c]
                needed += keys if not recent.sizes[c] and not windows.buckets[c] else 0
        if (
            table.used[0] + needed > len(table.keys)
            or not keyed_windows.has_room(windows, in_windows, buckets)
            or not recent_interactions.has_room(recent, in_recent, places)
        ):
            return i
        for c in range(len(parts)):
            if not bits & (table.numerator[c] | table.denominator[c]):
                continue
            n = key_parts.n_values(parts, c, 0, row, starts, stops, sizes)
            n_second = key_parts.n_values(parts, c, 1, row, starts, stops, sizes)
            owner = user if parts[c, 0, 0] == USER_ROW or parts[c, 1, 0] == USER_ROW else -1
            if recent.sizes[c]:
                if n:
                    recent_interactions.add(recent, c, hashes[c, 0, 0], owner, row, at)
                continue
            if n == 0 or n_second == 0:
                continue
            counts = (int(bits & table.numerator[c] != 0), int(bits & table.denominator[c] != 0))
            if windows.buckets[c]:
                keyed_windows.add_overall(windows, c, counts, at)
            else:
                keyed_counters.add_total(table, c, bits, at)
            for x in range(n):
                first = key_parts.value_of(parts, c, 0, row, x, starts, pool, hashes)
                for y in range(n_second):
                    second = key_parts.value_of(parts, c, 1, row, y, starts, pool, hashes)
                    if windows.buckets[c]:
                        keyed_windows.add(windows, c, first, second, owner, counts, at)
                    else:
                        keyed_counters.add(table, c, first, second, owner, bits, at)
    return len(rows)


@jit
def _read_request(state: FieldArrays, user: int, history: Rows, read: int, buffers: FieldBuffers, decay: Times) -> None:
    """Read the values of one request: those of its user, and of the items of the history."""
    items, users, totals = state.items, state.users, state.counters.totals
    for f in range(len(items.numbers)):
        for h in range(len(history)):
            if 0 <= history[h] < items.numbers.shape[1]:
                buffers.history_numbers[read, h, f] = items.numbers[f, history[h]]
    if 0 <= user < users.numbers.shape[1]:
        for f in range(len(users.numbers)):
            buffers.user_numbers[read, f] = users.numbers[f, user]
    if 0 <= user < users.starts.shape[1]:
        for f in range(len(users.starts)):
            buffers.user_bounds[read, f, 0] = users.starts[f, user]
            buffers.user_bounds[read, f, 1] = users.stops[f, user]
    for c in range(decay.shape[0]):
        for half in range(decay.shape[1]):
            buffers.totals[read, c, half] = totals[c, half] * decay[c, half]


@jit
def _read_totals(
    state: FieldArrays, at: float, read: int, buffers: FieldBuffers, hashes: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> NDArray[np.int64]:  # fmt: skip
    """Read the overall counts of windows, and those of the latest interactions; return the slots (C,) of the latter.

    A counter without interactions of the user or session, or of another sort, has the slot -1.
    """
    windows, recent = state.windows, state.recent
    slots = np.full(len(sizes), -1)
    for c in range(len(sizes)):
        if windows.buckets[c]:
            keyed_windows.add_overall_windows(windows, c, at, buffers.totals[read, c])
        elif recent.sizes[c] and sizes[c, 0]:
            slots[c] = recent_interactions.slot_of(recent, c, hashes[c, 0, 0])
            if slots[c] >= 0:
                recent_interactions.count_all(recent, c, slots[c], at, buffers.totals[read, c])
    return slots


@jit
def _read_items(state: FieldArrays, rows: Rows, line: int, buffers: FieldBuffers) -> None:
    """Read the values of the candidates of one request, whose first one has this line."""
    items = state.items
    for i in range(len(rows)):
        if rows[i] >= 0:
            for f in range(len(items.numbers)):
                buffers.item_numbers[line + i, f] = items.numbers[f, rows[i]]
            for f in range(len(items.starts)):
                buffers.item_bounds[line + i, f, 0] = items.starts[f, rows[i]]
                buffers.item_bounds[line + i, f, 1] = items.stops[f, rows[i]]


@jit
def _read_counts(
    state: FieldArrays, rows: Rows, at: float, out: NDArray[np.float64], decay: Times, hashes: NDArray[np.int64],
    sizes: NDArray[np.int64], slots: NDArray[np.int64],
) -> None:  # fmt: skip
    """Read the counts of the candidates of one request: (rows, C, L, 2)."""
    windows, recent, parts = state.windows, state.recent, state.counters.parts
    hash_index, keys, sums = state.counters.hash_index, state.counters.keys, state.counters.sums
    starts, stops, pool = state.items.starts, state.items.stops, state.pool
    for i in range(len(rows)):
        row = rows[i]
        for c in range(len(parts) if row >= 0 else 0):
            if recent.sizes[c]:
                if slots[c] >= 0:
                    recent_interactions.count_shared(recent, c, slots[c], at, row, state.items, pool, out[i, c])
                continue
            for x in range(key_parts.n_values(parts, c, 0, row, starts, stops, sizes)):
                first = key_parts.value_of(parts, c, 0, row, x, starts, pool, hashes)
                for y in range(key_parts.n_values(parts, c, 1, row, starts, stops, sizes)):
                    key = keyed_counters.key_of(c, first, key_parts.value_of(parts, c, 1, row, y, starts, pool, hashes))
                    if windows.buckets[c]:
                        keyed_windows.add_windows(windows, c, key, at, out[i, c])
                        continue
                    position = keyed_counters.find(hash_index, keys, key)
                    if hash_index[position]:
                        slot = hash_index[position] - 1
                        for half in range(decay.shape[1]):
                            out[i, c, half, 0] += sums[slot, half, 0] * decay[c, half]
                            out[i, c, half, 1] += sums[slot, half, 1] * decay[c, half]
