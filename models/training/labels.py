"""Compute the label of each impression: its logged label, or one from the interactions joined to its ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import check_range
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.interaction_types import HISTORY_TYPE
from feedrank.models.evaluation.gains import Gain
from feedrank.models.training.logged_labels import MAX_GRADE, LabelGrading, grade_labels


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """[labels] How logged labels and interactions become labels, and what a label is worth.

    By default any positive interaction gives label 1. What a type means, and its weight, is said in [interactions].
    """

    value_weighted: tuple[str, ...] = ()
    """Interaction types whose weight is multiplied by the interaction's value, such as a rating."""
    dwell_saturation_s: Mapping[str, float] = field(default_factory=dict)
    """Dwell time per interaction type that gives the full weight; less gives its share, an unknown dwell all of it."""
    grade_thresholds: tuple[float, ...] = (0.0,)
    """Thresholds of the label: it is how many of them the summed weight exceeds. [0.0, 2.0] gives labels 0, 1 and 2."""
    logged_thresholds: tuple[float, ...] = ()
    """Thresholds of labels that were logged with a ranking: the label is how many of them the logged one exceeds. Not
    set: whole numbers up to 30 stay as they are, negative ones are 0. If a logged label has a fraction or is above 30,
    up to 30 different values above 0 get one label each, in their order; more values are cut at quantiles."""
    quantile_grades: int = 10
    """Number of labels above 0 that these quantiles give, 1 to 30. Unit: labels."""
    gain: Literal["linear", "exponential"] = "linear"
    """Gain of a label in nDCG: linear (the label) or exponential (2^label - 1). Training optimises the same nDCG."""
    gains: tuple[float, ...] = ()
    """Gains of labels 0, 1, 2, and so on, instead of `gain`, such as [0, 1, 5, 20]. The first must be 0."""
    relevance_level: int = 1
    """Lowest label that is relevant to the binary metrics: MRR, MAP, HR, recall and AUC."""
    examination_window: int | None = None
    """Impressions more than this many positions below the last one with an event, be it an impression event, are left
    out of training, as the user may not have examined them. Not set: all stay. It needs logged positions.
    Unit: positions."""

    def __post_init__(self) -> None:
        if (
            not self.grade_thresholds
            or list(self.grade_thresholds) != sorted(set(self.grade_thresholds))
            or self.grade_thresholds[0] < 0
        ):
            raise ValueError(
                f"grade_thresholds is {self.grade_thresholds}; expected rising numbers, the first at least 0"
            )
        if list(self.logged_thresholds) != sorted(set(self.logged_thresholds)):
            raise ValueError(f"logged_thresholds is {self.logged_thresholds}; expected rising numbers")
        for name in ("grade_thresholds", "logged_thresholds"):
            if len(getattr(self, name)) > MAX_GRADE:
                raise ValueError(f"found {len(getattr(self, name))} {name}, expected at most {MAX_GRADE}")
        check_range("quantile_grades", self.quantile_grades, 1, MAX_GRADE)
        check_range("relevance_level", self.relevance_level, 1, MAX_GRADE)
        if self.gains and (self.gains[0] != 0 or list(self.gains) != sorted(self.gains) or self.gains[-1] <= 0):
            raise ValueError(f"gains is {self.gains}; expected 0, then numbers that do not fall, the last above 0")
        if any(seconds <= 0 for seconds in self.dwell_saturation_s.values()):
            raise ValueError(f"dwell_saturation_s is {dict(self.dwell_saturation_s)}; expected seconds above 0")
        if self.examination_window is not None and self.examination_window < 0:
            raise ValueError(f"examination_window is {self.examination_window}; expected at least 0")

    @property
    def label_gain(self) -> Gain:
        """Return the gain of nDCG: `gains` if there are any, otherwise `gain`."""
        return self.gains or self.gain

    def grading(self, log: EventTable) -> LabelGrading:
        """Return how the logged labels of a log become grades."""
        return grade_labels(log.rankings.labels, self.logged_thresholds, self.quantile_grades)


