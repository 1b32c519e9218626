"""Popularity and click-through rates (CTR) from decayed counters of the item, its categories and the catalogue."""

from __future__ import annotations

import numpy as np

from feedrank.engine.types import Batch, Matrix, Offsets, Scores
from feedrank.features.custom_counters import half_life_label
from feedrank.features.jit import jit
from feedrank.features.kernel import COUNTER_KINDS
from feedrank.features.state import ENTITIES, StateSpec

SMOOTHING = 10.0
"""Prior of a click-through rate: number of impressions at the average rate."""


def rates(batch: Batch, spec: StateSpec) -> dict[str, Scores]:
    """Compute counts, smoothed click-through rates and clicks over expected clicks (COEC): name -> (N,).

    An impression in a list of n items expects (mean clicks per list) / n clicks, so that short lists have no advantage
    (after COEC: Zhang & Jones, Comparing click logs and editorial labels, 2007).
    """
    halves = spec.half_lives_h
    names = [name.format(half_life_label(half)) for half in halves for name in _NAMES_PER_HALF_LIFE]
    names += ["popularity_pre_log", "impressions_trend", "popularity_trend"]
    day, week = _nearest_index(halves, 24), _nearest_index(halves, 168)
    out = np.empty((len(batch.rows), len(names)), np.float32)
    first = np.array([[spec.counter_column(entity, kind, halves[0]) for kind in COUNTER_KINDS] for entity in ENTITIES])
    _rates(batch.counters, first, halves.index(min(halves)), halves.index(max(halves)), day, week, out)
    return {name: out[:, i] for i, name in enumerate(names)}


_NAMES_PER_HALF_LIFE = (
    "popularity_{}", "impressions_{}", "ctr_{}", "item_clicks_over_expected_{}", "category_clicks_over_expected_{}",
)  # fmt: skip


def _nearest_index(half_lives_h: tuple[float, ...], hours: float) -> int:
    """Return the index of the half-life that is nearest to the given hours."""
    return int(np.argmin([abs(half - hours) for half in half_lives_h]))


@jit
def _rates(
    counters: Matrix, first_column: Offsets, shortest: int, longest: int, day: int, week: int, out: Matrix
) -> None:
    """Fill `out`; first_column: (entities, kinds) index of each counter's first half-life, the others follow it."""
    one, smoothing = np.float32(1), np.float32(SMOOTHING)
    halves = (out.shape[1] - 3) // 5
    for n in range(len(counters)):
        row = counters[n]
        for half in range(halves):
            impressions, clicks = row[first_column[0, 0] + half], row[first_column[0, 2] + half]
            all_impressions, all_clicks = row[first_column[2, 0] + half], row[first_column[2, 2] + half]
            average = (all_clicks + one) / (all_impressions + np.float32(20))
            # add-one smoothing: an empty log has no clicks per list
            clicks_per_list = (all_clicks + one) / (row[first_column[2, 1] + half] + one)
            column = half * 5
            out[n, column] = np.log1p(clicks)
            out[n, column + 1] = np.log1p(impressions)
            out[n, column + 2] = (clicks + smoothing * average) / (impressions + smoothing)
            for entity in range(2):
                weight = one if entity == 0 else np.float32(3)
                expected = row[first_column[entity, 1] + half] * clicks_per_list
                out[n, column + 3 + entity] = (row[first_column[entity, 2] + half] + weight) / (expected + weight)
        column = halves * 5
        out[n, column] = np.log1p(row[first_column[0, 3] + longest])
        out[n, column + 1] = (row[first_column[0, 0] + shortest] + np.float32(0.2)) / (
            row[first_column[0, 0] + day] + one
        )
        out[n, column + 2] = out[n, week * 5] - out[n, longest * 5]
