"""Category factors stand for the category flags of a catalogue that has too many categories for a column each.

With thousands of authors or brands, a column each would cost memory and time with the square of their number. Instead
a category has a short vector: categories whose items the same users interact with have similar ones (latent semantic
analysis of users x categories; Deerwester et al., Indexing by Latent Semantic Analysis, 1990). It was measured with
film people as categories: content views rank cold-start items better by factors than by 3,400 flags.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, Rows
from feedrank.models.items.seeded_svd import above_noise, column_signs, truncated_svd
from feedrank.models.items.user_histories import UserHistories

MAX_FLAGS = 512
"""Up to this many categories have a column each; with more, all have factors."""
RANK = 128
"""Default number of factors of a category."""


def fit_category_factors(catalogue: Catalogue, histories: UserHistories, seed: int, rank: int = RANK) -> Matrix | None:
    """Return (categories, rank) unit factors, 0 for categories without interactions; None for flags.

    They are the right singular vectors of users x categories: how often a user interacted with items of the category,
    over the root of the user's interactions. Only sparse products are formed.
    """
    n_categories = len(catalogue.categories)
    if n_categories <= MAX_FLAGS:
        return None
    flags = category_flags(catalogue)
    weights = np.repeat(1 / np.sqrt(np.maximum(np.diff(histories.offsets), 1)), np.diff(histories.offsets))
    user_item = sparse.csr_matrix((weights, histories.items, histories.offsets), shape=(len(histories), len(catalogue)))
    has_interactions = (flags.T @ np.bincount(histories.items, minlength=len(catalogue))) > 0
    factors = np.zeros((n_categories, rank), np.float32)
    rank = min(rank, len(histories) - 1, n_categories - 1)
    if rank < 1 or not has_interactions.any():
        return factors
    operator = LinearOperator(
        (len(histories), n_categories), matvec=lambda x: user_item @ (flags @ x.ravel()),
        rmatvec=lambda y: flags.T @ (user_item.T @ y.ravel()), dtype=np.float64,
    )  # fmt: skip
    _, values, right = truncated_svd(operator, rank, seed)
    vectors = np.where(has_interactions[:, None], right[above_noise(values)].T, 0)
    factors[:, : vectors.shape[1]] = unit_rows((vectors * column_signs(vectors)).astype(np.float32))
    return factors


def category_inputs(catalogue: Catalogue, factors: Matrix | None, rows: Rows | None = None) -> NDArray[np.float64]:
    """Return the (items, columns) flags of each item's categories, or the sum of their factors.

    factors: from `fit_category_factors`; categories beyond them, of later items, count as none. rows: these items only.
    """
    flags = category_flags(catalogue)
    flags = flags if rows is None else flags[rows]
    if factors is None:
        return np.asarray(flags.toarray(), np.float64)
    return np.asarray(flags[:, : len(factors)] @ factors.astype(np.float64))


def category_flags(catalogue: Catalogue) -> sparse.csr_matrix:
    """Return the sparse (items, categories) matrix of 1 where an item has a category; at least one column."""
    codes = catalogue.category_codes
    shape = (len(catalogue), max(len(catalogue.categories), 1))
    return sparse.csr_matrix((np.ones(len(codes)), codes, catalogue.category_offsets), shape=shape)
