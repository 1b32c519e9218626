"""How a candidate stands among the others of its own request."""

from __future__ import annotations

import numpy as np

from engine.types import Matrix, Offsets, Scores
from features.compiled import compiled


def standings(columns: Matrix, offsets: Offsets) -> Matrix:
    """(N, C) each value less its group's mean, over its deviation; NaN stays NaN, a flat group is 0."""
    out = np.full(columns.shape, np.nan, np.float32)
    _standings(columns, offsets, out)
    return out


def places(column: Matrix, offsets: Offsets) -> Matrix:
    """(N,) share of the group's values that are higher, in [0, 1); NaN stays NaN."""
    out = np.full(len(column), np.nan, np.float32)
    _places(column, offsets, out)
    return out


def behind_best(column: Scores, offsets: Offsets) -> Scores:
    """(N,) each value less the highest of its group, at most 0; NaN stays NaN."""
    out = np.full(len(column), np.nan, np.float32)
    _behind_best(column, offsets, out)
    return out


@compiled
def _behind_best(column: Scores, offsets: Offsets, out: Scores) -> None:
    for group in range(len(offsets) - 1):
        best = np.float32(-np.inf)
        for place in range(offsets[group], offsets[group + 1]):
            if column[place] > best:
                best = column[place]
        for place in range(offsets[group], offsets[group + 1]):
            out[place] = column[place] - best


@compiled
def _standings(columns: Matrix, offsets: Offsets, out: Matrix) -> None:
    for group in range(len(offsets) - 1):
        for c in range(columns.shape[1]):
            count, total = 0, 0.0
            for place in range(offsets[group], offsets[group + 1]):
                value = columns[place, c]
                if not np.isnan(value):
                    count += 1
                    total += value
            if count == 0:
                continue
            mean = total / count
            # a second pass: the difference of two large squares would lose a small deviation
            squares = 0.0
            for place in range(offsets[group], offsets[group + 1]):
                value = columns[place, c]
                if not np.isnan(value):
                    squares += (value - mean) ** 2
            deviation = np.sqrt(squares / count)
            for place in range(offsets[group], offsets[group + 1]):
                value = columns[place, c]
                if not np.isnan(value):
                    out[place, c] = (value - mean) / deviation if deviation > 1e-6 else 0.0


@compiled
def _places(column: Matrix, offsets: Offsets, out: Matrix) -> None:
    for group in range(len(offsets) - 1):
        start, stop = offsets[group], offsets[group + 1]
        order = np.argsort(-column[start:stop], kind="mergesort")
        known = np.count_nonzero(~np.isnan(column[start:stop]))
        ahead = 0
        for i in range(stop - start):
            value = column[start + order[i]]
            if np.isnan(value):
                continue
            if i > 0 and column[start + order[i - 1]] != value:
                ahead = i
            out[start + order[i]] = ahead / known
