"""The experiment service: writes experiment changes to the journal, and reads state and results from it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from feedrank.api.home import Home
from feedrank.engine.events.events import Event, ExperimentEvent, RankingEvent
from feedrank.engine.experiments.registry import ChangeError, Roster, Standing, roster_of
from feedrank.engine.experiments.spec import Experiment
from feedrank.engine.journal.journal import Journal
from feedrank.engine.types import NOBODY
from feedrank.models.bundles import bundle, registry
from feedrank.models.experiments.lift import Lift, lifts
from feedrank.models.experiments.outcome_collection import BEFORE_DAYS, DAY_S, Collected, collect, declared_metrics
from feedrank.models.experiments.outcomes import Outcomes
from feedrank.models.experiments.plan import Guardrail, Plan
from feedrank.models.experiments.preference import Preference, preferences, said
from feedrank.models.experiments.readout import Readout, read
from feedrank.models.experiments.readout import body as readout_body
from feedrank.models.experiments.shadow_report import Shadowed, shadowed
from feedrank.models.jsonable import plain

LEAST_SHARE = 1e-9
"""Replaces an expected share of 0, so that an arm with units but no expected share fails the SRM test."""


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """The state and results of an experiment."""

    standing: Standing
    readout: Readout | None = None
    """Of an A/B test that has units."""
    preferences: tuple[Preference, ...] = ()
    """Of an interleaving experiment."""
    shadows: tuple[Shadowed, ...] = ()
    holdout: tuple[Lift, ...] = ()
    """Lift of all units in the experiment over the holdout."""
    moved: int = 0
    """Number of units seen in more than one arm."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Creates, changes and reads the experiments of a home folder. Times are in unix seconds."""

    home: Home
    journal: Journal

    @property
    def roster(self) -> Roster:
        """All experiments, replayed from the journal."""
        return roster_of(event for _, event in self.journal.read(kind="experiment"))

    def roster_until(self, offset: int) -> Roster:
        """Return the experiments as of a journal offset."""
        changes = takewhile(lambda entry: entry[0] <= offset, self.journal.read(kind="experiment"))
        return roster_of(event for _, event in changes)

    def create(self, declared: Experiment, at: float) -> Standing:
        """Write a new experiment to the journal. Raises ChangeError if its spec is invalid."""
        plan_of(declared)  # checks the names of metrics
        self._check_bundles(declared)
        return self.change(declared.name, "create", declared.body(), at)

    def start(self, name: str, at: float) -> Standing:
        """Start an experiment: it assigns units from now on. Arms without a bundle get the current one."""
        self._check_bundles(self.roster.of(name).experiment)
        incumbent = registry.current(self.home.bundles)
        return self.change(name, "start", {"incumbent": incumbent} if incumbent else {}, at)

    def change(self, name: str, what: str, told: Mapping[str, Any], at: float) -> Standing:
        """Write a change to the journal; returns the state after it. Raises ChangeError if it is not allowed."""
        timestamp = round(at * 1000)
        event = ExperimentEvent(f"experiment-{uuid.uuid4()}", timestamp, name, what, told, timestamp)
        self.roster.after(event)  # raises before an invalid change is written
        self.journal.append([event])
        after = self.roster
        if event.id in after.refused:  # another process wrote a conflicting change first
            raise ChangeError(after.refused[event.id])
        return after.of(name)

    def found(self, name: str, cuped: bool | None = None) -> Found:
        """Analyse an experiment from the journal. Raises ChangeError if it does not exist or never started.

        cuped: adjust for pre-experiment behaviour (CUPED); None: if there is any.
        """
        standing = self.roster.of(name)
        spec = standing.experiment
        if standing.started is None:
            raise ChangeError(f"the experiment {name!r} has not started; run `feedrank experiment start {name}`")
        if spec.kind == "shadow":
            arms = (arm for arm in spec.arms if arm != spec.first)
            return Found(standing, shadows=tuple(shadowed(arm, standing.shadows.get(arm)) for arm in arms))
        started = self._begun(standing)
        collected = collect(self._since(started - BEFORE_DAYS * DAY_S, standing.stopped), spec, started)
        holdout = _holdout(collected.holdout, spec)
        if spec.kind == "interleave":
            by_arm = preferences(collected.shown, list(spec.arms), started, spec.planned_units)
            return Found(standing, preferences=by_arm, holdout=holdout, moved=collected.moved)
        before = collected.outcomes.before
        use_cuped = bool(before and np.any(before["rankings"])) if cuped is None else cuped
        outcomes, shares = _with_units(collected.outcomes, weights(standing, collected))
        readout = read(outcomes, plan_of(spec, shares, use_cuped)) if len(outcomes.arms) > 1 else None
        return Found(standing, readout, holdout=holdout, moved=collected.moved)

    def outcomes(self, name: str) -> tuple[Outcomes, Plan]:
        """Return the outcomes of an A/B test so far and its analysis plan. Raises ChangeError for other experiments."""
        standing = self.roster.of(name)
        spec = standing.experiment
        if standing.started is None or spec.kind != "ab":
            raise ChangeError(
                f"{name!r} is a {spec.kind} experiment, {standing.status}; expected an ab test that has started"
            )
        started = self._begun(standing)
        collected = collect(self._since(started - BEFORE_DAYS * DAY_S, standing.stopped), spec, started)
        outcomes, shares = _with_units(collected.outcomes, weights(standing, collected))
        return outcomes, plan_of(spec, shares)

    def stop_what_breaks(self, one: Found, at: float) -> list[str]:
        """Stop the arms that violate a guardrail, if the spec has `stop_on_breach`; returns their names."""
        spec = one.standing.experiment
        if one.readout is None or not spec.stop_on_breach or one.standing.status != "running":
            return []
        stopped = []
        for rail in one.readout.guardrails:
            if rail.breached and rail.arm not in one.standing.stopped_arms and rail.arm not in stopped:
                interval = f"[{rail.gain.low:+.1%}, {rail.gain.high:+.1%}]"
                reason = f"violates guardrail {rail.metric}: {interval}, allowed {-rail.worst:.1%}"
                self.change(spec.name, "stop-arm", {"arm": rail.arm, "reason": reason}, at)
                stopped.append(rail.arm)
        return stopped

    def promote_winner(self, one: Found, at: float) -> str:
        """Promote the bundle of the winning arm and stop the experiment; returns the bundle's name.

        Raises ChangeError if there is no winner, or if the winning arm has no bundle of its own.
        """
        spec, readout = one.standing.experiment, one.readout
        if readout is None or readout.verdict.word != "ship" or readout.verdict.arm is None:
            reason = "there is no readout" if readout is None else readout.verdict.sentence
            raise ChangeError(f"{spec.name!r} has no winner: {reason}")
        winner = readout.verdict.arm
        name = spec.arms[winner].bundle
        if not name:
            raise ChangeError(f"the arm {winner!r} has settings and no bundle; put its settings in the config")
        registry.promote(self.home.bundles, name)
        if one.standing.status == "running":
            self.change(spec.name, "stop", {"reason": f"{winner} won; its bundle {name} serves"}, at)
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
        """Yield events from a time on, by effective time. Rankings after `until` (epoch milliseconds) are left out."""
        for _, event in self.journal.in_order(round(at * 1000)):
            if until is None or event.timestamp <= until or not isinstance(event, RankingEvent):
                yield event


