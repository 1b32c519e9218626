"""Computes lifts by segment of units, with p-values corrected for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feedrank.engine.experiments.analysis_plan import CorrectionMethod
from feedrank.models.experiments.lift import Lift, lifts
from feedrank.models.experiments.outcomes import Metric, Outcomes
from feedrank.models.experiments.p_value_correction import adjust_p_values


@dataclass(frozen=True, slots=True)
class SegmentLift:
    """Holds the lift of an arm among the units with one value of a segment."""

    segment: str
    value: str
    lift: Lift
    adjusted_p: float
    """p corrected over all values, segments and arms that were compared together; NaN: there is no p-value."""


def segment_lifts(
    outcomes: Outcomes,
    metric: Metric,
    *,
    segments: Sequence[str] = (),
    alpha: float = 0.05,
    method: CorrectionMethod = "benjamini-hochberg",
    cuped: bool = False,
    max_values: int = 20,
) -> tuple[SegmentLift, ...]:
    """Compute one lift for each segment, value and arm.

    segments: names; empty: all. max_values: of each segment, only this many values with the most units are compared.
    Intervals are fixed-horizon; only p-values are corrected. Raises ValueError for an unknown segment.
    """
    for name in segments:
        if name not in outcomes.segments:
            available = ", ".join(outcomes.segments) or "none"
            raise ValueError(f"found no segment {name!r}, expected one of: {available}")
    seen = np.bincount(outcomes.unit, minlength=len(outcomes.arm_of)) > 0
    results: list[tuple[str, str, Lift]] = []
    for name in segments or outcomes.segments:
        values = outcomes.segments[name]
        distinct, counts = np.unique(values[seen], return_counts=True)
        for value in distinct[np.argsort(-counts, kind="stable")[:max_values]].tolist():
            value_lifts = lifts(outcomes.select_units(values == value), metric, alpha=alpha, cuped=cuped)
            results.extend((name, value, lift) for lift in value_lifts)
    adjusted = adjust_p_values([lift.p for _, _, lift in results], method).tolist()
    return tuple(
        SegmentLift(name, value, lift, p) for (name, value, lift), p in zip(results, adjusted, strict=True)
    )  # fmt: skip
