"""Fit the item model: the embedding space for recall, and the vectors and item-item matrices for features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import assemble, unit_rows
from feedrank.engine.types import Matrix
from feedrank.features.bm25 import TermWeights
from feedrank.features.item_model import ItemKnowledge, Table, VectorPair
from feedrank.models.items.collaborative_views import (
    co_click,
    factorise,
    follows,
    linear_items,
    linear_next,
    symmetric_factors,
)
from feedrank.models.items.content_views import centred, expected_factors, principal, taste
from feedrank.models.items.user_histories import Sequences


@dataclass(frozen=True, slots=True)
class ItemSettings:
    """[items] How the item views are fitted and weighted. Defaults were chosen on validation (docs/evaluation.md)."""

    text_weight: float = 0.6
    co_click_weight: float = 1.0
    follows_weight: float = 1.0
    co_click_rank: int = 32
    follows_rank: int = 96
    window: int = 10
    """How many later interactions count as a transition; the d-th counts 1/d."""
    damping: float = 20.0
    decay: float = 0.7
    """Weight of each older interaction in a user vector, relative to the next younger one."""
    depth: int = 40
    """Number of a user's latest interactions in the user vector."""
    linear_items: int = 2_000
    """EASE and SLIST are solved for this many of the most popular items; 0: not at all."""
    neighbours: int = 400
    """Entries that are kept per row of an item-item matrix."""
    seed: int = 7


def fit_items(
    catalogue: Catalogue, text: Matrix, terms: TermWeights, sequences: Sequences, settings: ItemSettings | None = None
) -> ItemKnowledge:
    """Fit the item model on these interactions only.

    text: (n, d) unit vectors of the items' documents, (n, 0) without text. terms: BM25 weights of the documents.
    """
    settings = settings or ItemSettings()
    n = len(catalogue)
    cosine = co_click(sequences.person, sequences.items, n, len(sequences))
    transitions = follows(sequences, n, settings.window, settings.damping)
    cosine_factors = symmetric_factors(cosine, settings.co_click_rank, settings.seed)
    sources, targets = factorise(transitions, settings.follows_rank, settings.seed)
    mean_length = (
        float(np.linalg.norm(targets, axis=1)[np.diff(transitions.tocsc().indptr) > 0].mean()) if transitions.nnz else 1
    )
    shared = unit_rows(cosine_factors)
    space = assemble(
        {"text": (text, text), "co_click": (shared, shared), "follows": (targets / np.float32(mean_length), sources)},
        {"text": settings.text_weight, "co_click": settings.co_click_weight, "follows": settings.follows_weight},
        settings.decay,
        settings.depth,
    )
    centered = centred(text)
    projected = principal(centered, sequences)
    unit_text = unit_rows(projected)
    content = expected_factors(centered, catalogue, cosine_factors, sequences)
    tables = {
        "follows": transitions,
        "follows_3": follows(sequences, n, 3, 10.0, flat=True),
        "follows_next": follows(sequences, n, 1, 5.0),
        "leads": transitions.T.tocsr(),
        "co_click": cosine,
    }
    if settings.linear_items:
        tables["linear"] = linear_items(sequences, n, settings.linear_items)
        tables["linear_next"] = linear_next(sequences, n, settings.linear_items)
    return ItemKnowledge(
        catalogue=catalogue,
        space=space,
        vectors={
            "text": VectorPair(unit_text, unit_text),
            "content": VectorPair(content, content),
            "taste": taste(projected, catalogue, sequences),
            "co_click": VectorPair(shared, shared),
            "follows": VectorPair(unit_rows(sources), unit_rows(targets)),
        },
        tables={name: _table(matrix, settings.neighbours) for name, matrix in tables.items()},
        terms=terms,
        statistics=_statistics(catalogue, sequences),
    )


def _statistics(catalogue: Catalogue, sequences: Sequences) -> dict[str, NDArray[np.float32]]:
    n = len(catalogue)
    counts = np.bincount(sequences.items, minlength=n).astype(np.float64)
    has_value = ~np.isnan(sequences.values)
    statistics = {"touch_count": np.log1p(counts), "published": catalogue.published / 86_400}
    sums = np.bincount(sequences.items[has_value], sequences.values[has_value], n)
    values = np.bincount(sequences.items[has_value], minlength=n)
    mean = sums.sum() / values.sum() if values.sum() else np.nan
    statistics["mean_value"] = (sums + 5 * mean) / (values + 5)
    return {name: column.astype(np.float32) for name, column in statistics.items()}


def _table(matrix: sparse.csr_matrix, neighbours: int) -> Table:
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
    return Table(offsets, matrix.indices[keep].astype(np.int32), matrix.data[keep].astype(np.float32))
