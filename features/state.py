"""The behavioural state: decayed counters of items and categories, and what each person touched and was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.catalogue import Catalogue
from engine.log import Log
from engine.types import NOBODY, Batch, Request, Rows, Scores, Times, no_rows
from features.kernel import (
    BLOCK,
    KINDS,
    READ,
    Ops,
    Reads,
    Tables,
    advance,
    chain,
    item_counts,
)
from features.replay import happenings

HOUR = 3_600.0
ENTITIES = ("item", "category", "all")
"""Whose counters a read gives: the candidate's, the sum over its categories', everything's."""


@dataclass(frozen=True, slots=True)
class StateSpec:
    """What the state keeps."""

    half_lives_h: tuple[float, ...] = (1.0, 6.0, 24.0, 168.0, 720.0, float("inf"))
    """Hours; infinity: never forgotten."""
    depth: int = 50
    """How many of a person's latest touches a read gives."""

    def __post_init__(self) -> None:
        if not self.half_lives_h or min(self.half_lives_h) <= 0:
            raise ValueError(f"half_lives_h is {self.half_lives_h}; expected at least one, all above 0")
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}; expected at least 1")

    def column(self, entity: str, kind: str, half_life_h: float) -> int:
        """The place of a counter in `Batch.counters`."""
        halves = len(self.half_lives_h)
        return (ENTITIES.index(entity) * len(KINDS) + KINDS.index(kind)) * halves + self.half_lives_h.index(half_life_h)

    @property
    def width(self) -> int:
        """Columns of `Batch.counters`."""
        return len(ENTITIES) * len(KINDS) * len(self.half_lives_h)


class BehaviouralState:
    """State of a catalogue's items and of people by row; both the live feed and replay advance it by one kernel."""

    def __init__(self, catalogue: Catalogue, spec: StateSpec | None = None) -> None:
        self.spec = spec or StateSpec()
        entities = len(catalogue) + len(catalogue.categories) + 1
        halves = np.array(self.spec.half_lives_h)
        self._items = len(catalogue)
        self._tables = Tables(
            rates=np.where(np.isinf(halves), 0.0, np.log(2) / (halves * HOUR)),
            counts=np.zeros((entities, len(KINDS) * len(halves))),
            counted_at=np.full(entities, -np.inf),
            first_at=np.full(len(catalogue), np.nan),
            last_at=np.full(len(catalogue), np.nan),
            category_codes=catalogue.category_codes,
            category_offsets=catalogue.category_offsets,
            tails=np.full((0, 2), -1, np.int32),
            lengths=np.zeros((0, 2), np.int64),
            previous=np.empty(0, np.int32),
            entries=np.empty((0, BLOCK), np.int32),
            times=np.empty((0, BLOCK)),
            used=np.zeros(1, np.int64),
        )

    def observe(self, ops: Ops) -> None:
        """Advance by operations that read nothing."""
        if np.any(ops.code == READ):
            raise ValueError("found READ operations, expected none; use `replay` to read")
        self._reserve(ops)
        advance(self._tables, ops, self._reads(0, 0))

    def advance(self, log: Log) -> None:
        """Observe all that happened in a log, in its order."""
        self.observe(happenings(log))

    def replay(self, ops: Ops) -> Batch:
        """Advance by operations; the batch of all READs among them, each with the state as of its moment."""
        self._reserve(ops)
        reading = ops.code == READ
        sizes = (ops.stop - ops.start)[reading]
        reads = self._reads(len(sizes), int(sizes.sum()))
        advance(self._tables, ops, reads)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(ops.start[reading] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Batch(
            at=ops.at[reading],
            rows=ops.rows[places],
            offsets=offsets,
            history=reads.history,
            history_at=reads.history_at,
            touches=reads.touches,
            shown=reads.shown,
            age=reads.age,
            since_touch=reads.since_touch,
            counters=reads.counters,
        )

    def read(self, requests: Sequence[Request], candidates: Sequence[Rows]) -> Batch:
        """The batch as of now; a request's own history stands in for the person's."""
        sizes = [len(rows) for rows in candidates]
        bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        ops = Ops(
            code=np.full(len(requests), READ, np.uint8),
            at=np.array([request.at for request in requests], np.float64),
            person=np.array([request.person for request in requests], np.int32),
            start=bounds[:-1],
            stop=bounds[1:],
            rows=np.concatenate([no_rows(), *candidates]).astype(np.int32),
        )
        batch = self.replay(ops)
        for r, request in enumerate(requests):
            kept = min(len(request.history), self.spec.depth)
            batch.history[r] = NOBODY
            batch.history_at[r] = np.nan
            batch.history[r, :kept] = request.history[:kept]
            batch.history_at[r, :kept] = request.history_at[:kept]
            batch.touches[r] = len(request.history)
        queries = tuple(request.query for request in requests)
        vectors = [request.query_vector for request in requests]
        known = next((vector for vector in vectors if vector is not None), None)
        return replace(
            batch,
            queries=queries if any(queries) else (),
            query_vectors=None
            if known is None
            else np.stack([np.full_like(known, np.nan) if vector is None else vector for vector in vectors]),
        )

    def touched(self, person: int) -> tuple[Rows, Times]:
        """Every touch of a person, latest first, and its time; nothing for people not met."""
        known = 0 <= person < len(self._tables.lengths)
        rows = np.empty(int(self._tables.lengths[person, 0]) if known else 0, np.int32)
        times = np.empty(len(rows))
        if known:
            chain(self._tables, person, rows, times)
        return rows, times

    def popularity(self, at: float) -> Scores:
        """(n,) how often each item was touched, decayed by the longest half-life, as of `at`."""
        out, prior = np.empty(self._items), np.empty(self._items)
        longest = int(np.argmax(self.spec.half_lives_h))
        item_counts(self._tables, KINDS.index("touched"), longest, at, out)
        item_counts(self._tables, KINDS.index("prior"), longest, at, prior)
        return (out + prior).astype(np.float32)

    def _reads(self, requests: int, rows: int) -> Reads:
        return Reads(
            history=np.full((requests, self.spec.depth), NOBODY, np.int32),
            history_at=np.full((requests, self.spec.depth), np.nan),
            touches=np.zeros(requests, np.int64),
            shown=np.zeros(rows, np.float32),
            age=np.full(rows, np.nan, np.float32),
            since_touch=np.full(rows, np.nan, np.float32),
            counters=np.full((rows, self.spec.width), np.nan, np.float32),
        )

    def _reserve(self, ops: Ops) -> None:
        """Room for new people, and for as many blocks as the operations could open."""
        people = int(ops.person.max(initial=NOBODY)) + 1
        rows = int((ops.stop - ops.start)[ops.code != READ].sum())
        tables = self._tables
        missing = people - len(tables.lengths)
        if missing > 0:
            missing = max(missing, len(tables.lengths) // 2)
            tables = tables._replace(
                tails=np.concatenate([tables.tails, np.full((missing, 2), -1, np.int32)]),
                lengths=np.concatenate([tables.lengths, np.zeros((missing, 2), np.int64)]),
            )
        short = int(tables.used[0]) + rows - len(tables.previous)
        if short > 0:
            short = max(short, len(tables.previous) // 2)
            tables = tables._replace(
                previous=np.concatenate([tables.previous, np.empty(short, np.int32)]),
                entries=np.concatenate([tables.entries, np.empty((short, BLOCK), np.int32)]),
                times=np.concatenate([tables.times, np.empty((short, BLOCK))]),
            )
        self._tables = tables
