"""The item model that the feature builder reads: vectors, item-item matrices, BM25 weights and item statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace
from feedrank.engine.types import Matrix, Offsets, Rows, Scores
from feedrank.features.bm25 import TermWeights
from feedrank.features.declared.term_statistics import TermStatistics
from feedrank.features.declared.value_vocabulary import ValueVocabulary
from feedrank.features.late_interaction import TokenVectors

CROSS_ENCODER = "cross_encoder"
"""Key of the cross-encoder in `ItemModel.model_digests`."""


class ItemItemMatrix(NamedTuple):
    """A sparse (n, n) item-item matrix (CSR): the score of item j after an interaction with item i."""

    offsets: Offsets
    """(n + 1,) bounds of each row."""
    columns: Rows
    """Column indices, sorted within a row."""
    values: Scores


class UserItemVectors(NamedTuple):
    """The vectors of one view, of length 1 or 0: the items as history of a user, and as candidates."""

    user_side: Matrix
    """(n, d) summed to user profiles."""
    item_side: Matrix
    """(n, d) compared with user profiles."""


@dataclass(frozen=True, eq=False, slots=True)
class ItemModel:
    """All static inputs of features. It is fitted offline and is the same in training and serving."""

    catalogue: Catalogue
    space: EmbeddingSpace
    """The embedding space of recall."""
    vectors: Mapping[str, UserItemVectors]
    """View name -> its vectors."""
    item_item: Mapping[str, ItemItemMatrix]
    """Matrix name -> item-item matrix."""
    term_weights: TermWeights
    item_stats: Mapping[str, NDArray[np.float32]]
    """Name -> (n,) one number per item, NaN if unknown."""
    token_vectors: TokenVectors | None = None
    """Token vectors for late interaction; None: no late interaction."""
    model_digests: Mapping[str, str] = field(default_factory=dict)
    """Signal -> digest of its model's weights: embedder, late interaction, cross-encoder. Part of the fingerprint."""

    vocabularies: Mapping[str, ValueVocabulary] = field(default_factory=dict)
    """Declared feature -> the values that it codes."""
    term_statistics: Mapping[str, TermStatistics] = field(default_factory=dict)
    """Declared feature -> the document frequencies that it scores by."""
    category_factors: Matrix | None = None
    """(categories, d) vectors that stand for category flags in content views, if there are many categories; categories
    that came later have none. None: each category has a flag."""

    def __post_init__(self) -> None:
        n = len(self.catalogue)
        sizes = {"space": len(self.space.item_side), "terms": len(self.term_weights.offsets) - 1}
        sizes |= {f"vectors {name}": len(vectors.item_side) for name, vectors in self.vectors.items()}
        sizes |= {f"item-item matrix {name}": len(matrix.offsets) - 1 for name, matrix in self.item_item.items()}
        sizes |= {f"item stat {name}": len(values) for name, values in self.item_stats.items()}
        sizes |= {} if self.token_vectors is None else {"token vectors": len(self.token_vectors)}
        for name, size in sizes.items():
            if size != n:
                raise ValueError(f"{name} has {size} rows for {n} items")
