"""Experiments in the journal: their changes, how they stand, and what they say."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from api.home import Home
from engine.events import Event, ExperimentEvent, RankingEvent
from engine.experiments.declared import Experiment
from engine.experiments.roster import ChangeError, Roster, Standing, roster_of
from engine.journal import Journal
from engine.types import NOBODY
from models import bundle, registry
from models.experiments.collecting import BEFORE_DAYS, DAY_S, Collected, collect, declared_metrics
from models.experiments.lift import Lift, lifts
from models.experiments.outcomes import Outcomes
from models.experiments.plan import Guardrail, Plan
from models.experiments.preference import Preference, preferences, said
from models.experiments.readout import Readout, read
from models.experiments.readout import body as readout_body
from models.experiments.shadowed import Shadowed, shadowed
from models.plain import plain

LEAST_SHARE = 1e-9
"""Stands for none: an arm that has units and was to have nobody is a split that is broken."""


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What an experiment says."""

    standing: Standing
    readout: Readout | None = None
    """Of an A/B test with units in it."""
    preferences: tuple[Preference, ...] = ()
    """Of an interleaving."""
    shadows: tuple[Shadowed, ...] = ()
    holdout: tuple[Lift, ...] = ()
    """What all that are in the experiment have over those that are kept away."""
    moved: int = 0
    """Units that were seen in more than one arm."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where experiments of a home are declared, changed and read. Moments are in unix seconds."""

    home: Home
    journal: Journal

    @property
    def roster(self) -> Roster:
        """All experiments there are."""
        return roster_of(event for _, event in self.journal.read(kind="experiment"))

    def roster_until(self, offset: int) -> Roster:
        """The experiments as they stood after an offset of the journal."""
        changes = takewhile(lambda one: one[0] <= offset, self.journal.read(kind="experiment"))
        return roster_of(event for _, event in changes)

    def create(self, declared: Experiment, at: float) -> Standing:
        """Write a declaration to the journal. Raises ChangeError where it can't be made, with what is wrong."""
        plan_of(declared)  # names of metrics
        self._check_bundles(declared)
        return self.change(declared.name, "create", declared.body(), at)

    def start(self, name: str, at: float) -> Standing:
        """Let an experiment have its units from now on. Arms that name no bundle get the one that serves now."""
        self._check_bundles(self.roster.of(name).experiment)
        incumbent = registry.current(self.home.bundles)
        return self.change(name, "start", {"incumbent": incumbent} if incumbent else {}, at)

    def change(self, name: str, what: str, told: Mapping[str, Any], at: float) -> Standing:
        """Write a change, and how the experiment stands then. Raises ChangeError."""
        moment = round(at * 1000)
        event = ExperimentEvent(f"experiment-{uuid.uuid4()}", moment, name, what, told, moment)
        self.roster.after(event)  # refuses what can't be made, before it is written
        self.journal.append([event])
        after = self.roster
        if event.id in after.refused:  # another process made a change in between
            raise ChangeError(after.refused[event.id])
        return after.of(name)

    def found(self, name: str, cuped: bool | None = None) -> Found:
        """Read the journal for an experiment. Raises ChangeError where there is none, or it never started.

        cuped: whether what units did before is taken off; None: where they did anything.
        """
        standing = self.roster.of(name)
        own = standing.experiment
        if standing.started is None:
            raise ChangeError(f"the experiment {name!r} was not started: `feedrank experiment start {name}`")
        if own.kind == "shadow":
            looked_on = (arm for arm in own.arms if arm != own.first)
            return Found(standing, shadows=tuple(shadowed(arm, standing.shadows.get(arm)) for arm in looked_on))
        begun = self._begun(standing)
        kept = collect(self._since(begun - BEFORE_DAYS * DAY_S, standing.stopped), own, begun)
        holdout = _holdout(kept.holdout, own)
        if own.kind == "interleave":
            told = preferences(kept.shown, list(own.arms), begun, own.planned_units)
            return Found(standing, preferences=told, holdout=holdout, moved=kept.moved)
        before = kept.outcomes.before
        taken_off = bool(before and np.any(before["rankings"])) if cuped is None else cuped
        outcomes, shares = _with_units(kept.outcomes, weights(standing, kept))
        readout = read(outcomes, plan_of(own, shares, taken_off)) if len(outcomes.arms) > 1 else None
        return Found(standing, readout, holdout=holdout, moved=kept.moved)

    def outcomes(self, name: str) -> tuple[Outcomes, Plan]:
        """What the units of an A/B test did so far, and how it is read. Raises ChangeError."""
        standing = self.roster.of(name)
        own = standing.experiment
        if standing.started is None or own.kind != "ab":
            raise ChangeError(
                f"{name!r} is a {own.kind} experiment, {standing.status}; expected an ab test that started"
            )
        begun = self._begun(standing)
        kept = collect(self._since(begun - BEFORE_DAYS * DAY_S, standing.stopped), own, begun)
        outcomes, shares = _with_units(kept.outcomes, weights(standing, kept))
        return outcomes, plan_of(own, shares)

    def stop_what_breaks(self, one: Found, at: float) -> list[str]:
        """Stop the arms that break a guardrail, where the experiment allows it; which."""
        own = one.standing.experiment
        if one.readout is None or not own.stop_on_breach or one.standing.status != "running":
            return []
        stopped = []
        for rail in one.readout.guardrails:
            if rail.breached and rail.arm not in one.standing.stopped_arms and rail.arm not in stopped:
                span = f"[{rail.gain.low:+.1%}, {rail.gain.high:+.1%}]"
                reason = f"breaks the guardrail {rail.metric}: {span}, where {-rail.worst:.1%} is borne"
                self.change(own.name, "stop-arm", {"arm": rail.arm, "reason": reason}, at)
                stopped.append(rail.arm)
        return stopped

    def promote_winner(self, one: Found, at: float) -> str:
        """Make the bundle of the winning arm the one that serves, and stop the experiment; its name.

        Raises ChangeError where there is no winner, or it is made by settings and not by a bundle.
        """
        own, readout = one.standing.experiment, one.readout
        if readout is None or readout.verdict.word != "ship" or readout.verdict.arm is None:
            said = "nothing to promote" if readout is None else readout.verdict.sentence
            raise ChangeError(f"{own.name!r} has no winner: {said}")
        winner = readout.verdict.arm
        name = own.arms[winner].bundle
        if not name:
            raise ChangeError(f"the arm {winner!r} is of settings, not of a bundle; put them in the config")
        registry.promote(self.home.bundles, name)
        if one.standing.status == "running":
            self.change(own.name, "stop", {"reason": f"{winner} won and serves: {name}"}, at)
        return name

    def _check_bundles(self, declared: Experiment) -> None:
        for name, arm in declared.arms.items():
            if arm.bundle:
                try:
                    bundle.read_manifest(self.home.bundles / arm.bundle)
                except bundle.BundleError as problem:
                    raise ChangeError(f"the arm {name!r}: {problem}") from None

    def _begun(self, standing: Standing) -> float:
        assert standing.started is not None
        return max(standing.started, standing.experiment.start or standing.started) / 1000

    def _since(self, at: float, until: int | None) -> Iterator[Event]:
        """Events from a moment on, in the order in which they became known; rankings until another one alone."""
        for _, event in self.journal.in_order(round(at * 1000)):
            if until is None or event.timestamp <= until or not isinstance(event, RankingEvent):
                yield event


