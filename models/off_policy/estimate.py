"""What a candidate would have earned, by methods asked for by name, or why the log can't tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.off_policy import estimators, slates
from models.off_policy.clipping import Clipping, Rule, clip
from models.off_policy.intervals import INTERVALS, Kind
from models.off_policy.log import BanditLog, Clusters, Floats, SlateLog
from models.off_policy.policies import Policy, SlatePolicy
from models.off_policy.ratios import Ratios
from models.off_policy.reward_model import RewardModel, predict, predict_slates
from models.off_policy.support import Support, SupportLimits, diagnose, missing


@dataclass(frozen=True, slots=True)
class EstimateSettings:
    """How estimates are made."""

    interval: Kind = "skewed"
    level: float = 0.95
    clip: Rule | float | None = None
    """None: weights are left alone. With a reward model they always are: what is cut away is left to the model, and of
    its error no interval knows."""
    limits: SupportLimits = field(default_factory=SupportLimits)
    model: RewardModel = field(default_factory=RewardModel)

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS:
            raise ValueError(f"no interval is called {self.interval!r}; there are {', '.join(INTERVALS)}")
        if not 0 < self.level < 1:
            raise ValueError(f"the level is {self.level}; expected a share between 0 and 1, such as 0.95")


@dataclass(frozen=True, slots=True)
class Estimate:
    """One method's answer."""

    method: str
    value: float
    """Mean reward a row, or a slate; NaN where it is refused, as are the bounds and the error."""
    low: float
    high: float
    """The interval. Of clipped weights, and of `dm`, it reaches further by what the value is off by the log itself: to
    the side of the unclipped value, or of `dr`."""
    error: float
    """The standard error."""
    ess: float
    """Effective sample size of the weights as used; for weights by position, of the position that has the least."""
    weights: Support
    """How the weights lie; of the position with the least effective sample, where there are several."""
    clipping: Clipping | None
    """None: nothing was to be clipped."""
    rows: int
    clusters: int
    refused: str | None
    """Why nothing can be said, and what to do; None: something is said."""


@dataclass(frozen=True, eq=False, slots=True)
class _Method:
    """How a method reads its inputs; `make` takes weights, rewards, expected and predicted rewards."""

    make: Callable[[Floats, Floats, Floats, Floats], Ratios]
    weights: Literal["row", "slate", "marginal", "cascade"] = "row"
    model: bool = False
    """It needs a reward model."""
    normalised: bool = False
    biased: bool = False
    """The value is the model's, whatever the weights say."""


METHODS: dict[str, _Method] = {
    "ips": _Method(lambda w, r, v, q: estimators.ips(w, r)),
    "snips": _Method(lambda w, r, v, q: estimators.snips(w, r), normalised=True),
    "dm": _Method(estimators.dm, model=True, biased=True),
    "dr": _Method(estimators.dr, model=True),
    "sndr": _Method(estimators.sndr, model=True),
}
"""For a `BanditLog`."""
SLATE_METHODS: dict[str, _Method] = {
    "ips": _Method(lambda w, r, v, q: slates.slate_ips(w, r), "slate"),
    "snips": _Method(lambda w, r, v, q: slates.slate_snips(w, r), "slate", normalised=True),
    "iips": _Method(lambda w, r, v, q: slates.iips(w, r), "marginal"),
    "sniips": _Method(lambda w, r, v, q: slates.sniips(w, r), "marginal", normalised=True),
    "rips": _Method(lambda w, r, v, q: slates.rips(w, r), "cascade"),
    "snrips": _Method(lambda w, r, v, q: slates.snrips(w, r), "cascade", normalised=True),
    "cascade-dr": _Method(slates.cascade_dr, "cascade", model=True),
}
"""For a `SlateLog`."""


def estimate(
    log: BanditLog,
    policy: Policy,
    methods: Sequence[str] = ("snips", "dr"),
    settings: EstimateSettings | None = None,
    *,
    seed: int,
    predictions: Floats | None = None,
    shown: Floats | None = None,
) -> dict[str, Estimate]:
    """Method -> its estimate of the candidate's mean reward a row.

    predictions: (N, A) a reward model's estimates, from rows other than the one they are for; None: learnt here by
    cross-fitting. shown: (P, A) the logging policy's probabilities, to tell what it never could show. Raises ValueError
    for a method that isn't known.
    """
    settings = settings or EstimateSettings()
    found = _known(methods, METHODS)
    weights = log.weights(policy.chosen(log))
    unsupported, mass = missing(log, policy, shown)
    expected = predicted = np.zeros(len(log))
    if any(method.model for method in found.values()):
        q = predict(log, policy.items, settings.model, seed=seed) if predictions is None else predictions
        if q.shape != (len(log), policy.items):
            raise ValueError(f"the reward model gave {q.shape}; expected {(len(log), policy.items)}: rows and items")
        expected = (policy.rows(log) * q).sum(axis=1)
        predicted = np.take_along_axis(q, log.action[:, None].astype(np.int64), axis=1)[:, 0]
    frame = _Frame(log.cluster, settings, seed, unsupported, mass)
    answers = {}
    for name, method in found.items():
        answers[name] = frame.answer(name, _Inputs(method, weights, log.reward, expected, predicted))
    return answers


