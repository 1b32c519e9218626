"""Warnings about a trained ranker: it learnt nothing, it had nothing to learn from, or recall order is as good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from feedrank.models.evaluation.bootstrap import Difference
from feedrank.models.evaluation.gains import Gain
from feedrank.models.evaluation.metrics import ndcg
from feedrank.models.training.label_contrast import above_lowest
from feedrank.models.training.label_gain import gain_of
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings
from feedrank.models.training.round_choice import choose_rounds, positive_groups

if TYPE_CHECKING:
    from feedrank.models.training.training import TrainedRanker

SHUFFLES = 5
"""Number of random orders that chance is measured with."""
STANDARD_ERRORS = 3.0
"""A validation metric is clearly above chance if it is this many standard errors above it."""
MIN_GROUPS = 30
"""Minimum number of groups for a clear difference from recall order; a bootstrap of fewer is too narrow."""


def ranker_warnings(
    ranker: LambdaRanker, train: Sequence[QueryGroups], validation: QueryGroups, settings: LambdaRankSettings
) -> tuple[str, ...]:
    """Return what is wrong with a ranker or its training groups, one sentence each. settings: it was trained with."""
    found: list[str] = []
    if not any(above_lowest(part.labels, part.offsets).any() for part in train):
        found.append(
            "in each training group all items have the same label, so there is nothing to rank: are interactions of a"
            " type that only says that an item was shown counted as clicks? See [interactions]"
        )
    if ranker.trees <= settings.ensemble_size:
        found.append("the ranker has one tree: no further round improved the validation metric")
    if ranker.learning_curve and ranker.position_bias is None and len(validation) > 1:
        # at the round that is kept: of few groups, the best of many rounds is better than chance by chance
        best = ranker.learning_curve[choose_rounds(ranker.learning_curve, positive_groups(validation)) - 1]
        chance, error = _chance(validation, gain_of(settings.parameters), settings.seed)
        if best < chance + STANDARD_ERRORS * error:
            found.append(
                f"the ranker is not clearly better than random order on its validation groups: nDCG@10 {best:.3f},"
                f" random {chance:.3f} with a standard error of {error:.3f} ({len(validation):,} groups)"
            )
    return tuple(found)


def recall_warnings(gain: Difference | None) -> tuple[str, ...]:
    """Return that a ranker is not clearly better than recall order, in one sentence; nothing if it is, or is unknown.

    gain: nDCG@10 of the ranker minus that of recall order, on its validation groups.
    """
    if gain is None or not gain.groups or _beats_recall(gain):
        return ()
    found = f"nDCG@10 {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over {gain.groups:,} validation groups"
    return (f"the ranker is {'not clearly' if gain.mean > 0 else 'no'} better than recall order: {found}",)


def weaknesses(trained: TrainedRanker) -> tuple[str, ...]:
    """Return why a ranker should not replace recall order, one sentence each; nothing if it clearly beats it.

    These are its warnings, but for those of features and for a small gain: a ranker of one tree may rank well, so the
    comparison with recall order decides.
    """
    gain = trained.ranker.recall_gain
    if _beats_recall(gain):
        return ()
    others = {suspect.sentence() for suspect in trained.suspects} | set(trained.declared.warnings)
    if gain is not None and gain.mean > 0:
        others.update(recall_warnings(gain))
    return tuple(line for line in trained.warnings if line not in others)


def _beats_recall(gain: Difference | None) -> bool:
    """Return whether a ranker is clearly better than recall order: the 95 % interval of enough groups is above 0."""
    return gain is not None and gain.groups >= MIN_GROUPS and gain.low > 0


def _chance(groups: QueryGroups, gain: Gain, seed: int) -> tuple[float, float]:
    """Return the mean nDCG@10 of random orders, and the standard error of a mean over these groups."""
    random = np.random.default_rng(seed)
    group_of = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))
    values = [
        ndcg(groups.labels[np.lexsort((random.random(len(group_of)), group_of))], groups.offsets, 10, gain=gain)
        for _ in range(SHUFFLES)
    ]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(len(groups)))
