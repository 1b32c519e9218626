"""Replay turns an event log into kernel operations and inserts point-in-time reads (a point-in-time join)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import Log
from feedrank.engine.types import Offsets, Rows, Times
from feedrank.features.custom_counters import IMPRESSION
from feedrank.features.kernel import PRIOR, READ, SHOWN, TOUCHED, Ops


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """G point-in-time queries: groups of candidate rows, each read just before an event of the log."""

    before: NDArray[np.int64]
    """(G,) event position in the log's event order, ascending; the length of the log: after its last event."""
    at: Times
    """(G,) unix seconds."""
    person: Rows
    """(G,) user rows."""
    offsets: Offsets
    """(G + 1,) bounds of each group in `rows`."""
    rows: Rows
    """Candidate item rows, group after group."""

    def __len__(self) -> int:
        return len(self.before)


def happenings(log: Log, types: tuple[str, ...] = ()) -> Ops:
    """Return the operations of a log, one per event, in order; counted_types: bit t of a type mask is type t."""
    interactions, rankings = log.interactions, log.rankings
    singles = np.arange(len(interactions), dtype=np.int64)
    interaction_codes = np.where(log.is_history, PRIOR, TOUCHED)
    bit_of = {kind: 1 << bit for bit, kind in enumerate(types)}
    bits = np.array([bit_of.get(kind, 0) for kind in log.types], np.int64)
    impression_bits = np.full(len(rankings), bit_of.get(IMPRESSION, 0), np.int64)
    return Ops(
        code=np.concatenate([interaction_codes, np.full(len(rankings), SHOWN)]).astype(np.uint8)[log.order],
        at=log.at,
        person=np.concatenate([interactions.person, rankings.person])[log.order],
        start=np.concatenate([singles, len(singles) + rankings.offsets[:-1]])[log.order],
        stop=np.concatenate([singles + 1, len(singles) + rankings.offsets[1:]])[log.order],
        rows=np.concatenate([interactions.item, rankings.rows]),
        bits=np.concatenate([bits[interactions.type], impression_bits])[log.order],
    )


def with_reads(ops: Ops, moments: Moments) -> Ops:
    """Insert an OP_READ of each query before its event. Raises ValueError if the queries are not in order."""
    if len(moments) and np.any(np.diff(moments.before) < 0):
        raise ValueError("found point-in-time queries out of order, expected the order of the log")
    first = len(ops.rows)
    return Ops(
        code=np.insert(ops.code, moments.before, np.uint8(READ)),
        at=np.insert(ops.at, moments.before, moments.at),
        person=np.insert(ops.person, moments.before, moments.person),
        start=np.insert(ops.start, moments.before, moments.offsets[:-1] + first),
        stop=np.insert(ops.stop, moments.before, moments.offsets[1:] + first),
        rows=np.concatenate([ops.rows, moments.rows]).astype(np.int32),
        bits=np.insert(ops.bits, moments.before, 0),
    )
