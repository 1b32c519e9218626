"""Chance in a list, with the exact probability of every choice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.experiments.declared import Explore
from engine.types import Scores

Places = NDArray[np.int64]
Shares = NDArray[np.float64]


def explored(scores: Scores, n: int, chosen: Explore, seed: int) -> tuple[Places, Shares]:
    """The places of the n items that are shown, of candidates in the order of their scores, and their propensities.

    scores: (C,) finite, falling. A propensity is the probability of an item at its place given those above it, so the
    product of all is that of the list. The same seed gives the same list.
    """
    count = min(n, len(scores))
    if count == 0:
        return np.empty(0, np.int64), np.empty(0)
    return _KINDS[chosen.kind](scores, count, chosen, np.random.default_rng(seed))


def plackett_luce(scores: Scores, n: int, chosen: Explore, random: np.random.Generator) -> tuple[Places, Shares]:
    """Item after item, each with probability exp(score / temperature) among those left (Plackett 1975; Luce 1959).

    Drawn at once by the Gumbel trick (Yellott 1977). Below the `depth` best the order stays as it is.
    """
    free = min(max(chosen.depth, 1), len(scores))
    worth = np.asarray(scores[:free], np.float64) / chosen.temperature
    order = np.argsort(-(worth + random.gumbel(size=free)), kind="stable")
    weights = np.exp(worth - worth.max())[order]
    left = np.cumsum(weights[::-1])[::-1]  # from the end, so that no sum is the small rest of a large one
    least = np.finfo(np.float64).tiny
    shares = np.clip(weights, least, None) / np.clip(left, least, None)
    places = np.concatenate([order, np.arange(free, len(scores))])[:n]
    return places, np.concatenate([np.minimum(shares, 1.0), np.ones(len(scores) - free)])[:n]


def epsilon_greedy(scores: Scores, n: int, chosen: Explore, random: np.random.Generator) -> tuple[Places, Shares]:
    """The best in order; each of the last `tail` places is, with probability epsilon, filled by any of those left."""
    depth = min(max(chosen.depth, n), len(scores))
    left = list(range(depth))
    places: list[int] = []
    shares: list[float] = []
    for place in range(n):
        if place < n - chosen.tail:
            places.append(left.pop(0))
            shares.append(1.0)
            continue
        by_chance = chosen.epsilon / len(left)
        pick = int(random.integers(len(left))) if random.random() < chosen.epsilon else 0
        shares.append(by_chance + (1 - chosen.epsilon if pick == 0 else 0.0))
        places.append(left.pop(pick))
    return np.array(places, np.int64), np.minimum(np.array(shares), 1.0)


_KINDS: dict[str, Callable[[Scores, int, Explore, np.random.Generator], tuple[Places, Shares]]] = {
    "plackett-luce": plackett_luce,
    "epsilon-greedy": epsilon_greedy,
}
