"""Behavioural views of items: low-rank factors of who touched what (co-click) and of what followed what (follows)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from engine.types import Matrix, Offsets, Rows


def co_click(people: Rows, items: Rows, n_items: int, n_people: int) -> sparse.csr_matrix:
    """(n, n) cosine of the items' person sets: co-occurrence over the square root of both counts.

    A symmetric matrix with a diagonal of ones for items that somebody touched (Sarwar et al., Item-based collaborative
    filtering, 2001).
    """
    touched = sparse.csr_matrix((np.ones(len(items), np.float32), (people, items)), shape=(n_people, n_items))
    touched.data[:] = 1.0  # touched twice is touched
    counts = np.asarray(touched.sum(axis=0)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.maximum(counts, 1)), dtype=np.float32)
    scaled = touched @ scale
    return (scaled.T @ scaled).tocsr().astype(np.float32)


def follows(
    items: Rows, offsets: Offsets, n_items: int, window: int = 5, damping: float = 20.0, weights: Sequence[float] = ()
) -> sparse.csr_matrix:
    """(n, n) how often j came within `window` items after i, over the square root of both damped margins.

    items: each person's touches in order of time, person after person, bounded by `offsets`. weights: what a step of
    1, 2, .. items counts, 1 each where not given. damping: added to each margin, so that rare pairs stay small.
    """
    person = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    sources: list[Rows] = []
    targets: list[Rows] = []
    counts: list[NDArray[np.float32]] = []
    for step in range(1, window + 1):
        same = person[:-step] == person[step:]
        sources.append(items[:-step][same])
        targets.append(items[step:][same])
        counts.append(np.full(int(same.sum()), weights[step - 1] if len(weights) else 1.0, np.float32))
    pairs = (np.concatenate(sources), np.concatenate(targets))
    matrix = sparse.coo_matrix((np.concatenate(counts), pairs), shape=(n_items, n_items)).tocsr()
    out = 1 / np.sqrt(np.asarray(matrix.sum(axis=1)).ravel() + damping)
    into = 1 / np.sqrt(np.asarray(matrix.sum(axis=0)).ravel() + damping)
    return (sparse.diags(out) @ matrix @ sparse.diags(into)).tocsr().astype(np.float32)


def factorise(matrix: sparse.csr_matrix, rank: int, seed: int) -> tuple[Matrix, Matrix]:
    """(S, T), each (n, rank), with matrix ~ S T': the truncated SVD, its singular values shared evenly.

    Randomised (Halko, Martinsson, Tropp, 2011); the same seed gives the same factors. Fewer columns than `rank` come back
    where the matrix is smaller.
    """
    rank = min(rank, min(matrix.shape) - 1)
    left, values, right = randomized_svd(matrix, n_components=rank, n_iter=7, random_state=seed, flip_sign=True)
    root = np.sqrt(values).astype(np.float32)
    return (left * root).astype(np.float32), (right.T * root).astype(np.float32)
