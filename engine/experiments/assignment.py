"""Which arm a unit is in: a salted hash to one of a million slots, and slots that belong to arms.

Stable across processes and languages: `hash32(salt + ":" + unit)`, times a million, over 2^32, rounded down, is the
slot. Weights change by moving as few slots as there must be: arms that shrink give their last ones to those that grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.experiments.hashing import hash32, hashes32

SLOTS = 1_000_000
NOWHERE = -1
"""The arm of units that are in none."""


@dataclass(frozen=True, slots=True)
class Span:
    """Slots from `first` up to, and without, `stop`."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    def __contains__(self, slot: int) -> bool:
        return self.first <= slot < self.stop


Spans = Mapping[str, tuple[Span, ...]]
"""Arm -> its slots; slots that no arm has are nobody's."""


def slot_of(salt: str, unit: str) -> int:
    """The slot of a unit, 0 to `SLOTS` - 1."""
    return hash32(f"{salt}:{unit}") * SLOTS >> 32


def slots_of(salt: str, units: Sequence[str]) -> NDArray[np.int64]:
    """(len(units),) the same for many."""
    prefix = f"{salt}:"
    hashes = hashes32([prefix + unit for unit in units])
    return hashes.astype(np.int64) * SLOTS >> 32


def arm_at(spans: Spans, slot: int) -> str | None:
    """The arm that has a slot; None where none has."""
    return next((arm for arm, own in spans.items() if any(slot in span for span in own)), None)


def arms_of(spans: Spans, slots: NDArray[np.int64]) -> NDArray[np.int32]:
    """(N,) places of arms, in the order of the spans; NOWHERE where no arm has the slot."""
    owner = np.full(SLOTS, NOWHERE, np.int32)
    for place, own in enumerate(spans.values()):
        for span in own:
            owner[span.first : span.stop] = place
    return owner[slots]


def first_spans(weights: Mapping[str, float]) -> dict[str, tuple[Span, ...]]:
    """All slots, shared out by weight, arm after arm."""
    stops = np.cumsum(_sizes(weights)).tolist()
    return {
        arm: (Span(first, stop),) if stop > first else ()
        for arm, first, stop in zip(weights, [0, *stops[:-1]], stops, strict=True)
    }


def moved(spans: Spans, weights: Mapping[str, float]) -> dict[str, tuple[Span, ...]]:
    """The spans after a change of weights: what shrinks gives its last slots to what grows, in the order of the arms.

    An arm that is in `spans` alone gives all of its slots; one that is in `weights` alone begins with none.
    """
    wanted = dict(zip(weights, _sizes(weights), strict=True))
    left = {arm: list(spans.get(arm, ())) for arm in dict.fromkeys([*weights, *spans])}
    free: list[Span] = _gaps(spans)
    for arm, own in left.items():
        surplus = sum(map(len, own)) - wanted.get(arm, 0)
        while surplus > 0:
            last = own.pop()
            cut = max(last.first, last.stop - surplus)
            free.append(Span(cut, last.stop))
            surplus -= last.stop - cut
            if cut > last.first:
                own.append(Span(last.first, cut))
    free.sort(key=lambda span: span.first)
    for arm in weights:
        missing = wanted[arm] - sum(map(len, left[arm]))
        while missing > 0 and free:
            one = free.pop(0)
            stop = min(one.stop, one.first + missing)
            left[arm].append(Span(one.first, stop))
            missing -= stop - one.first
            if stop < one.stop:
                free.insert(0, Span(stop, one.stop))
    return {arm: _joined(left[arm]) for arm in weights}


def without(spans: Spans, arm: str) -> dict[str, tuple[Span, ...]]:
    """The spans after an arm was stopped: its slots are nobody's."""
    return {name: () if name == arm else own for name, own in spans.items()}


def _sizes(weights: Mapping[str, float]) -> list[int]:
    """Slots of each arm by weight; together all, or none where all weights are 0."""
    total = sum(weights.values())
    if total <= 0:
        return [0] * len(weights)
    stops = [round(SLOTS * share) for share in np.cumsum([weight / total for weight in weights.values()]).tolist()]
    return [stop - first for first, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _gaps(spans: Spans) -> list[Span]:
    taken = sorted((span for own in spans.values() for span in own), key=lambda span: span.first)
    edges = [0, *(edge for span in taken for edge in (span.first, span.stop)), SLOTS]
    return [Span(first, stop) for first, stop in zip(edges[::2], edges[1::2], strict=True) if stop > first]


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """In order, neighbours made one."""
    made: list[Span] = []
    for span in sorted(spans, key=lambda span: span.first):
        if made and made[-1].stop == span.first:
            made[-1] = Span(made[-1].first, span.stop)
        else:
            made.append(span)
    return tuple(made)
