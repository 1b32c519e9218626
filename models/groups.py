"""Feature rows with labels, group after group: what a ranker learns from, and what it is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from engine.types import Matrix, Offsets, Rows, Scores
from models.metrics import order

AT_ONCE = 65_536
Scorer: TypeAlias = Callable[[Matrix], Scores]
"""(N, F) rows to (N,) scores."""


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """Feature rows with labels, group after group."""

    matrix: Matrix | lgb.Sequence
    """(N, F), in memory or read from a file as it is asked for."""
    labels: NDArray[np.float32]
    offsets: Offsets
    positions: NDArray[np.int32] | None = None
    """(N,) the places they were shown at, from 1, -1 where that is not known; None: nowhere."""
    rows: Rows | None = None
    """(N,) which items they are, where a second phase is to score them."""
    texts: tuple[str, ...] = ()
    """(G,) what each group's request says in words, where a second phase is to score it."""
    served: NDArray[np.bool_] | None = None
    """(N,) which rows are as they were served; None: none is."""

    def __post_init__(self) -> None:
        if self.positions is not None and len(self.positions) != len(self.labels):
            raise ValueError(f"{len(self.positions)} positions for {len(self.labels)} rows")
        if not len(self.matrix) == len(self.labels) == self.offsets[-1]:
            raise ValueError(f"{len(self.matrix)} rows, {len(self.labels)} labels, {self.offsets[-1]} in groups")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def features(self) -> Matrix:
        """(N, F), read into memory where it was not there."""
        return np.asarray(self.matrix[:], np.float32)


def scored(groups: Groups, scorer: Scorer) -> Scores:
    """(N,) scores of all rows, so many at a time that a matrix on disk stays there."""
    starts = range(0, len(groups.labels), AT_ONCE)
    parts = [scorer(np.asarray(groups.matrix[start : start + AT_ONCE], np.float32)) for start in starts]
    return np.concatenate([np.empty(0, np.float32), *parts])


def ranks(scores: NDArray[np.float64], offsets: Offsets) -> NDArray[np.int64]:
    """(N,) the place of each row within its group by score, from 0."""
    places = np.empty(len(scores), np.int64)
    places[order(scores.astype(np.float32), offsets)] = np.arange(len(scores))
    return places - np.repeat(offsets[:-1], np.diff(offsets))
