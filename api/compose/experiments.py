"""The experiment service: writes experiment changes to the journal, and reads state and results from it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from feedrank.api.clock import clock_ms
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.event_time import FutureEvents
from feedrank.engine.events.events import ExperimentEvent, RankingEvent
from feedrank.engine.experiments.registry import ChangeError, ExperimentRegistry, ExperimentState, replay_events
from feedrank.engine.experiments.spec import ExperimentSpec
from feedrank.engine.journal.journal import Journal
from feedrank.engine.types import UNKNOWN_ROW
from feedrank.models.bundles import bundle, registry
from feedrank.models.experiments.lift import Lift, lifts
from feedrank.models.experiments.outcome_collection import (
    DAY_S,
    PRE_PERIOD_DAYS,
    CollectedOutcomes,
    collect_outcomes,
)
from feedrank.models.experiments.outcomes import Outcomes
from feedrank.models.experiments.plan_metrics import check_metrics, find_plan_metric
from feedrank.models.experiments.preference import Preference, preferences, summary_sentence
from feedrank.models.experiments.readout import Readout, compute_readout
from feedrank.models.experiments.readout import readout_json as readout_body
from feedrank.models.experiments.shadow_report import ShadowReport, shadow_report
from feedrank.models.jsonable import to_jsonable

MIN_EXPECTED_SHARE = 1e-9
"""Replaces an expected share of 0, so that an arm with units but no expected share fails the SRM test."""


@dataclass(frozen=True, eq=False, slots=True)
class ExperimentReport:
    """The state and results of an experiment."""

    state: ExperimentState
    readout: Readout | None = None
    """Of an A/B test that has units."""
    preferences: tuple[Preference, ...] = ()
    """Of an interleaving experiment."""
    shadows: tuple[ShadowReport, ...] = ()
    holdout: tuple[Lift, ...] = ()
    """Lift of all units in the experiment over the holdout."""
    reassigned_units: int = 0
    """Number of units seen in more than one arm."""
    notes: tuple[str, ...] = ()
    """What was done with the log, one sentence each."""


@dataclass(frozen=True, slots=True)
class ExperimentService:
    """Creates, changes and reads the experiments of a home folder. Times are in unix seconds."""

    home: HomePaths
    journal: Journal

    @property
    def experiment_registry(self) -> ExperimentRegistry:
        """All experiments, replayed from the journal."""
        return replay_events(event for _, event in self.journal.read(kind="experiment"))

    def experiment_registry_at(self, offset: int) -> ExperimentRegistry:
        """Return the experiments as of a journal offset."""
        changes = takewhile(lambda entry: entry[0] <= offset, self.journal.read(kind="experiment"))
        return replay_events(event for _, event in changes)

    def create(self, spec: ExperimentSpec, at: float) -> ExperimentState:
        """Write a new experiment to the journal. Raises ChangeError if its spec is invalid."""
        try:
            check_metrics(spec.plan)
        except ValueError as problem:
            raise ChangeError(str(problem)) from None
        self._check_bundles(spec)
        return self.change(spec.name, "create", spec.to_dict(), at)

    def start(self, name: str, at: float) -> ExperimentState:
        """Start an experiment: it assigns units from now on. Arms without a bundle get the current one."""
        self._check_bundles(self.experiment_registry.get(name).experiment)
        incumbent = registry.current_name(self.home.bundles)
        return self.change(name, "start", {"incumbent": incumbent} if incumbent else {}, at)

    def change(self, name: str, change_type: str, payload: Mapping[str, Any], at: float) -> ExperimentState:
        """Write a change to the journal; returns the state after it. Raises ChangeError if it is not allowed."""
        timestamp = round(at * 1000)
        event = ExperimentEvent(f"experiment-{uuid.uuid4()}", timestamp, name, change_type, payload, timestamp)
        self.experiment_registry.apply(event)  # raises before an invalid change is written
        self.journal.append([event])
        after = self.experiment_registry
        if event.id in after.rejected:  # another process wrote a conflicting change first
            raise ChangeError(after.rejected[event.id])
        return after.get(name)

    def report(self, name: str, cuped: bool | None = None) -> ExperimentReport:
        """Analyse an experiment from the journal. Raises ChangeError if it does not exist or never started.

        cuped: adjust for pre-experiment behaviour (CUPED); None: as the plan says.
        """
        state = self.experiment_registry.get(name)
        spec = state.experiment
        if state.started_ms is None:
            raise ChangeError(f"the experiment {name!r} has not started; run `feedrank experiment start {name}`")
        if spec.kind == "shadow":
            arms = (arm for arm in spec.arms if arm != spec.control)
            return ExperimentReport(
                state, shadows=tuple(shadow_report(arm, state.shadow_totals.get(arm)) for arm in arms)
            )
        started = self._start_time(state)
        collected = self._collect(spec, started, state.stopped_ms)
        holdout = _holdout_lifts(collected.holdout, spec)
        if spec.kind == "interleave":
            by_arm = preferences(
                collected.impressions, list(spec.arms), started, spec.plan.planned_units, spec.plan.alpha
            )
            return ExperimentReport(
                state, preferences=by_arm, holdout=holdout, reassigned_units=collected.reassigned_units,
                notes=collected.notes,
            )  # fmt: skip
        outcomes, shares = _drop_empty_arms(collected.outcomes, expected_shares(state, collected))
        plan = spec.plan if cuped is None else replace(spec.plan, cuped=cuped)
        readout = compute_readout(outcomes, plan, shares, len(spec.arms)) if len(outcomes.arms) > 1 else None
        return ExperimentReport(
            state, readout, holdout=holdout, reassigned_units=collected.reassigned_units, notes=collected.notes
        )

    def outcomes(self, name: str) -> tuple[Outcomes, tuple[float, ...]]:
        """Return the outcomes of an A/B test so far and the expected shares of units of their arms.

        Raises ChangeError for other experiments.
        """
        state = self.experiment_registry.get(name)
        spec = state.experiment
        if state.started_ms is None or spec.kind != "ab":
            raise ChangeError(
                f"{name!r} is a {spec.kind} experiment, {state.status}; expected an ab test that has started"
            )
        started = self._start_time(state)
        collected = self._collect(spec, started, state.stopped_ms)
        return _drop_empty_arms(collected.outcomes, expected_shares(state, collected))

    def stop_breaching_arms(self, report: ExperimentReport, at: float) -> list[str]:
        """Stop the arms that violate a guardrail, if the spec has `stop_on_breach`; returns their names."""
        spec = report.state.experiment
        if report.readout is None or not spec.stop_on_breach or report.state.status != "running":
            return []
        stopped = []
        for rail in report.readout.guardrails:
            if rail.breached and rail.arm not in report.state.stopped_arms and rail.arm not in stopped:
                interval = f"[{rail.gain.low:+.1%}, {rail.gain.high:+.1%}]"
                reason = f"violates guardrail {rail.metric}: {interval}, allowed {-rail.max_relative_loss:.1%}"
                self.change(spec.name, "stop-arm", {"arm": rail.arm, "reason": reason}, at)
                stopped.append(rail.arm)
        return stopped

    def promote_winner(self, report: ExperimentReport, at: float) -> str:
        """Promote the bundle of the winning arm and stop the experiment; returns the bundle's name.

        Raises ChangeError if there is no winner, or if the winning arm has no bundle of its own.
        """
        spec, readout = report.state.experiment, report.readout
        if readout is None or readout.verdict.decision != "ship" or readout.verdict.arm is None:
            reason = "there is no readout" if readout is None else readout.verdict.sentence
            raise ChangeError(f"{spec.name!r} has no winner: {reason}")
        winner = readout.verdict.arm
        name = spec.arms[winner].bundle
        if not name:
            raise ChangeError(f"the arm {winner!r} has settings and no bundle; put its settings in the config")
        registry.promote(self.home.bundles, name)
        if report.state.status == "running":
            self.change(spec.name, "stop", {"reason": f"{winner} won; its bundle {name} serves"}, at)
        return name

    def _check_bundles(self, spec: ExperimentSpec) -> None:
        for name, arm in spec.arms.items():
            if arm.bundle:
                try:
                    bundle.read_manifest(bundle.path_of(self.home.bundles, arm.bundle))
                except bundle.BundleError as problem:
                    raise ChangeError(f"the arm {name!r}: {problem}") from None

    def _start_time(self, state: ExperimentState) -> float:
        assert state.started_ms is not None
        return max(state.started_ms, state.experiment.start or state.started_ms) / 1000

    def _collect(self, spec: ExperimentSpec, started: float, until: int | None) -> CollectedOutcomes:
        """Collect the outcomes. Rankings after `until` (epoch milliseconds) and events of the future are left out."""
        future = FutureEvents(clock_ms())
        entries = self.journal.read_by_effective_time(round((started - PRE_PERIOD_DAYS * DAY_S) * 1000))
        events = (
            event
            for _, event in future.skip(entries)
            if until is None or event.timestamp <= until or not isinstance(event, RankingEvent)
        )
        collected = collect_outcomes(events, spec, started)
        return replace(collected, notes=(*collected.notes, *future.notes))


def expected_shares(state: ExperimentState, collected: CollectedOutcomes) -> tuple[float, ...]:
    """Return the expected share of units per arm: the weights at the time when each unit was first seen."""
    arms = list(state.experiment.arms)
    phase_starts = np.array([start_ms / 1000 for start_ms, _ in state.allocation_history])
    phase = np.clip(np.searchsorted(phase_starts, collected.first_seen, side="right") - 1, 0, len(phase_starts) - 1)
    counts = np.bincount(phase, minlength=len(phase_starts))
    total = np.zeros(len(arms))
    for index, (_, shares) in enumerate(state.allocation_history):
        phase_shares = np.array([shares.get(arm, 0.0) for arm in arms])
        if phase_shares.sum() > 0:
            total += counts[index] * phase_shares / phase_shares.sum()
    if not total.sum():
        total = np.array([arm.weight for arm in state.experiment.arms.values()])
    return tuple((total / total.sum()).tolist())


def _drop_empty_arms(outcomes: Outcomes, shares: tuple[float, ...]) -> tuple[Outcomes, tuple[float, ...]]:
    """Drop arms with an expected share of 0 and no units, such as arms with weight 0. The first arm stays."""
    expected = np.array(shares)
    arms = np.flatnonzero((expected > 0) | (outcomes.units > 0) | (np.arange(len(expected)) == 0))
    new_index = np.full(len(expected), UNKNOWN_ROW, np.int32)
    new_index[arms] = np.arange(len(arms))
    remaining = replace(outcomes, arms=tuple(outcomes.arms[arm] for arm in arms), arm_of=new_index[outcomes.arm_of])
    return remaining, tuple(np.maximum(expected[arms], MIN_EXPECTED_SHARE).tolist())


def state_json(state: ExperimentState) -> dict[str, Any]:
    """Convert the state of an experiment to JSON types."""
    return {
        "name": state.experiment.name,
        "kind": state.experiment.kind,
        "status": state.status,
        "started": state.started_ms,
        "stopped": state.stopped_ms,
        "reason": state.stop_reason,
        "stopped_arms": dict(state.stopped_arms),
        "spec": state.experiment.to_dict(),
    }


def report_json(report: ExperimentReport) -> dict[str, Any]:
    """Convert an experiment report to JSON types."""
    return {
        **state_json(report.state),
        "reassigned_units": report.reassigned_units,
        "notes": list(report.notes),
        "readout": None if report.readout is None else readout_body(report.readout),
        "preferences": [
            {**to_jsonable(preference), "summary_sentence": summary_sentence(preference)}
            for preference in report.preferences
        ],
        "shadows": [{**to_jsonable(shadow), "summary_sentence": shadow.summary_sentence} for shadow in report.shadows],
        "holdout": to_jsonable(report.holdout),
    }


def _holdout_lifts(outcomes: Outcomes | None, spec: ExperimentSpec) -> tuple[Lift, ...]:
    if outcomes is None or len(np.unique(outcomes.arm_of)) < 2:
        return ()
    return tuple(lifts(outcomes, find_plan_metric(spec.plan, spec.plan.primary), alpha=spec.plan.alpha))
