"""Samples randomized rankings (exploration), with exact propensities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.experiments.spec import Explore
from feedrank.engine.types import Scores

Places = NDArray[np.int64]
Shares = NDArray[np.float64]


def explored(scores: Scores, n: int, chosen: Explore, seed: int) -> tuple[Places, Shares]:
    """Sample a slate of n items; return their indices into `scores` and their propensities.

    scores: (C,) finite, descending. A propensity is the probability of an item at its position given the items above
    it, so their product is the probability of the slate. The same seed gives the same slate.
    """
    count = min(n, len(scores))
    if count == 0:
        return np.empty(0, np.int64), np.empty(0)
    return _KINDS[chosen.kind](scores, count, chosen, np.random.default_rng(seed))


def plackett_luce(scores: Scores, n: int, chosen: Explore, random: np.random.Generator) -> tuple[Places, Shares]:
    """Sample items without replacement with probability proportional to exp(score / temperature).

    Plackett 1975, Luce 1959; sampled with the Gumbel trick (Yellott 1977). Items below the `depth` best keep their
    order.
    """
    pool = min(max(chosen.depth, 1), len(scores))
    logits = np.asarray(scores[:pool], np.float64) / chosen.temperature
    order = np.argsort(-(logits + random.gumbel(size=pool)), kind="stable")
    weights = np.exp(logits - logits.max())[order]
    remaining = np.cumsum(weights[::-1])[::-1]  # summed from the end, to avoid cancellation
    tiny = np.finfo(np.float64).tiny
    propensities = np.clip(weights, tiny, None) / np.clip(remaining, tiny, None)
    indices = np.concatenate([order, np.arange(pool, len(scores))])[:n]
    return indices, np.concatenate([np.minimum(propensities, 1.0), np.ones(len(scores) - pool)])[:n]


def epsilon_greedy(scores: Scores, n: int, chosen: Explore, random: np.random.Generator) -> tuple[Places, Shares]:
    """Rank by score; with probability epsilon fill each of the last `tail` positions uniformly at random."""
    depth = min(max(chosen.depth, n), len(scores))
    remaining = list(range(depth))
    indices: list[int] = []
    propensities: list[float] = []
    for position in range(n):
        if position < n - chosen.tail:
            indices.append(remaining.pop(0))
            propensities.append(1.0)
            continue
        uniform = chosen.epsilon / len(remaining)
        pick = int(random.integers(len(remaining))) if random.random() < chosen.epsilon else 0
        propensities.append(uniform + (1 - chosen.epsilon if pick == 0 else 0.0))
        indices.append(remaining.pop(pick))
    return np.array(indices, np.int64), np.minimum(np.array(propensities), 1.0)


_KINDS: dict[str, Callable[[Scores, int, Explore, np.random.Generator], tuple[Places, Shares]]] = {
    "plackett-luce": plackett_luce,
    "epsilon-greedy": epsilon_greedy,
}
