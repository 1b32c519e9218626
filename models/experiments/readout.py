"""Computes the readout of an A/B test: all statistics of its plan, also as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from feedrank.engine.experiments.analysis_plan import AnalysisPlan
from feedrank.models.experiments.confidence_sequence import ConfidenceSequence, confidence_sequences
from feedrank.models.experiments.lift import Lift, bootstrap_lifts, lifts
from feedrank.models.experiments.novelty import NoveltyEffect, novelty_effects
from feedrank.models.experiments.outcomes import Metric, Outcomes
from feedrank.models.experiments.p_value_correction import holm
from feedrank.models.experiments.plan_metrics import find_plan_metric, metrics_for
from feedrank.models.experiments.power import SampleSizeReport, required_sample_size_from_outcomes
from feedrank.models.experiments.sample_ratio import SampleRatioTest, sample_ratio_test
from feedrank.models.experiments.segments import SegmentLift, segment_lifts
from feedrank.models.experiments.verdict import GuardrailResult, Verdict, check_guardrail, decide
from feedrank.models.jsonable import to_jsonable


@dataclass(frozen=True, eq=False, slots=True)
class Readout:
    """Holds every statistic of an A/B test."""

    plan: AnalysisPlan
    """With `cuped` as it was used."""
    arms: tuple[str, ...]
    weights: tuple[float, ...]
    """The expected share of units of each arm; empty: equal shares."""
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


def compute_readout(
    outcomes: Outcomes, plan: AnalysisPlan, weights: tuple[float, ...] = (), declared_arms: int | None = None
) -> Readout:
    """Compute every statistic of the plan.

    weights: the expected share of units of each arm; empty: equal shares. declared_arms: the number of arms that
    `plan.min_units` counts for, if the outcomes have fewer of them.
    Raises ValueError for fewer than two arms or a wrong number of weights, and ImportError that names the extra if
    tea_tasting is missing.
    """
    arms = outcomes.arms
    if len(arms) < 2:
        raise ValueError(f"found {len(arms)} arm, expected 2 or more: declare an arm to compare with the control")
    if weights and len(weights) != len(arms):
        raise ValueError(f"found {len(weights)} weights for {len(arms)} arms; expected one per arm")
    pre_period = outcomes.pre_period.get("rankings")
    if plan.cuped is None:
        plan = replace(plan, cuped=pre_period is not None and bool(pre_period.any()))
    cuped = bool(plan.cuped)
    seen = np.bincount(outcomes.unit, minlength=len(outcomes.arm_of)) > 0
    units = np.bincount(outcomes.arm_of[seen], minlength=len(arms))
    ratio = sample_ratio_test(units, weights, arms)
    primary = find_plan_metric(plan, plan.primary)
    metrics = metrics_for(plan, frozenset(outcomes.columns))
    alpha_per_arm = plan.alpha / (len(arms) - 1)

    def sequences_for(name: str) -> tuple[ConfidenceSequence, ...]:
        return confidence_sequences(
            outcomes, find_plan_metric(plan, name), planned_units=plan.planned_units, alpha=alpha_per_arm, cuped=cuped,
            min_units=plan.min_units_for_ci, min_converting_units=plan.min_converting_units,
        )  # fmt: skip

    names = (plan.primary, *(guardrail.metric for guardrail in plan.guardrails))
    by_metric = {name: sequences_for(name) for name in dict.fromkeys(names)}
    guardrail_results = tuple(
        check_guardrail(guardrail, sequence, higher_is_better=find_plan_metric(plan, guardrail.metric).higher_is_better)
        for guardrail in plan.guardrails
        for sequence in by_metric[guardrail.metric]
    )
    all_lifts = tuple(lift for metric in metrics for lift in lifts(outcomes, metric, alpha=plan.alpha, cuped=cuped))
    bootstraps = [
        bootstrap_lifts(outcomes, metric, seed=plan.seed, resamples=plan.resamples, alpha=plan.alpha)
        for metric in (metrics if plan.resamples else ())
    ]
    return Readout(
        plan=plan,
        arms=arms,
        weights=weights,
        units=tuple(units.tolist()),
        days=outcomes.days,
        verdict=decide(
            plan, ratio, by_metric[plan.primary], guardrail_results,
            days=outcomes.days, units=int(units.sum()), declared_arms=declared_arms,
        ),
        sample_ratio=ratio,
        metrics=metrics,
        lifts=all_lifts,
        holm_p=tuple(holm([lift.p for lift in all_lifts if lift.metric == plan.primary]).tolist()),
        bootstrap_lifts=tuple(lift for per_metric in bootstraps for lift in per_metric),
        confidence_sequences=tuple(sequence for per_metric in by_metric.values() for sequence in per_metric),
        guardrails=guardrail_results,
        segments=segment_lifts(outcomes, primary, alpha=plan.alpha, method=plan.correction, cuped=cuped),
        novelty_effects=novelty_effects(outcomes, primary, alpha=plan.alpha),
        sample_size=required_sample_size_from_outcomes(
            outcomes, primary, mde=plan.mde, alpha=plan.alpha, power=plan.power, weights=weights
        ) if outcomes.days else None,
    )  # fmt: skip


def readout_json(readout: Readout) -> dict[str, Any]:
    """Convert a readout to JSON types: columns as lists, NaN and infinity as None, with the verdict's sentence."""
    result: dict[str, Any] = to_jsonable(readout)
    result["verdict"]["sentence"] = readout.verdict.sentence
    result["sample_ratio"]["mismatch"] = readout.sample_ratio.mismatch
    return result
