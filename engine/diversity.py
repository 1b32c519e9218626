"""Diversity of a feed: at most so many of a category, and maximal marginal relevance.

Both take the candidates in their order and choose again, the best first (Carbonell & Goldstein, The Use of MMR, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.space import unit_rows
from engine.types import Matrix, Rows, Scores


@dataclass(frozen=True, slots=True)
class Diversity:
    """How mixed a feed should be."""

    per_category: int = 0
    """Items of the same category at most, counted by an item's first one; 0: any number."""
    weight: float = 0.0
    """0: the order of the scores alone; towards 1, ever more what is unlike all that is chosen already."""

    def __bool__(self) -> bool:
        return self.per_category > 0 or self.weight > 0


def diversified(
    rows: Rows, scores: Scores, n: int, asked: Diversity, catalogue: Catalogue, vectors: Matrix
) -> NDArray[np.int64]:
    """The places, of candidates in their order, of the n that are shown, in the order they are shown in.

    vectors: (n, d) of the whole catalogue; their cosine is how alike two items are. Fewer than n come where categories
    forbid more. Scores count by their standing between the best and the worst.
    """
    first = catalogue.first_categories(rows)
    alike = np.zeros(len(rows), np.float32)
    unit = unit_rows(np.where(rows[:, None] >= 0, vectors[rows], 0)) if asked.weight > 0 else None
    worth = _between(scores) * np.float32(1 - asked.weight)
    free = np.ones(len(rows), np.bool_)
    counts: dict[int, int] = {}
    chosen: list[int] = []
    while len(chosen) < n and free.any():
        value = np.where(free, worth - np.float32(asked.weight) * alike, -np.inf)
        place = int(np.argmax(value))  # of equals the first, so without a weight the order stays
        chosen.append(place)
        free[place] = False
        category = int(first[place])
        if asked.per_category and category >= 0:
            counts[category] = counts.get(category, 0) + 1
            if counts[category] >= asked.per_category:
                free &= first != category
        if unit is not None:
            alike = np.maximum(alike, unit @ unit[place]) if len(chosen) > 1 else unit @ unit[place]
    return np.array(chosen, np.int64)


def _between(scores: Scores) -> Scores:
    """Scores from 0, the worst, to 1, the best; places where they are all the same or none."""
    finite = np.isfinite(scores)
    least = float(scores[finite].min()) if finite.any() else 0.0
    known = np.where(finite, scores, np.float32(least))
    spread = float(known.max()) - least if len(known) else 0.0
    if spread <= 0:
        return np.asarray(-np.arange(len(scores)) / max(len(scores), 1), np.float32)
    return np.asarray((known - least) / spread, np.float32)
