"""Diversifies a ranking by a limit per category and by maximal marginal relevance (MMR).

Both select greedily from the ranked candidates (Carbonell & Goldstein, The Use of MMR, SIGIR 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, Rows, Scores


@dataclass(frozen=True, slots=True)
class Diversity:
    """Settings of the diversification of a ranking."""

    per_category: int = 0
    """Maximum number of items with the same first category; 0: no limit. Unit: items."""
    weight: float = 0.0
    """MMR weight of dissimilarity, 0 to 1; 0: rank by score alone."""

    def __bool__(self) -> bool:
        return self.per_category > 0 or self.weight > 0


def diversify(
    rows: Rows, scores: Scores, n: int, diversity: Diversity, catalogue: Catalogue, vectors: Matrix
) -> NDArray[np.int64]:
    """Select n of the ranked candidates; return their indices, in the order to show.

    rows, scores: (N,) candidates, best first. vectors: (items, d) of the whole catalogue; similarity is their cosine.
    Scores are min-max scaled. Returns fewer than n indices if the category limit excludes the rest.
    """
    categories = catalogue.first_categories(rows)
    similarity = np.zeros(len(rows), np.float32)
    unit = unit_rows(np.where(rows[:, None] >= 0, vectors[rows], 0)) if diversity.weight > 0 else None
    relevance = _min_max_scaled(scores) * np.float32(1 - diversity.weight)
    available = np.ones(len(rows), np.bool_)
    counts: dict[int, int] = {}
    selected: list[int] = []
    while len(selected) < n and available.any():
        mmr = np.where(available, relevance - np.float32(diversity.weight) * similarity, -np.inf)
        best = int(np.argmax(mmr))  # argmax takes the first of ties, so without a weight the order is unchanged
        selected.append(best)
        available[best] = False
        category = int(categories[best])
        if diversity.per_category and category >= 0:
            counts[category] = counts.get(category, 0) + 1
            if counts[category] >= diversity.per_category:
                available &= categories != category
        if unit is not None:
            to_best = unit @ unit[best]
            similarity = np.maximum(similarity, to_best) if len(selected) > 1 else to_best
    return np.array(selected, np.int64)


def _min_max_scaled(scores: Scores) -> Scores:
    """Scale scores to 0 (lowest) to 1 (highest); by rank if all are equal. Non-finite scores become 0."""
    finite = np.isfinite(scores)
    lowest = float(scores[finite].min()) if finite.any() else 0.0
    filled = np.where(finite, scores, np.float32(lowest))
    spread = float(filled.max()) - lowest if len(filled) else 0.0
    if spread <= 0:
        return np.asarray(-np.arange(len(scores)) / max(len(scores), 1), np.float32)
    return np.asarray((filled - lowest) / spread, np.float32)
