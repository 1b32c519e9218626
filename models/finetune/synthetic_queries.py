"""Build synthetic queries from the words of the texts, as unlabelled data for distillation."""

from __future__ import annotations

import numpy as np

from feedrank.models.finetune.samples import QueryTextGroups

MIN_WORDS, MAX_WORDS = 3, 9
"""Number of words that a synthetic query takes from a text."""
MAX_PREFIX_WORDS = 2
"""Maximum number of leading words copied from a real query."""


def with_synthetic_queries(groups: QueryTextGroups, ratio: float, seed: int) -> QueryTextGroups:
    """Append about `ratio` times as many groups with synthetic queries and no positives.

    A synthetic query has 3 to 9 words of one text, contiguous or scattered, in their order. Half of these queries start
    with the first two words of a real query. The group has all texts of the group that the text comes from. Texts of
    fewer than three words are skipped.
    """
    dice = np.random.default_rng([seed, 2])
    synthetic: list[tuple[str, dict[str, float]]] = []
    for group in dice.integers(0, max(len(groups), 1), round(ratio * len(groups))).tolist():
        texts = list(groups.group(group))
        words = texts[int(dice.integers(0, len(texts)))].split() if texts else []
        if len(words) < MIN_WORDS:
            continue
        count = int(dice.integers(MIN_WORDS, min(MAX_WORDS, len(words)) + 1))
        if dice.integers(0, 2):
            first = int(dice.integers(0, len(words) - count + 1))
            query = words[first : first + count]
        else:
            query = [words[index] for index in np.sort(dice.permutation(len(words))[:count]).tolist()]
        if dice.integers(0, 2):
            query = groups.queries[int(dice.integers(0, len(groups)))].split()[:MAX_PREFIX_WORDS] + query
        synthetic.append((" ".join(query), dict.fromkeys(texts, 0.0)))
    original = [(text, groups.group(index)) for index, text in enumerate(groups.queries)]
    return QueryTextGroups.from_groups([*original, *synthetic])
