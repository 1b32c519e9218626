"""Holds the outcomes of an experiment per unit and day: the columns that every readout is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows

MetricKind = Literal["mean", "ratio", "unit-ratio"]
BUILT_IN_COLUMNS = ("rankings", "impressions", "clicks", "clicked_rankings", "reciprocal_rank", "dwell_s")
"""Columns that every log provides: rankings, impressions, clicks on them, rankings with a click, the sum over rankings
of 1/position of the first click, and the dwell time on clicked items in seconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Defines one number per arm: a column of the outcomes, or the ratio of two columns."""

    name: str
    numerator: str
    denominator: str | None = None
    """None: the mean of the numerator over units."""
    per_unit: bool = False
    """With a denominator: True is the mean over units of their own ratios, False the ratio of the sums."""
    higher_is_better: bool = True

    @property
    def kind(self) -> MetricKind:
        """The kind of estimator that the metric needs."""
        if self.denominator is None:
            return "mean"
        return "unit-ratio" if self.per_unit else "ratio"


BUILT_IN_METRICS = (
    Metric("ctr", "clicks", "impressions"),
    Metric("ctr_per_unit", "clicks", "impressions", per_unit=True),
    Metric("clicks_per_ranking", "clicks", "rankings"),
    Metric("clicks_per_unit", "clicks"),
    Metric("clicked_share", "clicked_rankings", "rankings"),
    Metric("mrr", "reciprocal_rank", "rankings"),
    Metric("dwell_per_ranking", "dwell_s", "rankings"),
    Metric("rankings_per_unit", "rankings"),
)
"""Built-in metrics, which need not be declared."""


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """Holds M rows, one for each unit and day with a ranking, of U units in A arms; in order of day.

    Raises ValueError if the columns differ in length.
    """

    arms: tuple[str, ...]
    """The names of the codes in `arm_of`; the first is the control."""
    arm_of: NDArray[np.int32]
    """(U,)"""
    unit: Rows
    """(M,) in [0, U)."""
    day: NDArray[np.int32]
    """(M,) from 0, the day of the start."""
    columns: Mapping[str, NDArray[np.float64]]
    """Name -> (M,): `BUILT_IN_COLUMNS` and the custom metrics."""
    pre_period: Mapping[str, NDArray[np.float64]]
    """Name -> (U,): the same columns, summed over the pre-period, before the experiment; may be empty."""
    segments: Mapping[str, NDArray[np.str_]]
    """Name of a property of units, such as `surface` -> (U,) values; may be empty."""

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.unit):
                raise ValueError(f"column {name} has {len(column)} rows, expected {len(self.unit)}")
        if len(self.unit) != len(self.day):
            raise ValueError(f"{len(self.unit)} units but {len(self.day)} days")

    @property
    def days(self) -> int:
        """The number of days."""
        return int(self.day.max()) + 1 if len(self.day) else 0

    @property
    def units(self) -> NDArray[np.int64]:
        """(A,) the number of units of each arm."""
        return np.bincount(self.arm_of, minlength=len(self.arms))

    def until_day(self, day: int) -> Outcomes:
        """Return the outcomes as they were at the end of a day; units that came later have no rows."""
        return self._with_rows(self.day <= day)

    def select_units(self, units: NDArray[np.bool_]) -> Outcomes:
        """Return the rows of these units; units: (U,). Unit indexes do not change."""
        return self._with_rows(units[self.unit])

    def unit_totals(self, name: str) -> NDArray[np.float64]:
        """(U,) sums of a column over the days; NaN for units without rows."""
        seen = np.bincount(self.unit, minlength=len(self.arm_of)) > 0
        total = np.bincount(self.unit, self.columns[name], minlength=len(self.arm_of))
        return np.where(seen, total, np.nan)

    def _with_rows(self, kept: NDArray[np.bool_]) -> Outcomes:
        return Outcomes(
            self.arms, self.arm_of, self.unit[kept], self.day[kept],
            {name: column[kept] for name, column in self.columns.items()}, self.pre_period, self.segments,
        )  # fmt: skip


def find_metric(name: str, custom: Sequence[Metric] = ()) -> Metric:
    """Find a metric by its name. Raises ValueError that lists the names there are."""
    metrics = {metric.name: metric for metric in (*BUILT_IN_METRICS, *custom)}
    if name not in metrics:
        raise ValueError(f"found the metric {name!r}, expected one of {', '.join(metrics)}, or one that is declared")
    return metrics[name]
