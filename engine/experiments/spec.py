"""Defines the spec of an experiment: its units, its arms and its analysis plan."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from feedrank.engine.events.checks import check_range
from feedrank.engine.events.codec import MAX_TIME_MS
from feedrank.engine.experiments.analysis_plan import AnalysisPlan
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.typed_dataclasses import check_types

Kind = Literal["ab", "interleave", "shadow"]
Unit = Literal["user", "session", "request"]
MAX_NAME_LENGTH = 100
HOLDOUT = "holdout"
"""Variant of units in the holdout."""
_FORBIDDEN_CHARACTERS = frozenset("/ \t\r\n")


@dataclass(frozen=True, slots=True)
class ExplorationPolicy:
    """Settings of exploration: randomized rankings with logged propensities, for off-policy evaluation."""

    kind: Literal["plackett-luce", "epsilon-greedy"] = "plackett-luce"
    """Policy: plackett-luce samples the whole ranking by score, epsilon-greedy fills some of its last positions."""
    temperature: float = 1.0
    """plackett-luce: > 0; near 0 the ranking follows the scores, large values make it uniformly random."""
    depth: int = 50
    """Number of best-scored candidates that are sampled from. Unit: items."""
    epsilon: float = 0.1
    """epsilon-greedy: probability that a tail position is filled at random."""
    tail: int = 3
    """epsilon-greedy: number of last positions that may be filled at random. Unit: positions."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature is {self.temperature}; expected a finite number above 0")
        if not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}; expected more than 0 and at most 1")
        _check_at_least("depth", self.depth, 2)
        _check_at_least("tail", self.tail, 1)


@dataclass(frozen=True, slots=True)
class Arm:
    """Settings of one arm: how it makes a ranking."""

    weight: float = 1.0
    """Share of the units, relative to the other arms' weights; ignored for interleaving and shadow experiments."""
    bundle: str = ""
    """Bundle name; empty: the current bundle when the experiment starts, which is then recorded."""
    candidates: int = 0
    """Number of candidates from recall; 0: as configured. Unit: items."""
    rerank_top_k: int = -1
    """Number of best candidates that the cross-encoder reranks per request; 0: none, -1: as configured. Unit: items."""
    diversity: Diversity | None = None
    """Diversity of the requests that set none of their own. Not set: none."""
    explore: ExplorationPolicy | None = None
    """Exploration: random rankings with logged propensities. Not set: no exploration."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight is {self.weight}; expected a finite number, 0 or more")
        if self.candidates:
            check_range("candidates", self.candidates, 1, 1_000)
        check_range("rerank_top_k", self.rerank_top_k, -1, 1_000)
        if self.bundle and (_FORBIDDEN_CHARACTERS & set(self.bundle) or self.bundle.startswith(".")):
            raise ValueError(f"bundle is {self.bundle!r}; expected a bundle name, as shown by `feedrank bundles list`")


@dataclass(frozen=True, slots=True)
class Targeting:
    """Conditions on the requests of an experiment; an empty condition matches every request."""

    surfaces: tuple[str, ...] = ()
    """Surfaces of the requests that match, such as home; empty: all."""
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Accepted values of each field of the request's context, such as {platform = ["ios"]}."""
    queries: bool | None = None
    """true: only requests with a query; false: only those without. Not set: both."""


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """The spec of an experiment; validated on construction (ValueError)."""

    name: str
    """Name of the experiment, unique in the journal; also the salt of the assignment, if none is set."""
    arms: Mapping[str, Arm]
    """Settings of each arm, by its name; the first arm is the control."""
    kind: Kind = "ab"
    """ab: each unit gets one arm. interleave: each ranking merges the rankings of all arms. shadow: units get the
    control, and the other arms score the same requests in the background."""
    unit: Unit = "user"
    """What is assigned to an arm and counted as one observation: a user, a session or a request."""
    layer: str = "default"
    """Experiments in the same layer never share a unit; those in different layers are independent."""
    share: float = 1.0
    """Share of the layer's units that are in the experiment."""
    holdout: float = 0.0
    """Share of the layer's units kept out of all its experiments; measured as a variant beside the arms."""
    salt: str = ""
    """Salt of the assignment hash; empty: the name."""
    targeting: Targeting = Targeting()
    interleaving: Literal["team-draft", "balanced"] = "team-draft"
    """Interleaving method. More than two arms need team-draft (multileaving)."""
    start: int | None = None
    """Time before which no unit is assigned: epoch milliseconds, ISO-8601 text or a TOML date-time. Not set: none."""
    end: int | None = None
    """Time from which on no unit is assigned, written like `start`. Not set: none."""
    stop_on_breach: bool = False
    """Stop an arm automatically when it violates a guardrail."""
    plan: AnalysisPlan = field(default_factory=AnalysisPlan)
    """How the experiment is analysed. Where a spec is declared or stored, its keys stand beside the others."""

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        _check_name("layer", self.layer)
        for arm in self.arms:
            _check_name("arms", arm)
            if arm == HOLDOUT:
                raise ValueError(f"found an arm {HOLDOUT!r}, expected another name: it is reserved for holdouts")
        minimum = 1 if any(arm.explore for arm in self.arms.values()) and self.kind == "ab" else 2
        if len(self.arms) < minimum:
            raise ValueError(f"found {len(self.arms)} arms, expected at least {minimum}; the first one is the control")
        if self.kind == "ab" and not sum(arm.weight for arm in self.arms.values()) > 0:
            raise ValueError("found arms with a total weight of 0, expected at least one weight above 0")
        if self.kind != "ab" and any(arm.explore for arm in self.arms.values()):
            raise ValueError(f"found an arm with exploration in a {self.kind} experiment, expected the kind ab")
        if self.interleaving == "balanced" and self.kind == "interleave" and len(self.arms) > 2:
            raise ValueError(f"found {len(self.arms)} arms, expected 2 for balanced interleaving; use team-draft")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; expected more than 0 and at most 1")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; expected at least 0 and less than 1")
        for name, time_ms in (("start", self.start), ("end", self.end)):
            check_range(name, time_ms or 0, -MAX_TIME_MS, MAX_TIME_MS)
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end is {self.end}; expected a time after start, {self.start}")

    @property
    def control(self) -> str:
        """Name of the control arm, the first one."""
        return next(iter(self.arms))

    @property
    def hash_salt(self) -> str:
        """Salt with which units are hashed to slots."""
        return self.salt or self.name

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-ready dict, the plan's keys beside the others; `from_dict` is the inverse."""
        body: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        plan: dict[str, Any] = body.pop("plan")
        return body | plan

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ExperimentSpec:
        """Build the spec from the result of `to_dict`. Raises ValueError for anything else."""
        try:
            values = nest_plan(body)
            values["plan"] = AnalysisPlan.from_dict(values["plan"])
            values["arms"] = {str(name): arm_from_dict(arm) for name, arm in values["arms"].items()}
            targeting = dict(values.get("targeting", {}))
            targeting["surfaces"] = tuple(targeting.get("surfaces", ()))
            targeting["context"] = {name: tuple(values) for name, values in targeting.get("context", {}).items()}
            values["targeting"] = Targeting(**targeting)
            spec = cls(**values)
            check_types(spec)
            return spec
        except (ArithmeticError, AttributeError, KeyError, TypeError) as problem:
            raise ValueError(f"can't read the experiment spec: {problem}") from None


