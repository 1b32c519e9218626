"""From a log to the kernel's operations, with reads put in at the moments that are asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.log import Log
from engine.types import Offsets, Rows, Times
from features.declared import IMPRESSION
from features.kernel import PRIOR, READ, SHOWN, TOUCHED, Ops


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """G groups of candidate rows, each to be read just before a happening of the log."""

    before: NDArray[np.int64]
    """(G,) place in `Log.order`, ascending; the length of the log: at its end."""
    at: Times
    person: Rows
    offsets: Offsets
    rows: Rows

    def __len__(self) -> int:
        return len(self.before)


def happenings(log: Log, types: tuple[str, ...] = ()) -> Ops:
    """The log's operations, one a happening, in order; `types`: those that declared counters name, bit by bit."""
    interactions, rankings = log.interactions, log.rankings
    singles = np.arange(len(interactions), dtype=np.int64)
    touches = np.where(log.is_history, PRIOR, TOUCHED)
    bit_of = {kind: 1 << bit for bit, kind in enumerate(types)}
    bits = np.array([bit_of.get(kind, 0) for kind in log.types], np.int64)
    shown = np.full(len(rankings), bit_of.get(IMPRESSION, 0), np.int64)
    return Ops(
        code=np.concatenate([touches, np.full(len(rankings), SHOWN)]).astype(np.uint8)[log.order],
        at=log.at,
        person=np.concatenate([interactions.person, rankings.person])[log.order],
        start=np.concatenate([singles, len(singles) + rankings.offsets[:-1]])[log.order],
        stop=np.concatenate([singles + 1, len(singles) + rankings.offsets[1:]])[log.order],
        rows=np.concatenate([interactions.item, rankings.rows]),
        bits=np.concatenate([bits[interactions.type], shown])[log.order],
    )


def with_reads(ops: Ops, moments: Moments) -> Ops:
    """The operations with a READ of each group put in before its happening."""
    if len(moments) and np.any(np.diff(moments.before) < 0):
        raise ValueError("moments must come in the order of the log")
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
