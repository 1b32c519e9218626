"""Computes the readout of an A/B test: all statistics of its plan, also as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from feedrank.models.experiments.confidence_sequence import ConfidenceSequence, confidence_sequences
from feedrank.models.experiments.lift import Lift, bootstrap_lifts, lifts
from feedrank.models.experiments.novelty import NoveltyEffect, novelty_effects
from feedrank.models.experiments.outcomes import Metric, Outcomes
from feedrank.models.experiments.p_value_correction import holm
from feedrank.models.experiments.plan import Plan
from feedrank.models.experiments.power import SampleSizeReport, required_sample_size_from_outcomes
from feedrank.models.experiments.sample_ratio import SampleRatioTest, sample_ratio_test
from feedrank.models.experiments.segments import SegmentLift, segment_lifts
from feedrank.models.experiments.verdict import GuardrailResult, Verdict, check_guardrail, decide
from feedrank.models.jsonable import to_jsonable


@dataclass(frozen=True, eq=False, slots=True)
class Readout:
    """Holds every statistic of an A/B test."""

    plan: Plan
    arms: tuple[str, ...]
    units: tuple[int, ...]
    """Units of each arm that were shown a ranking."""
    days: int
    verdict: Verdict
    sample_ratio: SampleRatioTest
    metrics: tuple[Metric, ...]
    """The primary metric comes first."""
    lifts: tuple[Lift, ...]
    """Fixed-horizon lifts by the delta method, for each metric and each arm after the control."""
    holm_p: tuple[float, ...]
    """p of the primary metric for each arm after the control, Holm-corrected over arms, at a fixed horizon."""
    bootstrap_lifts: tuple[Lift, ...]
    """The same lifts by the bootstrap; empty if the plan has no resamples."""
    confidence_sequences: tuple[ConfidenceSequence, ...]
    """The primary metric and the guardrails, for each arm after the control; alpha is shared among the arms."""
    guardrails: tuple[GuardrailResult, ...]
    segments: tuple[SegmentLift, ...]
    """Lifts of the primary metric by segment."""
    novelty_effects: tuple[NoveltyEffect, ...]
    """Daily lifts of the primary metric, with their trend."""
    sample_size: SampleSizeReport | None
    """Sample size for the plan's minimum detectable effect; None if the control has no variance yet."""


def compute_readout(outcomes: Outcomes, plan: Plan) -> Readout:
    """Compute every statistic of the plan.

    Raises ValueError for fewer than two arms or a wrong number of weights, and ImportError that names the extra if
    tea_tasting is missing.
    """
    arms = outcomes.arms
    if len(arms) < 2:
        raise ValueError(f"found {len(arms)} arm, expected 2 or more: declare an arm to compare with the control")
    if plan.weights and len(plan.weights) != len(arms):
        raise ValueError(f"found {len(plan.weights)} weights for {len(arms)} arms; expected one per arm")
    seen = np.bincount(outcomes.unit, minlength=len(outcomes.arm_of)) > 0
    units = np.bincount(outcomes.arm_of[seen], minlength=len(arms))
    ratio = sample_ratio_test(units, plan.weights, arms)
    primary = plan.metric(plan.primary)
    metrics = plan.metrics_for(frozenset(outcomes.columns))
    alpha_per_arm = plan.alpha / (len(arms) - 1)

    def sequences_for(name: str) -> tuple[ConfidenceSequence, ...]:
        return confidence_sequences(
            outcomes, plan.metric(name), planned_units=plan.planned_units, alpha=alpha_per_arm, cuped=plan.cuped,
            min_units=plan.min_units_for_ci, min_converting_units=plan.min_converting_units,
        )  # fmt: skip

    names = (plan.primary, *(guardrail.metric for guardrail in plan.guardrails))
    by_metric = {name: sequences_for(name) for name in dict.fromkeys(names)}
    guardrail_results = tuple(
        check_guardrail(guardrail, sequence, higher_is_better=plan.metric(guardrail.metric).higher_is_better)
        for guardrail in plan.guardrails
        for sequence in by_metric[guardrail.metric]
    )
    all_lifts = tuple(
        lift for metric in metrics for lift in lifts(outcomes, metric, alpha=plan.alpha, cuped=plan.cuped)
    )
    bootstraps = [
        bootstrap_lifts(outcomes, metric, seed=plan.seed, resamples=plan.resamples, alpha=plan.alpha)
        for metric in (metrics if plan.resamples else ())
    ]
    return Readout(
        plan=plan,
        arms=arms,
        units=tuple(units.tolist()),
        days=outcomes.days,
        verdict=decide(
            plan, ratio, by_metric[plan.primary], guardrail_results, days=outcomes.days, units=int(units.sum())
        ),
        sample_ratio=ratio,
        metrics=metrics,
        lifts=all_lifts,
        holm_p=tuple(holm([lift.p for lift in all_lifts if lift.metric == plan.primary]).tolist()),
        bootstrap_lifts=tuple(lift for per_metric in bootstraps for lift in per_metric),
        confidence_sequences=tuple(sequence for per_metric in by_metric.values() for sequence in per_metric),
        guardrails=guardrail_results,
        segments=segment_lifts(outcomes, primary, alpha=plan.alpha, method=plan.correction, cuped=plan.cuped),
        novelty_effects=novelty_effects(outcomes, primary, alpha=plan.alpha),
        sample_size=required_sample_size_from_outcomes(
            outcomes, primary, mde=plan.mde, alpha=plan.alpha, power=plan.power, weights=plan.weights
        ) if outcomes.days else None,
    )  # fmt: skip


def readout_json(readout: Readout) -> dict[str, Any]:
    """Convert a readout to JSON types: columns as lists, NaN and infinity as None, with the verdict's sentence."""
    result: dict[str, Any] = to_jsonable(readout)
    result["verdict"]["sentence"] = readout.verdict.sentence
    result["sample_ratio"]["mismatch"] = readout.sample_ratio.mismatch
    return result
