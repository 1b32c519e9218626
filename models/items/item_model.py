"""Fit the item model: the embedding space for recall, and the vectors and item-item matrices for features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.interaction_types import IN_COOCCURRENCE, IN_POPULARITY, IN_TRANSITIONS
from feedrank.engine.retrieval.embedding_space import build_embedding_space, unit_rows
from feedrank.engine.types import Matrix
from feedrank.features.bm25 import TermWeights
from feedrank.features.item_model import ItemItemMatrix, ItemModel, UserItemVectors
from feedrank.models.items.category_factors import RANK, category_inputs, fit_category_factors
from feedrank.models.items.collaborative_views import (
    ease,
    eigen_factors,
    item_cosine,
    slist,
    svd_factors,
    transition_matrix,
)
from feedrank.models.items.content_views import cca_view, center, pca, predicted_cf_factors
from feedrank.models.items.user_histories import UserHistories

MAX_VALUE = 1e30
"""Values of interactions beyond this count as this, so that means and their differences stay finite as float32."""

MAX_COSINE_HISTORY = 3_000
"""Latest interactions of a user that count for co-occurrence: every pair of them is an entry of the matrix, so that one
crawler with 50,000 interactions would fill the memory."""


@dataclass(frozen=True, slots=True)
class ItemSettings:
    """[items] How the item views are fitted and weighted.

    Defaults were chosen on validation (docs/explanation/evaluation.md).
    """

    text_weight: float = 0.6
    """Weight of the text embedding in the vectors of embedding recall, relative to the other two weights."""
    cooccurrence_weight: float = 1.0
    """Weight of co-occurrence (items with the same users) in these vectors, relative to the other two weights."""
    transition_weight: float = 1.0
    """Weight of transitions (which item follows which) in these vectors, relative to the other two weights."""
    cooccurrence_rank: int = 32
    """Number of factors that the item-item cosine matrix is reduced to. Unit: dimensions."""
    transition_rank: int = 96
    """Number of factors that the transition matrix is reduced to. Unit: dimensions."""
    category_rank: int = RANK
    """Number of factors of a category, in catalogues with more than 512 categories. Unit: dimensions."""
    transition_window: int = 10
    """How many later interactions count as a transition; the d-th counts 1/d. Unit: interactions."""
    transition_damping: float = 20.0
    """Added to the total count of each item before transitions are normalised, so that rare items weigh less."""
    history_decay: float = 0.7
    """Weight of each older interaction in a user vector, relative to the next younger one."""
    history_length: int = 40
    """Number of a user's latest interactions that make the user vector. Unit: interactions."""
    ease_items: int = 2_000
    """EASE and SLIST are solved for this many of the most popular items; 0: not at all. Unit: items."""
    neighbours: int = 400
    """Number of neighbours that are kept per item in each item-item matrix. Unit: items."""
    seed: int = 7
    """Seed of the matrix factorisations and of the Annoy index."""


def fit_item_views(
    catalogue: Catalogue,
    text: Matrix,
    term_weights: TermWeights,
    histories: UserHistories,
    settings: ItemSettings | None = None,
) -> ItemModel:
    """Fit the item model on these interactions only, each part on those that enter it.

    text: (n, d) unit vectors of the items' documents, (n, 0) without text. terms: BM25 weights of the documents.
    """
    settings = settings or ItemSettings()
    n = len(catalogue)
    together, in_order = histories.entering(IN_COOCCURRENCE), histories.entering(IN_TRANSITIONS)
    recent = together.select(together.count_after < MAX_COSINE_HISTORY)
    cosine = item_cosine(recent.user, recent.items, n, len(recent))
    transitions = transition_matrix(in_order, n, settings.transition_window, settings.transition_damping)
    cosine_factors = eigen_factors(cosine, settings.cooccurrence_rank, settings.seed)
    sources, targets = svd_factors(transitions, settings.transition_rank, settings.seed)
    lengths = np.linalg.norm(targets, axis=1)[np.diff(transitions.tocsc().indptr) > 0]
    mean_length = float(lengths.mean()) if lengths.any() else 1.0
    shared = unit_rows(cosine_factors)
    space = build_embedding_space(
        {
            "text": (text, text),
            "cooccurrence": (shared, shared),
            "transition": (targets / np.float32(mean_length), sources),
        },
        {
            "text": settings.text_weight,
            "cooccurrence": settings.cooccurrence_weight,
            "transition": settings.transition_weight,
        },
        settings.history_decay,
        settings.history_length,
    )
    centered = center(text)
    projected = pca(centered, together)
    unit_text = unit_rows(projected)
    category_factors = fit_category_factors(catalogue, together, settings.seed, settings.category_rank)
    categories = category_inputs(catalogue, category_factors)
    content = predicted_cf_factors(centered, categories, cosine_factors, together)
    tables = {
        "transition": transitions,
        "transition_3": transition_matrix(in_order, n, 3, 10.0, uniform=True),
        "transition_next": transition_matrix(in_order, n, 1, 5.0),
        "transition_reverse": transitions.T.tocsr(),
        "cooccurrence": cosine,
    }
    if settings.ease_items:
        tables["ease"] = ease(together, n, settings.ease_items)
        tables["slist"] = slist(in_order, n, settings.ease_items)
    return ItemModel(
        catalogue=catalogue,
        space=space,
        vectors={
            "text": UserItemVectors(unit_text, unit_text),
            "content": UserItemVectors(content, content),
            "cca": cca_view(projected, categories, together),
            "cooccurrence": UserItemVectors(shared, shared),
            "transition": UserItemVectors(unit_rows(sources), unit_rows(targets)),
        },
        item_item={name: _top_neighbours(matrix, settings.neighbours) for name, matrix in tables.items()},
        term_weights=term_weights,
        item_stats=_item_statistics(catalogue, histories.entering(IN_POPULARITY)),
        category_factors=category_factors,
    )


def _item_statistics(catalogue: Catalogue, histories: UserHistories) -> dict[str, NDArray[np.float32]]:
    n = len(catalogue)
    counts = np.bincount(histories.items, minlength=n).astype(np.float64)
    has_value = ~np.isnan(histories.values)
    given = np.clip(histories.values[has_value], -MAX_VALUE, MAX_VALUE)
    statistics = {"interaction_count": np.log1p(counts), "published": catalogue.published / 86_400}
    sums = np.bincount(histories.items[has_value], given, n)
    values = np.bincount(histories.items[has_value], minlength=n)
    mean = sums.sum() / values.sum() if values.sum() else np.nan
    statistics["mean_value"] = (sums + 5 * mean) / (values + 5)
    return {name: column.astype(np.float32) for name, column in statistics.items()}


def _top_neighbours(matrix: sparse.csr_matrix, neighbours: int) -> ItemItemMatrix:
    """Keep the `neighbours` largest absolute entries of each row without the diagonal, sorted by column."""
    entries = matrix.tocoo()
    matrix = sparse.csr_matrix(
        (np.where(entries.row == entries.col, 0, entries.data), (entries.row, entries.col)), shape=matrix.shape
    )
    matrix.eliminate_zeros()
    matrix.sort_indices()
    keep = np.ones(matrix.nnz, np.bool_)
    for row in np.flatnonzero(np.diff(matrix.indptr) > neighbours).tolist():
        start, stop = matrix.indptr[row], matrix.indptr[row + 1]
        keep[start + np.argpartition(-np.abs(matrix.data[start:stop]), neighbours)[neighbours:]] = False
    offsets = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr].astype(np.int64)
    return ItemItemMatrix(offsets, matrix.indices[keep].astype(np.int32), matrix.data[keep].astype(np.float32))
