"""Keeps the state of all experiments, computed from the journal's experiment events in order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from feedrank.engine.events.checks import is_finite, short_repr
from feedrank.engine.events.events import Event, ExperimentEvent
from feedrank.engine.experiments.assignment import (
    SLOTS,
    SlotRange,
    SlotRanges,
    drop_arm,
    initial_slot_ranges,
    rebalance,
)
from feedrank.engine.experiments.spec import Arm, ExperimentSpec, varied_settings

Status = Literal["created", "running", "stopped"]
CHANGES = ("create", "start", "weights", "stop-arm", "stop", "shadow")
"""Values of `ExperimentEvent.change`."""
_log = logging.getLogger(__name__)


class ChangeError(ValueError):
    """Raised for a change of an experiment that is not possible; the message says why."""


@dataclass(frozen=True, slots=True)
class ExperimentState:
    """The state of one experiment."""

    experiment: ExperimentSpec
    status: Status = "created"
    slot_ranges: SlotRanges = field(default_factory=dict)
    """Arm -> its slot ranges among the units of the experiment."""
    layer_ranges: tuple[SlotRange, ...] = ()
    """Slots of the layer that it occupies while it runs."""
    allocation_history: tuple[tuple[int, Mapping[str, float]], ...] = ()
    """(epoch milliseconds, arm -> share of the slots from then on), one for each change of the split."""
    started_ms: int | None = None
    """Epoch milliseconds; None: not started."""
    stopped_ms: int | None = None
    """Epoch milliseconds; None: not stopped."""
    stopped_arms: Mapping[str, str] = field(default_factory=dict)
    """Arm -> reason for stopping it."""
    stop_reason: str = ""
    """Reason for stopping the experiment."""
    shadow_totals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Shadow arm -> summed statistics of all its reports."""

    def is_active(self, at_ms: int) -> bool:
        """Check whether it assigns units at a time, in epoch milliseconds."""
        start, end = self.experiment.start, self.experiment.end
        return self.status == "running" and (start is None or at_ms >= start) and (end is None or at_ms < end)


