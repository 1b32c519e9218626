"""Late interaction: token vectors of items, made ahead, and MaxSim against a query's or against latest items' tokens.

MaxSim is the mean, over the tokens that ask, of the highest similarity to any token that answers (Khattab & Zaharia,
ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT, 2020; a mean rather than
their sum, so that texts of any length can be compared). Vectors in int8 are multiplied and added up as whole numbers:
exact, and so the same in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from engine.space import unit_rows
from engine.types import Batch, Matrix, Offsets, Rows, Scores, Vector
from features.compiled import compiled, compiled_sums

STEPS = 127
"""A number of -1 to 1 as a whole number of -127 to 127."""
LATEST = 10
"""Latest items whose tokens ask where there is no query."""
ASKING = 24
"""First tokens of a latest item that ask."""
Codes: TypeAlias = NDArray[np.int8] | NDArray[np.float32]


class Projection(NamedTuple):
    """Principal components of a catalogue's token vectors."""

    mean: Vector
    directions: Matrix
    """(width, dimensions)."""

    @classmethod
    def fit(cls, vectors: Matrix, dimensions: int) -> Projection:
        """The directions in which these vectors differ most."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        around = vectors - mean.astype(np.float32)
        _, directions = np.linalg.eigh((around.T @ around).astype(np.float64))
        return cls(mean.astype(np.float32), np.ascontiguousarray(directions[:, ::-1][:, :dimensions], np.float32))

    def of(self, vectors: Matrix) -> Matrix:
        """(tokens, dimensions) of length 1."""
        return unit_rows(np.asarray((vectors - self.mean) @ self.directions, np.float32))


@dataclass(frozen=True, eq=False, slots=True)
class TokenVectors:
    """Token vectors of n items, flattened; in int8, or in float32 where they are to be exact."""

    codes: Codes
    """(tokens, d) of length 1 where they are float32; times STEPS and rounded where they are int8."""
    offsets: Offsets
    """(n + 1,) bounds of each item's tokens; an item without text has none."""
    projection: Projection | None = None
    """What the vectors went through, and a query's must; None: they are as the model made them."""

    def __post_init__(self) -> None:
        if self.offsets[-1] != len(self.codes):
            raise ValueError(f"offsets end at {self.offsets[-1]}, but there are {len(self.codes)} token vectors")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def unit(self) -> float:
        """The similarity of a vector with itself, in these numbers."""
        return float(STEPS**2) if self.codes.dtype == np.int8 else 1.0

    @property
    def bytes(self) -> int:
        """What the vectors and their bounds take."""
        return self.codes.nbytes + self.offsets.nbytes

    def asking(self, vectors: Matrix) -> Codes:
        """A query's token vectors as the model makes them, in the numbers that the items' are in."""
        vectors = vectors if self.projection is None else self.projection.of(vectors)
        return quantised(vectors) if self.codes.dtype == np.int8 else np.ascontiguousarray(vectors, np.float32)

    def scores(self, query: Codes, rows: Rows) -> Scores:
        """(len(rows),) MaxSim of a query's tokens (as `asking` gives them) with items; NaN where either has none."""
        bounds = np.array([0, len(rows)], np.int64)
        out = np.full(len(rows), np.nan, np.float32)
        _ask(self.codes, self.offsets, query, np.array([0, len(query)], np.int64), rows, bounds, self.unit, out)
        return out


def quantised(vectors: Matrix) -> NDArray[np.int8]:
    """Vectors of length 1 in int8; the error of a similarity is about 0.002."""
    return np.clip(np.round(vectors * np.float32(STEPS)), -STEPS, STEPS).astype(np.int8)


def late_scores(tokens: TokenVectors, batch: Batch) -> Matrix:
    """(N, 4) MaxSim of a request and a candidate.

    Columns: of the person's latest item, the best and the mean over their LATEST latest items that have tokens, and of
    the request's query. NaN where there is nothing to compare.
    """
    out = np.full((len(batch.rows), 4), np.nan, np.float32)
    history = np.ascontiguousarray(batch.history[:, :LATEST])
    _history(tokens.codes, tokens.offsets, batch.rows, batch.offsets, history, ASKING, tokens.unit, out)
    if any(one is not None for one in batch.query_tokens):
        nothing = tokens.codes[:0]
        asking = [nothing if one is None else tokens.asking(one) for one in batch.query_tokens]
        bounds = np.concatenate([[0], np.cumsum([len(one) for one in asking])]).astype(np.int64)
        scores = np.full(len(batch.rows), np.nan, np.float32)
        asked = cast(Codes, np.concatenate(asking))
        _ask(tokens.codes, tokens.offsets, asked, bounds, batch.rows, batch.offsets, tokens.unit, scores)
        out[:, 3] = scores
    return out


@compiled_sums
def _similarity(a: Codes, b: Codes) -> Any:
    total = a[0] * b[0]
    for d in range(1, len(a)):
        total += a[d] * b[d]
    return total


@compiled
def _maxsim(codes: Codes, offsets: Offsets, row: int, asking: Codes, first: int, stop: int) -> float:
    """Mean over the asking tokens [first, stop) of the highest similarity to a token of the item."""
    total = 0.0
    for asked in range(first, stop):
        best = -1e9
        for token in range(offsets[row], offsets[row + 1]):
            best = max(best, float(_similarity(asking[asked], codes[token])))
        total += best
    return total / (stop - first)


@compiled
def _ask(
    codes: Codes, offsets: Offsets, asking: Codes, asking_bounds: Offsets, rows: Rows, bounds: Offsets, unit: float,
    out: Scores,
) -> None:  # fmt: skip
    for request in range(len(bounds) - 1):
        first, stop = asking_bounds[request], asking_bounds[request + 1]
        for place in range(bounds[request], bounds[request + 1]):
            row = rows[place]
            if stop > first and row >= 0 and offsets[row + 1] > offsets[row]:
                out[place] = _maxsim(codes, offsets, row, asking, first, stop) / unit


@compiled
def _history(
    codes: Codes, offsets: Offsets, rows: Rows, bounds: Offsets, history: Rows, most: int, unit: float, out: Matrix
) -> None:
    """The latest touch, the best and the mean; a touch without tokens asks nothing."""
    for request in range(len(bounds) - 1):
        for place in range(bounds[request], bounds[request + 1]):
            row = rows[place]
            if row < 0 or offsets[row + 1] == offsets[row]:
                continue
            asked, total, best = 0, 0.0, -1e9
            for slot in range(history.shape[1]):
                touched = history[request, slot]
                if touched < 0 or offsets[touched + 1] == offsets[touched]:
                    continue
                first = offsets[touched]
                stop = min(offsets[touched + 1], first + most)
                score = _maxsim(codes, offsets, row, codes, first, stop) / unit
                if slot == 0:
                    out[place, 0] = score
                asked += 1
                total += score
                best = max(best, score)
            if asked:
                out[place, 1] = best
                out[place, 2] = total / asked
