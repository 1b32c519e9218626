"""Assigns a request to experiments and arms (bucketing)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from feedrank.engine.experiments.assignment import SLOTS, arm_of_slot, slot_of
from feedrank.engine.experiments.registry import ExperimentRegistry, ExperimentState
from feedrank.engine.experiments.spec import HOLDOUT, Arm, ExperimentSpec, Targeting, varied_settings
from feedrank.engine.serving.request import RecommendationRequest

_DEFAULT_ARM = Arm()


@dataclass(frozen=True, slots=True)
class Exposure:
    """The variant of one experiment that a request is exposed to."""

    experiment: ExperimentSpec
    variant: str
    """Name of the arm; `interleaved` for interleaving; HOLDOUT for a unit in the holdout."""


INTERLEAVED = "interleaved"
"""Variant of requests whose ranking is interleaved."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The combined assignment of a request over all running experiments."""

    exposures: tuple[Exposure, ...] = ()
    arm: Arm = _DEFAULT_ARM
    """Combined arm settings of all ab experiments."""
    interleaved_arms: tuple[tuple[str, Arm], ...] = ()
    """(name, arm) of the arms whose rankings are interleaved; empty: no interleaving."""
    interleaving: str = ""
    """Interleaving method; empty: none."""
    shadows: tuple[tuple[str, str, Arm], ...] = ()
    """(experiment, name, arm) of the shadow arms."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Arms that make a ranking for the request."""
        return tuple(arm for _, arm in self.interleaved_arms) or (self.arm,)


NO_ASSIGNMENT = Assignment()


def assign(
    registry: ExperimentRegistry,
    request: RecommendationRequest,
    ranking_id: str,
    at_ms: int,
    loaded_bundles: Collection[str] | None = None,
) -> Assignment:
    """Assign a request to the running experiments.

    at_ms: epoch milliseconds. loaded_bundles: bundles that can serve; None: all.

    An experiment gets no units while the bundle of any of its arms is not loaded; otherwise the split would be skewed.
    Experiments whose arms can't differ on the request are skipped, as it would only dilute their effect.
    """
    assignment = NO_ASSIGNMENT
    for experiment_state in registry.running:
        if experiment_state.is_active(at_ms) and _all_arms_loaded(experiment_state, loaded_bundles):
            assignment = _add_experiment(assignment, experiment_state, request, ranking_id)
    return assignment


def _add_experiment(
    assignment: Assignment, state: ExperimentState, request: RecommendationRequest, ranking_id: str
) -> Assignment:
    spec = state.experiment
    unit = {"user": request.user, "session": request.session, "request": ranking_id}[spec.unit]
    if unit is None or not _matches_targeting(spec.targeting, request) or not _arms_can_differ(state, request):
        return assignment
    if spec.holdout and slot_of(f"holdout:{spec.layer}", unit) < round(spec.holdout * SLOTS):
        return replace(assignment, exposures=(*assignment.exposures, Exposure(spec, HOLDOUT)))
    slot = slot_of(f"layer:{spec.layer}", unit)
    if not any(slot in slot_range for slot_range in state.layer_ranges):
        return assignment
    if spec.kind == "shadow":
        shadows = tuple((spec.name, name, spec.arms[name]) for name in _active_arms(state) if name != spec.control)
        return replace(assignment, shadows=(*assignment.shadows, *shadows))
    if spec.kind == "interleave":
        return replace(
            assignment,
            exposures=(*assignment.exposures, Exposure(spec, INTERLEAVED)),
            interleaved_arms=tuple((name, spec.arms[name]) for name in _active_arms(state)),
            interleaving=spec.interleaving,
        )
    name = arm_of_slot(state.slot_ranges, slot_of(spec.hash_salt, unit))
    if name is None:  # the slot of a stopped arm
        return assignment
    arm = spec.arms[name]
    overrides = {setting: getattr(arm, setting) for setting in varied_settings(spec)}
    return replace(
        assignment, exposures=(*assignment.exposures, Exposure(spec, name)), arm=replace(assignment.arm, **overrides)
    )


def _all_arms_loaded(state: ExperimentState, loaded_bundles: Collection[str] | None) -> bool:
    spec = state.experiment
    if loaded_bundles is None or spec.kind == "shadow":
        return True
    return all(spec.arms[name].bundle in loaded_bundles for name in _active_arms(state))


def _active_arms(state: ExperimentState) -> Iterable[str]:
    return (name for name in state.experiment.arms if name not in state.stopped_arms)


def _matches_targeting(targeting: Targeting, request: RecommendationRequest) -> bool:
    if targeting.surfaces and request.surface not in targeting.surfaces:
        return False
    if targeting.queries is not None and bool(request.query) is not targeting.queries:
        return False
    for name, values in targeting.context.items():
        value = request.context.get(name)
        requested = value if isinstance(value, list) else [value]
        if not any(str(entry) in values for entry in requested if entry is not None):
            return False
    return True


def _arms_can_differ(state: ExperimentState, request: RecommendationRequest) -> bool:
    """Check whether at least two active arms could show different rankings."""
    arms = [state.experiment.arms[name] for name in _active_arms(state)]
    if any(arm.explore for arm in arms) and not request.diversity:
        return True
    variants = {
        (
            arm.bundle,
            0 if request.items is not None else arm.candidates,
            arm.rerank_top_k,
            None if request.diversity else arm.diversity,
        )
        for arm in arms
    }
    return len(variants) > 1
