"""Holds the analysis plan of an experiment: the primary metric, the guardrails and the length of the test."""

from __future__ import annotations

from dataclasses import dataclass

from feedrank.models.experiments.confidence_sequence import MIN_CONVERTING_UNITS, MIN_UNITS
from feedrank.models.experiments.outcomes import BUILT_IN_METRICS, Metric, find_metric
from feedrank.models.experiments.p_value_correction import CorrectionMethod


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Limits how much a metric may get worse. Raises ValueError for a limit outside [0, 1)."""

    metric: str
    max_relative_loss: float
    """The largest relative loss that is allowed, such as 0.02."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_relative_loss < 1:
            raise ValueError(f"the guardrail of {self.metric} is {self.max_relative_loss}; expected a share in [0, 1)")


@dataclass(frozen=True, slots=True)
class Plan:
    """Says how an experiment is analysed. Raises ValueError for impossible numbers and unknown metrics."""

    primary: str = "ctr"
    """The metric that decides."""
    guardrails: tuple[Guardrail, ...] = ()
    weights: tuple[float, ...] = ()
    """The share of units of each arm; empty: equal shares."""
    min_days: int = 7
    """No arm wins before this many days; a week has weekdays and a weekend."""
    min_units: int = 1_000
    """No arm wins before this many units of all arms together."""
    planned_units: int = 10_000
    """Units of all arms together. The sequential interval is narrowest there; a test without a winner ends there."""
    metrics: tuple[str, ...] = ()
    """Metrics to compute; empty: all that the outcomes have the columns for."""
    custom_metrics: tuple[Metric, ...] = ()
    """Metrics besides `BUILT_IN_METRICS`."""
    alpha: float = 0.05
    cuped: bool = False
    """True adjusts every metric for pre-experiment behaviour, except the daily lifts."""
    correction: CorrectionMethod = "benjamini-hochberg"
    """The p-value correction over segments."""
    min_units_for_ci: int = MIN_UNITS
    """Units per arm before a sequential interval is given."""
    min_converting_units: int = MIN_CONVERTING_UNITS
    """Units per arm with a numerator above 0, such as a click, before a sequential interval is given."""
    mde: float = 0.02
    """The minimum detectable effect: the relative lift of the primary metric that the sample size is computed for."""
    power: float = 0.8
    """The probability of detecting a lift of that size."""
    resamples: int = 0
    """Bootstrap resamples, reported in addition to the delta method; 0: no bootstrap."""
    seed: int = 0
    """The seed of the bootstrap."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; expected a share above 0 and below 0.5, such as 0.05")
        if self.planned_units < 1 or self.min_days < 1 or self.min_units < 0:
            raise ValueError(
                f"found {self.planned_units} planned units, at least {self.min_days} days and {self.min_units} "
                "units; expected 1 or more planned units and days"
            )
        for name in (self.primary, *self.metrics, *(guardrail.metric for guardrail in self.guardrails)):
            find_metric(name, self.custom_metrics)

    def metric(self, name: str) -> Metric:
        """Find a metric by its name."""
        return find_metric(name, self.custom_metrics)

    def metrics_for(self, columns: frozenset[str]) -> tuple[Metric, ...]:
        """Return the metrics to compute from these columns: the primary metric, then guardrails, then the rest."""
        first = (self.primary, *(guardrail.metric for guardrail in self.guardrails))
        available = [
            metric.name
            for metric in (*BUILT_IN_METRICS, *self.custom_metrics)
            if {metric.numerator, metric.denominator} - {None} <= columns
        ]
        return tuple(self.metric(name) for name in dict.fromkeys((*first, *(self.metrics or available))))
