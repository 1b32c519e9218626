"""What the units of an experiment did, day by day: the columns that every readout is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.types import Rows

Kind = Literal["mean", "ratio", "unit-ratio"]
COUNTS = ("rankings", "impressions", "clicks", "clicked_rankings", "reciprocal", "dwell_s")
"""Columns that every log gives: rankings shown, items shown in them, clicks on these, rankings with a click, the sum
of 1/position of each ranking's first click in the order shown, and seconds that clicked items were looked at."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number an arm: a column of the outcomes, or one over another."""

    name: str
    numerator: str
    denominator: str | None = None
    """None: the mean of the numerator over units."""
    per_unit: bool = False
    """With a denominator: the mean over units of their own ratios; otherwise the ratio of the sums."""
    higher_is_better: bool = True

    @property
    def kind(self) -> Kind:
        """Which estimator it is."""
        if self.denominator is None:
            return "mean"
        return "unit-ratio" if self.per_unit else "ratio"


METRICS = (
    Metric("ctr", "clicks", "impressions"),
    Metric("ctr_per_unit", "clicks", "impressions", per_unit=True),
    Metric("clicks_per_ranking", "clicks", "rankings"),
    Metric("clicks_per_unit", "clicks"),
    Metric("clicked_share", "clicked_rankings", "rankings"),
    Metric("mrr", "reciprocal", "rankings"),
    Metric("dwell_per_ranking", "dwell_s", "rankings"),
    Metric("rankings_per_unit", "rankings"),
)
"""Those that need not be declared."""


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """M rows, one a unit and day on which it was shown something, of U units in A arms; in order of day."""

    arms: tuple[str, ...]
    """The names behind `arm_of`; the first is the one that others are compared with."""
    arm_of: NDArray[np.int32]
    """(U,)"""
    unit: Rows
    """(M,) in [0, U)."""
    day: NDArray[np.int32]
    """(M,) from 0, the day of the start."""
    columns: Mapping[str, NDArray[np.float64]]
    """Name -> (M,): `COUNTS`, and what was declared."""
    before: Mapping[str, NDArray[np.float64]]
    """Name -> (U,): the same columns, summed over the time before the unit was first shown anything; may be empty."""
    segments: Mapping[str, NDArray[np.str_]]
    """What a unit is like, such as `surface` -> (U,) values; may be empty."""

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.unit):
                raise ValueError(f"column {name} has {len(column)} rows, expected {len(self.unit)}")
        if len(self.unit) != len(self.day):
            raise ValueError(f"{len(self.unit)} units but {len(self.day)} days")

    @property
    def days(self) -> int:
        """How many days there are."""
        return int(self.day.max()) + 1 if len(self.day) else 0

    @property
    def units(self) -> NDArray[np.int64]:
        """(A,) units of each arm."""
        return np.bincount(self.arm_of, minlength=len(self.arms))

    def until(self, day: int) -> Outcomes:
        """As they were at the end of a day; units that were first shown something later have no rows."""
        return self._with_rows(self.day <= day)

    def only(self, units: NDArray[np.bool_]) -> Outcomes:
        """The rows of these units, (U,); numbers of units stay."""
        return self._with_rows(units[self.unit])

    def per_unit(self, name: str) -> NDArray[np.float64]:
        """(U,) a column summed over the days; NaN for units without rows."""
        seen = np.bincount(self.unit, minlength=len(self.arm_of)) > 0
        total = np.bincount(self.unit, self.columns[name], minlength=len(self.arm_of))
        return np.where(seen, total, np.nan)

    def _with_rows(self, kept: NDArray[np.bool_]) -> Outcomes:
        return Outcomes(
            self.arms, self.arm_of, self.unit[kept], self.day[kept],
            {name: column[kept] for name, column in self.columns.items()}, self.before, self.segments,
        )  # fmt: skip


def metric_named(name: str, declared: Sequence[Metric] = ()) -> Metric:
    """A metric by its name. Raises ValueError with the names that there are."""
    known = {one.name: one for one in (*METRICS, *declared)}
    if name not in known:
        raise ValueError(f"found the metric {name!r}, expected one of {', '.join(known)}, or one that is declared")
    return known[name]
