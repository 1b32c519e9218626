"""The gate: whether a candidate may take the incumbent's place, from both of their values on the same test groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Difference, difference
from models.metrics import Values

LEAST_GROUPS = 30
"""Groups that a segment must have for its fall to count."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """[gate] What a candidate must show."""

    rule: Literal["not-worse", "better"] = "not-worse"
    """not-worse: the 95 % interval of the gain lies above -margin; better: it lies above +margin."""
    margin: float = 0.01
    metric: str = "ndcg@10"
    segments: tuple[str, ...] = ("new", "usual", "heavy")
    """Segments that must not fall: their interval must not lie below -margin as a whole."""
    seed: int = 7

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"margin is {self.margin}; expected at least 0")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Promote or not, and why."""

    promote: bool
    reasons: tuple[str, ...]
    gain: Difference | None
    """Candidate less incumbent over all test groups; None: there was no incumbent."""
    segments: Mapping[str, Difference]


def judge(
    candidate: Values, incumbent: Values | None, segments: Mapping[str, NDArray[np.bool_]], settings: GateSettings
) -> Verdict:
    """candidate, incumbent: (G,) the metric on the same groups. segments: name -> (G,) which groups are in it."""
    if incumbent is None:
        return Verdict(True, ("there is no incumbent to compare with",), None, {})
    gain = difference(candidate, incumbent, seed=settings.seed)
    within = {
        name: difference(candidate[chosen], incumbent[chosen], seed=settings.seed) for name, chosen in segments.items()
    }
    said = f"{settings.metric} {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over {gain.groups:,} groups"
    least = settings.margin if settings.rule == "better" else -settings.margin
    passed = bool(gain.low > least) if settings.rule == "better" else bool(gain.low >= least)
    reasons = [f"{said}: {'above' if passed else 'not above'} {least:+g}, as {settings.rule!r} asks for"]
    for name in settings.segments:
        fall = within.get(name)
        if fall is not None and fall.groups >= LEAST_GROUPS and fall.high < -settings.margin:
            passed = False
            reasons.append(f"segment {name!r} falls: {fall.mean:+.4f} [{fall.low:+.4f}, {fall.high:+.4f}]")
    return Verdict(passed, tuple(reasons), gain, within)
