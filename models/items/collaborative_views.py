"""Item-item matrices from interactions (cosine, transitions, EASE, SLIST) and their low-rank factors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh, svd

from feedrank.engine.types import Matrix, Rows
from feedrank.models.items.seeded_svd import (
    MIN_RELATIVE_VALUE,
    above_noise,
    column_signs,
    truncated_eigen,
    truncated_svd,
)
from feedrank.models.items.user_histories import UserHistories

INTERACTIONS_PER_CHUNK = 500_000
"""Interactions that are processed at a time."""
MAX_DENSE_ITEMS = 500
"""Catalogues up to this size are factorised as dense matrices: exactly, and with the same bits every time."""


def item_cosine(users: Rows, items: Rows, n_items: int, n_users: int) -> sparse.csr_matrix:
    """Return the (n, n) cosine similarity of the items' user sets, zero on the diagonal.

    Source: Sarwar et al., Item-based collaborative filtering recommendation algorithms, 2001.
    """
    user_item = sparse.csr_matrix((np.ones(len(items)), (users, items)), shape=(n_users, n_items))
    user_item.data[:] = 1.0  # repeated interactions count once
    counts = np.asarray(user_item.sum(axis=0)).ravel()
    scaled = user_item @ sparse.diags(1 / np.sqrt(np.maximum(counts, 1)))
    matrix = (scaled.T @ scaled).tocsr()
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def transition_matrix(
    histories: UserHistories, n_items: int, window: int, damping: float, uniform: bool = False
) -> sparse.csr_matrix:
    """Return (n, n) transition weights: how often item j follows item i, over the square root of both damped margins.

    Item j counts 1/d as the d-th interaction after i, up to `window`; with `uniform` it counts 1. Damping is added to
    both margins, so that rare transitions stay small.
    """
    counts = _transition_counts(histories, n_items, window, uniform)
    out_scale = 1 / np.sqrt(np.asarray(counts.sum(axis=1)).ravel() + damping)
    in_scale = 1 / np.sqrt(np.asarray(counts.sum(axis=0)).ravel() + damping)
    return (sparse.diags(out_scale) @ counts @ sparse.diags(in_scale)).tocsr().astype(np.float32)


def eigen_factors(matrix: sparse.csr_matrix, rank: int, seed: int) -> Matrix:
    """Return (n, rank) factors F with matrix ~ F F': leading eigenvectors times the roots of their eigenvalues."""
    rank = min(rank, matrix.shape[0] - 1)
    if rank < 1 or matrix.nnz == 0:
        return np.zeros((matrix.shape[0], max(rank, 1)), np.float32)
    if matrix.shape[0] <= MAX_DENSE_ITEMS:
        values, vectors = eigh(matrix.toarray().astype(np.float64))
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    else:
        values, vectors = truncated_eigen(matrix.astype(np.float64), rank, seed)
    return _scaled_factors(vectors, values, rank)


def svd_factors(matrix: sparse.csr_matrix, rank: int, seed: int) -> tuple[Matrix, Matrix]:
    """Return (S, T), each (n, rank), with matrix ~ S T': the truncated SVD, singular values split evenly."""
    rank = min(rank, matrix.shape[0] - 1)
    if rank < 1 or matrix.nnz == 0:
        zeros = np.zeros((matrix.shape[0], max(rank, 1)), np.float32)
        return zeros, zeros
    if matrix.shape[0] <= MAX_DENSE_ITEMS:
        left, values, right = svd(matrix.toarray().astype(np.float64))
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        left, values, right = truncated_svd(matrix.astype(np.float64), rank, seed)
    stacked = _scaled_factors(np.concatenate([left, right.T]), values, rank)
    return stacked[: len(left)], stacked[len(left) :]


def ease(histories: UserHistories, n_items: int, max_items: int, ridge: float = 300.0) -> sparse.csr_matrix:
    """Return (n, n) EASE item weights in closed form for the `max_items` most popular items, zero elsewhere.

    The diagonal is zero. Source: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019.
    """
    top_items, top_index = _most_popular(histories, n_items, max_items)
    is_top = top_index[histories.items] >= 0
    entries = (histories.user[is_top], top_index[histories.items[is_top]])
    user_item = sparse.csr_matrix((np.ones(is_top.sum()), entries), shape=(len(histories), len(top_items)))
    user_item.data[:] = 1.0
    gram = (user_item.T @ user_item).toarray()
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return _to_full_matrix(weights, top_items, n_items)


