"""Joins interactions to the impressions that they belong to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable

CLICK = "click"


def match_impressions(log: EventTable) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Match each of I interactions to an impression of the ranking that it names.

    Returns (I,) the impression's index among all impressions, and (I,) whether there is a match; without one the index
    means nothing. The log's item vocabulary must hold every item that was shown.
    """
    rankings, interactions = log.rankings, log.interactions
    if not len(rankings.items):
        return np.full(len(interactions), -1), np.zeros(len(interactions), np.bool_)
    ranking = np.repeat(np.arange(len(rankings)), np.diff(rankings.offsets))
    width = np.int64(len(rankings.items) + len(interactions) + 1)  # more than there are items
    keys = ranking * width + rankings.items
    order = np.argsort(keys, kind="stable")
    wanted = interactions.ranking * width + interactions.item
    nearest = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    impression = order[nearest]
    return impression, (interactions.ranking >= 0) & (interactions.item >= 0) & (keys[impression] == wanted)


def clicked_impressions(log: EventTable, interaction_type: str = CLICK) -> NDArray[np.bool_]:
    """(S,) True for impressions with an interaction of this type."""
    impression, is_matched = match_impressions(log)
    is_clicked = np.zeros(len(log.rankings.items), np.bool_)
    is_clicked[impression[is_matched & (log.interactions.type == log.types.row(interaction_type))]] = True
    return is_clicked
