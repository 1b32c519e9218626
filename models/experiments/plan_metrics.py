"""Finds the metrics of an analysis plan: those that it names, and those that it declares."""

from __future__ import annotations

from feedrank.engine.experiments.analysis_plan import AnalysisPlan
from feedrank.models.experiments.outcomes import BUILT_IN_COLUMNS, BUILT_IN_METRICS, Metric, find_metric

_DENOMINATORS = {"unit": None, "ranking": "rankings", "impression": "impressions", "click": "clicks"}


def check_metrics(plan: AnalysisPlan) -> None:
    """Check the names of all metrics. Raises ValueError for an unknown name, and for a custom one that is taken."""
    for name in _named_metrics(plan):
        find_plan_metric(plan, name)


def custom_metrics(plan: AnalysisPlan) -> tuple[Metric, ...]:
    """Convert the metrics that the plan declares to `Metric`s. Raises ValueError for a name that is taken."""
    if taken := plan.metrics.keys() & {*BUILT_IN_COLUMNS, *(metric.name for metric in BUILT_IN_METRICS)}:
        raise ValueError(f"found a metric called {', '.join(sorted(taken))}, which is built in; choose another name")
    return tuple(
        Metric(name, name, _DENOMINATORS[metric.denominator], higher_is_better=metric.higher_is_better)
        for name, metric in plan.metrics.items()
    )


def find_plan_metric(plan: AnalysisPlan, name: str) -> Metric:
    """Find a built-in metric or one of the plan's own by its name. Raises ValueError that lists the names there are."""
    return find_metric(name, custom_metrics(plan))


def metrics_for(plan: AnalysisPlan, columns: frozenset[str]) -> tuple[Metric, ...]:
    """Return the metrics to compute from these columns: the primary metric, then guardrails, then the rest."""
    available = [
        metric.name
        for metric in (*BUILT_IN_METRICS, *custom_metrics(plan))
        if {metric.numerator, metric.denominator} - {None} <= columns
    ]
    return tuple(find_plan_metric(plan, name) for name in dict.fromkeys((*_named_metrics(plan), *available)))


def _named_metrics(plan: AnalysisPlan) -> tuple[str, ...]:
    return plan.primary, *(guardrail.metric for guardrail in plan.guardrails)
