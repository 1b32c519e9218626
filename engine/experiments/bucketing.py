"""Assigns a request to experiments and arms (bucketing)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from feedrank.engine.experiments.assignment import SLOTS, arm_at, slot_of
from feedrank.engine.experiments.registry import Roster, Standing
from feedrank.engine.experiments.spec import HOLDOUT, Arm, Experiment, Targeting, aspects
from feedrank.engine.serving.request import Asked

_USUAL = Arm()


@dataclass(frozen=True, slots=True)
class Exposure:
    """The variant of one experiment that a request is exposed to."""

    experiment: Experiment
    variant: str
    """Name of the arm; `interleaved` for interleaving; HOLDOUT for a unit in the holdout."""


INTERLEAVED = "interleaved"
"""Variant of requests whose ranking is interleaved."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The combined assignment of a request over all running experiments."""

    exposures: tuple[Exposure, ...] = ()
    arm: Arm = _USUAL
    """Combined arm settings of all ab experiments."""
    mixed: tuple[tuple[str, Arm], ...] = ()
    """(name, arm) of the arms whose rankings are interleaved; empty: no interleaving."""
    interleaving: str = ""
    """Interleaving method; empty: none."""
    shadows: tuple[tuple[str, str, Arm], ...] = ()
    """(experiment, name, arm) of the shadow arms."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Arms that make a ranking for the request."""
        return tuple(arm for _, arm in self.mixed) or (self.arm,)


NOT_ENROLLED = Enrolled()


def enrol(
    roster: Roster, asked: Asked, ranking_id: str, at: int, ready: Collection[str] | None = None
) -> Enrolled:  # fmt: skip
    """Assign a request to the running experiments.

    at_ms: epoch milliseconds. loaded_bundles: bundles that can serve; None: all.

    An experiment gets no units while the bundle of any of its arms is not loaded; otherwise the split would be skewed.
    Experiments whose arms can't differ on the request are skipped, as it would only dilute their effect.
    """
    assignment = NOT_ENROLLED
    for experiment_state in roster.running:
        if experiment_state.in_force(at) and _can_serve(experiment_state, ready):
            assignment = _with(assignment, experiment_state, asked, ranking_id)
    return assignment


def _with(enrolled: Enrolled, standing: Standing, asked: Asked, ranking_id: str) -> Enrolled:
    spec = standing.experiment
    unit = {"user": asked.user, "session": asked.session, "request": ranking_id}[spec.unit]
    if unit is None or not _aimed_at(spec.targeting, asked) or not _could_differ(standing, asked):
        return enrolled
    if spec.holdout and slot_of(f"holdout:{spec.layer}", unit) < round(spec.holdout * SLOTS):
        return replace(enrolled, exposures=(*enrolled.exposures, Exposure(spec, HOLDOUT)))
    slot = slot_of(f"layer:{spec.layer}", unit)
    if not any(slot in slot_range for slot_range in standing.layer):
        return enrolled
    if spec.kind == "shadow":
        shadows = tuple((spec.name, name, spec.arms[name]) for name in _alive(standing) if name != spec.first)
        return replace(enrolled, shadows=(*enrolled.shadows, *shadows))
    if spec.kind == "interleave":
        return replace(
            enrolled, exposures=(*enrolled.exposures, Exposure(spec, INTERLEAVED)),
            mixed=tuple((name, spec.arms[name]) for name in _alive(standing)), interleaving=spec.interleaving,
        )  # fmt: skip
    name = arm_at(standing.spans, slot_of(spec.salted, unit))
    if name is None:  # the slot of a stopped arm
        return enrolled
    arm = spec.arms[name]
    overrides = {setting: getattr(arm, setting) for setting in aspects(spec)}
    return replace(
        enrolled, exposures=(*enrolled.exposures, Exposure(spec, name)), arm=replace(enrolled.arm, **overrides)
    )


def _can_serve(standing: Standing, ready: Collection[str] | None) -> bool:
    spec = standing.experiment
    if ready is None or spec.kind == "shadow":
        return True
    return all(spec.arms[name].bundle in ready for name in _alive(standing))


def _alive(standing: Standing) -> Iterable[str]:
    return (name for name in standing.experiment.arms if name not in standing.stopped_arms)


def _aimed_at(targeting: Targeting, asked: Asked) -> bool:
    if targeting.surfaces and asked.surface not in targeting.surfaces:
        return False
    if targeting.queries is not None and bool(asked.query) is not targeting.queries:
        return False
    for name, values in targeting.context.items():
        value = asked.context.get(name)
        requested = value if isinstance(value, list) else [value]
        if not any(str(entry) in values for entry in requested if entry is not None):
            return False
    return True


def _could_differ(standing: Standing, asked: Asked) -> bool:
    """Check whether at least two active arms could show different rankings."""
    arms = [standing.experiment.arms[name] for name in _alive(standing)]
    if any(arm.explore for arm in arms) and not asked.diversity:
        return True
    variants = {
        (
            arm.bundle,
            0 if asked.items is not None else arm.candidates,
            arm.rescored,
            None if asked.diversity else arm.diversity,
        )
        for arm in arms
    }
    return len(variants) > 1
