"""Defines the analysis plan of an experiment: its metrics, and the rules by which it is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CorrectionMethod = Literal["benjamini-hochberg", "holm"]
MIN_UNITS_FOR_CI = 50
"""Units that each arm needs before a sequential interval is given."""
MIN_CONVERTING_UNITS = 25
"""Units with a numerator that is not 0, such as a click, that each arm needs before a sequential interval is given."""
MAX_RESAMPLES = 100_000


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A metric that an arm must not degrade."""

    metric: str
    """Name of the metric: a built-in one or one of `metrics`."""
    max_relative_loss: float = 0.02
    """Maximum accepted relative loss against control: 0.02 is 2 %."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_relative_loss < 1:
            raise ValueError(
                f"max_relative_loss of the guardrail of {self.metric} is {self.max_relative_loss}; "
                "expected at least 0 and less than 1"
            )


@dataclass(frozen=True, slots=True)
class CustomMetric:
    """A custom metric: the count or the summed value of one interaction type."""

    type: str
    """Interaction type, such as purchase. Only interactions joined to a ranking count."""
    value: Literal["count", "sum"] = "count"
    """count: number of interactions; sum: sum of their values."""
    denominator: Literal["unit", "ranking", "impression", "click"] = "ranking"
    """Denominator of the metric: it is the mean per unit, ranking, impression or click."""
    higher_is_better: bool = True
    """Whether a higher value is better; false for a metric such as returns."""


@dataclass(frozen=True, slots=True)
class AnalysisPlan:
    """How an experiment is analysed and decided; validated on construction (ValueError)."""

    primary: str = "clicks_per_ranking"
    """Primary metric, which decides the winner."""
    guardrails: tuple[Guardrail, ...] = ()
    """Metrics that an arm must not degrade: one table [[guardrails]] each."""
    metrics: Mapping[str, CustomMetric] = field(default_factory=dict)
    """Custom metrics by name, besides the built-in ones: one table [metrics.NAME] each."""
    min_days: int = 7
    """Minimum runtime in days before a verdict; a week has weekdays and a weekend."""
    min_units: int = 1_000
    """Minimum number of units before a verdict, per arm: all arms together need this many times the number of arms."""
    planned_units: int = 20_000
    """Units of all arms together. The confidence sequence is narrowest there; a test without a winner ends there."""
    alpha: float = 0.05
    """Accepted probability of a false positive, shared among the arms."""
    cuped: bool | None = None
    """Adjust for behaviour before the experiment (CUPED); None: where there is any."""
    correction: CorrectionMethod = "benjamini-hochberg"
    """Correction of the p-values over segments."""
    min_units_for_ci: int = MIN_UNITS_FOR_CI
    """Units per arm before a sequential interval is given."""
    min_converting_units: int = MIN_CONVERTING_UNITS
    """Units per arm with a numerator above 0, such as a click, before a sequential interval is given."""
    mde: float = 0.02
    """Minimum detectable effect: the relative lift of the primary metric that the sample size is computed for."""
    power: float = 0.8
    """Probability of detecting a lift of that size."""
    resamples: int = 0
    """Bootstrap resamples, reported in addition to the delta method; 0: no bootstrap."""
    seed: int = 0
    """Seed of the bootstrap; the same seed gives the same intervals."""

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUMS.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {minimum}")
        if self.resamples > MAX_RESAMPLES:
            raise ValueError(f"resamples is {self.resamples}; expected at most {MAX_RESAMPLES}")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; expected a share above 0 and below 0.5, such as 0.05")
        if not self.alpha < self.power < 1:
            raise ValueError(f"power is {self.power}; expected a probability above alpha and below 1, such as 0.8")
        if not (math.isfinite(self.mde) and self.mde != 0):
            raise ValueError(f"mde is {self.mde}; expected a relative lift other than 0, such as 0.02")

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> AnalysisPlan:
        """Build a plan from a JSON-ready dict; missing keys take their defaults. Raises TypeError or ValueError."""
        fields = dict(body)
        fields["guardrails"] = tuple(Guardrail(**guardrail) for guardrail in fields.get("guardrails", ()))
        fields["metrics"] = {name: CustomMetric(**metric) for name, metric in fields.get("metrics", {}).items()}
        return cls(**fields)


_MINIMUMS = {
    "min_days": 0,
    "min_units": 1,
    "planned_units": 2,
    "min_units_for_ci": 1,
    "min_converting_units": 0,
    "resamples": 0,
    "seed": 0,
}
