"""Popularity and click-through from the decayed counters of the item, of its categories and of everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import Batch, Scores
from features.state import StateSpec

SMOOTHING = 10.0
"""Impressions' worth of the average click-through that every rate starts with."""


def rates(batch: Batch, spec: StateSpec) -> dict[str, NDArray[Any]]:
    """Name -> (N,) counts, smoothed click-through, and clicks over what a random order would have had.

    `clicks_over_expected` counts 1 / (list length) x (clicks a list) for each time shown, so that short lists do not
    flatter (in the manner of COEC: Zhang & Jones, Comparing click logs and editorial labels, 2007).
    """
    columns: dict[str, NDArray[Any]] = {}

    def count(entity: str, kind: str, half: float) -> Scores:
        return batch.counters[:, spec.column(entity, kind, half)]

    for half in spec.half_lives_h:
        tag = label(half)
        touched, shown = count("item", "touched", half), count("item", "shown", half)
        all_touched, all_shown = count("all", "touched", half), count("all", "shown", half)
        columns[f"popularity_{tag}"] = np.log1p(touched)
        columns[f"shown_{tag}"] = np.log1p(shown)
        average = (all_touched + 1) / (all_shown + 20)
        columns[f"ctr_{tag}"] = (touched + SMOOTHING * average) / (shown + SMOOTHING)
        # an empty log has no clicks a list: one stands in
        clicks_a_list = (all_touched + 1) / (count("all", "share", half) + 1)
        for entity, weight in (("item", 1.0), ("category", 3.0)):
            expected = count(entity, "share", half) * clicks_a_list
            columns[f"{entity}_clicks_over_expected_{tag}"] = (count(entity, "touched", half) + weight) / (
                expected + weight
            )
    shortest, longest = min(spec.half_lives_h), max(spec.half_lives_h)
    columns["popularity_history"] = np.log1p(count("item", "prior", longest))
    day = min(spec.half_lives_h, key=lambda half: abs(half - 24))
    columns["shown_trend"] = (count("item", "shown", shortest) + 0.2) / (count("item", "shown", day) + 1)
    week = min(spec.half_lives_h, key=lambda half: abs(half - 168))
    columns["popularity_trend"] = columns[f"popularity_{label(week)}"] - columns[f"popularity_{label(longest)}"]
    return columns


def label(half_life_h: float) -> str:
    """A half-life as it stands in feature names: 6h, 7d, all."""
    if np.isinf(half_life_h):
        return "all"
    return f"{half_life_h / 24:g}d" if half_life_h >= 48 else f"{half_life_h:g}h"
