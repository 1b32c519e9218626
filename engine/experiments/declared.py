"""An experiment as it is declared: who is in it, what the arms are, and by what it is to be judged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from engine.checks import within
from engine.diversity import Diversity

Kind = Literal["ab", "interleave", "shadow"]
Unit = Literal["user", "session", "request"]
LONGEST_NAME = 100
HOLDOUT = "holdout"
"""The variant of units that an experiment is kept from."""
_BARRED = frozenset("/ \t\r\n")


@dataclass(frozen=True, slots=True)
class Explore:
    """Chance in what is shown, by known probabilities, so that the log can be used for other policies."""

    kind: Literal["plackett-luce", "epsilon-greedy"] = "plackett-luce"
    temperature: float = 1.0
    """Of plackett-luce: 0 < temperature; towards 0 the order of the scores, large: any order."""
    depth: int = 50
    """Candidates, those with the best scores, that chance may choose from."""
    epsilon: float = 0.1
    """Of epsilon-greedy: how often a place of the tail is filled by chance."""
    tail: int = 3
    """Of epsilon-greedy: the last places of the list, so many, that chance may fill."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature is {self.temperature}; expected more than 0")
        if not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}; expected more than 0 and at most 1")
        _at_least("depth", self.depth, 2)
        _at_least("tail", self.tail, 1)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make a feed."""

    weight: float = 1.0
    """Its share of the units, beside the other arms' weights; of an interleaving or a shadow it is not read."""
    bundle: str = ""
    """Which bundle makes it; empty: the one that serves when the experiment starts, which is then written down."""
    candidates: int = 0
    """How many recall finds; 0: as the config says."""
    rescored: int = -1
    """How many of the best a cross-encoder scores in a request, 0: none; -1: as the config says."""
    diversity: Diversity | None = None
    """Of requests that name none themselves."""
    explore: Explore | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight is {self.weight}; expected 0 or more")
        if self.candidates:
            within("candidates", self.candidates, 1, 1_000)
        within("rescored", self.rescored, -1, 1_000)
        if self.bundle and (_BARRED & set(self.bundle) or self.bundle.startswith(".")):
            raise ValueError(
                f"bundle is {self.bundle!r}; expected the name of one, as `feedrank bundles list` shows it"
            )


