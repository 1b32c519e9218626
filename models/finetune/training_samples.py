"""Sample the training set of a whole run before it starts; each epoch samples other candidates per group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from feedrank.models.finetune.samples import QueryTextGroups

MAX_POSITIVES = 4
"""Maximum number of positives per group and epoch."""
DatasetColumns = dict[str, list[object]]
"""Training-set columns by name, in the order that the losses expect."""


def contrastive_samples(groups: QueryTextGroups, negatives: int, epochs: int, seed: int) -> DatasetColumns:
    """Build contrastive samples, one row per positive: `anchor`, `positive`, and `negative_1` to `negative_n`.

    If a group has too few negatives, the rest are sampled from other groups.
    """
    columns: DatasetColumns = {
        name: [] for name in ("anchor", "positive", *(f"negative_{i + 1}" for i in range(negatives)))
    }
    positives_by_query = _positives_by_query(groups)
    dice = np.random.default_rng([seed, 1])
    for group, positives, negative_texts in _sample_groups(groups, negatives, epochs, seed):
        query = groups.queries[group]
        taken = {*positives_by_query[query], *negative_texts}
        for row in dice.integers(0, len(groups.texts), 20 * negatives).tolist():
            if len(negative_texts) >= negatives:
                break
            if groups.texts[row] not in taken:
                negative_texts.append(groups.texts[row])
                taken.add(groups.texts[row])
        while len(negative_texts) < negatives:  # almost no other texts exist
            negative_texts.append(groups.texts[int(dice.integers(0, len(groups.texts)))])
        for text in positives:
            for column, value in zip(columns.values(), (query, text, *negative_texts), strict=True):
                column.append(value)
    return columns


def listwise_samples(groups: QueryTextGroups, negatives: int, epochs: int, seed: int) -> DatasetColumns:
    """Build listwise samples, one row per group and epoch: `query`, `texts`, and `labels` of the texts."""
    columns: DatasetColumns = {"query": [], "texts": [], "labels": []}
    labels_by_group: list[dict[str, float]] = [groups.group(index) for index in range(len(groups))]
    for group, positives, negative_texts in _sample_groups(groups, negatives, epochs, seed):
        columns["query"].append(groups.queries[group])
        columns["texts"].append([*positives, *negative_texts])
        columns["labels"].append([labels_by_group[group][text] for text in (*positives, *negative_texts)])
    return columns


def groups_from_columns(columns: DatasetColumns) -> QueryTextGroups:
    """Convert listwise samples back to groups."""
    labelled_groups: list[tuple[str, dict[str, float]]] = []
    for query, texts, labels in zip(columns["query"], columns["texts"], columns["labels"], strict=True):
        assert isinstance(query, str)
        assert isinstance(texts, list)
        assert isinstance(labels, list)
        labelled_groups.append((query, dict(zip(texts, labels, strict=True))))
    return QueryTextGroups.from_groups(labelled_groups)


def pointwise_samples(groups: QueryTextGroups, negatives: int, epochs: int, seed: int) -> DatasetColumns:
    """Build pointwise samples, one row per text: `query`, `text`, and `label` (0 or 1)."""
    columns: DatasetColumns = {"query": [], "text": [], "label": []}
    for group, positives, negative_texts in _sample_groups(groups, negatives, epochs, seed):
        for text in (*positives, *negative_texts):
            columns["query"].append(groups.queries[group])
            columns["text"].append(text)
            columns["label"].append(float(text in positives))
    return columns


def _sample_groups(
    groups: QueryTextGroups, negatives: int, epochs: int, seed: int
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield (group, positives, negatives), epoch after epoch."""
    dice = np.random.default_rng([seed, 0])
    for _ in range(epochs):
        for group in range(len(groups)):
            labelled = groups.group(group)
            positive_texts = [text for text, label in labelled.items() if label > 0]
            negative_texts = [text for text, label in labelled.items() if label <= 0]
            yield (
                group,
                [positive_texts[index] for index in dice.permutation(len(positive_texts))[:MAX_POSITIVES].tolist()],
                [negative_texts[index] for index in dice.permutation(len(negative_texts))[:negatives].tolist()],
            )


def _positives_by_query(groups: QueryTextGroups) -> dict[str, set[str]]:
    """Map each query to all of its positives in any group."""
    positives: dict[str, set[str]] = {query: set() for query in groups.queries}
    for group, text, label in zip(groups.group_index.tolist(), groups.texts, groups.labels.tolist(), strict=True):
        if label > 0:
            positives[groups.queries[group]].add(text)
    return positives
