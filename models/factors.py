"""Item-to-item matrices of behaviour, and their low-rank factors: who touched what (co-click), what followed what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import eigsh, svds

from engine.types import Matrix, Rows
from models.sequences import Sequences

TOUCHES = 500_000
"""Touches whose sums are made at a time."""


def co_click(people: Rows, items: Rows, n_items: int, n_people: int) -> sparse.csr_matrix:
    """(n, n) cosine of the items' person sets, zero on the diagonal (Sarwar et al., Item-based collaborative filtering
    recommendation algorithms, 2001)."""
    touched = sparse.csr_matrix((np.ones(len(items)), (people, items)), shape=(n_people, n_items))
    touched.data[:] = 1.0  # touched twice is touched
    counts = np.asarray(touched.sum(axis=0)).ravel()
    scaled = touched @ sparse.diags(1 / np.sqrt(np.maximum(counts, 1)))
    matrix = (scaled.T @ scaled).tocsr()
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def follows(sequences: Sequences, n_items: int, window: int, damping: float, flat: bool = False) -> sparse.csr_matrix:
    """(n, n) how often j came within `window` touches after i, over the square root of both damped margins.

    The d-th touch after i counts 1/d, or 1 where `flat`. Damping is added to both margins, so rare pairs stay small.
    """
    counts = _pairs(sequences, n_items, window, flat)
    out = 1 / np.sqrt(np.asarray(counts.sum(axis=1)).ravel() + damping)
    into = 1 / np.sqrt(np.asarray(counts.sum(axis=0)).ravel() + damping)
    return (sparse.diags(out) @ counts @ sparse.diags(into)).tocsr().astype(np.float32)


def symmetric_factors(matrix: sparse.csr_matrix, rank: int, seed: int) -> Matrix:
    """(n, rank) eigenvectors of the largest eigenvalues, times their roots: matrix ~ F F'."""
    rank = min(rank, matrix.shape[0] - 1)
    if rank < 1 or matrix.nnz == 0:
        return np.zeros((matrix.shape[0], max(rank, 1)), np.float32)
    values, vectors = eigsh(matrix.astype(np.float64), k=rank, which="LA", v0=_start(matrix.shape[0], seed))
    return _steady(vectors * np.sqrt(np.maximum(values, 0)))


def factorise(matrix: sparse.csr_matrix, rank: int, seed: int) -> tuple[Matrix, Matrix]:
    """(S, T), each (n, rank), with matrix ~ S T': the truncated SVD, its singular values shared evenly."""
    rank = min(rank, matrix.shape[0] - 1)
    if rank < 1 or matrix.nnz == 0:
        nothing = np.zeros((matrix.shape[0], max(rank, 1)), np.float32)
        return nothing, nothing
    left, values, right = svds(matrix.astype(np.float64), k=rank, v0=_start(matrix.shape[0], seed))
    both = _steady(np.concatenate([left, right.T]) * np.sqrt(values))
    return both[: len(left)], both[len(left) :]


def linear_items(sequences: Sequences, n_items: int, most: int, ridge: float = 300.0) -> sparse.csr_matrix:
    """(n, n) item weights in closed form, zero on the diagonal (Steck, Embarrassingly Shallow Autoencoders for Sparse
    Data, 2019), solved for the `most` touched items; zero elsewhere."""
    chosen, place = _most_touched(sequences, n_items, most)
    inside = place[sequences.items] >= 0
    pairs = (sequences.person[inside], place[sequences.items[inside]])
    touched = sparse.csr_matrix((np.ones(inside.sum()), pairs), shape=(len(sequences), len(chosen)))
    touched.data[:] = 1.0
    gram = (touched.T @ touched).toarray()
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return _spread(weights, chosen, n_items)


