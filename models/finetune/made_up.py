"""Queries that nobody asked, for a teacher that has something to say of any: made of the words of texts."""

from __future__ import annotations

import numpy as np

from models.finetune.pairs import PairGroups

FEWEST, MOST = 3, 9
"""Words of a text that a query has."""
OPENING = 2
"""Words that it may begin with besides: those that a query that was asked begins with."""


def with_made_up_queries(groups: PairGroups, share: float, seed: int) -> PairGroups:
    """The groups, and after them about `share` times as many whose queries are made up, with no text that answers.

    Such a query has some words of a text, that stand together or apart, and every other one the beginning of a query
    that was asked; its group has the texts of the group that the text is from. Texts of fewer than three words make
    none.
    """
    dice = np.random.default_rng([seed, 2])
    made: list[tuple[str, dict[str, float]]] = []
    for place in dice.integers(0, max(len(groups), 1), round(share * len(groups))).tolist():
        texts = list(groups.group(place))
        words = texts[int(dice.integers(0, len(texts)))].split() if texts else []
        if len(words) < FEWEST:
            continue
        count = int(dice.integers(FEWEST, min(MOST, len(words)) + 1))
        if dice.integers(0, 2):
            first = int(dice.integers(0, len(words) - count + 1))
            said = words[first : first + count]
        else:
            said = [words[one] for one in np.sort(dice.permutation(len(words))[:count]).tolist()]
        if dice.integers(0, 2):
            said = groups.queries[int(dice.integers(0, len(groups)))].split()[:OPENING] + said
        made.append((" ".join(said), dict.fromkeys(texts, 0.0)))
    asked = [(query, groups.group(place)) for place, query in enumerate(groups.queries)]
    return PairGroups.of([*asked, *made])
