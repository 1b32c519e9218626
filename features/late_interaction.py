"""Late interaction scores precomputed token vectors of items by MaxSim, against a query or the user's latest items.

MaxSim is the mean, over query tokens, of the highest similarity to any token of the item (Khattab & Zaharia, ColBERT:
Efficient and Effective Passage Search via Contextualized Late Interaction over BERT, 2020). It is a mean rather than
their sum, so that texts of different length are comparable. int8 vectors are multiplied and summed as integers: the
result is exact and the same in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Batch, Matrix, Offsets, Rows, Scores, Vector
from feedrank.features.jit import jit, jit_fastmath

SCALE = 127
"""Quantization scale: -1 to 1 becomes an integer from -127 to 127."""
MAX_HISTORY_ITEMS = 10
"""Number of latest items whose tokens are the query of a request without a query."""
MAX_QUERY_TOKENS = 24
"""Number of first tokens of a history item that are used as a query."""
TokenValues: TypeAlias = NDArray[np.int8] | NDArray[np.float32]


class Projection(NamedTuple):
    """Principal components (PCA) of a catalogue's token vectors."""

    mean: Vector
    directions: Matrix
    """(width, dimensions) components, the largest variance first."""

    @classmethod
    def fit(cls, vectors: Matrix, dimensions: int) -> Projection:
        """Fit the principal components of (tokens, width) vectors."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        centered = vectors - mean.astype(np.float32)
        _, directions = np.linalg.eigh((centered.T @ centered).astype(np.float64))
        return cls(mean.astype(np.float32), np.ascontiguousarray(directions[:, ::-1][:, :dimensions], np.float32))

    def project(self, vectors: Matrix) -> Matrix:
        """Project vectors on the components: (tokens, dimensions), of length 1."""
        return unit_rows(np.asarray((vectors - self.mean) @ self.directions, np.float32))


@dataclass(frozen=True, eq=False, slots=True)
class TokenVectors:
    """Token vectors of n items, flattened; int8, or float32 for exact scores."""

    values: TokenValues
    """(tokens, d) of length 1 if float32; multiplied by SCALE and rounded if int8."""
    offsets: Offsets
    """(n + 1,) bounds of each item's tokens; an item without text has none."""
    projection: Projection | None = None
    """Projection of these vectors, which queries need too; None: the model's own vectors."""

    def __post_init__(self) -> None:
        if self.offsets[-1] != len(self.values):
            raise ValueError(f"offsets end at {self.offsets[-1]}, but there are {len(self.values)} token vectors")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def self_similarity(self) -> float:
        """Similarity of a vector with itself: the divisor that scales scores to cosines."""
        return float(SCALE**2) if self.values.dtype == np.int8 else 1.0

    @property
    def nbytes(self) -> int:
        """Memory of vectors and offsets, in bytes."""
        return self.values.nbytes + self.offsets.nbytes

    def encode_query(self, vectors: Matrix) -> TokenValues:
        """Project and quantize a query's (tokens, width) vectors as those of the items."""
        vectors = vectors if self.projection is None else self.projection.project(vectors)
        return quantize(vectors) if self.values.dtype == np.int8 else np.ascontiguousarray(vectors, np.float32)

    def scores(self, query: TokenValues, rows: Rows) -> Scores:
        """Compute (len(rows),) MaxSim of a query from `encode_query` with items; NaN if either has no tokens."""
        bounds = np.array([0, len(rows)], np.int64)
        out = np.full(len(rows), np.nan, np.float32)
        _score_queries(
            self.values,
            self.offsets,
            query,
            np.array([0, len(query)], np.int64),
            rows,
            bounds,
            self.self_similarity,
            out,
        )
        return out


def quantize(vectors: Matrix) -> NDArray[np.int8]:
    """Quantize vectors of length 1 to int8; the error of a similarity is about 0.002."""
    return np.clip(np.round(vectors * np.float32(SCALE)), -SCALE, SCALE).astype(np.int8)


def maxsim_scores(token_vectors: TokenVectors, batch: Batch) -> Matrix:
    """Compute (N, 4) MaxSim scores of candidates.

    Columns: with the user's latest item; the highest and the mean score over the MAX_HISTORY_ITEMS latest items that
    have tokens; with the request's query. NaN if there is nothing to compare.
    """
    out = np.full((len(batch.rows), 4), np.nan, np.float32)
    history = np.ascontiguousarray(batch.history[:, :MAX_HISTORY_ITEMS])
    _score_histories(
        token_vectors.values,
        token_vectors.offsets,
        batch.rows,
        batch.offsets,
        history,
        MAX_QUERY_TOKENS,
        token_vectors.self_similarity,
        out,
    )
    if any(query is not None for query in batch.query_tokens):
        empty = token_vectors.values[:0]
        queries = [empty if query is None else token_vectors.encode_query(query) for query in batch.query_tokens]
        bounds = np.concatenate([[0], np.cumsum([len(query) for query in queries])]).astype(np.int64)
        scores = np.full(len(batch.rows), np.nan, np.float32)
        flat = cast(TokenValues, np.concatenate(queries))
        _score_queries(
            token_vectors.values,
            token_vectors.offsets,
            flat,
            bounds,
            batch.rows,
            batch.offsets,
            token_vectors.self_similarity,
            scores,
        )
        out[:, 3] = scores
    return out


@jit_fastmath
def _dot(a: TokenValues, b: TokenValues) -> Any:
    total = a[0] * b[0]
    for d in range(1, len(a)):
        total += a[d] * b[d]
    return total


@jit
def _maxsim(values: TokenValues, offsets: Offsets, row: int, query: TokenValues, first: int, stop: int) -> float:
    """Compute the mean over query tokens [first, stop) of the highest similarity to a token of the item."""
    total = 0.0
    for query_token in range(first, stop):
        best = -1e9
        for token in range(offsets[row], offsets[row + 1]):
            best = max(best, float(_dot(query[query_token], values[token])))
        total += best
    return total / (stop - first)


@jit
def _score_queries(
    values: TokenValues,
    offsets: Offsets,
    query: TokenValues,
    query_bounds: Offsets,
    rows: Rows,
    bounds: Offsets,
    self_similarity: float,
    out: Scores,
) -> None:
    for request in range(len(bounds) - 1):
        first, stop = query_bounds[request], query_bounds[request + 1]
        for candidate in range(bounds[request], bounds[request + 1]):
            row = rows[candidate]
            if stop > first and row >= 0 and offsets[row + 1] > offsets[row]:
                out[candidate] = _maxsim(values, offsets, row, query, first, stop) / self_similarity


@jit
def _score_histories(
    values: TokenValues,
    offsets: Offsets,
    rows: Rows,
    bounds: Offsets,
    history: Rows,
    max_tokens: int,
    self_similarity: float,
    out: Matrix,
) -> None:
    """Fill columns 0 to 2: latest item, highest and mean score; history items without tokens are skipped."""
    for request in range(len(bounds) - 1):
        for candidate in range(bounds[request], bounds[request + 1]):
            row = rows[candidate]
            if row < 0 or offsets[row + 1] == offsets[row]:
                continue
            count, total, best = 0, 0.0, -1e9
            for slot in range(history.shape[1]):
                item = history[request, slot]
                if item < 0 or offsets[item + 1] == offsets[item]:
                    continue
                first = offsets[item]
                stop = min(offsets[item + 1], first + max_tokens)
                score = _maxsim(values, offsets, row, values, first, stop) / self_similarity
                if slot == 0:
                    out[candidate, 0] = score
                count += 1
                total += score
                best = max(best, score)
            if count:
                out[candidate, 1] = best
                out[candidate, 2] = total / count
