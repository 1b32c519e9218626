"""Replay turns an event log into kernel operations and inserts point-in-time reads (a point-in-time join)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.interaction_types import IN_HISTORY, IN_POPULARITY, NEGATIVE, SEEN, InteractionTypes
from feedrank.engine.types import UNKNOWN_ROW, Offsets, Rows, Times
from feedrank.features.custom_counters import IMPRESSION, IMPRESSION_BIT
from feedrank.features.kernel import (
    NO_COUNTS,
    NO_HISTORY,
    OP_CODES,
    OP_IMPRESSION,
    OP_INTERACTION,
    OP_NEGATIVE,
    OP_OTHER,
    OP_PRE_LOG,
    OP_READ,
    OP_SEEN,
    Operations,
)


@dataclass(frozen=True, eq=False, slots=True)
class PointInTimeQueries:
    """G point-in-time queries: groups of candidate rows, each read just before an event of the log."""

    before_event: NDArray[np.int64]
    """(G,) event position in the log's event order, ascending; the length of the log: after its last event."""
    at: Times
    """(G,) unix seconds."""
    user: Rows
    """(G,) user rows."""
    offsets: Offsets
    """(G + 1,) bounds of each group in `rows`."""
    rows: Rows
    """Candidate item rows, group after group."""
    request: NDArray[np.int64] | None = None
    """(G,) the event whose request each query stands for, numbered as in `EventTable.event_order`; None: not known."""
    session: Rows | None = None
    """(G,) row of the visitor without a name who is the user too; UNKNOWN_ROW: none; None: of all."""

    def __len__(self) -> int:
        return len(self.before_event)

    def select(self, mask: NDArray[np.bool_], offsets: Offsets, rows: Rows) -> PointInTimeQueries:
        """Return the queries where the (G,) mask is True, with these candidates."""
        request = None if self.request is None else self.request[mask]
        session = None if self.session is None else self.session[mask]
        before, at, user = self.before_event[mask], self.at[mask], self.user[mask]
        return PointInTimeQueries(before, at, user, offsets, rows, request, session)


def operations_of(
    log: EventTable, counted_types: tuple[str, ...] = (), meanings: InteractionTypes | None = None
) -> Operations:
    """Return the operations of a log, one per event, in order.

    counted_types: bit t of a type mask is type t. meanings: of the interaction types; None: those of the log.
    """
    interactions, rankings = log.interactions, log.rankings
    singles = np.arange(len(interactions), dtype=np.int64)
    interaction_codes, interaction_bits = _interaction_codes(log, counted_types, meanings)
    return Operations(
        code=np.concatenate([interaction_codes, np.full(len(rankings), OP_IMPRESSION)]).astype(np.uint8)[
            log.event_order
        ],
        at=log.at,
        user=np.concatenate([interactions.user, rankings.user])[log.event_order],
        session=np.concatenate([interactions.session, rankings.session])[log.event_order],
        start=np.concatenate([singles, len(singles) + rankings.offsets[:-1]])[log.event_order],
        stop=np.concatenate([singles + 1, len(singles) + rankings.offsets[1:]])[log.event_order],
        rows=np.concatenate([interactions.item, rankings.items]),
        type_bits=np.concatenate([interaction_bits, np.full(len(rankings), IMPRESSION_BIT)])[log.event_order],
    )


def _interaction_codes(
    log: EventTable, counted_types: tuple[str, ...], meanings: InteractionTypes | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (I,) operation codes with flags, and the (I,) type masks of the interactions."""
    interactions, columns = log.interactions, log.meaning_columns(meanings)
    codes = np.where(log.is_history, OP_PRE_LOG, OP_INTERACTION)
    codes |= np.where(columns.enters & IN_HISTORY, 0, NO_HISTORY) | np.where(
        columns.enters & IN_POPULARITY, 0, NO_COUNTS
    )
    codes[~columns.is_interaction] = OP_OTHER
    codes[columns.meaning == NEGATIVE] = OP_NEGATIVE
    codes[(columns.meaning == SEEN) & ~interactions.names_ranking] = OP_SEEN  # a named ranking counts its impressions
    bit_of = {kind: 1 << bit for bit, kind in enumerate(counted_types) if kind != IMPRESSION}
    bits = np.array([bit_of.get(kind, 0) for kind in log.types], np.int64)[interactions.type]
    bits[codes == OP_SEEN] |= IMPRESSION_BIT
    return codes, bits


def insert_codes(operations: Operations, before_event: Offsets, values: NDArray[np.int32]) -> Operations:
    """Insert an OP_CODES for each of the (K, 4) values before its event. before_event: (K,) ascending positions."""
    start = len(operations.rows) + 4 * np.arange(len(values))
    return Operations(
        code=np.insert(operations.code, before_event, np.uint8(OP_CODES)),
        at=np.insert(operations.at, before_event, np.nan),
        user=np.insert(operations.user, before_event, UNKNOWN_ROW),
        session=np.insert(operations.session, before_event, UNKNOWN_ROW),
        start=np.insert(operations.start, before_event, start),
        stop=np.insert(operations.stop, before_event, start + 4),
        rows=np.concatenate([operations.rows, values.reshape(-1)]).astype(np.int32),
        type_bits=np.insert(operations.type_bits, before_event, 0),
    )


def with_reads(
    of_events: NDArray[np.int64], queries: PointInTimeQueries, of_queries: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Insert a value of each query into a column of the events, as `insert_reads` inserts its read."""
    return np.insert(of_events, queries.before_event, of_queries)


def insert_reads(operations: Operations, queries: PointInTimeQueries) -> Operations:
    """Insert an OP_READ of each query before its event. Raises ValueError if the queries are not in order."""
    if len(queries) and np.any(np.diff(queries.before_event) < 0):
        raise ValueError("found point-in-time queries out of order, expected the order of the log")
    first, sessions = len(operations.rows), UNKNOWN_ROW if queries.session is None else queries.session
    return Operations(
        code=np.insert(operations.code, queries.before_event, np.uint8(OP_READ)),
        at=np.insert(operations.at, queries.before_event, queries.at),
        user=np.insert(operations.user, queries.before_event, queries.user),
        session=np.insert(operations.session, queries.before_event, sessions),
        start=np.insert(operations.start, queries.before_event, queries.offsets[:-1] + first),
        stop=np.insert(operations.stop, queries.before_event, queries.offsets[1:] + first),
        rows=np.concatenate([operations.rows, queries.rows]).astype(np.int32),
        type_bits=np.insert(operations.type_bits, queries.before_event, 0),
    )
