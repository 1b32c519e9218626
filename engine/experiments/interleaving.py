"""One list of several rankers' lists, so that a click says whose item was the better one.

Within one list rankers meet under the same person, moment and page, so that far fewer impressions tell them apart than
an A/B test needs (Chapelle et al., Large-scale Validation and Analysis of Interleaved Search Evaluation, 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOBODYS = -1
"""The team of an item that counts for no ranker."""


@dataclass(frozen=True, slots=True)
class Interleaved:
    """The shown list."""

    items: tuple[str, ...]
    teams: tuple[int, ...]
    """For each item, the place of the ranker whose choice it was; NOBODYS: of all."""


def team_draft(lists: Sequence[Sequence[str]], n: int, seed: int) -> Interleaved:
    """Rankers choose in turns their best item that is not shown yet, each round in an order drawn by lot.

    Where all would choose the same item, it is shown for none of them: a click on it says nothing, and to give it to
    one by lot would only add noise. Of two rankers: Radlinski et al., How Does Clickthrough Data Reflect Retrieval
    Quality?, 2008; of more: Schuth et al., Multileaved Comparisons for Fast Online Evaluation, 2014.
    """
    random = np.random.default_rng(seed)
    items: dict[str, int] = {}
    nexts = [0] * len(lists)
    while len(items) < n:
        for team, one in enumerate(lists):
            while nexts[team] < len(one) and one[nexts[team]] in items:
                nexts[team] += 1
        wanted = {one[place] for one, place in zip(lists, nexts, strict=True) if place < len(one)}
        if not wanted:
            break
        if len(wanted) == 1:
            items[wanted.pop()] = NOBODYS
            continue
        for team in random.permutation(len(lists)).tolist():
            one = lists[team]
            while nexts[team] < len(one) and one[nexts[team]] in items:
                nexts[team] += 1
            if nexts[team] < len(one) and len(items) < n:
                items[one[nexts[team]]] = team
    return Interleaved(tuple(items), tuple(items.values()))


def balanced(lists: Sequence[Sequence[str]], n: int, seed: int) -> Interleaved:
    """Two rankers' lists merged so that each prefix holds the best of both, as many of each; who begins is drawn.

    Source: Joachims, Evaluating Retrieval Performance Using Clickthrough Data, 2003. Its credit is `balanced_credit`.
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


def balanced_credit(places: Sequence[Sequence[int]], clicked: Sequence[bool]) -> list[float]:
    """(2,) clicks on what each of two rankers has above the lowest place that the list had to read for its clicks.

    places: for each of the two, the place of every shown item in its list, from 0; -1 where it has it not.
    """
    hit = [index for index, click in enumerate(clicked) if click]
    if not hit:
        return [0.0, 0.0]
    lowest = hit[-1]
    depths = [one[lowest] for one in places if one[lowest] >= 0]
    cut = min(depths) if depths else -1
    return [float(sum(0 <= one[index] <= cut for index in hit)) for one in places]
