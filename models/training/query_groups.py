"""Query groups are feature rows with labels, group after group, for training and evaluating a ranker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Matrix, Offsets, Rows, Scores
from feedrank.models.evaluation.metrics import order

CHUNK_ROWS = 65_536
Scorer: TypeAlias = Callable[[Matrix], Scores]
"""A function from (N, F) feature rows to (N,) scores."""


@dataclass(frozen=True, eq=False, slots=True)
class QueryGroups:
    """N feature rows with labels in G query groups."""

    matrix: Matrix | lgb.Sequence
    """(N, F) in memory, or read from a file on access."""
    labels: NDArray[np.float32]
    offsets: Offsets
    positions: NDArray[np.int32] | None = None
    """(N,) logged positions from 1; -1: unknown; None: the rows are not impressions."""
    item_rows: Rows | None = None
    """(N,) item rows, for the cross-encoder; None without one."""
    query_texts: tuple[str, ...] = ()
    """(G,) request texts, for the cross-encoder; empty without one."""
    logged: NDArray[np.bool_] | None = None
    """(N,) True for rows that are logged features; None: no row is."""
    categories: tuple[int, ...] = ()
    """The columns that are codes without an order."""

    def __post_init__(self) -> None:
        if self.positions is not None and len(self.positions) != len(self.labels):
            raise ValueError(f"found {len(self.positions)} positions, expected one for each of {len(self.labels)} rows")
        if not len(self.matrix) == len(self.labels) == self.offsets[-1]:
            raise ValueError(
                f"found {len(self.matrix)} rows, {len(self.labels)} labels, offset end {self.offsets[-1]}; not equal"
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def features(self) -> Matrix:
        """Return the (N, F) matrix in memory; read it from the file if needed."""
        return np.asarray(self.matrix[:], np.float32)


def check_slices(train: Sequence[QueryGroups], validation: QueryGroups) -> None:
    """Check that both slices have a positive label. Raises ValueError that names the slice."""
    for name, parts in (("training", train), ("validation", [validation])):
        if not any(np.any(part.labels > 0) for part in parts):
            raise ValueError(
                f"the {name} slice has {sum(len(part) for part in parts)} groups with no clicked item among them; "
                "LambdaRank needs rankings with at least one click, or interactions to build groups from"
            )


def score_in_chunks(groups: QueryGroups, scorer: Scorer) -> Scores:
    """Return (N,) scores of all rows, in chunks, so that a matrix on disk is never read as a whole."""
    starts = range(0, len(groups.labels), CHUNK_ROWS)
    parts = [scorer(np.asarray(groups.matrix[start : start + CHUNK_ROWS], np.float32)) for start in starts]
    return np.concatenate([np.empty(0, np.float32), *parts])


def ranks(scores: NDArray[np.float64], offsets: Offsets) -> NDArray[np.int64]:
    """Return (N,) the rank of each row within its group by score, from 0."""
    sorted_index = np.empty(len(scores), np.int64)
    sorted_index[order(scores.astype(np.float32), offsets)] = np.arange(len(scores))
    return sorted_index - np.repeat(offsets[:-1], np.diff(offsets))
