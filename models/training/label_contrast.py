"""The contrast of labels: a ranker learns, and a metric tells orders apart, only where labels of a ranking differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Offsets
from feedrank.models.training.labels import LabelSettings, impression_labels


def missing_contrast(log: EventTable, labels: NDArray[np.float32]) -> str:
    """Return why no ranking has items with different labels, and what to do; empty if one has, or without rankings.

    labels: (N,) one per impression, as `impression_labels` returns them.
    """
    rankings = log.rankings
    known = rankings.items >= 0
    groups = np.repeat(np.arange(len(rankings)), np.diff(rankings.offsets))[known]
    if not len(rankings) or _has_contrast(labels[known], groups, len(rankings)).any():
        return ""
    logged = rankings.labels[~np.isnan(rankings.labels)]
    count = f"the {len(rankings):,} rankings"
    if len(logged) and logged.min() == logged.max():
        return (
            f"every one of the {len(logged):,} logged labels is {logged[0]:g}, so they do not tell which items are "
            "better; log 0 for the items that were shown only, and more for better ones, or leave the labels out: then "
            "they come from interactions"
        )
    if not np.bincount(groups, minlength=1).max() > 1:
        return (
            f"none of {count} has two items of the catalogue, so there is nothing to rank; load the items, or rankings"
        )
    if not (labels > 0).any():
        cause = (
            "a logged label above 0" if len(logged) else "a logged label or an interaction with an item that it shows"
        )
        return (
            f"none of {count} has {cause}; load the interactions that followed them, with the ranking's id or its user"
        )
    if len(logged):
        return (
            f"in each of {count} every item has the same label, so labels do not tell which items are better; log one "
            "label for each item, or leave the labels out: then they come from interactions"
        )
    types = log.interactions.type[(log.interactions.ranking >= 0)]
    names = ", ".join(sorted(log.types.name(int(code)) for code in np.unique(types)))
    return (
        f"every item of {count} with an interaction has one (types: {names}), so labels do not tell which items are "
        "better; is one of the types an impression? Load rankings with all items that were shown"
    )


def check_contrast(log: EventTable, settings: LabelSettings) -> None:
    """Raise ValueError with the cause if the rankings of a log have no items with different labels."""
    if problem := missing_contrast(log, impression_labels(log, settings)):
        raise ValueError(problem)


def label_notes(log: EventTable, settings: LabelSettings) -> tuple[str, ...]:
    """Return what was done with the labels of a log, and what makes its metrics say little; one sentence each."""
    rankings = log.rankings
    if not len(rankings.items):
        return ()
    labels = impression_labels(log, settings)
    notes = [settings.grading(log).note, missing_contrast(log, labels)]
    known = rankings.items >= 0
    if unknown := int((labels[~known] > 0).sum()):
        notes.append(
            f"{unknown:,} of {(labels > 0).sum():,} relevant impressions are of items that the catalogue lacks; "
            "metrics count them as missed"
        )
    groups = np.repeat(np.arange(len(rankings)), np.diff(rankings.offsets))
    positive = np.bincount(groups[labels > 0], minlength=len(rankings)) > 0
    binary = _has_contrast((labels >= settings.relevance_level)[known], groups[known], len(rankings))
    if positive.any() and (share := 1 - binary[positive].mean()) > 0.5 and not notes[1]:
        notes.append(
            f"in {share:.0%} of the rankings with a label above 0, all or none of the items have at least the label "
            f"{settings.relevance_level}; MRR, MAP and AUC say little there: set labels.relevance_level"
        )
    return tuple(note for note in notes if note)


def _has_contrast(labels: NDArray[Any], groups: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return (count,) True for groups whose labels are not all equal; groups: (N,) the group of each label."""
    lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(lowest, groups, labels)
    np.maximum.at(highest, groups, labels)
    return highest > lowest


def above_lowest(labels: NDArray[Any], offsets: Offsets) -> NDArray[np.bool_]:
    """Return (N,) True for labels above the lowest of their group; graded labels may start at 1."""
    groups = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    lowest = np.full(len(offsets) - 1, np.inf)
    np.minimum.at(lowest, groups, labels)
    return np.asarray(labels > lowest[groups])