@dataclass(frozen=True, slots=True)
class ExperimentRegistry:
    """The states of all experiments; immutable."""

    states: Mapping[str, ExperimentState] = field(default_factory=dict)
    """Experiment name -> state, in the order of creation."""
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Id of a rejected event -> reason."""

    @property
    def running(self) -> list[ExperimentState]:
        """Experiments that are started and not stopped."""
        return [state for state in self.states.values() if state.status == "running"]

    @property
    def bundles(self) -> list[str]:
        """Distinct names of the bundles that running experiments need."""
        names = (arm.bundle for state in self.running for arm in state.experiment.arms.values())
        return list(dict.fromkeys(name for name in names if name))

    def get(self, name: str) -> ExperimentState:
        """Return the state of an experiment. Raises ChangeError if there is none of this name."""
        if name not in self.states:
            names = ", ".join(self.states) or "none"
            raise ChangeError(f"found no experiment {name!r}; there are: {names}")
        return self.states[name]

    def apply(self, event: ExperimentEvent) -> ExperimentRegistry:
        """Return the registry after a change. Raises ChangeError if the change is not possible."""
        if event.change == "create":
            if event.experiment in self.states:
                raise ChangeError(f"the experiment {event.experiment!r} exists already; choose another name")
            try:
                spec = ExperimentSpec.from_dict({**event.payload, "name": event.experiment})
            except ValueError as problem:
                raise ChangeError(str(problem)) from None
            return self._with_state(ExperimentState(spec))
        state = self.get(event.experiment)
        match event.change:
            case "start":
                return self._with_state(self._start(state, event))
            case "weights":
                return self._with_state(_set_weights(state, event))
            case "stop-arm":
                return self._with_state(_stop_arm(state, event))
            case "stop":
                if state.status == "stopped":
                    raise ChangeError(f"the experiment {event.experiment!r} is stopped already")
                reason = str(event.payload.get("reason", ""))
                return self._with_state(
                    replace(state, status="stopped", stopped_ms=event.timestamp, stop_reason=reason)
                )
            case "shadow":
                return self._with_state(_add_shadow_report(state, event.payload))
        raise ChangeError(f"found the change {event.change!r}, expected one of {', '.join(CHANGES)}")

    def _start(self, state: ExperimentState, event: ExperimentEvent) -> ExperimentState:
        spec = state.experiment
        if state.status != "created":
            raise ChangeError(f"the experiment {spec.name!r} is {state.status}; only a created one can start")
        incumbent = str(event.payload.get("incumbent", ""))
        arms: dict[str, Arm] = {
            name: replace(arm, bundle=arm.bundle or incumbent) for name, arm in spec.arms.items()
        }  # fmt: skip
        slot_ranges = initial_slot_ranges({name: arm.weight for name, arm in arms.items()})
        self._check_overlap(spec)
        taken = [part for other in self.running if other.experiment.layer == spec.layer for part in other.layer_ranges]
        layer = _free_ranges(taken, round(spec.share * SLOTS))
        if layer is None:
            free = 1 - sum(map(len, taken)) / SLOTS
            raise ChangeError(
                f"the layer {spec.layer!r} has {free:.1%} of its units free, but {spec.name!r} needs {spec.share:.1%};"
                " stop another experiment, reduce the share, or use another layer"
            )
        pinned = replace(spec, arms=arms)
        # arms that all use the current bundle follow promotions: it is not pinned
        pin = "bundle" in varied_settings(pinned) or spec.kind != "ab"
        return replace(
            state, experiment=pinned if pin else spec, status="running", slot_ranges=slot_ranges, layer_ranges=layer,
            started_ms=event.timestamp, allocation_history=((event.timestamp, _slot_shares(slot_ranges)),),
        )  # fmt: skip

    def _check_overlap(self, experiment: ExperimentSpec) -> None:
        """Check that no running experiment of another layer varies the same settings, as layers share units."""
        for other in self.running:
            shared = varied_settings(experiment) & varied_settings(other.experiment)
            if shared and other.experiment.layer != experiment.layer:
                raise ChangeError(
                    f"{other.experiment.name!r}, which runs in the layer {other.experiment.layer!r}, also changes"
                    f" {', '.join(sorted(shared))}; put {experiment.name!r} in the same layer, so"
                    " that they share no unit"
                )

    def _with_state(self, state: ExperimentState) -> ExperimentRegistry:
        return replace(self, states={**self.states, state.experiment.name: state})


def replay_events(events: Iterable[Event], initial: ExperimentRegistry | None = None) -> ExperimentRegistry:
    """Apply the experiment events to a registry; other events are ignored.

    A change that is not possible, such as the second of two concurrent ones, is logged and rejected. All processes
    read the journal in the same order, so they agree.
    """
    registry = initial or ExperimentRegistry()
    for event in events:
        if isinstance(event, ExperimentEvent):
            try:
                registry = registry.apply(event)
            except Exception as problem:  # whatever is wrong with one payload, all others must be read
                _log.warning("rejected the experiment event %s: %s", event.id, problem)
                registry = replace(registry, rejected={**registry.rejected, event.id: str(problem)})
    return registry


def _set_weights(state: ExperimentState, event: ExperimentEvent) -> ExperimentState:
    spec, weights = state.experiment, event.payload.get("weights")
    if not isinstance(weights, Mapping) or not set(weights) <= set(spec.arms):
        raise ChangeError(f"found the weights {weights!r}, expected arm -> weight, of the arms {', '.join(spec.arms)}")
    try:
        arms = {name: replace(arm, weight=float(weights.get(name, arm.weight))) for name, arm in spec.arms.items()}
        changed = replace(spec, arms=arms)
    except (TypeError, ValueError) as problem:
        raise ChangeError(str(problem)) from None
    if state.status == "stopped":
        raise ChangeError(f"the experiment {spec.name!r} is stopped; its weights can't change")
    active = {name: 0.0 if name in state.stopped_arms else arm.weight for name, arm in arms.items()}
    if not state.slot_ranges:
        return replace(state, experiment=changed)
    slot_ranges = rebalance(state.slot_ranges, active)
    phases = (*state.allocation_history, (event.timestamp, _slot_shares(slot_ranges)))
    return replace(state, experiment=changed, slot_ranges=slot_ranges, allocation_history=phases)


def _stop_arm(state: ExperimentState, event: ExperimentEvent) -> ExperimentState:
    spec, arm = state.experiment, str(event.payload.get("arm", ""))
    if arm not in spec.arms or arm == spec.control:
        others = ", ".join(name for name in spec.arms if name != spec.control)
        raise ChangeError(f"found the arm {arm!r}, expected one of {others}; to stop all arms, stop the experiment")
    if arm in state.stopped_arms:
        raise ChangeError(f"the arm {arm!r} is stopped already")
    stopped = {**state.stopped_arms, arm: str(event.payload.get("reason", ""))}
    slot_ranges = drop_arm(state.slot_ranges, arm)
    phases = (*state.allocation_history, (event.timestamp, _slot_shares(slot_ranges)))
    return replace(state, slot_ranges=slot_ranges, stopped_arms=stopped, allocation_history=phases)


def _add_shadow_report(state: ExperimentState, report: Mapping[str, Any]) -> ExperimentState:
    arm = str(report.get("arm", ""))
    numbers = {name: value for name, value in report.items() if name != "arm"}
    for name, value in numbers.items():
        if not all(map(is_finite, value if isinstance(value, list) else [value])):
            raise ChangeError(f"{name}: found {short_repr(value)}, expected a finite number or a list of these")
    total = state.shadow_totals.get(arm)
    try:
        sums = numbers if total is None else {name: _add_numbers(total[name], value) for name, value in numbers.items()}
    except (KeyError, TypeError, ValueError):
        raise ChangeError(f"found other statistics in a report of the shadow {arm!r} than before") from None
    return replace(state, shadow_totals={**state.shadow_totals, arm: sums})


def _add_numbers(first: Any, second: Any) -> Any:
    """Add two numbers, or two lists element by element. Raises ValueError for lists of different lengths."""
    if isinstance(first, list):
        return [a + b for a, b in zip(first, second, strict=True)]
    return first + second


def _slot_shares(slot_ranges: SlotRanges) -> dict[str, float]:
    return {arm: sum(map(len, ranges)) / SLOTS for arm, ranges in slot_ranges.items()}


def _free_ranges(taken_ranges: list[SlotRange], n_slots: int) -> tuple[SlotRange, ...] | None:
    """Return the first `n_slots` free slots of a layer; None if there are too few."""
    edges = [
        0,
        *(edge for part in sorted(taken_ranges, key=lambda part: part.first) for edge in (part.first, part.stop)),
        SLOTS,
    ]
    ranges: list[SlotRange] = []
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        size = min(stop - first, n_slots)
        if size > 0:
            ranges.append(SlotRange(first, first + size))
            n_slots -= size
    return None if n_slots > 0 else tuple(ranges)