def linear_next(
    sequences: Sequences, n_items: int, most: int, ridge: float = 300.0, past: int = 20, future: int = 10
) -> sparse.csr_matrix:
    """(n, n) ridge regression of what comes next on what came before, in closed form, for the `most` touched items.

    At each moment the latest `past` touches weigh 0.8^age, and the next `future` touches count 1, 1/2, 1/3 ... (after
    Choi et al., Session-aware Linear Item-Item Models, 2021). Columns are damped by a small power of how often the item
    comes next.
    """
    chosen, place = _most_touched(sequences, n_items, most)
    kept = sequences.keep(place[sequences.items] >= 0)
    if not len(kept.items):
        return sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    decays, nearness = [0.8 ** (step - 1) for step in range(1, past + 1)], [1 / (step + 1) for step in range(future)]
    gram, onward = np.zeros((len(chosen), len(chosen))), np.zeros((len(chosen), len(chosen)))
    comes_next = np.zeros(len(chosen))
    for part in kept.chunks(TOUCHES):  # some thirty numbers a touch: a long log would not fit in memory
        items, person = place[part.items], part.person
        before = _shifted(items, person, decays, range(1, past + 1), len(chosen))
        after = _shifted(items, person, nearness, range(0, -future, -1), len(chosen))
        gram += (before.T @ before).toarray()
        onward += (before.T @ after).toarray()
        comes_next += np.asarray(after.sum(axis=0)).ravel()
    gram[np.diag_indices_from(gram)] += ridge
    weights = np.linalg.solve(gram, onward).astype(np.float64)
    weights *= (comes_next + 20) ** -0.2
    return _spread(weights, chosen, n_items)


def _pairs(sequences: Sequences, n_items: int, window: int, flat: bool) -> sparse.csr_matrix:
    items, person = sequences.items, sequences.person
    total = sparse.csr_matrix((n_items, n_items))
    for step in range(1, min(window, len(items) - 1) + 1):
        same = person[:-step] == person[step:]
        ones = np.full(int(same.sum()), 1.0 if flat else 1.0 / step)
        total = total + sparse.csr_matrix((ones, (items[:-step][same], items[step:][same])), shape=total.shape)
    return total


def _shifted(
    items: NDArray[np.int64], person: Rows, weights: list[float], steps: range, width: int
) -> sparse.csr_matrix:
    """(moments, width) the items `step` places before each moment (after it, where negative), weighted."""
    rows, columns, values = [], [], []
    for step, weight in zip(steps, weights, strict=True):
        moments = np.arange(max(step, 0), len(items) + min(step, 0))
        moments = moments[person[moments] == person[moments - step]]
        rows.append(moments)
        columns.append(items[moments - step])
        values.append(np.full(len(moments), weight))
    pairs = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.concatenate(values), pairs), shape=(len(items), width))


def _most_touched(sequences: Sequences, n_items: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the most touched items, and (n,) the place of each item among them, -1 for the others."""
    counts = np.bincount(sequences.items, minlength=n_items)
    chosen = np.sort(np.argsort(-counts, kind="stable")[: min(most, int(np.count_nonzero(counts)))])
    place = np.full(n_items, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    return chosen, place


def _spread(weights: NDArray[np.float64], chosen: NDArray[np.int64], n_items: int) -> sparse.csr_matrix:
    small = sparse.coo_matrix(weights)
    pairs = (chosen[small.row], chosen[small.col])
    return sparse.csr_matrix((small.data.astype(np.float32), pairs), shape=(n_items, n_items))


def _start(size: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.5, 1.5, size)


def _steady(columns: NDArray[np.float64]) -> Matrix:
    """Columns with their signs fixed (the largest entry is positive), so that the same input gives the same factors.

    Row after row in memory: the solvers hand back column after column, in which reading a row is several times slower.
    """
    signs = np.sign(columns[np.argmax(np.abs(columns), axis=0), np.arange(columns.shape[1])])
    return (columns * np.where(signs == 0, 1, signs)).astype(np.float32, order="C")
