"""Interleaves the rankings of several rankers into one, so that clicks show which ranker is preferred.

Rankers are compared on the same user, time and page, which needs far fewer impressions than an A/B test (Chapelle et
al., Large-scale Validation and Analysis of Interleaved Search Evaluation, 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARED = -1
"""Team of an item that is credited to no ranker, as all rankers would show it next."""


@dataclass(frozen=True, slots=True)
class Interleaved:
    """An interleaved ranking."""

    items: tuple[str, ...]
    teams: tuple[int, ...]
    """For each item, the index of the ranker that gets its credit; SHARED: no ranker."""


def team_draft(lists: Sequence[Sequence[str]], n: int, seed: int) -> Interleaved:
    """Interleave rankings (best first) by team draft: in each round, in random order, each ranker picks its next item.

    An item that all rankers would pick next gets no team (SHARED): a click on it carries no preference, and random
    credit would only add noise. Two rankers: Radlinski et al., How Does Clickthrough Data Reflect Retrieval Quality?,
    2008. More: Schuth et al., Multileaved Comparisons for Fast Online Evaluation, 2014.
    """
    random = np.random.default_rng(seed)
    items: dict[str, int] = {}
    nexts = [0] * len(lists)
    while len(items) < n:
        for team, ranking in enumerate(lists):
            while nexts[team] < len(ranking) and ranking[nexts[team]] in items:
                nexts[team] += 1
        picks = {ranking[rank] for ranking, rank in zip(lists, nexts, strict=True) if rank < len(ranking)}
        if not picks:
            break
        if len(picks) == 1:
            items[picks.pop()] = SHARED
            continue
        for team in random.permutation(len(lists)).tolist():
            ranking = lists[team]
            while nexts[team] < len(ranking) and ranking[nexts[team]] in items:
                nexts[team] += 1
            if nexts[team] < len(ranking) and len(items) < n:
                items[ranking[nexts[team]]] = team
    return Interleaved(tuple(items), tuple(items.values()))


def balanced_interleaving(lists: Sequence[Sequence[str]], n: int, seed: int) -> Interleaved:
    """Interleave two rankings so that each prefix holds the top items of both in equal number; the first is random.

    Joachims, Evaluating Retrieval Performance Using Clickthrough Data, 2003. Clicks are credited by `balanced_credit`.
    """
    first = int(np.random.default_rng(seed).integers(2))
    items: dict[str, int] = {}
    nexts = [0, 0]
    while len(items) < n and any(nexts[team] < len(lists[team]) for team in (0, 1)):
        behind = nexts[first] <= nexts[1 - first]
        team = first if behind else 1 - first
        if nexts[team] >= len(lists[team]):
            team = 1 - team
        items.setdefault(lists[team][nexts[team]], team)
        nexts[team] += 1
    return Interleaved(tuple(items), tuple(items.values()))


def balanced_credit(ranks: Sequence[Sequence[int]], clicked: Sequence[bool]) -> list[float]:
    """Return the credit of each of two rankers: clicks on its top k items.

    k is the smaller rank of the lowest clicked item in the two rankings. ranks: for each ranker, the rank of every
    shown item in its ranking, from 0; -1 if it is not in it. clicked: for each shown item.
    """
    clicks = [index for index, click in enumerate(clicked) if click]
    if not clicks:
        return [0.0] * len(ranks)
    lowest = clicks[-1]
    depths = [own_ranks[lowest] for own_ranks in ranks if own_ranks[lowest] >= 0]
    cut = min(depths) if depths else -1
    return [float(sum(0 <= own_ranks[index] <= cut for index in clicks)) for own_ranks in ranks]
