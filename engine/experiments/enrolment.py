"""Which experiments a request is in, and what is therefore shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from engine.asked import Asked
from engine.experiments.assignment import SLOTS, arm_at, slot_of
from engine.experiments.declared import HOLDOUT, Arm, Experiment, Targeting, aspects
from engine.experiments.roster import Roster, Standing

_USUAL = Arm()


@dataclass(frozen=True, slots=True)
class Exposure:
    """One experiment that a request is in."""

    experiment: Experiment
    variant: str
    """The arm; of an interleaving `interleaved`; HOLDOUT of a unit that is kept away."""


INTERLEAVED = "interleaved"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a request's experiments come to."""

    exposures: tuple[Exposure, ...] = ()
    arm: Arm = _USUAL
    """What is shown, of all experiments together."""
    mixed: tuple[tuple[str, Arm], ...] = ()
    """The arms, by name, whose lists are interleaved; empty: one list."""
    interleaving: str = ""
    shadows: tuple[tuple[str, str, Arm], ...] = ()
    """(experiment, name, arm) of those that score along."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Those that make a list."""
        return tuple(arm for _, arm in self.mixed) or (self.arm,)


NOT_ENROLLED = Enrolled()


def enrol(
    roster: Roster, asked: Asked, ranking_id: str, at: int, ready: Collection[str] | None = None
) -> Enrolled:  # fmt: skip
    """What a request at a moment, in epoch milliseconds, is in. ready: bundles that are at hand; None: all are.

    Nobody is in an experiment of which an arm can't make its list: else the others would have too many units.
    Only experiments whose arms could differ on it count: a list that would be the same in all arms says nothing of
    them, and dilutes what others say.
    """
    enrolled = NOT_ENROLLED
    for standing in roster.running:
        if standing.in_force(at) and _can_serve(standing, ready):
            enrolled = _with(enrolled, standing, asked, ranking_id)
    return enrolled


def _with(enrolled: Enrolled, standing: Standing, asked: Asked, ranking_id: str) -> Enrolled:
    own = standing.experiment
    unit = {"user": asked.user, "session": asked.session, "request": ranking_id}[own.unit]
    if unit is None or not _aimed_at(own.targeting, asked) or not _could_differ(standing, asked):
        return enrolled
    if own.holdout and slot_of(f"holdout:{own.layer}", unit) < round(own.holdout * SLOTS):
        return replace(enrolled, exposures=(*enrolled.exposures, Exposure(own, HOLDOUT)))
    slot = slot_of(f"layer:{own.layer}", unit)
    if not any(slot in span for span in standing.layer):
        return enrolled
    if own.kind == "shadow":
        shadows = tuple((own.name, name, own.arms[name]) for name in _alive(standing) if name != own.first)
        return replace(enrolled, shadows=(*enrolled.shadows, *shadows))
    if own.kind == "interleave":
        return replace(
            enrolled, exposures=(*enrolled.exposures, Exposure(own, INTERLEAVED)),
            mixed=tuple((name, own.arms[name]) for name in _alive(standing)), interleaving=own.interleaving,
        )  # fmt: skip
    name = arm_at(standing.spans, slot_of(own.salted, unit))
    if name is None:  # of an arm that was stopped
        return enrolled
    arm = own.arms[name]
    changed = {what: getattr(arm, what) for what in aspects(own)}
    return replace(enrolled, exposures=(*enrolled.exposures, Exposure(own, name)), arm=replace(enrolled.arm, **changed))


def _can_serve(standing: Standing, ready: Collection[str] | None) -> bool:
    own = standing.experiment
    if ready is None or own.kind == "shadow":
        return True
    return all(own.arms[name].bundle in ready for name in _alive(standing))


def _alive(standing: Standing) -> Iterable[str]:
    return (name for name in standing.experiment.arms if name not in standing.stopped_arms)


def _aimed_at(targeting: Targeting, asked: Asked) -> bool:
    if targeting.surfaces and asked.surface not in targeting.surfaces:
        return False
    if targeting.queries is not None and bool(asked.query) is not targeting.queries:
        return False
    for name, values in targeting.context.items():
        found = asked.context.get(name)
        told = found if isinstance(found, list) else [found]
        if not any(str(one) in values for one in told if one is not None):
            return False
    return True


def _could_differ(standing: Standing, asked: Asked) -> bool:
    """Whether two arms that are left could show different lists."""
    arms = [standing.experiment.arms[name] for name in _alive(standing)]
    if any(arm.explore for arm in arms) and not asked.diversity:
        return True
    kinds = {
        (
            arm.bundle,
            0 if asked.items is not None else arm.candidates,
            arm.rescored,
            None if asked.diversity else arm.diversity,
        )
        for arm in arms
    }
    return len(kinds) > 1
