"""The state of declared fields: the present values of items and users, and the counters by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.field_collector import columns_of
from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER, Forms, hash_or_zero
from feedrank.engine.events.field_table import FieldChanges, FieldTable, ValueColumns
from feedrank.engine.field_reads import FieldReads
from feedrank.engine.types import ResolvedRequest, Rows, Times
from feedrank.features.declared import keyed_counters, keyed_windows, recent_interactions
from feedrank.features.declared.counter_plan import CounterPlan
from feedrank.features.declared.field_arrays import FieldArrays, FieldBuffers, FieldInputs, RankingRequests
from feedrank.features.declared.field_kernel import advance_fields, apply_all_changes
from feedrank.features.declared.key_parts import MAX_REQUEST_VALUES
from feedrank.features.jit import zero_padded
from feedrank.features.kernel import OP_READ, Operations

RANKING_SLOTS = 1 << 17
"""Rankings whose requests are remembered for the interactions with them, if counters read fields of requests."""


@dataclass(frozen=True, eq=False, slots=True)
class OperationContext:
    """What the operations of a log mean for declared fields."""

    position: NDArray[np.int64]
    """(M,) how many rankings and interactions of the log stand before each operation."""
    request: NDArray[np.int64]
    """(M,) row of the requests in `table` of each operation; -1: none."""
    table: FieldTable
    impressions: NDArray[np.int64] | None = None
    """(N,) row of `table.lists` of each candidate of the reads; None: no list brought fields."""
    first_change: int = 0
    """The first change that stands after all earlier operations."""

    def segment(self, first: int, last: int, first_row: int, last_row: int) -> OperationContext:
        """Return operations [first, last), whose reads have the candidate rows [first_row, last_row)."""
        changes, shown = self.table.changes.position, self.impressions
        done = 0 if first == 0 else int(np.searchsorted(changes, self.position[first - 1], "right"))
        rows = None if shown is None else shown[first_row:last_row]
        return OperationContext(self.position[first:last], self.request[first:last], self.table, rows, done)


class FieldState:
    """Sets and reads the values of declared fields, and counts by them."""

    def __init__(self, plan: CounterPlan, n_items: int) -> None:
        """Create the state of a plan without values. n_items: rows of items; more come as they are needed."""
        self._plan = plan
        forms = plan.forms
        items, users = (_no_values(forms, source, n) for source, n in ((ITEM, n_items), (USER, 0)))
        self._arrays = FieldArrays(
            items, users, _never(items), _never(users), np.zeros(0, np.int64), np.zeros(1, np.int64),
            plan.empty_counters(), plan.empty_windows(), plan.empty_recent(), _no_rankings(plan), np.full(1, -np.inf),
        )  # fmt: skip

    def observe(self, operations: Operations, context: OperationContext) -> None:
        """Observe the operations of a whole log, without reads, and all its changes."""
        cursor = self._run(operations, context, np.empty((0, 0), np.int32), self._buffers(0, 0, 0))
        apply_all_changes(self._arrays, _inputs(context), cursor)

    def replay(self, operations: Operations, context: OperationContext, history: Rows) -> FieldReads:
        """Run a segment of the operations of a log; return what its reads find, each just before its event.

        history: (R, H) item rows of each read.
        """
        is_read = operations.code == OP_READ
        sizes = (operations.stop - operations.start)[is_read]
        n_rows = int(sizes.sum())
        buffers = self._buffers(len(sizes), n_rows, history.shape[1])
        self._run(operations, context, history, buffers)
        table, shown = context.table, context.impressions
        lists = table.lists.take(np.full(n_rows, -1) if shown is None else shown)
        return self._reads(buffers, table.requests.take(context.request[is_read]), lists, table.pool)

    def read(
        self, operations: Operations, history: Rows, requests: Sequence[ResolvedRequest],
        lists: Sequence[Mapping[str, FieldValue | None]],
    ) -> FieldReads:  # fmt: skip
        """Run live reads. lists: the fields that come with each candidate row, or none."""
        columns, pool = columns_of(self._plan.forms, REQUEST, [request.fields for request in requests])
        given, list_pool = columns_of(self._plan.forms, LIST, lists)
        n_rows = int((operations.stop - operations.start).sum())
        if not len(lists):
            given = given.take(np.full(n_rows, -1))
        given = given._replace(starts=given.starts + len(pool), stops=given.stops + len(pool))
        pool = np.concatenate([pool, list_pool])
        n = len(operations.code)
        sessions = np.array([hash_or_zero(request.session_id) for request in requests], np.int64)
        table = FieldTable(self._plan.forms, _NO_CHANGES, columns, given, np.zeros(n, np.int64), sessions, pool)
        context = OperationContext(np.zeros(n, np.int64), np.arange(n, dtype=np.int64), table)
        buffers = self._buffers(n, n_rows, history.shape[1])
        self._run(operations, context, history, buffers)
        return self._reads(buffers, columns, given, pool)

    def erase_user(self, user: int) -> None:
        """Forget the values of a user and the counts of keys that name the user."""
        users, valid = self._arrays.users, self._arrays.user_valid_s
        if 0 <= user < valid.shape[1]:
            self._arrays.rankings.of_user[user] = 0
            users.numbers[:, user] = np.nan
            users.starts[:, user] = users.stops[:, user] = 0
            valid[:, user] = -np.inf
        if user >= 0:
            keyed_counters.clear_user(self._arrays.counters, user)
            keyed_windows.clear_user(self._arrays.windows, user)
            recent_interactions.clear_user(self._arrays.recent, user)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the name and the array of each part; they are not copied."""
        for name, value in self._arrays._asdict().items():
            if not isinstance(value, np.ndarray):
                yield from ((f"{name}.{part}", array) for part, array in value._asdict().items())
            else:
                yield name, value

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state by saved arrays of the same plan. Raises ValueError if they do not fit."""
        parts = {}
        for name, array in self.arrays():
            saved = arrays.get(name)
            if saved is None or saved.dtype != array.dtype or saved.ndim != array.ndim:
                raise ValueError(f"the saved fields have no {name} as expected; they are of another version")
            parts[name] = np.array(saved)
        restored: dict[str, Any] = {
            name: parts[name]
            if isinstance(value, np.ndarray)
            else value._replace(**{part: parts[f"{name}.{part}"] for part in value._fields})
            for name, value in self._arrays._asdict().items()
        }
        self._arrays = FieldArrays(**restored)

    @property
    def nbytes(self) -> int:
        """Memory in use, in bytes."""
        return sum(array.nbytes for _, array in self.arrays())

    def _run(
        self, operations: Operations, context: OperationContext, history: Rows, buffers: FieldBuffers
    ) -> NDArray[np.int64]:
        """Run the operations; return the cursor behind them."""
        self._reserve(operations, context.table)
        cursor = np.array([context.first_change, 0, 0, 0, 0], np.int64)
        inputs = _inputs(context)
        while not advance_fields(self._arrays, operations, inputs, history, buffers, cursor):
            room = max(len(self._arrays.counters.keys) // 4, 1_024)
            self._arrays = self._arrays._replace(
                counters=keyed_counters.reserve(self._arrays.counters, room),
                windows=keyed_windows.reserve(self._arrays.windows, max(len(self._arrays.windows.keys) // 4, 256)),
                recent=recent_interactions.reserve(self._arrays.recent, max(len(self._arrays.recent.keys) // 4, 64)),
            )
        return cursor

    def _reserve(self, operations: Operations, table: FieldTable) -> None:
        """Make room for the rows of items and users, and for the hashes of the changes."""
        arrays, changes = self._arrays, table.changes
        of_users = changes.row[changes.is_user]
        n_users = max(int(of_users.max(initial=-1)), int(operations.user.max(initial=-1))) + 1
        n_items = int(changes.row[~changes.is_user].max(initial=-1)) + 1
        n_items = max(n_items, int(operations.rows.max(initial=-1)) + 1)
        if n_users > arrays.user_valid_s.shape[1] and len(self._plan.forms.of_field):
            size = n_users + n_users // 8 + 16
            arrays = arrays._replace(
                users=_wider(arrays.users, size), user_valid_s=_padded(arrays.user_valid_s, size, -np.inf),
                rankings=arrays.rankings._replace(of_user=zero_padded(arrays.rankings.of_user, size)),
            )  # fmt: skip
        if n_items > arrays.item_valid_s.shape[1]:
            size = n_items + n_items // 8 + 16
            arrays = arrays._replace(
                items=_wider(arrays.items, size), item_valid_s=_padded(arrays.item_valid_s, size, -np.inf)
            )
        added = int((changes.stop - changes.start).sum())
        if int(arrays.pool_used[0]) + added > len(arrays.pool):
            arrays = _with_room(arrays, added)
        self._arrays = arrays

    def _buffers(self, n_reads: int, n_rows: int, n_history: int) -> FieldBuffers:
        forms, (n_counters, halves) = self._plan.forms, self._arrays.counters.decay_rates.shape
        return FieldBuffers(
            item_numbers=np.full((n_rows, len(forms.numbers[ITEM])), np.nan),
            item_bounds=np.zeros((n_rows, len(forms.values[ITEM]), 2), np.int64),
            user_numbers=np.full((n_reads, len(forms.numbers[USER])), np.nan),
            user_bounds=np.zeros((n_reads, len(forms.values[USER]), 2), np.int64),
            history_numbers=np.full((n_reads, n_history, len(forms.numbers[ITEM])), np.nan),
            counts=np.zeros((n_rows, n_counters, halves, 2)),
            totals=np.zeros((n_reads, n_counters, halves, 2)),
        )

    def _reads(
        self, buffers: FieldBuffers, requests: ValueColumns, lists: ValueColumns, pool: NDArray[np.int64]
    ) -> FieldReads:
        return FieldReads(
            **buffers._asdict(),
            request_numbers=requests.numbers.T,
            request_bounds=np.stack([requests.starts.T, requests.stops.T], axis=-1),
            list_numbers=lists.numbers.T,
            list_bounds=np.stack([lists.starts.T, lists.stops.T], axis=-1),
            state_pool=self._arrays.pool,
            request_pool=pool,
        )


def _inputs(context: OperationContext) -> FieldInputs:
    table = context.table
    # the last one: of a read without a request
    ranking, session = (np.append(column, 0)[context.request] for column in (table.ranking, table.session))
    return FieldInputs(context.position, context.request, table.requests, table.changes, table.pool, ranking, session)


def _no_values(forms: Forms, source: str, n: int) -> ValueColumns:
    numbers, values = len(forms.numbers[source]), len(forms.values[source])
    return ValueColumns(np.full((numbers, n), np.nan), np.zeros((values, n), np.int64), np.zeros((values, n), np.int64))


def _no_rankings(plan: CounterPlan) -> RankingRequests:
    """Return the requests of no rankings: without slots if no counter reads fields of requests."""
    slots, columns = RANKING_SLOTS if plan.counts_by_request else 0, len(plan.forms.values[REQUEST])
    return RankingRequests(
        np.zeros(slots, np.int64), np.zeros(slots * columns * MAX_REQUEST_VALUES, np.int64),
        np.zeros((slots, columns), np.int64), np.zeros(0, np.int64),
    )  # fmt: skip


def _never(columns: ValueColumns) -> Times:
    """Return the times from which values hold where none was set."""
    return np.full((len(columns.numbers) + len(columns.starts), columns.numbers.shape[1]), -np.inf)


def _padded(array: NDArray[Any], size: int, fill: float) -> NDArray[Any]:
    wider = np.full((len(array), size), fill, array.dtype)
    wider[:, : array.shape[1]] = array
    return wider


def _wider(columns: ValueColumns, size: int) -> ValueColumns:
    return ValueColumns(
        _padded(columns.numbers, size, np.nan), _padded(columns.starts, size, 0), _padded(columns.stops, size, 0)
    )


def _with_room(arrays: FieldArrays, added: int) -> FieldArrays:
    """Return arrays whose pool has room for more hashes; those of replaced values are dropped."""
    parts, used, moved = [], 0, []
    for columns in (arrays.items, arrays.users):
        sizes = columns.stops - columns.starts
        bounds = used + np.concatenate([[0], np.cumsum(sizes.ravel())]).astype(np.int64)
        index = np.repeat(columns.starts.ravel() - bounds[:-1], sizes.ravel()) + np.arange(used, bounds[-1])
        parts.append(arrays.pool[index])
        starts = bounds[:-1].reshape(sizes.shape)
        moved.append(
            columns._replace(starts=np.where(sizes > 0, starts, 0), stops=np.where(sizes > 0, starts + sizes, 0))
        )
        used = int(bounds[-1])
    kept = np.concatenate(parts)
    pool = np.zeros(2 * (used + added) + 64, np.int64)
    pool[:used] = kept
    return arrays._replace(items=moved[0], users=moved[1], pool=pool, pool_used=np.array([used], np.int64))


_NO_CHANGES = FieldChanges(
    np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0),
    np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64),
)  # fmt: skip