def estimate_slates(
    log: SlateLog,
    policy: SlatePolicy,
    methods: Sequence[str] = ("rips", "cascade-dr"),
    settings: EstimateSettings | None = None,
    *,
    seed: int,
    position_weights: Floats | None = None,
) -> dict[str, Estimate]:
    """Method -> its estimate of the candidate's mean of the sum over positions of weight x reward.

    position_weights: (K,) None: all 1. Raises ValueError for a method that isn't known, or whose probabilities the log
    or the policy lacks.
    """
    settings = settings or EstimateSettings()
    found = _known(methods, SLATE_METHODS)
    rewards = log.rewards
    if position_weights is not None:
        if position_weights.shape != rewards.shape[1:]:
            raise ValueError(f"position_weights are {position_weights.shape}; expected {rewards.shape[1:]}: positions")
        rewards = rewards * position_weights
    expected = predicted = np.zeros(rewards.shape)
    if any(method.model for method in found.values()):
        q = predict_slates(log, policy, rewards, settings.model, seed=seed)
        assert policy.conditional is not None
        expected = (policy.conditional * q).sum(axis=2)
        at = np.where(log.shown, log.actions, 0)[:, :, None].astype(np.int64)
        predicted = np.where(log.shown, np.take_along_axis(q, at, axis=2)[:, :, 0], 0.0)
    along = slates.cumulative(log.steps(policy.chosen))
    answers, frame = {}, _Frame(log.cluster, settings, seed)
    for name, method in found.items():
        weights = along[:, -1] if method.weights == "slate" else along
        if method.weights == "marginal":
            if policy.marginal is None:
                raise ValueError(f"{name} needs the candidate's marginal probabilities: give the policy `marginal`")
            weights = log.marginals(policy.marginal)
        answers[name] = frame.answer(name, _Inputs(method, weights, rewards, expected, predicted))
    return answers


@dataclass(frozen=True, eq=False, slots=True)
class _Inputs:
    """What one method works on: (N,) of rows, (R, K) of slates, and (R,) weights of whole slates."""

    method: _Method
    weights: Floats
    rewards: Floats
    expected: Floats
    predicted: Floats

    def clipped(self, settings: EstimateSettings, cluster: Clusters | None) -> tuple[Floats, Clipping]:
        assert settings.clip is not None
        residual = self._together(self.weights)
        if self.method.normalised:  # a row moves a ratio by how far its reward is from it
            residual = residual - (self.weights * residual).mean(axis=0) / self.weights.mean(axis=0)
        return clip(self.weights, residual, settings.clip, cluster, most_lost=settings.limits.lost)

    @property
    def off(self) -> float:
        """How far the model's value is above what the log says of it."""
        return -float((self.weights * (self.rewards - self.predicted)).mean())

    def gains(self, weights: Floats) -> Floats:
        """(N,) or (R,) what each row or slate earns."""
        gains: Floats = weights * self._together(weights)
        return gains if gains.ndim == 1 else gains.sum(axis=1)

    def _together(self, weights: Floats) -> Floats:
        """The rewards, summed over positions where there is one weight for all."""
        return self.rewards.sum(axis=1) if self.rewards.ndim > weights.ndim else self.rewards


@dataclass(frozen=True, eq=False, slots=True)
class _Frame:
    """What the methods of one call have in common."""

    cluster: Clusters | None
    settings: EstimateSettings
    seed: int
    unsupported: Floats | None = None
    mass: float = 0.0
    seen: dict[str, list[Support]] = field(default_factory=dict)
    """Of weights that were not clipped, by their kind."""

    def answer(self, name: str, inputs: _Inputs) -> Estimate:
        weights, record, method = inputs.weights, None, inputs.method
        if not method.model and self.settings.clip is not None and weights.mean(axis=0).all():
            weights, record = inputs.clipped(self.settings, self.cluster)
        supports = self._supports(weights, inputs) if record else self.seen.get(method.weights)
        if supports is None:
            supports = self.seen[method.weights] = self._supports(weights, inputs)
        faults = [support.refusal(self.settings.limits) for support in supports]
        if len(faults) > 1:
            faults = [fault and f"at position {k}: {fault}" for k, fault in enumerate(faults)]
        refused = next((fault for fault in faults if fault), None)
        value = low = high = error = float("nan")
        if refused is None:
            ratios = method.make(weights, inputs.rewards, inputs.expected, inputs.predicted)
            interval = INTERVALS[self.settings.interval](ratios, self.cluster, self.settings.level, self.seed)
            bias = record.bias if record else inputs.off if method.biased else 0.0
            value, error = ratios.value, interval.error
            low, high = interval.low - max(bias, 0.0), interval.high - min(bias, 0.0)
        least = min(supports, key=lambda support: support.ess)
        return Estimate(name, value, low, high, error, least.ess, least, record, least.rows, least.clusters, refused)

    def _supports(self, weights: Floats, inputs: _Inputs) -> list[Support]:
        gains = inputs.gains(weights)
        columns = [(weights, inputs.weights)] if weights.ndim == 1 else zip(weights.T, inputs.weights.T, strict=True)
        return [
            diagnose(used, gains, self.cluster, raw=raw, unsupported=self.unsupported, unsupported_mass=self.mass)
            for used, raw in columns
        ]


def _known(methods: Sequence[str], registry: dict[str, _Method]) -> dict[str, _Method]:
    if unknown := [name for name in methods if name not in registry]:
        raise ValueError(f"no method is called {unknown[0]!r}; there are {', '.join(registry)}")
    return {name: registry[name] for name in methods}