def impression_labels(log: EventTable, settings: LabelSettings | None = None) -> NDArray[np.float32]:
    """Return (impressions,) one label per impression: the grade of the logged one, or else from its interactions.

    Without interactions it is 0. Interactions count for the ranking they are joined to, with the weight of their type.
    Per item, take the largest absolute weight within each type, so that double clicks count once; sum over types; map
    the sum to a grade.
    """
    settings = settings or LabelSettings()
    rankings = log.rankings
    weight_sums = np.zeros(len(rankings.items))
    impressions, interactions = _joined_interactions(log)
    if len(impressions):
        weights = _interaction_weights(log, settings)[interactions]
        types = log.interactions.type[interactions].astype(np.int64)
        # of each (impression, type) keep the largest weight: the last in order of |weight|
        order = np.lexsort((np.abs(weights), types, impressions))
        last = np.append((np.diff(impressions[order]) != 0) | (np.diff(types[order]) != 0), True)
        best = order[last]
        np.add.at(weight_sums, impressions[best], weights[best])
    label_of_weights = np.searchsorted(np.array(settings.grade_thresholds), weight_sums, side="left")
    logged = settings.grading(log).grades(rankings.labels)
    return np.where(np.isnan(rankings.labels), label_of_weights, logged).astype(np.float32)


def examined_mask(log: EventTable, window: int | None) -> NDArray[np.bool_]:
    """Return (impressions,) False for items more than `window` positions below the last item with an event.

    An event of any type shows that the user came so far. All True for rankings without events or without logged
    positions: there examination can't be inferred.
    """
    rankings = log.rankings
    if window is None:
        return np.ones(len(rankings.items), np.bool_)
    ranking_of = np.repeat(np.arange(len(rankings)), np.diff(rankings.offsets))
    last = np.full(len(rankings), -1)
    interacted, _ = _joined_interactions(log)
    positive = np.flatnonzero(np.nan_to_num(rankings.labels) > 0)
    for impressions in (interacted, positive):
        np.maximum.at(last, ranking_of[impressions], rankings.positions[impressions])
    last_position = last[ranking_of]
    return (last_position < 1) | (rankings.positions < 1) | (rankings.positions <= last_position + window)


def _joined_interactions(log: EventTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the flat indices of impressions with an interaction, and the index of each such interaction."""
    rankings, events = log.rankings, log.interactions
    shown, interacted = log.item_codes()  # items that the catalogue lacks have labels too
    candidates = np.flatnonzero(
        (events.ranking >= 0) & (interacted >= 0) & (events.type != log.types.row(HISTORY_TYPE))
    )
    if not len(candidates) or not len(rankings.items):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    width = max(shown.max(), interacted.max()) + 2
    ranking_of = np.repeat(np.arange(len(rankings), dtype=np.int64), np.diff(rankings.offsets))
    keys = ranking_of * width + shown + 1
    order = np.argsort(keys, kind="stable")
    wanted_keys = events.ranking[candidates] * width + interacted[candidates] + 1
    at = np.searchsorted(keys[order], wanted_keys)
    matches = order[np.minimum(at, len(order) - 1)]
    is_match = (at < len(order)) & (keys[matches] == wanted_keys)
    return matches[is_match].astype(np.int64), candidates[is_match]


def _interaction_weights(log: EventTable, settings: LabelSettings) -> NDArray[np.float64]:
    """Return (interactions,) the weight of each interaction."""
    interactions, columns = log.interactions, log.meaning_columns()
    names, weights = list(log.types), columns.weight
    is_value_weighted = np.array([name in settings.value_weighted for name in names], np.bool_)[interactions.type]
    is_value_weighted &= ~np.isnan(interactions.value) & ~columns.is_below
    weights = np.where(is_value_weighted, weights * interactions.value, weights)
    saturation_s = np.array([settings.dwell_saturation_s.get(name, np.nan) for name in names], np.float64)[
        interactions.type
    ]
    dwell_share = np.clip(interactions.dwell_s / saturation_s, 0, 1)
    return np.where(np.isnan(dwell_share), weights, weights * dwell_share)
