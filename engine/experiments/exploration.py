"""Samples randomized rankings (exploration), with exact propensities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.experiments.spec import ExplorationPolicy
from feedrank.engine.types import Scores

Indices = NDArray[np.int64]
Propensities = NDArray[np.float64]


def sample_slate(scores: Scores, n: int, policy: ExplorationPolicy, seed: int) -> tuple[Indices, Propensities]:
    """Sample a slate of n items; return their indices into `scores` and their propensities.

    scores: (C,) finite, descending. A propensity is the probability of an item at its position given the items above
    it, so their product is the probability of the slate. The same seed gives the same slate.
    """
    count = min(n, len(scores))
    if count == 0:
        return np.empty(0, np.int64), np.empty(0)
    return _SAMPLERS[policy.kind](scores, count, policy, np.random.default_rng(seed))


def plackett_luce(
    scores: Scores, n: int, policy: ExplorationPolicy, rng: np.random.Generator
) -> tuple[Indices, Propensities]:
    """Sample items without replacement with probability proportional to exp(score / temperature).

    Plackett 1975, Luce 1959; sampled with the Gumbel trick (Yellott 1977). Items below the `depth` best keep their
    order.
    """
    pool = min(max(policy.depth, 1), len(scores))
    logits = np.asarray(scores[:pool], np.float64) / policy.temperature
    order = np.argsort(-(logits + rng.gumbel(size=pool)), kind="stable")
    weights = np.exp(logits - logits.max())[order]
    remaining = np.cumsum(weights[::-1])[::-1]  # summed from the end, to avoid cancellation
    tiny = np.finfo(np.float64).tiny
    propensities = np.clip(weights, tiny, None) / np.clip(remaining, tiny, None)
    indices = np.concatenate([order, np.arange(pool, len(scores))])[:n]
    return indices, np.concatenate([np.minimum(propensities, 1.0), np.ones(len(scores) - pool)])[:n]


def epsilon_greedy(
    scores: Scores, n: int, policy: ExplorationPolicy, rng: np.random.Generator
) -> tuple[Indices, Propensities]:
    """Rank by score; with probability epsilon fill each of the last `tail` positions uniformly at random."""
    depth = min(max(policy.depth, n), len(scores))
    remaining = list(range(depth))
    indices: list[int] = []
    propensities: list[float] = []
    for position in range(n):
        if position < n - policy.tail:
            indices.append(remaining.pop(0))
            propensities.append(1.0)
            continue
        uniform = policy.epsilon / len(remaining)
        pick = int(rng.integers(len(remaining))) if rng.random() < policy.epsilon else 0
        propensities.append(uniform + (1 - policy.epsilon if pick == 0 else 0.0))
        indices.append(remaining.pop(pick))
    return np.array(indices, np.int64), np.minimum(np.array(propensities), 1.0)


_SAMPLERS: dict[str, Callable[[Scores, int, ExplorationPolicy, np.random.Generator], tuple[Indices, Propensities]]] = {
    "plackett-luce": plackett_luce,
    "epsilon-greedy": epsilon_greedy,
}
