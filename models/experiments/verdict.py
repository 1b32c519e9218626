"""What to do with an experiment, in one sentence with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.experiments.lift import Span
from models.experiments.plan import Guardrail, Plan
from models.experiments.sample_ratio import SampleRatio
from models.experiments.sequential import Sequence as Looks

Word = Literal["ship", "keep", "go on", "stop", "broken"]


@dataclass(frozen=True, slots=True)
class GuardrailReading:
    """A guardrail of one arm."""

    metric: str
    arm: str
    worst: float
    gain: Span
    """The relative change, turned so that more is better; NaN bounds: nothing may be said yet."""
    breached: bool
    """The whole sequential interval lies below -worst."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """ship: an arm is surely better, and the minimum run is over. keep: all planned units are in and no arm is surely
    better. stop: every arm does harm, to a guardrail or to the primary metric itself. broken: the split of units is not
    as it should be. go on: none of these yet."""

    word: Word
    arm: str | None
    """The one to ship."""
    reason: str

    @property
    def sentence(self) -> str:
        """The whole of it."""
        said = {"ship": f"ship {self.arm}", "keep": "keep the first arm"}.get(self.word, self.word)
        return f"{said}: {self.reason}"


def judge(
    plan: Plan,
    ratio: SampleRatio,
    primary: Sequence[Looks],
    guardrails: Sequence[GuardrailReading],
    *,
    days: int,
    units: int,
) -> Verdict:
    """primary: the sequence of each arm after the first, each with its share of alpha. units: of all arms together.

    Harm does not wait for the minimum run, since the sequence holds at every look. Of many winners the one with the
    highest lift is named.
    """
    if ratio.alarm:
        counts = ", ".join(f"{name} {n:,}" for name, n in zip(ratio.arms, ratio.units, strict=True))
        wanted = ", ".join(f"{n:,.0f}" for n in ratio.expected)
        said = f"the arms have {counts} units where {wanted} were due (p = {ratio.p:.2g}): find out why first"
        return Verdict("broken", None, said)
    first = ratio.arms[0]
    better = plan.metric(plan.primary).higher_is_better
    gains = {looks.arm: looks.last if better else looks.last.turned() for looks in primary}
    words = {looks.arm: _said(looks, first) for looks in primary}
    breaches = {one.arm: one for one in guardrails if one.breached}
    left = [arm for arm, gain in gains.items() if arm not in breaches and not gain.high < 0]
    if not left:
        return Verdict("stop", None, "; ".join(_harm(arm, breaches.get(arm), words[arm]) for arm in gains))
    winners = [arm for arm in left if gains[arm].low > 0]
    best = max(winners or left, key=lambda arm: _known(gains[arm].value))
    found = f"{words[best]} after {_many(days, 'day')} and {_many(units, 'unit')}"
    if days < plan.least_days or units < plan.least_units:
        least = f"{_many(plan.least_days, 'day')} and {_many(plan.least_units, 'unit')}"
        return Verdict("go on", None, f"{found}, where at least {least} were planned")
    if winners:
        others = f", and the best of {len(winners)} that are" if len(winners) > 1 else ""
        return Verdict("ship", best, f"{found}: surely better{others}")
    if units >= plan.planned_units:
        return Verdict(
            "keep", None, f"{found}: nothing is surely better, with all {plan.planned_units:,} planned units in"
        )
    return Verdict("go on", None, f"{found} of {plan.planned_units:,} planned: nothing is sure yet")


def guardrail_reading(guardrail: Guardrail, looks: Looks, *, higher_is_better: bool) -> GuardrailReading:
    """Whether the last look's interval lies wholly beyond what is borne."""
    gain = looks.last_relative if higher_is_better else looks.last_relative.turned()
    return GuardrailReading(guardrail.metric, looks.arm, guardrail.worst, gain, bool(gain.high < -guardrail.worst))


def _harm(arm: str, breach: GuardrailReading | None, said: str) -> str:
    if breach is None:
        return f"{said}: surely worse"
    change = f"{_percent(breach.gain)} for the better"
    return f"{arm} breaks the guardrail {breach.metric}: {change}, where {-breach.worst:.1%} is borne"


def _said(looks: Looks, first: str) -> str:
    """The last look as it is, whichever way is better."""
    relative, difference = looks.last_relative, looks.last
    whose = f"{looks.arm}'s {looks.metric} is"
    if math.isnan(difference.low):
        return f"{whose} not told from {first}'s with so few units"
    if math.isnan(relative.low):
        return f"{whose} {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}] from {first}'s"
    return f"{whose} {_percent(relative)} from {first}'s"


def _percent(span: Span) -> str:
    return f"{span.value:+.1%} [{span.low:+.1%}, {span.high:+.1%}]"


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value
