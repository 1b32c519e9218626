"""The gain of labels in training: LightGBM optimises the nDCG that is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from feedrank.models.evaluation.gains import Gain, gains
from feedrank.models.training.labels import LabelSettings
from feedrank.models.training.query_groups import QueryGroups

if TYPE_CHECKING:
    from feedrank.models.training.ranker import LambdaRankSettings

PARAMETER = "label_gain"
"""LightGBM's parameter, a list of the gains of labels 0, 1, 2, and so on."""


def with_label_gain(
    ranker: LambdaRankSettings, labels: LabelSettings, parts: Sequence[QueryGroups]
) -> LambdaRankSettings:
    """Give LightGBM the gains of the labels in these groups, unless `ranker.parameters` sets them.

    Labels 0 and 1 need none, since their nDCG is the same under all gains. Raises ValueError if a label has no gain.
    """
    highest = max((int(part.labels.max(initial=0)) for part in parts), default=0)
    if highest <= 1 or PARAMETER in ranker.parameters:
        return ranker
    by_label = gains(np.arange(highest + 1), labels.label_gain).tolist()
    return replace(ranker, parameters=dict(ranker.parameters) | {PARAMETER: by_label})


def gain_of(parameters: Mapping[str, Any]) -> Gain:
    """Return the gain that LightGBM's parameters set: numbers, or numbers in a text; 2^label - 1 without."""
    listed = parameters.get(PARAMETER, "exponential")
    return [float(part) for part in listed.split(",")] if isinstance(listed, str) and "," in listed else listed
