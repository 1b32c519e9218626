"""Which of the items that were shown an interaction answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.log import Log

CLICK = "click"


def answered(log: Log) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(I,) the place of each interaction's item among all items shown, and (I,) whether it was shown there at all.

    The log's items must hold every item that was shown.
    """
    shown, touched = log.rankings, log.interactions
    if not len(shown.rows):
        return np.full(len(touched), -1), np.zeros(len(touched), np.bool_)
    ranking = np.repeat(np.arange(len(shown)), np.diff(shown.offsets))
    width = np.int64(len(shown.rows) + len(touched) + 1)  # more than there are items
    keys = ranking * width + shown.rows
    order = np.argsort(keys, kind="stable")
    wanted = touched.ranking * width + touched.item
    found = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    place = order[found]
    return place, (touched.ranking >= 0) & (touched.item >= 0) & (keys[place] == wanted)


def clicked(log: Log, type: str = CLICK) -> NDArray[np.bool_]:
    """(S,) which of the items shown were answered by an interaction of a type."""
    place, answers = answered(log)
    made = np.zeros(len(log.rankings.rows), np.bool_)
    made[place[answers & (log.interactions.type == log.types.row(type))]] = True
    return made
