"""Puts each interaction after the ranking that it belongs to, whatever the clocks of both say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Times


@dataclass(frozen=True, eq=False, slots=True)
class Placement:
    """The order of I interactions and R rankings in which no interaction stands before its ranking."""

    index: NDArray[np.int64]
    """(I,) index of each interaction, in the new order."""
    at: Times
    """(I,) unix seconds of the interactions in the new order; of a moved one the later of its own and its ranking's."""
    is_ranking: NDArray[np.bool_]
    """(I + R,) in the new order."""
    moved: int
    """Number of interactions that stood before their ranking."""


def place_after_rankings(
    at: Times,
    ranking: NDArray[np.int64],
    ranking_at: Times,
    is_ranking: NDArray[np.bool_],
    is_imported: NDArray[np.bool_],
) -> Placement | None:
    """Move each interaction that stands before its ranking to right after it; all others keep their order.

    Rankings are never moved: their times come from servers, those of interactions from clients. Imported events of one
    time have no order but that of their files, so there each interaction directly follows its ranking: a log whose
    times are days then reads as it was written, in whichever order its files were imported.

    at: (I,) unix seconds of the interactions, in order. ranking: (I,) index of the ranking of each, -1: none.
    ranking_at: (R,) unix seconds. is_ranking, is_imported: (I + R,) of all events, in order. None: nothing changes.
    """
    joined = np.flatnonzero(ranking >= 0)
    own = ranking[joined]
    position, target = np.flatnonzero(~is_ranking)[joined], np.flatnonzero(is_ranking)[own]
    is_before = position < target
    is_tied = (at[joined] == ranking_at[own]) & is_imported[position] & is_imported[target]
    is_placed = is_before | is_tied
    if not is_placed.any():
        return None
    keys = 2 * np.arange(len(is_ranking), dtype=np.int64)
    keys[position[is_placed]] = 2 * target[is_placed] + 1
    if np.all(keys[1:] >= keys[:-1]):
        return None
    order = np.argsort(keys, kind="stable")
    later = at.copy()
    later[joined[is_before]] = np.maximum(at[joined[is_before]], ranking_at[own[is_before]])
    index = (np.cumsum(~is_ranking) - 1)[order][~is_ranking[order]]
    return Placement(index, later[index], is_ranking[order], int(is_before.sum()))
