"""The sample item model is a small item model with made-up values: to check families and to list features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import build_embedding_space, unit_rows
from feedrank.engine.types import Matrix
from feedrank.features.bm25 import TermWeights
from feedrank.features.families.history import ITEM_ITEM_MATRICES, ITEM_STATS
from feedrank.features.families.similarity import VIEWS
from feedrank.features.item_model import CROSS_ENCODER, ItemItemMatrix, ItemModel, UserItemVectors
from feedrank.features.late_interaction import TokenVectors, quantize

DIMENSIONS = 12
TOKENS = 3
"""Tokens per item."""
_WORDS = ("red", "green", "blue", "shoe", "hat", "coat")


@dataclass(frozen=True, slots=True)
class ItemModelParts:
    """Names of the parts of an item model, which feature names depend on; the defaults are all that can be fitted."""

    views: tuple[str, ...] = tuple(VIEWS)
    item_item: tuple[str, ...] = tuple(ITEM_ITEM_MATRICES)
    item_stats: tuple[str, ...] = tuple(ITEM_STATS)
    late_interaction: bool = True
    """Whether there are token vectors."""
    cross_encoder: bool = True


def sample_item_model(n_items: int, parts: ItemModelParts | None = None) -> ItemModel:
    """Build an item model of n items with these parts; the same arguments give the same values.

    Items have none to two categories; every fourth has no `published`, every fifth no title and no vectors.
    """
    parts, random = parts or ItemModelParts(), np.random.default_rng(7)
    catalogue = Catalogue.from_items(
        {
            f"item {row}": {
                "title": " ".join(random.choice(_WORDS, 3)) if row % 5 else "",
                "category": [f"category {code}" for code in random.integers(0, 4, row % 3)],
                "published": float(1_700_000_000_000 - row * 10**9) if row % 4 else "",
            }
            for row in range(n_items)
        }
    )

    def vectors() -> Matrix:
        made = unit_rows(random.normal(size=(n_items, DIMENSIONS)).astype(np.float32))
        made[::5] = 0
        return made

    blocks = ("text", "cooccurrence", "transition")
    tokens = None
    if parts.late_interaction:
        counts = np.where(np.arange(n_items) % 5 > 0, TOKENS, 0)
        values = unit_rows(random.normal(size=(int(counts.sum()), DIMENSIONS)).astype(np.float32))
        tokens = TokenVectors(quantize(values), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    return ItemModel(
        catalogue=catalogue,
        space=build_embedding_space(
            {name: (vectors(), vectors()) for name in blocks}, dict.fromkeys(blocks, 1.0), 0.7, 40
        ),
        vectors={name: UserItemVectors(vectors(), vectors()) for name in parts.views},
        item_item={name: _item_item_matrix(n_items, random) for name in parts.item_item},
        term_weights=TermWeights.fit(catalogue.documents()),
        item_stats={name: random.normal(size=n_items).astype(np.float32) for name in parts.item_stats},
        token_vectors=tokens,
        model_digests={CROSS_ENCODER: "sample"} if parts.cross_encoder else {},
    )


def _item_item_matrix(n_items: int, random: np.random.Generator) -> ItemItemMatrix:
    filled = random.random((n_items, n_items)) < 0.3
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    values = random.normal(size=int(filled.sum())).astype(np.float32)
    return ItemItemMatrix(offsets, np.nonzero(filled)[1].astype(np.int32), values)
