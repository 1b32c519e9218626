"""Content views predict behaviour from an item's text and categories; they work for cold-start items too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, Vector
from feedrank.features.item_model import UserItemVectors
from feedrank.models.items.user_histories import UserHistories

CATEGORY_WEIGHT = 0.3
"""Value of a category column next to the unit text vector."""
PCA_COMPONENTS = 96
"""Number of principal components of the text vectors that the features and the CCA view use."""
MIN_DIFFERENCE = 1e-5
"""Distance of a text vector from the mean below which the item has the text of all others."""
USERS_PER_CHUNK = 50_000
"""Users whose interactions are summed at a time."""
_NEGLIGIBLE = 1e-12
"""Share of the variance below which it is rounding error."""


def center(text: Matrix) -> Matrix:
    """Subtract the mean item vector and scale to unit length; items without text stay 0."""
    known = np.any(text != 0, axis=1)
    vectors = np.zeros_like(text)
    if known.any():
        vectors[known] = unit_differences(text[known], text[known].mean(axis=0))
    return vectors


def unit_differences(text: Matrix, mean: Vector) -> Matrix:
    """Subtract the mean (d,) from (n, d) unit vectors, and scale to unit length; a vector equal to the mean becomes 0.

    If all items have one text, all that is left is rounding error, which must not be scaled up.
    """
    differences = text - mean
    differences[np.linalg.norm(differences, axis=1) < MIN_DIFFERENCE] = 0
    return unit_rows(differences)


def pca(vectors: Matrix, histories: UserHistories) -> Matrix:
    """Project (n, d) centred vectors onto the first `PCA_COMPONENTS` principal components of the interacted items.

    The dropped components have the least variance. The projection cuts the time of every feature to a quarter.
    """
    known = vectors[np.unique(histories.items)].astype(np.float64)
    if vectors.shape[1] <= PCA_COMPONENTS or len(known) < 2:
        return vectors
    _, directions = np.linalg.eigh(np.cov(known, rowvar=False))
    return np.asarray(vectors @ directions[:, ::-1][:, :PCA_COMPONENTS], np.float32)


def predicted_cf_factors(
    vectors: Matrix, categories: NDArray[np.float64], factors: Matrix, histories: UserHistories, ridge: float = 30.0
) -> Matrix:
    """Predict (n, rank) unit collaborative factors from an item's text and categories, for cold-start items too.

    This is a ridge regression with the square root of an item's interaction count as its weight. vectors: (n, d) from
    `center`; categories: (n, columns) from `category_inputs`; factors: (n, rank) from `eigen_factors`.
    """
    counts = np.bincount(histories.items, minlength=len(factors)).astype(np.float64)
    inputs = _content_features(vectors, categories)
    known = np.flatnonzero(counts > 0)
    weighted = inputs[known] * np.sqrt(counts[known])[:, None]
    gram = weighted.T @ inputs[known] + ridge * np.eye(inputs.shape[1])
    return unit_rows((inputs @ np.linalg.solve(gram, weighted.T @ factors[known])).astype(np.float32))


def cca_view(vectors: Matrix, categories: NDArray[np.float64], histories: UserHistories) -> UserItemVectors:
    """Fit item vectors by regularised canonical correlation analysis (CCA) between an item and its users' histories.

    The two sets of variates are an item's content and the mean content of the other interactions of its users
    (Hotelling, Relations between two sets of variates, 1936). A user weighs 1 / sqrt(interactions). The dot product of
    the two sides scores how well an item fits a history. vectors: (n, d) from `pca`; categories: (n, columns) from
    `category_inputs`.
    """
    inputs = _content_features(vectors, categories)
    has_several = np.diff(histories.offsets) > 1
    multi_item = histories.select(np.repeat(has_several, np.diff(histories.offsets)))
    zeros = np.zeros(inputs.shape, np.float32)
    if not len(multi_item.items):
        return UserItemVectors(zeros, zeros)
    counts = np.bincount(multi_item.items, minlength=len(inputs))
    mean = counts @ inputs / counts.sum()
    uncentred = float(counts @ np.einsum("nd,nd->n", inputs, inputs))
    inputs -= mean
    if float(counts @ np.einsum("nd,nd->n", inputs, inputs)) <= _NEGLIGIBLE * uncentred:
        return UserItemVectors(zeros, zeros)  # no item has text or a category, or all have the same
    item_cov, rest_cov, cross_cov = _second_moments(inputs, multi_item)
    identity = np.eye(len(cross_cov)) * np.trace(item_cov) / len(cross_cov)
    projection = np.linalg.solve(item_cov + 0.3 * identity, cross_cov)
    projection = np.linalg.solve(
        rest_cov + np.eye(len(cross_cov)) * np.trace(rest_cov) / len(cross_cov), projection.T
    ).T
    return UserItemVectors(unit_rows(inputs.astype(np.float32)), unit_rows((inputs @ projection).astype(np.float32)))


def _second_moments(
    inputs: NDArray[np.float64], histories: UserHistories
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return second moments of item x, of the rest of the user's history r = (S - x) / (m - 1 + 5), and of x with r.

    S is the sum over a user's m interactions. Expanded, sums over interactions become sums over items and over users,
    so no array is as long as the log: with w = 1 / sqrt(m) and c = m + 4, and sums over a user's interactions,
    sum(x r') = (S S' - sum(x x')) / c and sum(r r') = ((m - 2) S S' + sum(x x')) / c^2.
    """
    sizes = np.diff(histories.offsets).astype(np.float64)
    weight, damped_sizes = 1 / np.sqrt(np.maximum(sizes, 1)), sizes + 4
    user_of = histories.user

    def sum_outer(user_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum x x' over all interactions, weighted per user."""
        item_weights = np.bincount(histories.items, user_weights[user_of], len(inputs))
        return np.asarray((inputs * item_weights[:, None]).T @ inputs)

    item_moments, rest_moments = sum_outer(weight), sum_outer(weight / damped_sizes**2)
    cross_moments = -sum_outer(weight / damped_sizes)
    for first in range(0, len(sizes), USERS_PER_CHUNK):
        chunk = slice(first, min(first + USERS_PER_CHUNK, len(sizes)))
        bounds = histories.offsets[chunk.start : chunk.stop + 1]
        items = histories.items[bounds[0] : bounds[-1]]
        shape = (chunk.stop - chunk.start, len(inputs))
        totals = sparse.csr_matrix((np.ones(len(items)), items, bounds - bounds[0]), shape=shape) @ inputs
        rest_moments += (totals * (weight * (sizes - 2) / damped_sizes**2)[chunk, None]).T @ totals
        cross_moments += (totals * (weight / damped_sizes)[chunk, None]).T @ totals
    return item_moments, rest_moments, cross_moments


def _content_features(vectors: Matrix, categories: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, d + columns) text vectors next to category columns."""
    return np.concatenate([vectors.astype(np.float64), CATEGORY_WEIGHT * categories], axis=1)
