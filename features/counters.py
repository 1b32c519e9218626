"""Popularity and click-through from the decayed counters of the item, of its categories and of everything."""

from __future__ import annotations

import numpy as np

from engine.types import Batch, Matrix, Offsets, Scores
from features.compiled import compiled
from features.declared import label
from features.kernel import KINDS
from features.state import ENTITIES, StateSpec

SMOOTHING = 10.0
"""Impressions' worth of the average click-through that every rate starts with."""


def rates(batch: Batch, spec: StateSpec) -> dict[str, Scores]:
    """Name -> (N,) counts, smoothed click-through, and clicks over what a random order would have had.

    `clicks_over_expected` counts 1 / (list length) x (clicks a list) for each time shown, so that short lists do not
    flatter (in the manner of COEC: Zhang & Jones, Comparing click logs and editorial labels, 2007).
    """
    halves = spec.half_lives_h
    names = [name.format(label(half)) for half in halves for name in _A_HALF_LIFE]
    names += ["popularity_history", "shown_trend", "popularity_trend"]
    day, week = _nearest(halves, 24), _nearest(halves, 168)
    out = np.empty((len(batch.rows), len(names)), np.float32)
    first = np.array([[spec.column(entity, kind, halves[0]) for kind in KINDS] for entity in ENTITIES])
    _rates(batch.counters, first, halves.index(min(halves)), halves.index(max(halves)), day, week, out)
    return {name: out[:, place] for place, name in enumerate(names)}


_A_HALF_LIFE = (
    "popularity_{}", "shown_{}", "ctr_{}", "item_clicks_over_expected_{}", "category_clicks_over_expected_{}",
)  # fmt: skip


def _nearest(halves: tuple[float, ...], hours: float) -> int:
    """The place of the half-life that is nearest to so many hours."""
    return int(np.argmin([abs(half - hours) for half in halves]))


@compiled
def _rates(counters: Matrix, first: Offsets, shortest: int, longest: int, day: int, week: int, out: Matrix) -> None:
    """first: (entities, kinds) the column of each one's first half-life; the others follow it."""
    one, smoothing = np.float32(1), np.float32(SMOOTHING)
    halves = (out.shape[1] - 3) // 5
    for n in range(len(counters)):
        row = counters[n]
        for half in range(halves):
            shown, touched = row[first[0, 0] + half], row[first[0, 2] + half]
            all_shown, all_touched = row[first[2, 0] + half], row[first[2, 2] + half]
            average = (all_touched + one) / (all_shown + np.float32(20))
            # an empty log has no clicks a list: one stands in
            clicks_a_list = (all_touched + one) / (row[first[2, 1] + half] + one)
            at = half * 5
            out[n, at] = np.log1p(touched)
            out[n, at + 1] = np.log1p(shown)
            out[n, at + 2] = (touched + smoothing * average) / (shown + smoothing)
            for entity in range(2):
                weight = one if entity == 0 else np.float32(3)
                expected = row[first[entity, 1] + half] * clicks_a_list
                out[n, at + 3 + entity] = (row[first[entity, 2] + half] + weight) / (expected + weight)
        at = halves * 5
        out[n, at] = np.log1p(row[first[0, 3] + longest])
        out[n, at + 1] = (row[first[0, 0] + shortest] + np.float32(0.2)) / (row[first[0, 0] + day] + one)
        out[n, at + 2] = out[n, week * 5] - out[n, longest * 5]
