"""Decides what to do with an experiment, and gives the reason in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from feedrank.engine.experiments.analysis_plan import AnalysisPlan, Guardrail
from feedrank.models.experiments.confidence_sequence import ConfidenceSequence as ConfidenceSequence
from feedrank.models.experiments.lift import Interval
from feedrank.models.experiments.plan_metrics import find_plan_metric
from feedrank.models.experiments.sample_ratio import SampleRatioTest

Decision = Literal["ship", "keep control", "continue", "stop", "invalid"]


@dataclass(frozen=True, slots=True)
class GuardrailResult:
    """Holds the result of a guardrail for one arm."""

    metric: str
    arm: str
    max_relative_loss: float
    gain: Interval
    """The relative change, signed so that higher is better; NaN bounds: there are too few units yet."""
    breached: bool
    """True if the whole confidence sequence lies below -max_relative_loss."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Holds the decision on an experiment, with its reason.

    ship: an arm is significantly better, and the minimum run is over. keep control: all planned units are in, and no
    arm is significantly better. stop: every arm violates a guardrail or is significantly worse in the primary metric.
    invalid: the split of units has a sample ratio mismatch. continue: none of these yet.
    """

    decision: Decision
    arm: str | None
    """The arm to ship; None for other decisions."""
    reason: str

    @property
    def sentence(self) -> str:
        """The decision with its reason."""
        decision = f"ship {self.arm}" if self.decision == "ship" else self.decision
        return f"{decision}: {self.reason}"


def decide(
    plan: AnalysisPlan,
    sample_ratio: SampleRatioTest,
    primary: Sequence[ConfidenceSequence],
    guardrails: Sequence[GuardrailResult],
    *,
    days: int,
    units: int,
    declared_arms: int | None = None,
) -> Verdict:
    """Decide on an experiment.

    primary: the confidence sequence of the primary metric of each arm after the control, each with its share of alpha.
    units: of all arms together. Harm is reported before the minimum run is over, since the sequence holds at every
    look. Of several winners the one with the highest lift is named. declared_arms: the number of arms that
    `plan.min_units` counts for; None: those of the sample ratio.
    """
    if sample_ratio.mismatch:
        counts = ", ".join(f"{name} {n:,}" for name, n in zip(sample_ratio.arms, sample_ratio.units, strict=True))
        expected = ", ".join(f"{n:,.0f}" for n in sample_ratio.expected)
        reason = (
            f"sample ratio mismatch: found {counts} units, expected {expected} (p ="
            f" {sample_ratio.p:.2g}); find the cause"
        )
        return Verdict("invalid", None, reason)
    control = sample_ratio.arms[0]
    higher_is_better = find_plan_metric(plan, plan.primary).higher_is_better
    gains = {
        sequence.arm: sequence.last_difference if higher_is_better else sequence.last_difference.negated()
        for sequence in primary
    }
    lifts = {sequence.arm: _lift_sentence(sequence, control) for sequence in primary}
    breaches = {result.arm: result for result in guardrails if result.breached}
    harmless = [arm for arm, gain in gains.items() if arm not in breaches and not gain.high < 0]
    if not harmless:
        return Verdict("stop", None, "; ".join(_harm_reason(arm, breaches.get(arm), lifts[arm]) for arm in gains))
    winners = [arm for arm in harmless if gains[arm].low > 0]
    best = max(winners or harmless, key=lambda arm: _nan_last(gains[arm].value))
    status = f"{lifts[best]} after {_count_noun(days, 'day')} and {_count_noun(units, 'unit')}"
    min_days, min_units = max(plan.min_days, 1), plan.min_units * (declared_arms or len(sample_ratio.arms))
    if days < min_days or units < min_units:
        minimum = f"{_count_noun(min_days, 'day')} and {_count_noun(min_units, 'unit')}"
        return Verdict("continue", None, f"{status}; the plan needs at least {minimum}")
    if winners:
        others = f", and the best of {len(winners)} such arms" if len(winners) > 1 else ""
        return Verdict("ship", best, f"{status}: significantly better{others}")
    if units >= plan.planned_units:
        planned = f"with all {plan.planned_units:,} planned units in"
        return Verdict("keep control", None, f"{status}: no arm is significantly better, {planned}")
    return Verdict("continue", None, f"{status} of {plan.planned_units:,} planned: nothing is significant yet")


def check_guardrail(guardrail: Guardrail, sequence: ConfidenceSequence, *, higher_is_better: bool) -> GuardrailResult:
    """Check a guardrail: it is violated if the whole interval of the last look is below the allowed loss."""
    gain = sequence.last_relative if higher_is_better else sequence.last_relative.negated()
    return GuardrailResult(
        guardrail.metric,
        sequence.arm,
        guardrail.max_relative_loss,
        gain,
        bool(gain.high < -guardrail.max_relative_loss),
    )


def _harm_reason(arm: str, breach: GuardrailResult | None, lift_sentence: str) -> str:
    if breach is None:
        return f"{lift_sentence}: significantly worse"
    return (
        f"{arm} violates guardrail {breach.metric}: gain {_format_interval(breach.gain)}, allowed"
        f" {-breach.max_relative_loss:.1%}"
    )


def _lift_sentence(sequence: ConfidenceSequence, control: str) -> str:
    """Describe the change at the last look, with its sign as measured."""
    relative, difference = sequence.last_relative, sequence.last_difference
    change = f"{sequence.arm} changes {sequence.metric} by"
    if math.isnan(difference.low):
        return f"{sequence.arm} and {control} have too few units to compare {sequence.metric}"
    if math.isnan(relative.low):
        return f"{change} {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}] against {control}"
    return f"{change} {_format_interval(relative)} against {control}"


def _format_interval(interval: Interval) -> str:
    return f"{interval.value:+.1%} [{interval.low:+.1%}, {interval.high:+.1%}]"


def _count_noun(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _nan_last(value: float) -> float:
    return -math.inf if math.isnan(value) else value
