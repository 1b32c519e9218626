"""From a log to the kernel's operations, with reads put in at the moments that are asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.log import Log
from engine.types import Offsets, Rows, Times
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


def happenings(log: Log) -> Ops:
    """The log's operations, one a happening, in order."""
    interactions, rankings = log.interactions, log.rankings
    singles = np.arange(len(interactions), dtype=np.int64)
    touches = np.where(log.is_history, PRIOR, TOUCHED)
    return Ops(
        code=np.concatenate([touches, np.full(len(rankings), SHOWN)]).astype(np.uint8)[log.order],
        at=log.at,
        person=np.concatenate([interactions.person, rankings.person])[log.order],
        start=np.concatenate([singles, len(singles) + rankings.offsets[:-1]])[log.order],
        stop=np.concatenate([singles + 1, len(singles) + rankings.offsets[1:]])[log.order],
        rows=np.concatenate([interactions.item, rankings.rows]),
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
    )