@dataclass(frozen=True, slots=True)
class Targeting:
    """Which requests an experiment is for; what is empty is not asked for."""

    surfaces: tuple[str, ...] = ()
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a request's context -> values, one of which it must have."""
    queries: bool | None = None
    """True: requests with a query alone; False: those without."""


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A metric that an arm must not harm."""

    metric: str
    worst: float = 0.02
    """How much worse than the first arm it may be, as a share of that: 0.02 is 2 %."""

    def __post_init__(self) -> None:
        if not 0 <= self.worst < 1:
            raise ValueError(f"worst is {self.worst}; expected a share of at least 0 and less than 1")


@dataclass(frozen=True, slots=True)
class DeclaredMetric:
    """A metric of one's own: interactions of a type, or what they are worth."""

    type: str
    """Of the interactions that answer a ranking, such as purchase."""
    value: Literal["count", "sum"] = "count"
    """sum: of their values."""
    per: Literal["unit", "ranking", "impression", "click"] = "ranking"
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Experiment:
    """The whole declaration."""

    name: str
    arms: Mapping[str, Arm]
    """Name -> arm; the first one is what the others are compared with, and what a request that is in none gets."""
    kind: Kind = "ab"
    """ab: each unit gets one arm. interleave: each list is made of all arms' lists. shadow: units get the first arm,
    and the others score the same items off the request's path."""
    unit: Unit = "user"
    layer: str = "default"
    """Experiments of one layer never have a unit in common; those of different layers are independent."""
    share: float = 1.0
    """Of the layer's units."""
    holdout: float = 0.0
    """Share of the layer's units that all of its experiments keep away from; this one counts them beside its arms."""
    salt: str = ""
    """What the assignment is salted with; empty: the name."""
    targeting: Targeting = Targeting()
    interleaving: Literal["team-draft", "balanced"] = "team-draft"
    """More than two arms are drafted by teams (multileaving)."""
    start: int | None = None
    """Epoch milliseconds; before, nobody is in it."""
    end: int | None = None
    primary: str = "clicks_per_ranking"
    """The metric that decides."""
    guardrails: tuple[Guardrail, ...] = ()
    stop_on_breach: bool = False
    """An arm that breaks a guardrail gets nobody any more, without being asked about."""
    metrics: Mapping[str, DeclaredMetric] = field(default_factory=dict)
    minimum_days: int = 7
    """No verdict before so many."""
    minimum_units: int = 1_000
    """Nor before so many in each arm."""
    planned_units: int = 20_000
    """Units of all arms together at which the sequential interval is to be narrowest."""

    def __post_init__(self) -> None:
        _name("name", self.name)
        _name("layer", self.layer)
        for arm in self.arms:
            _name("arms", arm)
            if arm == HOLDOUT:
                raise ValueError(f"found an arm {HOLDOUT!r}, expected another name: it is that of units kept away")
        least = 1 if any(arm.explore for arm in self.arms.values()) and self.kind == "ab" else 2
        if len(self.arms) < least:
            raise ValueError(f"found {len(self.arms)} arms, expected at least {least}, the first to compare with")
        if self.kind == "ab" and not sum(arm.weight for arm in self.arms.values()) > 0:
            raise ValueError("found arms without any weight; expected at least one above 0")
        if self.kind != "ab" and any(arm.explore for arm in self.arms.values()):
            raise ValueError(f"found an arm that explores in a {self.kind} experiment; expected the kind ab")
        if self.interleaving == "balanced" and self.kind == "interleave" and len(self.arms) > 2:
            raise ValueError(f"balanced interleaving takes 2 arms, found {len(self.arms)}; team-draft takes more")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; expected more than 0 and at most 1")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; expected at least 0 and less than 1")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end is {self.end}, which is not after start, {self.start}")
        _at_least("minimum_days", self.minimum_days, 0)
        _at_least("minimum_units", self.minimum_units, 1)
        _at_least("planned_units", self.planned_units, 2)

    @property
    def first(self) -> str:
        """The arm that others are compared with."""
        return next(iter(self.arms))

    @property
    def salted(self) -> str:
        """What units are hashed with."""
        return self.salt or self.name

    def body(self) -> dict[str, Any]:
        """JSON-ready; `of` gives it back."""
        made: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return made

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Experiment:
        """From what `body` gave. Raises ValueError where something else stands there."""
        try:
            told = dict(body)
            told["arms"] = {str(name): arm_of(arm) for name, arm in told["arms"].items()}
            aimed = dict(told.get("targeting", {}))
            aimed["surfaces"] = tuple(aimed.get("surfaces", ()))
            aimed["context"] = {name: tuple(values) for name, values in aimed.get("context", {}).items()}
            told["targeting"] = Targeting(**aimed)
            told["guardrails"] = tuple(Guardrail(**one) for one in told.get("guardrails", ()))
            told["metrics"] = {name: DeclaredMetric(**one) for name, one in told.get("metrics", {}).items()}
            return cls(**told)
        except (AttributeError, KeyError, TypeError) as problem:
            raise ValueError(f"the experiment's declaration can't be read: {problem}") from None


ASPECTS = ("bundle", "candidates", "rescored", "diversity", "explore")
"""What arms may do in different ways."""


def aspects(experiment: Experiment) -> set[str]:
    """What its arms do in different ways: experiments that overlap in people must not overlap in this."""
    if experiment.kind == "interleave":
        return set(ASPECTS)
    if experiment.kind == "shadow":
        return set()
    arms = list(experiment.arms.values())
    usual = arms[0] if len(arms) > 1 else Arm()
    return {name for name in ASPECTS if any(getattr(arm, name) != getattr(usual, name) for arm in arms)}


def arm_of(body: Mapping[str, Any]) -> Arm:
    """From its parts, JSON-ready; what is not told is as usual. Raises TypeError or ValueError for others."""
    told = dict(body)
    told["diversity"] = Diversity(**told["diversity"]) if told.get("diversity") else None
    told["explore"] = Explore(**told["explore"]) if told.get("explore") else None
    return Arm(**told)


def _name(what: str, name: str) -> None:
    if not name or len(name) > LONGEST_NAME or _BARRED & set(name):
        raise ValueError(f"{what}: found {name!r}, expected 1 to {LONGEST_NAME} characters, none of them a blank or /")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")
