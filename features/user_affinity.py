"""User affinity compares candidates with the user's history by vectors, item-item scores, categories and statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Batch, Matrix, Offsets, Rows, Scores, Vector
from feedrank.features.item_model import ItemItemMatrix, UserItemVectors
from feedrank.features.jit import jit, jit_fastmath

TOP_K = 5
"""Number of most similar history items that are averaged."""


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


def item_item_scores(
    matrix: ItemItemMatrix, batch: Batch, decays: tuple[float, ...], depths: tuple[int, ...]
) -> Matrix:
    """Compute (N, len(decays)) sums of matrix[history item, candidate] x decay^age.

    Column k uses the latest `depths[k]` items of the history; age counts items. NaN if the history is empty.
    """
    out = np.full((len(batch.rows), len(decays)), np.nan, np.float32)
    _item_item_scores(*matrix, batch.rows, batch.offsets, batch.history, np.array(decays), np.array(depths), out)
    return out


def category_scores(codes: NDArray[np.int32], bounds: Offsets, shares: Vector, batch: Batch, decay: float) -> Matrix:
    """Compute the (N, 3) affinity of a user to the candidate's categories.

    Columns: the share of the history in the category (mean over the candidate's categories); the same with history
    items weighted by decay^age; the smoothed log lift of the share over the expected share. shares: (categories,)
    expected shares. The weight of a history item is split evenly between its categories. NaN if the history is empty or
    the candidate has no category.
    """
    out = np.full((len(batch.rows), 3), np.nan, np.float32)
    _category_scores(codes, bounds, shares, batch.rows, batch.offsets, batch.history, decay, out)
    return out


def stat_distances(values: Scores, batch: Batch, decay: float) -> Matrix:
    """Compute (N, 2): a candidate's statistic, and its signed distance to the decayed mean over the user's history."""
    out = np.full((len(batch.rows), 2), np.nan, np.float32)
    _stat_distances(values, batch.rows, batch.offsets, batch.history, decay, out)
    return out


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


@jit
def _item_item_scores(
    bounds: Offsets, columns: Rows, values: Scores, rows: Rows, offsets: Offsets, history: Rows,
    decays: NDArray[np.float64], depths: NDArray[np.int64], out: Matrix,
) -> None:  # fmt: skip
    candidate_of = np.full(len(bounds) - 1, -1, np.int64)
    weights = np.empty(len(decays), np.float32)
    for request in range(len(offsets) - 1):
        if history[request, 0] < 0:
            continue
        first, stop = offsets[request], offsets[request + 1]
        for candidate in range(first, stop):
            if rows[candidate] >= 0:
                candidate_of[rows[candidate]] = candidate
                out[candidate] = 0
        weights[:] = 1
        for slot in range(min(depths.max(), history.shape[1])):
            item = history[request, slot]
            if item < 0:
                break
            for k in range(len(decays)):
                if slot >= depths[k]:
                    weights[k] = 0
            for entry in range(bounds[item], bounds[item + 1]):
                candidate = candidate_of[columns[entry]]
                if candidate >= 0:
                    for k in range(len(decays)):
                        out[candidate, k] += values[entry] * weights[k]
            for k in range(len(decays)):
                weights[k] *= np.float32(decays[k])
        for candidate in range(first, stop):
            if rows[candidate] >= 0:
                out[candidate] = out[candidate_of[rows[candidate]]]  # a request may hold an item twice
        for candidate in range(first, stop):
            if rows[candidate] >= 0:
                candidate_of[rows[candidate]] = -1


@jit
def _category_scores(
    codes: NDArray[np.int32], bounds: Offsets, shares: Vector, rows: Rows, offsets: Offsets, history: Rows,
    decay: float, out: Matrix,
) -> None:  # fmt: skip
    plain = np.empty(len(shares), np.float32)
    decayed = np.empty(len(shares), np.float32)
    for request in range(len(offsets) - 1):
        plain[:] = 0
        decayed[:] = 0
        total, total_decayed = np.float32(0), np.float32(0)
        weight = np.float32(1)
        for slot in range(history.shape[1]):
            item = history[request, slot]
            if item < 0:
                break
            size = bounds[item + 1] - bounds[item]
            for c in range(bounds[item], bounds[item + 1]):
                plain[codes[c]] += np.float32(1) / np.float32(size)
                decayed[codes[c]] += weight / np.float32(size)
            total += np.float32(1)
            total_decayed += weight
            weight *= np.float32(decay)
        if total == 0:
            continue
        for candidate in range(offsets[request], offsets[request + 1]):
            row = rows[candidate]
            if row < 0 or bounds[row + 1] == bounds[row]:
                continue
            size = np.float32(bounds[row + 1] - bounds[row])
            share, recent, lift = np.float32(0), np.float32(0), np.float32(0)
            for c in range(bounds[row], bounds[row + 1]):
                expected = max(shares[codes[c]], np.float32(1e-6))
                share += plain[codes[c]] / total
                recent += decayed[codes[c]] / total_decayed
                lift += np.log((plain[codes[c]] + 5 * expected) / (total + 5) / expected)
            out[candidate, 0] = share / size
            out[candidate, 1] = recent / size
            out[candidate, 2] = lift / size


@jit
def _stat_distances(values: Scores, rows: Rows, offsets: Offsets, history: Rows, decay: float, out: Matrix) -> None:
    for request in range(len(offsets) - 1):
        total, weights, weight = np.float32(0), np.float32(0), np.float32(1)
        for slot in range(history.shape[1]):
            item = history[request, slot]
            if item < 0:
                break
            if not np.isnan(values[item]):
                total += weight * values[item]
                weights += weight
            weight *= np.float32(decay)
        mean = total / weights if weights > 0 else np.float32(np.nan)
        for candidate in range(offsets[request], offsets[request + 1]):
            if rows[candidate] >= 0:
                out[candidate, 0] = values[rows[candidate]]
                out[candidate, 1] = values[rows[candidate]] - mean
