"""Custom counters that the config declares: event types, key and half-lives of decayed counts and rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.features.counter_table import ITEM, NO_CODE, VALUES_PER_HALF_LIFE, CounterTable

IMPRESSION = "impression"
"""The event type of an impression; all other types are interaction types."""
IMPRESSION_BIT = 1 << 62
"""Bit of an impression in a type mask."""
MAX_COUNTERS = 31
"""Maximum number of counters, set by the bits of a counter key."""
_MAX_TYPES = 62
_SECONDS_PER_HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class CounterSpec:
    """[[state.counters]] A custom counter. It becomes one feature per half-life."""

    name: str
    """Name of the counter. The names of its features begin with it."""
    entity: str = "item"
    """What has a count of its own: item, user, category, an item field, or `user x` item, category or a field."""
    types: tuple[str, ...] = ("click",)
    """Event types that are counted: interaction types, or `impression`."""
    rate_over: tuple[str, ...] = ()
    """Event types in the denominator of a rate; empty: the feature is log(1 + count)."""
    half_lives_h: tuple[float, ...] = (168.0,)
    """Half-lives of the counts, with one feature each; inf: no decay."""
    smoothing: float = 10.0
    """Prior of a rate: how many `rate_over` events at the average rate are added to each count. Unit: events."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty; expected a name, which begins the feature names")
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
    def per_user(self) -> bool:
        """Whether the counter has separate counts for each user."""
        return self.entity.split(" x ")[0] == "user"

    @property
    def item_field(self) -> str:
        """The item part of the key: `item`, the name of an item field, or an empty string."""
        last = self.entity.split(" x ")[-1]
        return "" if last == "user" else last


def check_counters(counters: tuple[CounterSpec, ...]) -> None:
    """Check that the counters can be used together. Raises ValueError if not."""
    names = [counter.name for counter in counters]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two counters are named {', '.join(sorted(duplicates))}; rename one")
    if len(counters) > MAX_COUNTERS:
        raise ValueError(f"{len(counters)} counters are declared; expected at most {MAX_COUNTERS}")
    if len(interaction_types(counters)) > _MAX_TYPES:
        raise ValueError(f"the counters name {len(interaction_types(counters))} types; expected at most {_MAX_TYPES}")


def interaction_types(counters: tuple[CounterSpec, ...]) -> tuple[str, ...]:
    """Return the distinct interaction types of all counters; the type at index t is bit t of a type mask."""
    named = dict.fromkeys(kind for counter in counters for kind in (*counter.types, *counter.rate_over))
    return tuple(kind for kind in named if kind != IMPRESSION)


def counted_fields(counters: tuple[CounterSpec, ...]) -> tuple[str, ...]:
    """Return the item fields by whose values a state counts: the category, and those of the counters."""
    named = dict.fromkeys(["category", *(counter.item_field for counter in counters)])
    return tuple(name for name in named if name not in ("", "item"))


def empty_counter_table(counters: tuple[CounterSpec, ...]) -> CounterTable:
    """Create the counter table of a state without events."""
    types = interaction_types(counters)
    halves = max((len(counter.half_lives_h) for counter in counters), default=0)
    rates = np.full((len(counters), halves), -1.0)
    for d, counter in enumerate(counters):
        rates[d, : len(counter.half_lives_h)] = np.log(2) / (np.array(counter.half_lives_h) * _SECONDS_PER_HOUR)
    source_of = {"": NO_CODE, "item": ITEM} | {name: i for i, name in enumerate(counted_fields(counters))}
    return CounterTable(
        numerator=np.array([_type_bits(counter.types, types) for counter in counters], np.int64),
        denominator=np.array([_type_bits(counter.rate_over, types) for counter in counters], np.int64),
        per_user=np.array([counter.per_user for counter in counters], np.bool_),
        code_source=np.array([source_of[counter.item_field] for counter in counters], np.int64),
        decay_rates=rates,
        landmarks=np.full(rates.shape, np.nan),
        totals=np.zeros((*rates.shape, 2)),
        hash_index=np.zeros(1, np.int32),
        keys=np.zeros(0, np.int64),
        sums=np.zeros((0, halves, 2)),
        used=np.zeros(1, np.int64),
    )  # fmt: skip


def n_columns(counters: tuple[CounterSpec, ...]) -> int:
    """Return the number of columns of `Batch.custom_counters`."""
    return len(counters) * max((len(counter.half_lives_h) for counter in counters), default=0) * VALUES_PER_HALF_LIFE


def keys_per_code(table: CounterTable, n_fields: int) -> tuple[int, NDArray[np.int64]]:
    """Return how many keys an event can add whatever its item is, and for each code of the item: (n_fields,)."""
    sources = table.code_source
    return int(np.count_nonzero(sources < 0)), np.bincount(sources[sources >= 0], minlength=n_fields)


def half_life_label(half_life_h: float) -> str:
    """Format a half-life for feature names: 6h, 7d, all."""
    if np.isinf(half_life_h):
        return "all"
    return f"{half_life_h / 24:g}d" if half_life_h >= 48 else f"{half_life_h:g}h"


def _type_bits(selected: tuple[str, ...], types: tuple[str, ...]) -> int:
    return sum(IMPRESSION_BIT if kind == IMPRESSION else 1 << types.index(kind) for kind in set(selected))
