"""Assigns units to arms: a salted hash maps a unit to one of a million slots, and arms own ranges of slots.

The slot is floor(hash32(salt + ":" + unit) x 1,000,000 / 2^32), the same in every process and language. A change of
weights moves as few slots as possible: arms that shrink give their last slots to arms that grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.experiments.hashing import hash32, hashes32

SLOTS = 1_000_000
"""Number of slots."""
NO_ARM = -1
"""Arm index of units that are in no arm."""


@dataclass(frozen=True, slots=True)
class SlotRange:
    """A range of slots from `first` to `stop`, without `stop`."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    def __contains__(self, slot: int) -> bool:
        return self.first <= slot < self.stop


SlotRanges = Mapping[str, tuple[SlotRange, ...]]
"""Arm name -> its slot ranges; other slots are unassigned."""


def slot_of(salt: str, unit: str) -> int:
    """Return the slot of a unit, 0 to `SLOTS` - 1."""
    return hash32(f"{salt}:{unit}") * SLOTS >> 32


def slots_of(salt: str, units: Sequence[str]) -> NDArray[np.int64]:
    """Return the slots (len(units),) of many units, as `slot_of`."""
    prefix = f"{salt}:"
    hashes = hashes32([prefix + unit for unit in units])
    return hashes.astype(np.int64) * SLOTS >> 32


def arm_of_slot(slot_ranges: SlotRanges, slot: int) -> str | None:
    """Return the arm that owns a slot; None if it is unassigned."""
    return next((arm for arm, ranges in slot_ranges.items() if any(slot in part for part in ranges)), None)


def arms_of_slots(slot_ranges: SlotRanges, slots: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the arm index of each slot (N,), in the order of `slot_ranges`; NO_ARM for unassigned slots."""
    owner = np.full(SLOTS, NO_ARM, np.int32)
    for index, ranges in enumerate(slot_ranges.values()):
        for part in ranges:
            owner[part.first : part.stop] = index
    return owner[slots]


def initial_slot_ranges(weights: Mapping[str, float]) -> dict[str, tuple[SlotRange, ...]]:
    """Divide all slots among the arms by weight, one contiguous range per arm."""
    stops = np.cumsum(_slots_per_arm(weights)).tolist()
    return {
        arm: (SlotRange(first, stop),) if stop > first else ()
        for arm, first, stop in zip(weights, [0, *stops[:-1]], stops, strict=True)
    }


def rebalance(slot_ranges: SlotRanges, weights: Mapping[str, float]) -> dict[str, tuple[SlotRange, ...]]:
    """Return the slot ranges after a change of weights; as few slots as possible change their arm.

    Arms that shrink give up their last slots, and arms that grow take free slots in the order of the arms. An arm only
    in `slot_ranges` gives up all slots; an arm only in `weights` starts with none.
    """
    wanted = dict(zip(weights, _slots_per_arm(weights), strict=True))
    current = {arm: list(slot_ranges.get(arm, ())) for arm in dict.fromkeys([*weights, *slot_ranges])}
    free: list[SlotRange] = _unassigned_ranges(slot_ranges)
    for arm, ranges in current.items():
        surplus = sum(map(len, ranges)) - wanted.get(arm, 0)
        while surplus > 0:
            last = ranges.pop()
            cut = max(last.first, last.stop - surplus)
            free.append(SlotRange(cut, last.stop))
            surplus -= last.stop - cut
            if cut > last.first:
                ranges.append(SlotRange(last.first, cut))
    free.sort(key=lambda part: part.first)
    for arm in weights:
        missing = wanted[arm] - sum(map(len, current[arm]))
        while missing > 0 and free:
            part = free.pop(0)
            stop = min(part.stop, part.first + missing)
            current[arm].append(SlotRange(part.first, stop))
            missing -= stop - part.first
            if stop < part.stop:
                free.insert(0, SlotRange(stop, part.stop))
    return {arm: _merge_adjacent(current[arm]) for arm in weights}


def drop_arm(slot_ranges: SlotRanges, arm: str) -> dict[str, tuple[SlotRange, ...]]:
    """Return the slot ranges after an arm was stopped; its slots become unassigned."""
    return {name: () if name == arm else ranges for name, ranges in slot_ranges.items()}


def _slots_per_arm(weights: Mapping[str, float]) -> list[int]:
    """Return the number of slots of each arm by weight. They add up to `SLOTS`, or to 0 if all weights are 0."""
    total = sum(weights.values())
    if total <= 0:
        return [0] * len(weights)
    stops = [round(SLOTS * share) for share in np.cumsum([weight / total for weight in weights.values()]).tolist()]
    return [stop - first for first, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _unassigned_ranges(slot_ranges: SlotRanges) -> list[SlotRange]:
    taken = sorted((part for ranges in slot_ranges.values() for part in ranges), key=lambda part: part.first)
    edges = [0, *(edge for part in taken for edge in (part.first, part.stop)), SLOTS]
    return [SlotRange(first, stop) for first, stop in zip(edges[::2], edges[1::2], strict=True) if stop > first]


def _merge_adjacent(ranges: Sequence[SlotRange]) -> tuple[SlotRange, ...]:
    """Sort ranges and merge adjacent ones."""
    merged: list[SlotRange] = []
    for part in sorted(ranges, key=lambda part: part.first):
        if merged and merged[-1].stop == part.first:
            merged[-1] = SlotRange(merged[-1].first, part.stop)
        else:
            merged.append(part)
    return tuple(merged)