def plan_of(experiment: Experiment, weights: tuple[float, ...] = (), cuped: bool = False) -> Plan:
    """How an experiment is read. Raises ChangeError where it names a metric that there is not."""
    arms = len(experiment.arms)
    try:
        return Plan(
            primary=experiment.primary,
            guardrails=tuple(Guardrail(one.metric, one.worst) for one in experiment.guardrails),
            weights=weights,
            least_days=max(experiment.minimum_days, 1),
            least_units=experiment.minimum_units * arms,
            planned_units=experiment.planned_units,
            declared=declared_metrics(experiment),
            cuped=cuped,
        )
    except ValueError as problem:
        raise ChangeError(str(problem)) from None


def weights(standing: Standing, kept: Collected) -> tuple[float, ...]:
    """The share of units that each arm was to have, by when the units came and what the weights were then."""
    arms = list(standing.experiment.arms)
    moments = np.array([moment / 1000 for moment, _ in standing.phases])
    phase = np.clip(np.searchsorted(moments, kept.first_seen, side="right") - 1, 0, len(moments) - 1)
    counts = np.bincount(phase, minlength=len(moments))
    total = np.zeros(len(arms))
    for place, (_, shares) in enumerate(standing.phases):
        own = np.array([shares.get(arm, 0.0) for arm in arms])
        if own.sum() > 0:
            total += counts[place] * own / own.sum()
    if not total.sum():
        total = np.array([arm.weight for arm in standing.experiment.arms.values()])
    return tuple((total / total.sum()).tolist())


def _with_units(outcomes: Outcomes, shares: tuple[float, ...]) -> tuple[Outcomes, tuple[float, ...]]:
    """Without arms that were to have nobody and have nobody, as by a weight of 0: there is nothing to read of them."""
    due = np.array(shares)
    kept = np.flatnonzero((due > 0) | (outcomes.units > 0) | (np.arange(len(due)) == 0))
    number = np.full(len(due), NOBODY, np.int32)
    number[kept] = np.arange(len(kept))
    made = replace(outcomes, arms=tuple(outcomes.arms[arm] for arm in kept), arm_of=number[outcomes.arm_of])
    return made, tuple(np.maximum(due[kept], LEAST_SHARE).tolist())


def told(standing: Standing) -> dict[str, Any]:
    """How an experiment stands, JSON-ready."""
    return {
        "name": standing.experiment.name,
        "kind": standing.experiment.kind,
        "status": standing.status,
        "started": standing.started,
        "stopped": standing.stopped,
        "reason": standing.reason,
        "stopped_arms": dict(standing.stopped_arms),
        "declared": standing.experiment.body(),
    }


def body(one: Found) -> dict[str, Any]:
    """What an experiment says, JSON-ready."""
    return {
        **told(one.standing),
        "moved_units": one.moved,
        "readout": None if one.readout is None else readout_body(one.readout),
        "preferences": [{**plain(each), "said": said(each)} for each in one.preferences],
        "shadows": [{**plain(each), "said": each.said} for each in one.shadows],
        "holdout": plain(one.holdout),
    }


def _holdout(outcomes: Outcomes | None, own: Experiment) -> tuple[Lift, ...]:
    if outcomes is None or len(np.unique(outcomes.arm_of)) < 2:
        return ()
    return tuple(lifts(outcomes, plan_of(own).metric(own.primary)))
