"""Estimates a candidate policy's mean reward by methods chosen by name, or refuses with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from feedrank.models.off_policy import estimators, slates
from feedrank.models.off_policy.clipping import Clipping, ClippingRule, clip
from feedrank.models.off_policy.intervals import INTERVALS, IntervalKind
from feedrank.models.off_policy.log import BanditLog, Clusters, Floats, SlateLog
from feedrank.models.off_policy.policies import Policy, SlatePolicy
from feedrank.models.off_policy.ratio_estimate import RatioEstimate
from feedrank.models.off_policy.reward_model import RewardModelSettings, predict_rewards, predict_slate_rewards
from feedrank.models.off_policy.support import SupportDiagnostics, SupportLimits, diagnose, find_unsupported_mass


@dataclass(frozen=True, slots=True)
class EstimateSettings:
    """Holds the settings of an estimate. Raises ValueError for an unknown interval or a level outside (0, 1)."""

    interval: IntervalKind = "skewed"
    level: float = 0.95
    clip: ClippingRule | float | None = None
    """A clipping rule or threshold; None: weights are not clipped. Methods with a reward model never clip: the clipped
    part would be left to the model, and no interval covers the model's error."""
    limits: SupportLimits = field(default_factory=SupportLimits)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS:
            raise ValueError(f"no interval is called {self.interval!r}; expected {', '.join(INTERVALS)}")
        if not 0 < self.level < 1:
            raise ValueError(f"the level is {self.level}; expected a share between 0 and 1, such as 0.95")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Holds one method's estimate, or the reason why there is none."""

    method: str
    value: float
    """Mean reward per row or per slate; NaN if refused, as are the bounds and the standard error."""
    low: float
    """Lower bound of the confidence interval. With clipped weights, and for `dm`, the interval is widened by the bias
    estimated from the log: toward the unclipped value, or toward `dr`."""
    high: float
    standard_error: float
    """The standard error."""
    ess: float
    """Effective sample size of the weights as used; with weights by position, the lowest over positions."""
    support: SupportDiagnostics
    """Diagnostics of the weights; with weights by position, those of the position with the lowest `ess`."""
    clipping: Clipping | None
    """None: clipping was off."""
    rows: int
    clusters: int
    refusal: str | None
    """Why there is no estimate, and what to do; None: there is one."""


@dataclass(frozen=True, eq=False, slots=True)
class _Method:
    """Defines a method: its estimator, and the inputs that it needs.

    `estimator` takes weights, rewards, expected rewards and predicted rewards.
    """

    estimator: Callable[[Floats, Floats, Floats, Floats], RatioEstimate]
    weights: Literal["row", "slate", "marginal", "cascade"] = "row"
    needs_model: bool = False
    """True if it needs a reward model."""
    self_normalised: bool = False
    """True if the weights are self-normalised."""
    biased: bool = False
    """True if the value comes from the model alone, so that its bias widens the interval."""


METHODS: dict[str, _Method] = {
    "ips": _Method(lambda w, r, v, q: estimators.ips(w, r)),
    "snips": _Method(lambda w, r, v, q: estimators.snips(w, r), self_normalised=True),
    "dm": _Method(estimators.dm, needs_model=True, biased=True),
    "dr": _Method(estimators.dr, needs_model=True),
    "sndr": _Method(estimators.sndr, needs_model=True),
}
"""Methods for a `BanditLog`, by name."""
SLATE_METHODS: dict[str, _Method] = {
    "ips": _Method(lambda w, r, v, q: slates.slate_ips(w, r), "slate"),
    "snips": _Method(lambda w, r, v, q: slates.slate_snips(w, r), "slate", self_normalised=True),
    "iips": _Method(lambda w, r, v, q: slates.iips(w, r), "marginal"),
    "sniips": _Method(lambda w, r, v, q: slates.sniips(w, r), "marginal", self_normalised=True),
    "rips": _Method(lambda w, r, v, q: slates.rips(w, r), "cascade"),
    "snrips": _Method(lambda w, r, v, q: slates.snrips(w, r), "cascade", self_normalised=True),
    "cascade-dr": _Method(slates.cascade_dr, "cascade", needs_model=True),
}
"""Methods for a `SlateLog`, by name."""


