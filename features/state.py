"""The behavioural state: decayed counters of items and categories, and each user's interactions and impressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import Log
from feedrank.engine.types import NOBODY, Batch, Request, Rows, Scores, Times, no_rows
from feedrank.features import counter_table as keyed
from feedrank.features import custom_counters, history_store
from feedrank.features.counter_table import Keyed
from feedrank.features.custom_counters import CounterSpec
from feedrank.features.history_store import TOUCHES, Chains
from feedrank.features.jit import grown
from feedrank.features.kernel import KINDS, READ, Ops, Reads, Tables, advance, item_counts
from feedrank.features.replay import Moments, happenings, with_reads

HOUR = 3_600.0
ENTITIES = ("item", "category", "all")
"""Entities whose counters a read returns: the candidate, its categories (summed), the whole catalogue."""
CHUNK = 16_384
"""Number of observed rows, roughly, for which arrays are grown at a time."""
MOST_SPARE = 1 << 20
"""Maximum spare users or blocks: arrays double in size, but grow by at most this."""


@dataclass(frozen=True, slots=True)
class StateSpec:
    """[state] What the behavioural state stores."""

    half_lives_h: tuple[float, ...] = (1.0, 6.0, 24.0, 168.0, 720.0, float("inf"))
    """Half-lives of the counters, hours; infinity: no decay."""
    depth: int = 50
    """Number of a user's latest interactions that a read returns."""
    counters: tuple[CounterSpec, ...] = ()
    """Custom counters, in addition to the built-in ones."""

    def __post_init__(self) -> None:
        if not self.half_lives_h or min(self.half_lives_h) <= 0:
            raise ValueError(f"half_lives_h is {self.half_lives_h}; expected at least one, all above 0")
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}; expected at least 1")
        custom_counters.check(self.counters)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> StateSpec:
        """Build the spec from the result of `to_dict`."""

        def hours(half_lives: Sequence[str]) -> tuple[float, ...]:
            return tuple(map(float, half_lives))

        counters = []
        for body in plain["counters"]:
            types, over = tuple(body["types"]), tuple(body["per"])
            lists = {"half_lives_h": hours(body["half_lives_h"]), "types": types, "per": over}
            counters.append(CounterSpec(**{**body, **lists}))
        return cls(hours(plain["half_lives_h"]), plain["depth"], tuple(counters))

    def plain(self) -> dict[str, Any]:
        """Convert to JSON-ready values. Half-lives are strings, since JSON has no infinity."""
        counters = [
            {**asdict(counter), "half_lives_h": [str(half) for half in counter.half_lives_h]}
            for counter in self.counters
        ]
        return {"half_lives_h": [str(half) for half in self.half_lives_h], "depth": self.depth, "counters": counters}

    def column(self, entity: str, kind: str, half_life_h: float) -> int:
        """Return the column of a counter in `Batch.counters`."""
        halves = len(self.half_lives_h)
        return (ENTITIES.index(entity) * len(KINDS) + KINDS.index(kind)) * halves + self.half_lives_h.index(half_life_h)

    @property
    def width(self) -> int:
        """Number of columns of `Batch.counters`."""
        return len(ENTITIES) * len(KINDS) * len(self.half_lives_h)