def nest_plan(body: Mapping[str, Any]) -> dict[str, Any]:
    """Move the keys of the analysis plan, which stand beside the others in a declaration, into a dict `plan`."""
    plan_keys = {field.name for field in fields(AnalysisPlan)}
    nested: dict[str, Any] = {key: value for key, value in body.items() if key not in plan_keys and key != "plan"}
    return nested | {"plan": {key: value for key, value in body.items() if key in plan_keys}}


ARM_SETTINGS = ("bundle", "candidates", "rerank_top_k", "diversity", "explore")
"""Settings in which arms may differ."""


def varied_settings(experiment: ExperimentSpec) -> set[str]:
    """Return the settings in which an experiment's arms differ.

    Experiments that can share a unit must not vary the same setting.
    """
    if experiment.kind == "interleave":
        return set(ARM_SETTINGS)
    if experiment.kind == "shadow":
        return set()
    arms = list(experiment.arms.values())
    baseline = arms[0] if len(arms) > 1 else Arm()
    return {name for name in ARM_SETTINGS if any(getattr(arm, name) != getattr(baseline, name) for arm in arms)}


def arm_from_dict(body: Mapping[str, Any]) -> Arm:
    """Build an arm from a JSON-ready dict; missing keys take their defaults. Raises TypeError or ValueError."""
    fields = dict(body)
    try:
        fields["diversity"] = Diversity(**fields["diversity"]) if fields.get("diversity") else None
        fields["explore"] = ExplorationPolicy(**fields["explore"]) if fields.get("explore") else None
        arm = Arm(**fields)
    except OverflowError as problem:
        raise ValueError(str(problem)) from None
    check_types(arm)
    return arm


def _check_name(what: str, name: str) -> None:
    if not name or len(name) > MAX_NAME_LENGTH or _FORBIDDEN_CHARACTERS & set(name):
        raise ValueError(f"{what}: found {name!r}, expected 1 to {MAX_NAME_LENGTH} characters without white space or /")


def _check_at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ValueError(f"{name} is {value}; expected at least {minimum}")
