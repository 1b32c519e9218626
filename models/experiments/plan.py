"""What is fixed before an experiment begins: what decides, what must not get worse, and how long it runs."""

from __future__ import annotations

from dataclasses import dataclass

from models.experiments.correction import Method
from models.experiments.outcomes import METRICS, Metric, metric_named
from models.experiments.sequential import LEAST_ACTIVE, LEAST_UNITS


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A metric that must not get much worse."""

    metric: str
    worst: float
    """The relative change for the worse that is still borne, such as 0.02."""

    def __post_init__(self) -> None:
        if not 0 <= self.worst < 1:
            raise ValueError(f"the guardrail of {self.metric} is {self.worst}; expected a share from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Plan:
    """How an experiment is read."""

    primary: str = "ctr"
    """The metric that decides."""
    guardrails: tuple[Guardrail, ...] = ()
    weights: tuple[float, ...] = ()
    """The share of units of each arm; none: equal."""
    least_days: int = 7
    """No arm wins before so many days: a week has weekdays and a weekend."""
    least_units: int = 1_000
    """No arm wins before so many units, all arms together."""
    planned_units: int = 10_000
    """All arms together; the sequential interval is narrowest there, and a test without a winner ends there."""
    metrics: tuple[str, ...] = ()
    """Those that are read; none: all that the outcomes have the columns of."""
    declared: tuple[Metric, ...] = ()
    """Metrics beside `METRICS`."""
    alpha: float = 0.05
    cuped: bool = False
    """Whether what units did before is taken off, in every metric but those by day."""
    correction: Method = "benjamini-hochberg"
    """Over segments."""
    guard_units: int = LEAST_UNITS
    """Units an arm before a sequential interval is given."""
    guard_active: int = LEAST_ACTIVE
    """Units an arm with anything in the numerator, likewise."""
    worth: float = 0.02
    """The relative lift of the primary metric that is worth finding: how large a test it takes is said."""
    power: float = 0.8
    """The chance of finding it."""
    resamples: int = 0
    """Draws of the bootstrap that is put beside the delta method; 0: none."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; expected a share above 0 and below 0.5, such as 0.05")
        if self.planned_units < 1 or self.least_days < 1 or self.least_units < 0:
            raise ValueError(
                f"found {self.planned_units} planned units, at least {self.least_days} days and {self.least_units} "
                "units; expected 1 or more planned units and days"
            )
        for name in (self.primary, *self.metrics, *(one.metric for one in self.guardrails)):
            metric_named(name, self.declared)

    def metric(self, name: str) -> Metric:
        """A metric by its name."""
        return metric_named(name, self.declared)

    def read_metrics(self, columns: frozenset[str]) -> tuple[Metric, ...]:
        """What is read of outcomes with these columns: the primary metric first, guardrails next."""
        first = (self.primary, *(one.metric for one in self.guardrails))
        there = [one.name for one in (*METRICS, *self.declared) if {one.numerator, one.denominator} - {None} <= columns]
        return tuple(self.metric(name) for name in dict.fromkeys((*first, *(self.metrics or there))))
