"""What one run of training sees of groups: every pass over them draws other candidates, all drawn before it begins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.finetune.pairs import PairGroups

POSITIVES = 4
"""Texts that answer which one pass takes of a group at most."""
Columns = dict[str, list[object]]
"""The columns of a training set, by name, in the order that losses expect."""


def tuples(groups: PairGroups, negatives: int, passes: int, seed: int) -> Columns:
    """A row for each text that answers: `anchor`, `positive`, and `negative_1` to `negative_n`.

    Where a group has fewer texts that do not answer, the rest come from other groups.
    """
    columns: Columns = {name: [] for name in ("anchor", "positive", *(f"negative_{i + 1}" for i in range(negatives)))}
    answers = _answers(groups)
    dice = np.random.default_rng([seed, 1])
    for place, positive, others in _draws(groups, negatives, passes, seed):
        query = groups.queries[place]
        taken = {*answers[query], *others}
        for row in dice.integers(0, len(groups.texts), 20 * negatives).tolist():
            if len(others) >= negatives:
                break
            if groups.texts[row] not in taken:
                others.append(groups.texts[row])
                taken.add(groups.texts[row])
        while len(others) < negatives:  # there are next to no other texts
            others.append(groups.texts[int(dice.integers(0, len(groups.texts)))])
        for text in positive:
            for column, value in zip(columns.values(), (query, text, *others), strict=True):
                column.append(value)
    return columns


def lists(groups: PairGroups, negatives: int, passes: int, seed: int) -> Columns:
    """A row a group: `query`, `texts`, and `labels`, the texts' labels."""
    columns: Columns = {"query": [], "texts": [], "labels": []}
    known: list[dict[str, float]] = [groups.group(place) for place in range(len(groups))]
    for place, positive, others in _draws(groups, negatives, passes, seed):
        columns["query"].append(groups.queries[place])
        columns["texts"].append([*positive, *others])
        columns["labels"].append([known[place][text] for text in (*positive, *others)])
    return columns


def drawn(columns: Columns) -> PairGroups:
    """The lists of a training set as groups."""
    found: list[tuple[str, dict[str, float]]] = []
    for query, texts, labels in zip(columns["query"], columns["texts"], columns["labels"], strict=True):
        assert isinstance(query, str)
        assert isinstance(texts, list)
        assert isinstance(labels, list)
        found.append((query, dict(zip(texts, labels, strict=True))))
    return PairGroups.of(found)


def pairs(groups: PairGroups, negatives: int, passes: int, seed: int) -> Columns:
    """A row a text: `query`, `text`, and `label`, 0 or 1."""
    columns: Columns = {"query": [], "text": [], "label": []}
    for place, positive, others in _draws(groups, negatives, passes, seed):
        for text in (*positive, *others):
            columns["query"].append(groups.queries[place])
            columns["text"].append(text)
            columns["label"].append(float(text in positive))
    return columns


def _draws(groups: PairGroups, negatives: int, passes: int, seed: int) -> Iterator[tuple[int, list[str], list[str]]]:
    """(group, texts that answer, texts that do not) of each pass, pass after pass."""
    dice = np.random.default_rng([seed, 0])
    for _ in range(passes):
        for place in range(len(groups)):
            labelled = groups.group(place)
            positive = [text for text, label in labelled.items() if label > 0]
            others = [text for text, label in labelled.items() if label <= 0]
            yield (
                place,
                [positive[one] for one in dice.permutation(len(positive))[:POSITIVES].tolist()],
                [others[one] for one in dice.permutation(len(others))[:negatives].tolist()],
            )


def _answers(groups: PairGroups) -> dict[str, set[str]]:
    """Query -> all texts that answer it in any group."""
    found: dict[str, set[str]] = {query: set() for query in groups.queries}
    for place, text, label in zip(groups.owner.tolist(), groups.texts, groups.labels.tolist(), strict=True):
        if label > 0:
            found[groups.queries[place]].add(text)
    return found
