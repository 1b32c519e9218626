"""A truncated singular value decomposition whose every random step is seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svd
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh


def truncated_svd(
    matrix: Any, rank: int, start: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (n, rank) left vectors, (rank,) ascending singular values and (rank, m) right vectors of an (n, m) matrix.

    The same computation as scipy's `svds`, but that one does not seed the new directions that ARPACK draws where the
    matrix has a lower rank than asked for. matrix: sparse, or a linear operator. start: (min(n, m),) start vector.
    """
    operator = aslinearoperator(matrix)
    is_wide = operator.shape[0] < operator.shape[1]
    tall = operator.adjoint() if is_wide else operator
    size = min(operator.shape)
    gram = LinearOperator((size, size), matvec=lambda x: tall.rmatvec(tall.matvec(x)), dtype=np.float64)
    _, vectors = eigsh(gram, k=rank, v0=start, rng=np.random.default_rng(seed))
    vectors, _ = np.linalg.qr(vectors)  # ARPACK's are not quite orthogonal where eigenvalues are close
    left, values, right = svd(tall.matmat(vectors), full_matrices=False)
    left, values, right = left[:, ::-1], values[::-1], right[::-1] @ vectors.T
    return (right.T, values, left.T) if is_wide else (left, values, right)
