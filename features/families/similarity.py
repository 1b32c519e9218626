"""The similarity family compares candidates with the user's history by item vectors, and with the query."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.feature import Feature
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace
from feedrank.engine.types import Batch, Matrix, Offsets, Rows, Scores, Vector
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.item_model import UserItemVectors
from feedrank.features.jit import jit, jit_fastmath

TOP_K = 5
"""Number of most similar history items that are averaged."""
VECTOR_DECAYS = (0.7, 0.93, 1.0)
"""Decays of the user profile vectors: weight of an interaction relative to the next more recent one."""
VIEWS = {
    "text": "text vectors",
    "content": "behaviour vectors that are predicted from text and categories",
    "cca": "content vectors of the canonical correlation analysis (CCA)",
    "cooccurrence": "co-occurrence vectors (items of the same users)",
    "transition": "transition vectors (items that follow each other)",
}
"""View of the default item model -> what its vectors are."""
QUERY_COSINE = Feature(
    "query_cosine", "similarity", "Cosine between the embedding of the query and that of the item's text.",
    "cosine, -1 to 1", "the request has no query, or there is no embedder",
)  # fmt: skip


def similarity(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute cosines between candidates and the user's history, per view, and between candidates and the query."""
    columns: Columns = {}
    for view, vectors in inputs.item_model.vectors.items():
        columns |= zip(view_features(view), vector_scores(vectors, batch, VECTOR_DECAYS).T, strict=True)
    columns[QUERY_COSINE] = _query_cosine(inputs.item_model.space, batch)
    return columns


@cache
def view_features(view: str) -> tuple[Feature, ...]:
    """Return the records of a view's features, in the order of the columns of `vector_scores`."""
    vectors = VIEWS.get(view, f"vectors of the view {view}")
    empty, unit = "the user has no history", "cosine, -1 to 1"
    profile = f"Cosine between the candidate and the user profile by {vectors}"
    decays = tuple(
        Feature(
            f"{view}_decay{decay:g}", "similarity",
            f"{profile}, {'without decay' if decay == 1 else f'with decay {decay:g} per interaction'}.",
            unit, "no item of the user's history has a vector",
        )
        for decay in VECTOR_DECAYS
    )  # fmt: skip
    others = (
        ("latest", f"Cosine between the candidate and the user's latest item by {vectors}."),
        ("max", f"Highest cosine between the candidate and an item of the user's history by {vectors}."),
        (
            "top5_mean",
            f"Mean of the {TOP_K} highest cosines between the candidate and items of the history by {vectors}.",
        ),
    )
    return decays + tuple(Feature(f"{view}_{tag}", "similarity", sentence, unit, empty) for tag, sentence in others)


def vector_scores(vectors: UserItemVectors, batch: Batch, decays: tuple[float, ...]) -> Matrix:
    """Compute (N, len(decays) + 3) cosines between candidates and the user's history.

    Columns: one per decay, with the user profile (decayed sum of the history's vectors); then with the latest item; the
    highest over the history; and the mean of the TOP_K highest. NaN if the history is empty. The cosine with an item
    without a vector is 0.
    """
    out = np.full((len(batch.rows), len(decays) + 3), np.nan, np.float32)
    _vector_scores(
        vectors.user_side, vectors.item_side, batch.rows, batch.offsets, batch.history, np.array(decays), out
    )
    return out


def _query_cosine(space: EmbeddingSpace, batch: Batch) -> Scores:
    """Compute the (N,) cosine between the request's query vector and the candidate; NaN without a query."""
    if batch.query_vectors is None:
        return np.full(len(batch.rows), np.nan, np.float32)
    block = space.block("text")
    targets = space.item_side[batch.rows, block.slice] / np.float32(np.sqrt(block.weight))
    scores: Scores = np.einsum("nd,nd->n", targets, batch.query_vectors[batch.request_index], optimize=False)
    return scores


@jit_fastmath
def _dot(a: Vector, b: Vector) -> np.float32:
    total = np.float32(0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@jit_fastmath
def _four_dots(
    vectors: Matrix, vector_index: int, candidates: Matrix, candidate_rows: Rows, out: Matrix, out_row: int
) -> None:
    """Compute the dot products of one vector with four rows; it is read once, and all sums have the same order.

    Matrices and indices are passed instead of row views: a view costs more than the sum over it.
    """
    r0, r1, r2, r3 = candidate_rows[0], candidate_rows[1], candidate_rows[2], candidate_rows[3]
    s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for d in range(vectors.shape[1]):
        value = vectors[vector_index, d]
        s0 += value * candidates[r0, d]
        s1 += value * candidates[r1, d]
        s2 += value * candidates[r2, d]
        s3 += value * candidates[r3, d]
    out[out_row, 0], out[out_row, 1], out[out_row, 2], out[out_row, 3] = s0, s1, s2, s3


@jit
def _vector_scores(
    user_side: Matrix, item_side: Matrix, rows: Rows, offsets: Offsets, history: Rows,
    decays: NDArray[np.float64], out: Matrix,
) -> None:  # fmt: skip
    n_decays = len(decays)
    profile = np.empty((n_decays, user_side.shape[1]), np.float32)
    top, value = np.empty((TOP_K, 4), np.float32), np.empty(4, np.float32)
    four = np.empty(4, np.int32)
    scores = np.empty((n_decays + history.shape[1], 4), np.float32)
    for request in range(len(offsets) - 1):
        length = 0
        profile[:] = 0
        while length < history.shape[1] and history[request, length] >= 0:
            source = user_side[history[request, length]]
            for k in range(n_decays):
                weight = np.float32(decays[k] ** length)
                for d in range(len(source)):
                    profile[k, d] += weight * source[d]
            length += 1
        if length == 0:
            continue
        for k in range(n_decays):
            norm = np.sqrt(_dot(profile[k], profile[k]))
            profile[k] /= norm if norm > 0 else np.float32(np.nan)
        first, stop = offsets[request], offsets[request + 1]
        for start in range(first, stop, 4):
            for i in range(4):  # repeat the last row if fewer than four are left
                four[i] = max(rows[min(start + i, stop - 1)], 0)
            for k in range(n_decays):
                _four_dots(profile, k, item_side, four, scores, k)
            for slot in range(length):
                _four_dots(user_side, history[request, slot], item_side, four, scores, n_decays + slot)
            top[:] = -2
            for slot in range(length):  # insertion into the top list, four candidates at a time, without branches
                for i in range(4):
                    value[i] = scores[n_decays + slot, i]
                for rank in range(TOP_K):
                    for i in range(4):
                        current, new = top[rank, i], value[i]
                        top[rank, i] = current if current > new else new
                        value[i] = new if current > new else current
            for i in range(min(4, stop - start)):
                candidate = start + i
                if rows[candidate] < 0:
                    continue
                for k in range(n_decays + 1):  # the row of the latest item follows the decays
                    out[candidate, k] = scores[k, i]
                out[candidate, n_decays + 1] = top[0, i]
                count = min(length, TOP_K)
                total = np.float32(0)
                for rank in range(count):
                    total += top[rank, i]
                out[candidate, n_decays + 2] = total / np.float32(count)