def slist(
    histories: UserHistories, n_items: int, max_items: int, ridge: float = 300.0, past: int = 20, future: int = 10
) -> sparse.csr_matrix:
    """Return (n, n) SLIST weights: a closed-form ridge regression of the next items on the past items.

    It is solved for the `max_items` most popular items and zero elsewhere. At each moment the latest `past`
    interactions weigh 0.8^age, and the next `future` interactions count 1, 1/2, 1/3 ... (after Choi et al.,
    Session-aware Linear Item-Item Models, 2021). Columns are damped by a small power of how often the item comes next.
    """
    top_items, top_index = _most_popular(histories, n_items, max_items)
    top_histories = histories.select(top_index[histories.items] >= 0)
    if not len(top_histories.items):
        return sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    decays, nearness = [0.8 ** (step - 1) for step in range(1, past + 1)], [1 / (step + 1) for step in range(future)]
    gram, cross = np.zeros((len(top_items), len(top_items))), np.zeros((len(top_items), len(top_items)))
    next_counts = np.zeros(len(top_items))
    for chunk in top_histories.chunks(
        INTERACTIONS_PER_CHUNK
    ):  # thirty numbers per interaction: a long log would not fit
        items, user = top_index[chunk.items], chunk.user
        before = _shifted_items(items, user, decays, range(1, past + 1), len(top_items))
        after = _shifted_items(items, user, nearness, range(0, -future, -1), len(top_items))
        gram += (before.T @ before).toarray()
        cross += (before.T @ after).toarray()
        next_counts += np.asarray(after.sum(axis=0)).ravel()
    gram[np.diag_indices_from(gram)] += ridge
    weights = np.linalg.solve(gram, cross).astype(np.float64)
    weights *= (next_counts + 20) ** -0.2
    return _to_full_matrix(weights, top_items, n_items)


def _transition_counts(histories: UserHistories, n_items: int, window: int, uniform: bool) -> sparse.csr_matrix:
    items, user = histories.items, histories.user
    total = sparse.csr_matrix((n_items, n_items))
    for step in range(1, min(window, len(items) - 1) + 1):
        same = user[:-step] == user[step:]
        ones = np.full(int(same.sum()), 1.0 if uniform else 1.0 / step)
        total = total + sparse.csr_matrix((ones, (items[:-step][same], items[step:][same])), shape=total.shape)
    return total


def _shifted_items(
    items: NDArray[np.int64], users: Rows, weights: list[float], steps: range, width: int
) -> sparse.csr_matrix:
    """Return (moments, width) the weighted items `step` interactions before each moment (after it, if negative)."""
    rows, columns, values = [], [], []
    for step, weight in zip(steps, weights, strict=True):
        moments = np.arange(max(step, 0), len(items) + min(step, 0))
        moments = moments[users[moments] == users[moments - step]]
        rows.append(moments)
        columns.append(items[moments - step])
        values.append(np.full(len(moments), weight))
    entries = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.concatenate(values), entries), shape=(len(items), width))


def _most_popular(
    histories: UserHistories, n_items: int, max_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the most popular items, and (n,) each item's index among them, -1 for the others."""
    counts = np.bincount(histories.items, minlength=n_items)
    top_items = np.sort(np.argsort(-counts, kind="stable")[: min(max_items, int(np.count_nonzero(counts)))])
    top_index = np.full(n_items, -1, np.int64)
    top_index[top_items] = np.arange(len(top_items))
    return top_items, top_index


def _to_full_matrix(weights: NDArray[np.float64], item_rows: NDArray[np.int64], n_items: int) -> sparse.csr_matrix:
    small = sparse.coo_matrix(weights)
    entries = (item_rows[small.row], item_rows[small.col])
    return sparse.csr_matrix((small.data.astype(np.float32), entries), shape=(n_items, n_items))


def _scaled_factors(vectors: NDArray[np.float64], values: NDArray[np.float64], rank: int) -> Matrix:
    """Scale (n, k) vectors by the roots of their values and fix their signs; return (n, rank), missing ones 0.

    The result is row-major: the solvers return column-major arrays, in which reading a row is several times slower.
    Rows of items without interactions hold rounding errors, and become 0.
    """
    columns = vectors * np.sqrt(np.where(above_noise(values), values, 0.0))
    largest = np.abs(columns).max(axis=1, initial=0)
    columns[largest <= MIN_RELATIVE_VALUE * largest.max(initial=0)] = 0
    factors = np.zeros((len(columns), rank), np.float32)
    factors[:, : columns.shape[1]] = columns * column_signs(columns)
    return factors
