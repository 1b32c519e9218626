"""Lift by what a unit is like, corrected for the many places that were looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.experiments.correction import Method, corrected
from models.experiments.lift import Lift, lifts
from models.experiments.outcomes import Metric, Outcomes


@dataclass(frozen=True, slots=True)
class SegmentLift:
    """The lift of an arm among the units with one value of a segment."""

    segment: str
    value: str
    lift: Lift
    corrected_p: float
    """Over all values, segments and arms that were looked at together; NaN where there is no p-value."""


def by_segment(
    outcomes: Outcomes,
    metric: Metric,
    *,
    names: Sequence[str] = (),
    alpha: float = 0.05,
    method: Method = "benjamini-hochberg",
    cuped: bool = False,
    most: int = 20,
) -> tuple[SegmentLift, ...]:
    """One lift a segment, value and arm; of each segment the `most` values that have the most units with rows.

    names: which segments; none: all. The intervals are those of one look; only p-values are corrected.
    """
    for name in names:
        if name not in outcomes.segments:
            there = ", ".join(outcomes.segments) or "none"
            raise ValueError(f"found no segment {name!r}, expected one of: {there}")
    seen = np.bincount(outcomes.unit, minlength=len(outcomes.arm_of)) > 0
    found: list[tuple[str, str, Lift]] = []
    for name in names or outcomes.segments:
        values = outcomes.segments[name]
        distinct, counts = np.unique(values[seen], return_counts=True)
        for value in distinct[np.argsort(-counts, kind="stable")[:most]].tolist():
            within = lifts(outcomes.only(values == value), metric, alpha=alpha, cuped=cuped)
            found.extend((name, value, lift) for lift in within)
    adjusted = corrected([lift.p for _, _, lift in found], method).tolist()
    return tuple(
        SegmentLift(name, value, lift, p) for (name, value, lift), p in zip(found, adjusted, strict=True)
    )  # fmt: skip