class BehaviouralState:
    """State of items and users by row. Live requests and replay advance it with the same kernel."""

    def __init__(self, catalogue: Catalogue, spec: StateSpec | None = None) -> None:
        self.spec = spec or StateSpec()
        entities = len(catalogue) + len(catalogue.categories) + 1
        halves = np.array(self.spec.half_lives_h)
        self._items = len(catalogue)
        self._types = custom_counters.types_of(self.spec.counters)
        counter_table = custom_counters.keyed(self.spec.counters, catalogue)
        self._keys_an_event = custom_counters.keys_an_event(self.spec.counters, counter_table)
        self._tables = Tables(
            rates=np.where(np.isinf(halves), 0.0, np.log(2) / (halves * HOUR)),
            landmarks=np.full(len(halves), np.nan),
            counts=np.zeros((entities, len(KINDS), len(halves))),
            first_at=np.full(len(catalogue), np.nan),
            last_at=np.full(len(catalogue), np.nan),
            now=np.full(1, -np.inf),
            category_codes=catalogue.category_codes,
            category_offsets=catalogue.category_offsets,
            chains=history_store.empty(),
            keyed=counter_table,
        )

    def observe(self, ops: Ops) -> None:
        """Observe operations without reads. Raises ValueError if there is a read."""
        if np.any(ops.code == READ):
            raise ValueError("found READ operations, expected none; use `replay` to read")
        self._run(ops, self._reads(0, 0))

    def advance(self, log: Log) -> None:
        """Observe all events of a log, in its order."""
        self.observe(happenings(log, self._types))

    def replay_log(self, log: Log, moments: Moments) -> Batch:
        """Observe a log and return the batch of the queries, each with the state just before its event."""
        return self.replay(with_reads(happenings(log, self._types), moments))

    def replay_chunks(self, log: Log, moments: Moments, rows: int) -> Iterator[Batch]:
        """Replay a log as `replay_log` does, in batches of about `rows_per_batch` candidate rows, to bound memory."""
        ops = with_reads(happenings(log, self._types), moments)
        rows_read = np.cumsum(np.where(ops.code == READ, ops.stop - ops.start, 0))
        first, before = 0, 0
        while first < len(ops.code):
            last = max(int(np.searchsorted(rows_read, before + rows, "right")), first + 1)
            yield self.replay(ops.part(first, last))
            first, before = last, int(rows_read[last - 1])

    def replay(self, ops: Ops) -> Batch:
        """Run operations and return the batch of all their OP_READs, each with the state at its position."""
        is_read = ops.code == READ
        sizes = (ops.stop - ops.start)[is_read]
        reads = self._reads(len(sizes), int(sizes.sum()))
        self._run(ops, reads)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices = np.repeat(ops.start[is_read] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Batch(
            at=ops.at[is_read],
            rows=ops.rows[indices],
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
        """Read the batch as of the requests' times. The history comes from the request, not from the state."""
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
            length = min(len(request.history), self.spec.depth)
            batch.history[r] = NOBODY
            batch.history_at[r] = np.nan
            batch.history[r, :length] = request.history[:length]
            batch.history_at[r, :length] = request.history_at[:length]
            batch.touches[r] = len(request.history)
        queries = tuple(request.query for request in requests)
        vectors = [request.query_vector for request in requests]
        example = next((vector for vector in vectors if vector is not None), None)
        tokens = tuple(request.query_tokens for request in requests)
        return replace(
            batch,
            queries=queries if any(queries) else (),
            query_tokens=tokens if any(matrix is not None for matrix in tokens) else (),
            query_vectors=None
            if example is None
            else np.stack([np.full_like(example, np.nan) if vector is None else vector for vector in vectors]),
        )

    def forget(self, person: int) -> None:
        """Erase a user's history, impressions and own counters. Their events stay in the counters of items."""
        if 0 <= person < len(self._tables.chains.heads):
            history_store.clear(self._tables.chains, person)
        keyed.clear(self._tables.keyed, person)

    def touched(self, person: int) -> tuple[Rows, Times]:
        """Return all interactions of a user, latest first, and their times; empty for an unknown user."""
        store = self._tables.chains
        exists = 0 <= person < len(store.lengths)
        rows = np.empty(int(store.lengths[person, TOUCHES]) if exists else 0, np.int32)
        times = np.empty(len(rows))
        if exists:
            history_store.read(store, person, TOUCHES, self._items, rows, times)
        return rows, times

    def popularity(self, at: float) -> Scores:
        """Compute the (n,) interactions of each item, decayed by the longest half-life, as of `at`."""
        out, pre_log = np.empty(self._items), np.empty(self._items)
        longest = int(np.argmax(self.spec.half_lives_h))
        item_counts(self._tables, KINDS.index("touched"), longest, at, out)
        item_counts(self._tables, KINDS.index("prior"), longest, at, pre_log)
        return (out + pre_log).astype(np.float32)

    @property
    def bytes(self) -> int:
        """Memory in use, in bytes, without spare capacity."""
        histories, counters = self._tables.chains, self._tables.keyed
        blocks, keys = int(histories.used[0]), int(counters.used[0])
        lengths = {id(histories.previous): blocks, id(histories.pool): blocks}
        lengths |= {id(counters.keys): keys, id(counters.sums): keys}
        return sum(array[: lengths.get(id(array))].nbytes for _, array in _arrays(self._tables))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays of the state by name, for `restore`. They are not copied."""
        return dict(_arrays(self._tables))

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state by saved arrays of the same catalogue and spec. Raises ValueError if they do not fit."""
        for name, array in _arrays(self._tables):
            saved = arrays.get(name)
            if saved is None or saved.dtype != array.dtype or saved.shape[1:] != array.shape[1:]:
                raise ValueError(f"the saved state has no {name} as expected; it is of another version or another spec")
            if name in _FIXED and saved.shape != array.shape:
                raise ValueError(f"the saved {name} has the shape {saved.shape}, expected {array.shape}")
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
            declared=np.full((rows, custom_counters.width(self.spec.counters)), np.nan, np.float32),
        )

    def _meet(self, people: int) -> None:
        """Grow the history store to at least `n_users` users."""
        store = self._tables.chains
        if people > len(store.heads):
            size = max(people, len(store.heads) + min(len(store.heads), MOST_SPARE))
            names = ("heads", "fills", "lengths", "latest")
            store = store._replace(**{name: grown(getattr(store, name), size) for name in names})
            self._tables = self._tables._replace(chains=store)

    def _reserve(self, rows: int) -> None:
        """Reserve the blocks and counter keys that observing `n_rows` rows can need."""
        store = self._tables.chains
        needed = int(store.used[0]) + rows
        if needed > len(store.previous):
            size = max(needed, len(store.previous) + min(len(store.previous), MOST_SPARE))
            store = store._replace(previous=grown(store.previous, size), pool=grown(store.pool, size))
            self._tables = self._tables._replace(chains=store)
        if self._keys_an_event:
            self._tables = self._tables._replace(keyed=keyed.roomy(self._tables.keyed, rows * self._keys_an_event))


_FIXED = ("rates", "counts", "category_codes", "category_offsets", "first_at", "last_at", "keyed.codes", "keyed.bounds")


def _arrays(tables: Tables) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, value in tables._asdict().items():
        if isinstance(value, Chains | Keyed):
            yield from ((f"{name}.{part}", array) for part, array in value._asdict().items())
        else:
            yield name, value
