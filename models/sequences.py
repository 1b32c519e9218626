"""People's touches in order of time, person after person: what the behavioural views are learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.log import Log
from engine.types import Offsets, Rows, Times


@dataclass(frozen=True, eq=False, slots=True)
class Sequences:
    """T touches of P people; person p has [offsets[p], offsets[p + 1])."""

    offsets: Offsets
    items: Rows
    at: Times
    values: NDArray[np.float64]
    """Ratings and the like, NaN where there is none."""
    touch: NDArray[np.int64]
    """The interaction each one is."""

    @classmethod
    def of(cls, log: Log) -> Sequences:
        """Every touch of a known item by a known person."""
        interactions = log.interactions
        usable = np.flatnonzero((interactions.person >= 0) & (interactions.item >= 0))
        order = usable[np.argsort(interactions.person[usable], kind="stable")]
        counts = np.bincount(interactions.person[order], minlength=len(log.people))
        return cls(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            items=interactions.item[order],
            at=interactions.at[order],
            values=interactions.value[order],
            touch=order,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def person(self) -> Rows:
        """(T,) whose touch each is."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    @property
    def from_end(self) -> NDArray[np.int64]:
        """(T,) how many touches of the same person come after each."""
        return np.repeat(self.offsets[1:], np.diff(self.offsets)) - 1 - np.arange(len(self.items))

    @property
    def from_start(self) -> NDArray[np.int64]:
        """(T,) how many touches of the same person come before each."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def keep(self, mask: NDArray[np.bool_]) -> Sequences:
        """The touches where the (T,) mask is True; everybody keeps their place."""
        kept = np.concatenate([[0], np.cumsum(mask)])
        return Sequences(kept[self.offsets], self.items[mask], self.at[mask], self.values[mask], self.touch[mask])

    def chunks(self, touches: int) -> Iterator[Sequences]:
        """Whole people, about so many touches at a time."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + touches, "right")) - 1
            last = min(max(last, first + 1), len(self))
            part = slice(int(self.offsets[first]), int(self.offsets[last]))
            bounds = self.offsets[first : last + 1] - self.offsets[first]
            yield Sequences(bounds, self.items[part], self.at[part], self.values[part], self.touch[part])
            first = last

    def before(self, place: int) -> slice:
        """The touches of the same person before the one at `place`, oldest first."""
        person = int(np.searchsorted(self.offsets, place, side="right")) - 1
        return slice(int(self.offsets[person]), place)
