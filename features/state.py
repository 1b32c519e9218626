"""The behavioural state: decayed counters of items and categories, and each user's interactions and impressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import UNKNOWN_ROW, Batch, ResolvedRequest, Rows, Scores, Times, empty_rows
from feedrank.features import counter_table, custom_counters, dislikes, history_store, state_arrays
from feedrank.features.custom_counters import IMPRESSION_BIT
from feedrank.features.declared.counter_plan import CounterPlan
from feedrank.features.declared.field_state import FieldState, OperationContext
from feedrank.features.dislikes import MAX_RECENT_DISLIKES
from feedrank.features.history_store import INTERACTIONS
from feedrank.features.item_codes import ItemCodes
from feedrank.features.kernel import (
    COUNTER_KINDS,
    OP_CODES,
    OP_READ,
    Operations,
    ReadBuffers,
    advance,
    interactions_of,
    item_counts,
    ranking_operation,
)
from feedrank.features.replay import PointInTimeQueries, insert_codes, insert_reads, operations_of, with_reads
from feedrank.features.state_spec import StateSpec

CHUNK_ROWS = 16_384
"""Number of observed rows, roughly, for which arrays are grown at a time."""


class BehaviouralState:
    """State of items and users by row. Live requests and replay advance it with the same kernel.

    Its items begin as those of a catalogue. An item event adds its item, from this point of the order of events on.
    """

    def __init__(self, catalogue: Catalogue, spec: StateSpec | None = None) -> None:
        self.spec = spec or StateSpec()
        self._counted_types, self._width = self.spec.counted_types, self.spec.width
        plan = CounterPlan(self.spec.declared, self._counted_types)
        self.forms = plan.forms if self.spec.declared else None
        self._fields = FieldState(plan, len(catalogue)) if self.spec.declared else None
        self._custom_columns = custom_counters.n_columns(self.spec.counters)
        fields = custom_counters.counted_fields(self.spec.counters)
        self.item_codes = ItemCodes(catalogue, fields, state_arrays.capacity_of(len(catalogue)))
        self.items, self.item_fields = self.item_codes.ids, fields
        counters = custom_counters.empty_counter_table(self.spec.counters)
        self._state = state_arrays.empty_arrays(self.item_codes, self.spec.half_lives_h, counters)
        self._keys_per_event, self._keys_per_code = custom_counters.keys_per_code(counters, len(fields))

    def observe(self, operations: Operations) -> None:
        """Observe operations without reads. Raises ValueError if there is a read."""
        if np.any(operations.code == OP_READ):
            raise ValueError("found READ operations, expected none; use `replay` to read")
        self._run(operations, self._read_buffers(0, 0))

    def advance(self, log: EventTable) -> None:
        """Observe all events of a log, in its order, and its item events."""
        operations = self._operations_of(log)
        running = self._with_codes(operations, log)
        self.observe(running)
        if running is not operations:  # the run has changed these
            operations.type_bits[:] = running.type_bits[running.code != OP_CODES]
        if self._fields is not None:
            self._fields.observe(operations, self._context_of(log))

    def observe_ranking(self, at: float, user: int, session: int, rows: Rows) -> None:
        """Observe one ranking, as `advance` does with a log of only this one. at: unix seconds. rows: items shown."""
        self._run(ranking_operation(at, user, session, rows, IMPRESSION_BIT), self._read_buffers(0, 0))

    def replay_log(self, log: EventTable, queries: PointInTimeQueries) -> Batch:
        """Observe a log and return the batch of the queries, each with the state just before its event."""
        (batch,) = self.replay_chunks(log, queries, 1 << 62)
        return batch

    def replay_chunks(
        self, log: EventTable, queries: PointInTimeQueries, rows_per_batch: int,
        impressions: NDArray[np.int64] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """Replay a log as `replay_log` does, in batches of about `rows_per_batch` candidate rows, to bound memory.

        impressions: (N,) index of each candidate among the impressions of the log, whose lists brought fields for them.
        """
        ops = insert_reads(self._operations_of(log), queries)
        context = None if self._fields is None else self._context_of(log, queries, impressions)
        rows_read = np.cumsum(np.where(ops.code == OP_READ, ops.stop - ops.start, 0))
        first, before = 0, 0
        while first < len(ops.code):
            last = max(int(np.searchsorted(rows_read, before + rows_per_batch, "right")), first + 1)
            batch = self.replay(ops.segment(first, last))
            if self._fields is not None and context is not None:
                segment = context.segment(first, last, before, before + len(batch.rows))
                batch = replace(batch, fields=self._fields.replay(ops.segment(first, last), segment, batch.history))
            yield batch
            first, before = last, int(rows_read[last - 1])

    def replay(self, operations: Operations) -> Batch:
        """Run operations and return the batch of all their OP_READs, each with the state at its position."""
        is_read = operations.code == OP_READ
        sizes = (operations.stop - operations.start)[is_read]
        reads = self._read_buffers(len(sizes), int(sizes.sum()))
        self._run(operations, reads)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices = np.repeat(operations.start[is_read] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Batch(
            at=operations.at[is_read],
            rows=operations.rows[indices],
            offsets=offsets,
            **reads._asdict(),
        )

    def read(self, requests: Sequence[ResolvedRequest], candidates: Sequence[Rows]) -> Batch:
        """Read the batch as of the requests' times. The history comes from the request, not from the state."""
        sizes = [len(rows) for rows in candidates]
        bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        ops = Operations(
            code=np.full(len(requests), OP_READ, np.uint8),
            at=np.array([request.at for request in requests], np.float64),
            user=np.array([request.user for request in requests], np.int32),
            session=np.array([request.session for request in requests], np.int32),
            start=bounds[:-1],
            stop=bounds[1:],
            rows=np.concatenate([empty_rows(), *candidates]).astype(np.int32),
            type_bits=np.zeros(len(requests), np.int64),
        )
        batch = self.replay(ops)
        for r, request in enumerate(requests):
            length = min(len(request.history), self.spec.history_length)
            batch.history[r] = UNKNOWN_ROW
            batch.history_at[r] = np.nan
            batch.history[r, :length] = request.history[:length]
            batch.history_at[r, :length] = request.history_at[:length]
            batch.interaction_count[r] = len(request.history)
        fields = None
        if self._fields is not None:
            has_lists = any(request.item_fields or request.unknown_item_fields for request in requests)
            pairs = zip(requests, candidates, strict=True) if has_lists else ()
            lists = [fields for request, rows in pairs for fields in request.list_fields(rows)]
            fields = self._fields.read(ops, batch.history, requests, lists)
        queries = tuple(request.query for request in requests)
        vectors = [request.query_vector for request in requests]
        example = next((vector for vector in vectors if vector is not None), None)
        tokens = tuple(request.query_tokens for request in requests)
        return replace(
            batch,
            fields=fields,
            queries=queries if any(queries) else (),
            query_tokens=tokens if any(matrix is not None for matrix in tokens) else (),
            query_vectors=None
            if example is None
            else np.stack([np.full_like(example, np.nan) if vector is None else vector for vector in vectors]),
        )

    def erase_user(self, user: int) -> None:
        """Erase a user's history, impressions and own counters. Their events stay in the counters of items."""
        if 0 <= user < len(self._state.histories.heads):
            for store in (self._state.histories, self._state.dislike_marks):
                history_store.clear(store, user)
        counter_table.clear(self._state.custom_counters, user)
        if self._fields is not None:
            self._fields.erase_user(user)

    def history(self, user: int) -> tuple[Rows, Times]:
        """Return all interactions of a user, latest first, and their times; empty for an unknown user."""
        store = self._state.histories
        exists = 0 <= user < len(store.lengths)
        rows = np.empty(int(store.lengths[user, INTERACTIONS]) if exists else 0, np.int32)
        times = np.empty(len(rows))
        if exists:
            interactions_of(self._state, user, rows, times)
        return rows, times

    def disliked(self, user: int, session: int = UNKNOWN_ROW) -> Rows:
        """Return the items that a user dislikes: those without an interaction since the latest dislike; latest first.

        Empty for an unknown user. session: row of the visitor without a name who is the user too; UNKNOWN_ROW: none.
        """
        store = self._state.dislike_marks
        lengths = [int(store.lengths[row, 0]) if 0 <= row < len(store.lengths) else 0 for row in (session, user)]
        if not any(lengths):
            return empty_rows()
        return dislikes.all_of(store, (session, user), lengths, len(self._state.first_at))

    def user_version(self, user: int) -> tuple[int, int]:
        """Return a value that changes whenever the history or the dislikes of a user change."""
        lengths, marks = self._state.histories.lengths, self._state.dislike_marks.lengths
        return (int(lengths[user, INTERACTIONS]), int(marks[user, 0])) if 0 <= user < len(lengths) else (0, 0)

    def popularity(self, at: float) -> Scores:
        """Compute the (n,) interactions of each item, decayed by the longest half-life, as of `at`."""
        out, pre_log = np.empty(len(self.items)), np.empty(len(self.items))
        longest = int(np.argmax(self.spec.half_lives_h))
        item_counts(self._state, COUNTER_KINDS.index("interactions"), longest, at, out)
        item_counts(self._state, COUNTER_KINDS.index("pre_log"), longest, at, pre_log)
        return (out + pre_log).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Memory in use, in bytes, without spare capacity."""
        return state_arrays.used_bytes(self._state) + (0 if self._fields is None else self._fields.nbytes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays of the state by name, for `restore`. They are not copied."""
        arrays = dict(state_arrays.named_arrays(self._state)) | self.item_codes.arrays()
        if self._fields is not None:
            arrays |= {f"fields.{name}": array for name, array in self._fields.arrays()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state by saved arrays of the same catalogue and spec. Raises ValueError if they do not fit."""
        self.item_codes.restore(arrays)
        state = state_arrays.with_arrays(state_arrays.with_items(self._state, self.item_codes), arrays)
        self._state = state_arrays.with_items(state, self.item_codes)
        if self._fields is not None:
            prefix = "fields."
            self._fields.restore(
                {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            )

    def _operations_of(self, log: EventTable) -> Operations:
        return operations_of(log, self._counted_types, self.spec.interactions)

    def _with_codes(self, operations: Operations, log: EventTable) -> Operations:
        """Take the new items of a log; return its operations, with those that change the codes of an item."""
        if not len(log.item_changes):
            return operations
        self._state = state_arrays.with_items(self._state, self.item_codes)
        codes = self.item_codes.observe(log.item_changes)
        self._state = state_arrays.with_items(self._state, self.item_codes)  # there may be new categories
        return insert_codes(operations, codes.before_event, codes.values) if len(codes.values) else operations

    def _context_of(
        self, log: EventTable, queries: PointInTimeQueries | None = None, impressions: NDArray[np.int64] | None = None
    ) -> OperationContext:
        """Return what the operations of a log, and its queries, mean for declared fields."""
        if log.fields is None:
            raise ValueError("found a log without declared fields; give the state's forms to its builder")
        position, request = np.arange(len(log.event_order), dtype=np.int64), log.event_order
        if queries is not None:
            of_queries = np.full(len(queries), -1) if queries.request is None else queries.request
            position = with_reads(position, queries, queries.before_event)
            request = with_reads(request, queries, of_queries)
        assert self.forms is not None
        return OperationContext(position, request, log.fields.for_forms(self.forms), impressions)

    def _run(self, operations: Operations, buffers: ReadBuffers) -> None:
        self._grow_users(int(max(operations.user.max(initial=-1), operations.session.max(initial=-1))) + 1)
        done = np.zeros(2, np.int64)
        if len(operations.code) == 1:  # as most live ones; the same as below for any number
            n_rows = 0 if operations.code[0] == OP_READ else int(operations.stop[0] - operations.start[0])
            self._reserve(n_rows, operations)
            advance(self._state, operations, 0, 1, buffers, done)
            return
        rows = np.cumsum(np.where(operations.code == OP_READ, 0, operations.stop - operations.start))
        first, before = 0, 0
        while first < len(operations.code):
            last = max(int(np.searchsorted(rows, before + CHUNK_ROWS, "right")), first + 1)
            self._reserve(int(rows[last - 1]) - before, operations.segment(first, last))
            advance(self._state, operations, first, last, buffers, done)
            first, before = last, int(rows[last - 1])

    def _read_buffers(self, n_requests: int, n_rows: int) -> ReadBuffers:
        return ReadBuffers(
            history=np.full((n_requests, self.spec.history_length), UNKNOWN_ROW, np.int32),
            history_at=np.full((n_requests, self.spec.history_length), np.nan),
            interaction_count=np.zeros(n_requests, np.int64),
            impressions=np.zeros(n_rows, np.float32),
            item_age=np.full(n_rows, np.nan, np.float32),
            since_interaction=np.full(n_rows, np.nan, np.float32),
            counters=np.full((n_rows, self._width), np.nan, np.float32),
            custom_counters=np.full((n_rows, self._custom_columns), np.nan, np.float32),
            disliked=np.full((n_requests, MAX_RECENT_DISLIKES), UNKNOWN_ROW, np.int32),
            disliked_at=np.full((n_requests, MAX_RECENT_DISLIKES), np.nan),
            dislikes=np.zeros((n_rows, 2 * len(self.spec.half_lives_h)), np.float32),
        )

    def _grow_users(self, n_users: int) -> None:
        """Grow the history stores to at least `n_users` users."""
        state = self._state
        if n_users > len(state.histories.heads):
            histories = history_store.with_users(state.histories, n_users)
            marks = history_store.with_users(state.dislike_marks, n_users)
            self._state = state._replace(histories=histories, dislike_marks=marks)

    def _reserve(self, n_rows: int, operations: Operations) -> None:
        """Reserve the blocks and counter keys that observing these operations, with `n_rows` rows, can need."""
        stores = (self._state.histories, self._state.dislike_marks)
        if (sessions := np.unique(operations.session))[-1:].max(initial=UNKNOWN_ROW) >= 0:
            # their entries move, those of these operations too
            n_rows = 2 * n_rows + max(int(store.lengths[sessions[sessions >= 0]].sum()) for store in stores)
        if any(int(store.used[0]) + n_rows > len(store.previous) for store in stores):
            histories, marks = (history_store.with_room(store, n_rows) for store in stores)
            self._state = self._state._replace(histories=histories, dislike_marks=marks)
        if self.spec.counters:
            rows = operations.observed_rows()
            n_codes = self.item_codes.most_codes[:, rows].sum(axis=1)
            n_keys = len(rows) * self._keys_per_event + int(n_codes @ self._keys_per_code)
            counters = counter_table.reserve(self._state.custom_counters, n_keys)
            self._state = self._state._replace(custom_counters=counters)
