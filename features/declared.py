"""Counters that a config declares: what is counted, under which key, how fast it is forgotten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.catalogue import STANDARD_FIELDS, Catalogue
from engine.types import Batch, Scores
from features.keyed import ITEM, NO_CODE, PARTS, Keyed

IMPRESSION = "impression"
"""The type of being shown in a ranking; any other is an interaction's type."""
MOST = 31
"""Declarations; a key has room for no more."""
_MOST_TYPES = 62
_HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class CounterSpec:
    """[[state.counters]] One declared counter, and the features it becomes: one a half-life."""

    name: str
    entity: str = "item"
    """item, user, category, any field of the items, `user x item`, `user x category` or `user x FIELD`."""
    types: tuple[str, ...] = ("click",)
    """The interaction types that are counted; `impression` stands for being shown."""
    per: tuple[str, ...] = ()
    """The types that the count is divided by; none: the feature is log(1 + count)."""
    half_lives_h: tuple[float, ...] = (168.0,)
    smoothing: float = 10.0
    """How many of `per` at the average rate every rate starts with."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty; it is what the features are called")
        if not self.types:
            raise ValueError(f"counter {self.name!r} counts no types; name at least one, such as click")
        if not self.half_lives_h or min(self.half_lives_h) <= 0:
            raise ValueError(f"half_lives_h is {self.half_lives_h}; expected at least one, all above 0")
        if self.smoothing < 0:
            raise ValueError(f"smoothing is {self.smoothing}; expected at least 0")
        parts = self.entity.split(" x ")
        if not all(parts) or len(parts) > 2 or (len(parts) == 2 and (parts[0] != "user" or parts[1] == "user")):
            raise ValueError(
                f"entity is {self.entity!r}; expected item, user, category, an item field, or `user x` one of these"
            )

    @property
    def by_person(self) -> bool:
        """Whether each person has counts of their own."""
        return self.entity.split(" x ")[0] == "user"

    @property
    def of(self) -> str:
        """item, a field's name, or nothing: what of the item is counted under."""
        last = self.entity.split(" x ")[-1]
        return "" if last == "user" else last


def check(counters: tuple[CounterSpec, ...]) -> None:
    """Refuse declarations that can't stand side by side."""
    names = [counter.name for counter in counters]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two counters are named {', '.join(sorted(twice))}; rename one")
    if len(counters) > MOST:
        raise ValueError(f"{len(counters)} counters are declared; there is room for {MOST}")
    if len(types_of(counters)) > _MOST_TYPES:
        raise ValueError(f"the counters name {len(types_of(counters))} types; there is room for {_MOST_TYPES}")


def types_of(counters: tuple[CounterSpec, ...]) -> tuple[str, ...]:
    """The types that are named, each once: type t is bit t."""
    return tuple(dict.fromkeys(kind for counter in counters for kind in (*counter.types, *counter.per)))


def keyed(counters: tuple[CounterSpec, ...], catalogue: Catalogue) -> Keyed:
    """Counters of a catalogue, all empty. Raises ValueError for a field that no item has."""
    types = types_of(counters)
    fields = list(dict.fromkeys(counter.of for counter in counters if counter.of not in ("", "item")))
    codes = [catalogue.codes(name) for name in fields]
    for name, (found, _) in zip(fields, codes, strict=True):
        if not len(found) and len(catalogue) and name not in STANDARD_FIELDS:
            raise ValueError(f"a counter is declared for the item field {name!r}, which no item has")
    starts = np.cumsum([0, *(len(found) for found, _ in codes)])
    halves = max((len(counter.half_lives_h) for counter in counters), default=0)
    rates = np.full((len(counters), halves), -1.0)
    for line, counter in enumerate(counters):
        rates[line, : len(counter.half_lives_h)] = np.log(2) / (np.array(counter.half_lives_h) * _HOUR)
    place = {"": NO_CODE, "item": ITEM} | {name: line for line, name in enumerate(fields)}
    bounds = [offsets + start for (_, offsets), start in zip(codes, starts[:-1], strict=True)]
    return Keyed(
        counted=np.array([_bits(counter.types, types) for counter in counters], np.int64),
        per=np.array([_bits(counter.per, types) for counter in counters], np.int64),
        by_person=np.array([counter.by_person for counter in counters], np.bool_),
        source=np.array([place[counter.of] for counter in counters], np.int64),
        codes=np.concatenate([np.empty(0, np.int32), *(found for found, _ in codes)]).astype(np.int32),
        bounds=np.array(bounds, np.int64).reshape(len(fields), len(catalogue) + 1),
        rates=rates,
        landmarks=np.full(rates.shape, np.nan),
        totals=np.zeros((*rates.shape, 2)),
        table=np.zeros(1, np.int32),
        keys=np.zeros(0, np.int64),
        sums=np.zeros((0, halves, 2)),
        used=np.zeros(1, np.int64),
    )  # fmt: skip


def width(counters: tuple[CounterSpec, ...]) -> int:
    """Columns of `Batch.declared`."""
    return len(counters) * max((len(counter.half_lives_h) for counter in counters), default=0) * PARTS


def features(batch: Batch, counters: tuple[CounterSpec, ...]) -> dict[str, Scores]:
    """Name -> (N,) the log of each count, or its smoothed rate where it is divided by another."""
    columns: dict[str, Scores] = {}
    halves = max((len(counter.half_lives_h) for counter in counters), default=0)
    for line, counter in enumerate(counters):
        for half, hours in enumerate(counter.half_lives_h):
            first = (line * halves + half) * PARTS
            count, per, all_counts, all_per = (batch.declared[:, first + part] for part in range(PARTS))
            value = np.log1p(count)
            if counter.per:
                average = (all_counts + 1) / (all_per + 20)
                value = (count + counter.smoothing * average) / np.maximum(per + counter.smoothing, 1e-9)
            columns[f"{counter.name}_{label(hours)}"] = value.astype(np.float32)
    return columns


def keys_an_event(counters: tuple[CounterSpec, ...], found: Keyed) -> int:
    """How many keys one event of one item can make at most."""
    widest = np.diff(found.bounds, axis=1).max(axis=1, initial=0)
    return sum(1 if source < 0 else int(widest[source]) for source in found.source.tolist())


def label(half_life_h: float) -> str:
    """A half-life as it stands in feature names: 6h, 7d, all."""
    if np.isinf(half_life_h):
        return "all"
    return f"{half_life_h / 24:g}d" if half_life_h >= 48 else f"{half_life_h:g}h"


def _bits(chosen: tuple[str, ...], types: tuple[str, ...]) -> int:
    return sum(1 << types.index(kind) for kind in set(chosen))
