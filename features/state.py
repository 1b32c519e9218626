"""The behavioural state: decayed counters of items and categories, and what each person touched and was shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.log import Log
from engine.types import NOBODY, Batch, Request, Rows, Scores, Times, no_rows
from features import chains, declared, keyed
from features.chains import TOUCHES, Chains
from features.compiled import grown
from features.declared import CounterSpec
from features.kernel import KINDS, READ, Ops, Reads, Tables, advance, item_counts
from features.keyed import Keyed
from features.replay import Moments, happenings, with_reads

HOUR = 3_600.0
ENTITIES = ("item", "category", "all")
"""Whose counters a read gives: the candidate's, the sum over its categories', everything's."""
CHUNK = 16_384
"""Observed rows, about, that room is made for at a time."""
MOST_SPARE = 1 << 20
"""People, or blocks, that room is made for ahead of need: as many as there are, but no more than this."""


@dataclass(frozen=True, slots=True)
class StateSpec:
    """What the state keeps."""

    half_lives_h: tuple[float, ...] = (1.0, 6.0, 24.0, 168.0, 720.0, float("inf"))
    """Hours; infinity: never forgotten."""
    depth: int = 50
    """How many of a person's latest touches a read gives."""
    counters: tuple[CounterSpec, ...] = ()
    """Counters of one's own, beside those that are always kept."""

    def __post_init__(self) -> None:
        if not self.half_lives_h or min(self.half_lives_h) <= 0:
            raise ValueError(f"half_lives_h is {self.half_lives_h}; expected at least one, all above 0")
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}; expected at least 1")
        declared.check(self.counters)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> StateSpec:
        """What `plain` was of."""

        def hours(given: Sequence[str]) -> tuple[float, ...]:
            return tuple(map(float, given))

        counters = []
        for one in plain["counters"]:
            lists = {"half_lives_h": hours(one["half_lives_h"]), "types": tuple(one["types"]), "per": tuple(one["per"])}
            counters.append(CounterSpec(**{**one, **lists}))
        return cls(hours(plain["half_lives_h"]), plain["depth"], tuple(counters))

    def plain(self) -> dict[str, Any]:
        """JSON-ready, half-lives as strings: infinity is one."""
        counters = [{**asdict(one), "half_lives_h": [str(half) for half in one.half_lives_h]} for one in self.counters]
        return {"half_lives_h": [str(half) for half in self.half_lives_h], "depth": self.depth, "counters": counters}

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
        self._types = declared.types_of(self.spec.counters)
        found = declared.keyed(self.spec.counters, catalogue)
        self._keys_an_event = declared.keys_an_event(self.spec.counters, found)
        self._tables = Tables(
            rates=np.where(np.isinf(halves), 0.0, np.log(2) / (halves * HOUR)),
            landmarks=np.full(len(halves), np.nan),
            counts=np.zeros((entities, len(KINDS), len(halves))),
            first_at=np.full(len(catalogue), np.nan),
            last_at=np.full(len(catalogue), np.nan),
            now=np.full(1, -np.inf),
            category_codes=catalogue.category_codes,
            category_offsets=catalogue.category_offsets,
            chains=chains.empty(),
            keyed=found,
        )

    def observe(self, ops: Ops) -> None:
        """Advance by operations that read nothing."""
        if np.any(ops.code == READ):
            raise ValueError("found READ operations, expected none; use `replay` to read")
        self._run(ops, self._reads(0, 0))

    def advance(self, log: Log) -> None:
        """Observe all that happened in a log, in its order."""
        self.observe(happenings(log, self._types))

    def replay_log(self, log: Log, moments: Moments) -> Batch:
        """Advance by a log; the batch of the moments, each with the state as of just before its happening."""
        return self.replay(with_reads(happenings(log, self._types), moments))

    def replay_chunks(self, log: Log, moments: Moments, rows: int) -> Iterator[Batch]:
        """As `replay_log`, about so many candidate rows a batch: all that is read is never held at once."""
        ops = with_reads(happenings(log, self._types), moments)
        read = np.cumsum(np.where(ops.code == READ, ops.stop - ops.start, 0))
        first, before = 0, 0
        while first < len(ops.code):
            last = max(int(np.searchsorted(read, before + rows, "right")), first + 1)
            yield self.replay(ops.part(first, last))
            first, before = last, int(read[last - 1])

    def replay(self, ops: Ops) -> Batch:
        """Advance by operations; the batch of all READs among them, each with the state as of its moment."""
        reading = ops.code == READ
        sizes = (ops.stop - ops.start)[reading]
        reads = self._reads(len(sizes), int(sizes.sum()))
        self._run(ops, reads)
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
            declared=reads.declared,
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
            bits=np.zeros(len(requests), np.int64),
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
        tokens = tuple(request.query_tokens for request in requests)
        return replace(
            batch,
            queries=queries if any(queries) else (),
            query_tokens=tokens if any(one is not None for one in tokens) else (),
            query_vectors=None
            if known is None
            else np.stack([np.full_like(known, np.nan) if vector is None else vector for vector in vectors]),
        )

    def forget(self, person: int) -> None:
        """Let go of all that a person touched and was shown; what they did stays counted with the items."""
        if 0 <= person < len(self._tables.chains.heads):
            chains.clear(self._tables.chains, person)
        keyed.clear(self._tables.keyed, person)

    def touched(self, person: int) -> tuple[Rows, Times]:
        """Every touch of a person, latest first, and its time; nothing for people not met."""
        found = self._tables.chains
        known = 0 <= person < len(found.lengths)
        rows = np.empty(int(found.lengths[person, TOUCHES]) if known else 0, np.int32)
        times = np.empty(len(rows))
        if known:
            chains.read(found, person, TOUCHES, self._items, rows, times)
        return rows, times

    def popularity(self, at: float) -> Scores:
        """(n,) how often each item was touched, decayed by the longest half-life, as of `at`."""
        out, prior = np.empty(self._items), np.empty(self._items)
        longest = int(np.argmax(self.spec.half_lives_h))
        item_counts(self._tables, KINDS.index("touched"), longest, at, out)
        item_counts(self._tables, KINDS.index("prior"), longest, at, prior)
        return (out + prior).astype(np.float32)

    @property
    def bytes(self) -> int:
        """Memory that is in use."""
        tables = self._tables
        used = int(tables.chains.used[0])
        shares = {id(tables.chains.previous): used, id(tables.chains.pool): used}
        shares |= {id(tables.keyed.keys): int(tables.keyed.used[0]), id(tables.keyed.sums): int(tables.keyed.used[0])}
        return sum(array[: shares.get(id(array))].nbytes for _, array in _arrays(tables))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that the state is, by name, for `restore`; not a copy."""
        return dict(_arrays(self._tables))

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Become what `arrays` was of; the catalogue and the spec must be the same."""
        for name, array in _arrays(self._tables):
            found = arrays.get(name)
            if found is None or found.dtype != array.dtype or found.shape[1:] != array.shape[1:]:
                raise ValueError(f"the saved state has no {name} as expected; it is of another version or another spec")
            if name in _FIXED and found.shape != array.shape:
                raise ValueError(f"the saved {name} has {found.shape} entries, expected {array.shape}")
        parts = {name: np.array(arrays[name]) for name, _ in _arrays(self._tables)}
        self._tables = self._tables._replace(
            **{name: array for name, array in parts.items() if "." not in name},
            chains=Chains(*(parts[f"chains.{name}"] for name in Chains._fields)),
            keyed=Keyed(*(parts[f"keyed.{name}"] for name in Keyed._fields)),
        )

    def _run(self, ops: Ops, reads: Reads) -> None:
        self._meet(int(ops.person.max(initial=NOBODY)) + 1)
        done = np.zeros(2, np.int64)
        rows = np.cumsum(np.where(ops.code == READ, 0, ops.stop - ops.start))
        first, before = 0, 0
        while first < len(ops.code):
            last = max(int(np.searchsorted(rows, before + CHUNK, "right")), first + 1)
            self._reserve(int(rows[last - 1]) - before)
            advance(self._tables, ops, first, last, reads, done)
            first, before = last, int(rows[last - 1])

    def _reads(self, requests: int, rows: int) -> Reads:
        return Reads(
            history=np.full((requests, self.spec.depth), NOBODY, np.int32),
            history_at=np.full((requests, self.spec.depth), np.nan),
            touches=np.zeros(requests, np.int64),
            shown=np.zeros(rows, np.float32),
            age=np.full(rows, np.nan, np.float32),
            since_touch=np.full(rows, np.nan, np.float32),
            counters=np.full((rows, self.spec.width), np.nan, np.float32),
            declared=np.full((rows, declared.width(self.spec.counters)), np.nan, np.float32),
        )

    def _meet(self, people: int) -> None:
        """Room for so many people."""
        found = self._tables.chains
        if people > len(found.heads):
            size = max(people, len(found.heads) + min(len(found.heads), MOST_SPARE))
            names = ("heads", "fills", "lengths", "latest")
            found = found._replace(**{name: grown(getattr(found, name), size) for name in names})
            self._tables = self._tables._replace(chains=found)

    def _reserve(self, rows: int) -> None:
        """Room for as many blocks and keys as observing so many rows could take."""
        found = self._tables.chains
        wanted = int(found.used[0]) + rows
        if wanted > len(found.previous):
            size = max(wanted, len(found.previous) + min(len(found.previous), MOST_SPARE))
            found = found._replace(previous=grown(found.previous, size), pool=grown(found.pool, size))
            self._tables = self._tables._replace(chains=found)
        if self._keys_an_event:
            self._tables = self._tables._replace(keyed=keyed.roomy(self._tables.keyed, rows * self._keys_an_event))


_FIXED = ("rates", "counts", "category_codes", "category_offsets", "first_at", "last_at", "keyed.codes", "keyed.bounds")


def _arrays(tables: Tables) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, value in tables._asdict().items():
        if isinstance(value, Chains | Keyed):
            yield from ((f"{name}.{part}", array) for part, array in value._asdict().items())
        else:
            yield name, value
