"""All that an experiment says at the end of a day, joined, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.experiments.correction import holm
from models.experiments.lift import Lift, bootstrapped, lifts
from models.experiments.novelty import Novelty, novelty
from models.experiments.outcomes import Metric, Outcomes
from models.experiments.plan import Plan
from models.experiments.power import Need, need_of
from models.experiments.sample_ratio import SampleRatio, sample_ratio
from models.experiments.segments import SegmentLift, by_segment
from models.experiments.sequential import Sequence, sequences
from models.experiments.verdict import GuardrailReading, Verdict, guardrail_reading, judge
from models.plain import plain


@dataclass(frozen=True, eq=False, slots=True)
class Readout:
    """What `read` found."""

    plan: Plan
    arms: tuple[str, ...]
    units: tuple[int, ...]
    """Of each arm, that were shown something."""
    days: int
    verdict: Verdict
    sample_ratio: SampleRatio
    metrics: tuple[Metric, ...]
    """The primary one first."""
    lifts: tuple[Lift, ...]
    """Metrics by arms after the first, by the delta method, for one look."""
    holm_p: tuple[float, ...]
    """Of the primary metric, each arm after the first: p over arms, for one look."""
    bootstraps: tuple[Lift, ...]
    """Likewise by the bootstrap; empty unless the plan asks for it."""
    sequences: tuple[Sequence, ...]
    """The primary metric and the guardrails, each arm after the first; alpha is shared among arms."""
    guardrails: tuple[GuardrailReading, ...]
    segments: tuple[SegmentLift, ...]
    """Of the primary metric."""
    novelty: tuple[Novelty, ...]
    """Of the primary metric."""
    need: Need | None
    """The size of a test for the lift that is worth finding; None where the first arm has no variance yet."""


def read(outcomes: Outcomes, plan: Plan) -> Readout:
    """Every statistic of the plan. Raises ImportError that names the extra where tea_tasting is missing."""
    arms = outcomes.arms
    if len(arms) < 2:
        raise ValueError(f"found {len(arms)} arm, expected 2 or more: there is nothing to compare with")
    if plan.weights and len(plan.weights) != len(arms):
        raise ValueError(f"found {len(plan.weights)} weights for {len(arms)} arms; expected one each")
    seen = np.bincount(outcomes.unit, minlength=len(outcomes.arm_of)) > 0
    units = np.bincount(outcomes.arm_of[seen], minlength=len(arms))
    ratio = sample_ratio(units, plan.weights, arms)
    primary = plan.metric(plan.primary)
    metrics = plan.read_metrics(frozenset(outcomes.columns))
    share = plan.alpha / (len(arms) - 1)

    def looks(name: str) -> tuple[Sequence, ...]:
        return sequences(
            outcomes, plan.metric(name), planned_units=plan.planned_units, alpha=share, cuped=plan.cuped,
            least_units=plan.guard_units, least_active=plan.guard_active,
        )  # fmt: skip

    followed = {name: looks(name) for name in dict.fromkeys((plan.primary, *(one.metric for one in plan.guardrails)))}
    rails = tuple(
        guardrail_reading(rail, one, higher_is_better=plan.metric(rail.metric).higher_is_better)
        for rail in plan.guardrails
        for one in followed[rail.metric]
    )
    found = tuple(lift for metric in metrics for lift in lifts(outcomes, metric, alpha=plan.alpha, cuped=plan.cuped))
    drawn = [
        bootstrapped(outcomes, metric, seed=plan.seed, resamples=plan.resamples, alpha=plan.alpha)
        for metric in (metrics if plan.resamples else ())
    ]
    return Readout(
        plan=plan,
        arms=arms,
        units=tuple(units.tolist()),
        days=outcomes.days,
        verdict=judge(plan, ratio, followed[plan.primary], rails, days=outcomes.days, units=int(units.sum())),
        sample_ratio=ratio,
        metrics=metrics,
        lifts=found,
        holm_p=tuple(holm([lift.p for lift in found if lift.metric == plan.primary]).tolist()),
        bootstraps=tuple(lift for one in drawn for lift in one),
        sequences=tuple(one for several in followed.values() for one in several),
        guardrails=rails,
        segments=by_segment(outcomes, primary, alpha=plan.alpha, method=plan.correction, cuped=plan.cuped),
        novelty=novelty(outcomes, primary, alpha=plan.alpha),
        need=need_of(
            outcomes, primary, lift=plan.worth, alpha=plan.alpha, power=plan.power, weights=plan.weights
        ) if outcomes.days else None,
    )  # fmt: skip


def body(readout: Readout) -> dict[str, Any]:
    """JSON-ready: columns as lists, NaN and infinity as None, and the verdict's sentence."""
    made: dict[str, Any] = plain(readout)
    made["verdict"]["sentence"] = readout.verdict.sentence
    made["sample_ratio"]["alarm"] = readout.sample_ratio.alarm
    return made