def estimate(
    log: BanditLog,
    policy: Policy,
    methods: Sequence[str] = ("snips", "dr"),
    settings: EstimateSettings | None = None,
    *,
    seed: int,
    predictions: Floats | None = None,
    logging_probabilities: Floats | None = None,
) -> dict[str, Estimate]:
    """Estimate the candidate's mean reward per row; returns method -> estimate.

    predictions: (N, A) rewards predicted by a model that was not trained on the row; None: a model is cross-fitted
    here. logging_probabilities: (P, A) of the logging policy, to find what it could never show. Raises ValueError for
    an unknown method or predictions of another shape.
    """
    settings = settings or EstimateSettings()
    selected = _select_methods(methods, METHODS)
    weights = log.importance_weights(policy.logged_probabilities(log))
    unsupported, unsupported_mass = find_unsupported_mass(log, policy, logging_probabilities)
    expected = predicted = np.zeros(len(log))
    if any(method.needs_model for method in selected.values()):
        q = (
            predict_rewards(log, policy.n_items, settings.reward_model, seed=seed)
            if predictions is None
            else predictions
        )
        if q.shape != (len(log), policy.n_items):
            raise ValueError(
                f"the predictions have shape {q.shape}; expected {(len(log), policy.n_items)}: rows and items"
            )
        expected = (policy.row_probabilities(log) * q).sum(axis=1)
        predicted = np.take_along_axis(q, log.action[:, None].astype(np.int64), axis=1)[:, 0]
    context = _EstimationContext(log.cluster, settings, seed, unsupported, unsupported_mass)
    estimates = {}
    for name, method in selected.items():
        estimates[name] = context.estimate(name, _MethodInputs(method, weights, log.reward, expected, predicted))
    return estimates


def estimate_slates(
    log: SlateLog,
    policy: SlatePolicy,
    methods: Sequence[str] = ("rips", "cascade-dr"),
    settings: EstimateSettings | None = None,
    *,
    seed: int,
    position_weights: Floats | None = None,
) -> dict[str, Estimate]:
    """Estimate the candidate's mean reward per slate: the sum over positions of weight x reward.

    Returns method -> estimate. position_weights: (K,); None: all 1. Raises ValueError for an unknown method, or if the
    log or the policy lacks the probabilities that a method needs.
    """
    settings = settings or EstimateSettings()
    selected = _select_methods(methods, SLATE_METHODS)
    rewards = log.rewards
    if position_weights is not None:
        if position_weights.shape != rewards.shape[1:]:
            raise ValueError(
                f"position_weights have shape {position_weights.shape}; expected {rewards.shape[1:]}, one per position"
            )
        rewards = rewards * position_weights
    expected = predicted = np.zeros(rewards.shape)
    if any(method.needs_model for method in selected.values()):
        q = predict_slate_rewards(log, policy, rewards, settings.reward_model, seed=seed)
        assert policy.conditional is not None
        expected = (policy.conditional * q).sum(axis=2)
        action = np.where(log.has_item, log.actions, 0)[:, :, None].astype(np.int64)
        predicted = np.where(log.has_item, np.take_along_axis(q, action, axis=2)[:, :, 0], 0.0)
    cumulative_weights = slates.cumulative_weights(log.conditional_weights(policy.logged_probabilities))
    estimates, context = {}, _EstimationContext(log.cluster, settings, seed)
    for name, method in selected.items():
        weights = cumulative_weights[:, -1] if method.weights == "slate" else cumulative_weights
        if method.weights == "marginal":
            if policy.marginal is None:
                raise ValueError(f"{name} needs the candidate's marginal probabilities: give the policy `marginal`")
            weights = log.marginal_weights(policy.marginal)
        estimates[name] = context.estimate(name, _MethodInputs(method, weights, rewards, expected, predicted))
    return estimates


