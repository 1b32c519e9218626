"""Truncated eigenvalue and singular value decompositions whose every random step is seeded."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svd
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, aslinearoperator, eigsh

TOLERANCE = 1e-6
"""Relative error of the eigenvalues. Eigenvalues that differ are exact to 1e-12 under it; equal ones never converge to
a rounding error, and a log of users with two items each has hundreds of them."""
MAX_RESTARTS = 1_000
"""Restarts of ARPACK before the directions found so far are taken."""
MIN_RELATIVE_VALUE = 1e-9
"""Smaller singular values, relative to the largest, are rounding errors; so are smaller rows of factors."""

_log = logging.getLogger(__name__)

Values = NDArray[np.float64]


def truncated_eigen(matrix: Any, rank: int, seed: int) -> tuple[Values, Values]:
    """Return (rank,) ascending largest eigenvalues and (n, rank) eigenvectors of a symmetric (n, n) matrix.

    matrix: sparse, or a linear operator. There are fewer columns, and a warning in the log, if not all of them
    converge. Raises ValueError if none does.
    """
    start = np.random.default_rng(seed).uniform(0.5, 1.5, matrix.shape[0])
    try:
        values, vectors = eigsh(
            matrix, k=rank, which="LA", v0=start, tol=TOLERANCE, maxiter=MAX_RESTARTS, rng=np.random.default_rng(seed)
        )
    except ArpackNoConvergence as problem:
        values, vectors = problem.eigenvalues, problem.eigenvectors
        if not len(values):
            raise ValueError(
                f"none of {rank} factors of {matrix.shape[0]:,} items converged; set another rank of the item factors"
            ) from None
        ascending = np.argsort(values)
        values, vectors = values[ascending], vectors[:, ascending]
        _log.warning("%d of %d factors of %d items converged; the others are left out", len(values), rank, len(vectors))
    return values, vectors


def truncated_svd(matrix: Any, rank: int, seed: int) -> tuple[Values, Values, Values]:
    """Return (n, rank) left vectors, (rank,) ascending singular values and (rank, m) right vectors of an (n, m) matrix.

    The same computation as scipy's `svds`, but that one does not seed the new directions that ARPACK draws where the
    matrix has a lower rank than `rank`. matrix: sparse, or a linear operator. `truncated_eigen` says when there are
    fewer than `rank`.
    """
    operator = aslinearoperator(matrix)
    is_wide = operator.shape[0] < operator.shape[1]
    tall = operator.adjoint() if is_wide else operator
    size = min(operator.shape)
    gram = LinearOperator((size, size), matvec=lambda x: tall.rmatvec(tall.matvec(x)), dtype=np.float64)
    _, vectors = truncated_eigen(gram, rank, seed)
    vectors, _ = np.linalg.qr(vectors)  # ARPACK's are not quite orthogonal where eigenvalues are close
    left, values, right = svd(tall.matmat(vectors), full_matrices=False)
    left, values, right = left[:, ::-1], values[::-1], right[::-1] @ vectors.T
    return (right.T, values, left.T) if is_wide else (left, values, right)


def above_noise(values: Values) -> NDArray[np.bool_]:
    """Return True for the eigenvalues or singular values of directions that hold more than rounding errors.

    The vectors of the others are arbitrary, and scaled to unit length they would be random features.
    """
    return np.asarray(values > MIN_RELATIVE_VALUE * values.max(initial=0))


def column_signs(columns: Values) -> Values:
    """Return the sign of each column's largest entry: times these, the same input gives the same factors."""
    if not columns.size:
        return np.ones(columns.shape[1])
    signs = np.sign(columns[np.argmax(np.abs(columns), axis=0), np.arange(columns.shape[1])])
    return np.where(signs == 0, 1.0, signs)