def plan_of(experiment: Experiment, weights: tuple[float, ...] = (), cuped: bool = False) -> Plan:
    """Build the analysis plan of an experiment. Raises ChangeError for an unknown metric."""
    arms = len(experiment.arms)
    try:
        return Plan(
            primary=experiment.primary,
            guardrails=tuple(Guardrail(rail.metric, rail.worst) for rail in experiment.guardrails),
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
    """Return the expected share of units per arm: the weights at the time when each unit was first seen."""
    arms = list(standing.experiment.arms)
    phase_starts = np.array([start_ms / 1000 for start_ms, _ in standing.phases])
    phase = np.clip(np.searchsorted(phase_starts, kept.first_seen, side="right") - 1, 0, len(phase_starts) - 1)
    counts = np.bincount(phase, minlength=len(phase_starts))
    total = np.zeros(len(arms))
    for index, (_, shares) in enumerate(standing.phases):
        phase_shares = np.array([shares.get(arm, 0.0) for arm in arms])
        if phase_shares.sum() > 0:
            total += counts[index] * phase_shares / phase_shares.sum()
    if not total.sum():
        total = np.array([arm.weight for arm in standing.experiment.arms.values()])
    return tuple((total / total.sum()).tolist())


def _with_units(outcomes: Outcomes, shares: tuple[float, ...]) -> tuple[Outcomes, tuple[float, ...]]:
    """Drop arms with an expected share of 0 and no units, such as arms with weight 0. The first arm stays."""
    expected = np.array(shares)
    arms = np.flatnonzero((expected > 0) | (outcomes.units > 0) | (np.arange(len(expected)) == 0))
    new_index = np.full(len(expected), NOBODY, np.int32)
    new_index[arms] = np.arange(len(arms))
    remaining = replace(outcomes, arms=tuple(outcomes.arms[arm] for arm in arms), arm_of=new_index[outcomes.arm_of])
    return remaining, tuple(np.maximum(expected[arms], LEAST_SHARE).tolist())


def told(standing: Standing) -> dict[str, Any]:
    """Convert the state of an experiment to JSON types."""
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
    """Convert an experiment report to JSON types."""
    return {
        **told(one.standing),
        "moved_units": one.moved,
        "readout": None if one.readout is None else readout_body(one.readout),
        "preferences": [{**plain(preference), "said": said(preference)} for preference in one.preferences],
        "shadows": [{**plain(shadow), "said": shadow.said} for shadow in one.shadows],
        "holdout": plain(one.holdout),
    }


def _holdout(outcomes: Outcomes | None, own: Experiment) -> tuple[Lift, ...]:
    if outcomes is None or len(np.unique(outcomes.arm_of)) < 2:
        return ()
    return tuple(lifts(outcomes, plan_of(own).metric(own.primary)))
