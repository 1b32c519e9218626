"""The promotion gate decides whether a candidate replaces the incumbent, by paired metrics on the same groups.

Where there is no incumbent ranker that can be compared, the candidate must beat recall order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feedrank.models.evaluation.bootstrap import Difference, difference
from feedrank.models.evaluation.metrics import Values

MIN_SEGMENT_GROUPS = 30
"""Minimum number of groups for a segment to be checked."""
Outcome = Literal["promoted", "refused", "too-little-new-data"]
"""How a retraining ends, unless it fails."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """[retrain.gate] What a candidate must show to be promoted."""

    rule: Literal["non-inferior", "superior"] = "non-inferior"
    """What the 95 % interval of the gain must be above: -margin (non-inferior) or +margin (superior)."""
    margin: float = 0.01
    """Margin of the rule and of the segments, as an absolute difference of the metric."""
    metric: str = "ndcg@10"
    """Metric of the comparison, such as ndcg@10, mrr, map or hr@10."""
    segments: tuple[str, ...] = ("new", "regular", "heavy")
    """User segments that must not degrade: their whole interval must not be below -margin."""
    seed: int = 7
    """Seed of the bootstrap intervals."""

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"margin is {self.margin}; expected at least 0")


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The decision of the gate, with its reasons."""

    promote: bool
    reasons: tuple[str, ...]
    gain: Difference | None
    """Candidate minus baseline over all test groups; None: nothing was compared."""
    segments: Mapping[str, Difference]
    baseline: Literal["incumbent", "recall"] = "incumbent"
    """What the candidate was compared with."""
    too_little: bool = False
    """Whether there was too little new data to decide; the candidate is then not promoted."""

    @property
    def outcome(self) -> Outcome:
        """Return how the retraining ends."""
        return "promoted" if self.promote else "too-little-new-data" if self.too_little else "refused"


def decide(
    candidate: Values, incumbent: Values, segments: Mapping[str, NDArray[np.bool_]], settings: GateSettings
) -> GateDecision:
    """Decide on promotion from the paired bootstrap of the candidate's gain over the incumbent.

    candidate, incumbent: (G,) the metric on the same groups. segments: name -> (G,) mask of its groups.
    """
    gain = difference(candidate, incumbent, seed=settings.seed)
    by_segment = {
        name: difference(candidate[chosen], incumbent[chosen], seed=settings.seed) for name, chosen in segments.items()
    }
    summary = f"{settings.metric} {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over {gain.groups:,} groups"
    threshold = settings.margin if settings.rule == "superior" else -settings.margin
    passed = bool(gain.low > threshold) if settings.rule == "superior" else bool(gain.low >= threshold)
    reasons = [f"{summary}: {'above' if passed else 'not above'} {threshold:+g}, which {settings.rule!r} requires"]
    if not passed and gain.mean > threshold:
        reasons.append("the mean is above it, but the interval is too wide to tell: more test groups make it narrower")
    for name in settings.segments:
        change = by_segment.get(name)
        if change is not None and change.groups >= MIN_SEGMENT_GROUPS and change.high < -settings.margin:
            passed = False
            reasons.append(f"segment {name!r} degrades: {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]")
    return GateDecision(passed, tuple(reasons), gain, by_segment)


def decide_against_recall(
    candidate: Values, recall: Values, segments: Mapping[str, NDArray[np.bool_]], settings: GateSettings, why: str
) -> GateDecision:
    """Decide on a candidate that no incumbent can be compared with: it must beat recall order, by any margin.

    why: the reason why no incumbent is compared, in a sentence.
    """
    decision = decide(candidate, recall, segments, replace(settings, rule="superior", margin=0.0))
    reasons = (f"{why}, so the candidate must beat recall order", *decision.reasons)
    return replace(decision, reasons=reasons, baseline="recall")


def too_little_new_data(reason: str) -> GateDecision:
    """Return the decision to wait for more data. reason: a sentence."""
    return GateDecision(False, (reason,), None, {}, too_little=True)


def refuse_leaks(decision: GateDecision, leaks: Sequence[str]) -> GateDecision:
    """Refuse a candidate whose features see their own labels, however good its metrics. leaks: one sentence each."""
    if not leaks:
        return decision
    return replace(decision, promote=False, reasons=(*leaks, *decision.reasons))