@dataclass(frozen=True, eq=False, slots=True)
class _MethodInputs:
    """Holds the inputs of one method: (N,) for rows, (R, K) for slates, and (R,) weights of whole slates."""

    method: _Method
    weights: Floats
    rewards: Floats
    expected: Floats
    predicted: Floats

    def clip_weights(self, settings: EstimateSettings, cluster: Clusters | None) -> tuple[Floats, Clipping]:
        assert settings.clip is not None
        residual = self._matching_rewards(self.weights)
        if self.method.self_normalised:  # the influence of a row on a ratio
            residual = residual - (self.weights * residual).mean(axis=0) / self.weights.mean(axis=0)
        return clip(self.weights, residual, settings.clip, cluster, max_lost_weight=settings.limits.max_lost_weight)

    @property
    def model_bias(self) -> float:
        """The model's bias estimated from the log: predicted less observed reward, under the weights."""
        return -float((self.weights * (self.rewards - self.predicted)).mean())

    def contributions(self, weights: Floats) -> Floats:
        """(N,) or (R,) the weighted reward of each row or slate."""
        weighted: Floats = weights * self._matching_rewards(weights)
        return weighted if weighted.ndim == 1 else weighted.sum(axis=1)

    def _matching_rewards(self, weights: Floats) -> Floats:
        """The rewards, summed over positions if there is one weight per slate."""
        return self.rewards.sum(axis=1) if self.rewards.ndim > weights.ndim else self.rewards


@dataclass(frozen=True, eq=False, slots=True)
class _EstimationContext:
    """Holds what the methods of one call share."""

    cluster: Clusters | None
    settings: EstimateSettings
    seed: int
    unsupported: Floats | None = None
    unsupported_mass: float = 0.0
    supports_by_kind: dict[str, list[SupportDiagnostics]] = field(default_factory=dict)
    """Diagnostics of unclipped weights, by the kind of weights."""

    def estimate(self, name: str, inputs: _MethodInputs) -> Estimate:
        weights, clipping, method = inputs.weights, None, inputs.method
        if not method.needs_model and self.settings.clip is not None and weights.mean(axis=0).all():
            weights, clipping = inputs.clip_weights(self.settings, self.cluster)
        supports = self._supports(weights, inputs) if clipping else self.supports_by_kind.get(method.weights)
        if supports is None:
            supports = self.supports_by_kind[method.weights] = self._supports(weights, inputs)
        refusals = [support.refusal_reason(self.settings.limits) for support in supports]
        if len(refusals) > 1:
            refusals = [refusal and f"at position {k}: {refusal}" for k, refusal in enumerate(refusals)]
        refused = next((refusal for refusal in refusals if refusal), None)
        value = low = high = error = float("nan")
        if refused is None:
            ratios = method.estimator(weights, inputs.rewards, inputs.expected, inputs.predicted)
            interval = INTERVALS[self.settings.interval](ratios, self.cluster, self.settings.level, self.seed)
            bias = clipping.bias if clipping else inputs.model_bias if method.biased else 0.0
            value, error = ratios.value, interval.standard_error
            low, high = interval.low - max(bias, 0.0), interval.high - min(bias, 0.0)
        worst = min(supports, key=lambda support: support.ess)
        return Estimate(name, value, low, high, error, worst.ess, worst, clipping, worst.rows, worst.clusters, refused)

    def _supports(self, weights: Floats, inputs: _MethodInputs) -> list[SupportDiagnostics]:
        contributions = inputs.contributions(weights)
        columns = [(weights, inputs.weights)] if weights.ndim == 1 else zip(weights.T, inputs.weights.T, strict=True)
        return [
            diagnose(
                used,
                contributions,
                self.cluster,
                unclipped_weights=raw,
                unsupported_by_position=self.unsupported,
                unsupported_mass=self.unsupported_mass,
            )
            for used, raw in columns
        ]


def _select_methods(methods: Sequence[str], registry: dict[str, _Method]) -> dict[str, _Method]:
    if unknown := [name for name in methods if name not in registry]:
        raise ValueError(f"no method is called {unknown[0]!r}; expected {', '.join(registry)}")
    return {name: registry[name] for name in methods}
