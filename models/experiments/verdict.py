"""Decides what to do with an experiment, and gives the reason in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from feedrank.models.experiments.confidence_sequence import Sequence as ConfidenceSequence
from feedrank.models.experiments.lift import Span
from feedrank.models.experiments.plan import Guardrail, Plan
from feedrank.models.experiments.sample_ratio import SampleRatio

Word = Literal["ship", "keep", "go on", "stop", "broken"]


@dataclass(frozen=True, slots=True)
class GuardrailReading:
    """Holds the result of a guardrail for one arm."""

    metric: str
    arm: str
    worst: float
    gain: Span
    """The relative change, signed so that higher is better; NaN bounds: there are too few units yet."""
    breached: bool
    """True if the whole confidence sequence lies below -max_relative_loss."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Holds the decision on an experiment, with its reason.

    ship: an arm is significantly better, and the minimum run is over. keep: all planned units are in, and no arm is
    significantly better. stop: every arm violates a guardrail or is significantly worse in the primary metric. broken:
    the split of units has a sample ratio mismatch. go on: none of these yet.
    """

    word: Word
    arm: str | None
    """The arm to ship; None for other decisions."""
    reason: str

    @property
    def sentence(self) -> str:
        """The decision with its reason."""
        decision = {"ship": f"ship {self.arm}", "keep": "keep control"}.get(self.word, self.word)
        return f"{decision}: {self.reason}"


def judge(
    plan: Plan,
    ratio: SampleRatio,
    primary: Sequence[ConfidenceSequence],
    guardrails: Sequence[GuardrailReading],
    *,
    days: int,
    units: int,
) -> Verdict:
    """Decide on an experiment.

    primary: the confidence sequence of the primary metric of each arm after the control, each with its share of alpha.
    units: of all arms together. Harm is reported before the minimum run is over, since the sequence holds at every
    look. Of several winners the one with the highest lift is named.
    """
    if ratio.alarm:
        counts = ", ".join(f"{name} {n:,}" for name, n in zip(ratio.arms, ratio.units, strict=True))
        expected = ", ".join(f"{n:,.0f}" for n in ratio.expected)
        reason = f"sample ratio mismatch: found {counts} units, expected {expected} (p = {ratio.p:.2g}); find the cause"
        return Verdict("broken", None, reason)
    control = ratio.arms[0]
    higher_is_better = plan.metric(plan.primary).higher_is_better
    gains = {sequence.arm: sequence.last if higher_is_better else sequence.last.turned() for sequence in primary}
    lifts = {sequence.arm: _said(sequence, control) for sequence in primary}
    breaches = {result.arm: result for result in guardrails if result.breached}
    harmless = [arm for arm, gain in gains.items() if arm not in breaches and not gain.high < 0]
    if not harmless:
        return Verdict("stop", None, "; ".join(_harm(arm, breaches.get(arm), lifts[arm]) for arm in gains))
    winners = [arm for arm in harmless if gains[arm].low > 0]
    best = max(winners or harmless, key=lambda arm: _known(gains[arm].value))
    status = f"{lifts[best]} after {_many(days, 'day')} and {_many(units, 'unit')}"
    if days < plan.least_days or units < plan.least_units:
        minimum = f"{_many(plan.least_days, 'day')} and {_many(plan.least_units, 'unit')}"
        return Verdict("go on", None, f"{status}; the plan needs at least {minimum}")
    if winners:
        others = f", and the best of {len(winners)} such arms" if len(winners) > 1 else ""
        return Verdict("ship", best, f"{status}: significantly better{others}")
    if units >= plan.planned_units:
        planned = f"with all {plan.planned_units:,} planned units in"
        return Verdict("keep", None, f"{status}: no arm is significantly better, {planned}")
    return Verdict("go on", None, f"{status} of {plan.planned_units:,} planned: nothing is significant yet")


def guardrail_reading(guardrail: Guardrail, looks: ConfidenceSequence, *, higher_is_better: bool) -> GuardrailReading:
    """Check a guardrail: it is violated if the whole interval of the last look is below the allowed loss."""
    gain = looks.last_relative if higher_is_better else looks.last_relative.turned()
    return GuardrailReading(guardrail.metric, looks.arm, guardrail.worst, gain, bool(gain.high < -guardrail.worst))


def _harm(arm: str, breach: GuardrailReading | None, said: str) -> str:
    if breach is None:
        return f"{said}: significantly worse"
    return f"{arm} violates guardrail {breach.metric}: gain {_percent(breach.gain)}, allowed {-breach.worst:.1%}"


def _said(looks: ConfidenceSequence, first: str) -> str:
    """Describe the change at the last look, with its sign as measured."""
    relative, difference = looks.last_relative, looks.last
    change = f"{looks.arm} changes {looks.metric} by"
    if math.isnan(difference.low):
        return f"{looks.arm} and {first} have too few units to compare {looks.metric}"
    if math.isnan(relative.low):
        return f"{change} {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}] against {first}"
    return f"{change} {_percent(relative)} against {first}"


def _percent(span: Span) -> str:
    return f"{span.value:+.1%} [{span.low:+.1%}, {span.high:+.1%}]"


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value
