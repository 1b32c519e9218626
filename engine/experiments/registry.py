"""Keeps the state of all experiments, computed from the journal's experiment events in order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from feedrank.engine.events.events import Event, ExperimentEvent
from feedrank.engine.experiments.assignment import SLOTS, Span, Spans, first_spans, moved, without
from feedrank.engine.experiments.spec import Arm, Experiment, aspects

Status = Literal["created", "running", "stopped"]
CHANGES = ("create", "start", "weights", "stop-arm", "stop", "shadow")
"""Values of `ExperimentEvent.change`."""
_log = logging.getLogger(__name__)


class ChangeError(ValueError):
    """Raised for a change of an experiment that is not possible; the message says why."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one experiment."""

    experiment: Experiment
    status: Status = "created"
    spans: Spans = field(default_factory=dict)
    """Arm -> its slot ranges among the units of the experiment."""
    layer: tuple[Span, ...] = ()
    """Slots of the layer that it occupies while it runs."""
    phases: tuple[tuple[int, Mapping[str, float]], ...] = ()
    """(epoch milliseconds, arm -> share of the slots from then on), one for each change of the split."""
    started: int | None = None
    """Epoch milliseconds; None: not started."""
    stopped: int | None = None
    """Epoch milliseconds; None: not stopped."""
    stopped_arms: Mapping[str, str] = field(default_factory=dict)
    """Arm -> reason for stopping it."""
    reason: str = ""
    """Reason for stopping the experiment."""
    shadows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Shadow arm -> summed statistics of all its reports."""

    def in_force(self, at: int) -> bool:
        """Check whether it assigns units at a time, in epoch milliseconds."""
        start, end = self.experiment.start, self.experiment.end
        return self.status == "running" and (start is None or at >= start) and (end is None or at < end)


@dataclass(frozen=True, slots=True)
class Roster:
    """The states of all experiments; immutable."""

    standings: Mapping[str, Standing] = field(default_factory=dict)
    """Experiment name -> state, in the order of creation."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Id of a rejected event -> reason."""

    @property
    def running(self) -> list[Standing]:
        """Experiments that are started and not stopped."""
        return [state for state in self.standings.values() if state.status == "running"]

    @property
    def bundles(self) -> list[str]:
        """Distinct names of the bundles that running experiments need."""
        names = (arm.bundle for state in self.running for arm in state.experiment.arms.values())
        return list(dict.fromkeys(name for name in names if name))

    def of(self, name: str) -> Standing:
        """Return the state of an experiment. Raises ChangeError if there is none of this name."""
        if name not in self.standings:
            names = ", ".join(self.standings) or "none"
            raise ChangeError(f"found no experiment {name!r}; there are: {names}")
        return self.standings[name]

    def after(self, event: ExperimentEvent) -> Roster:
        """Return the registry after a change. Raises ChangeError if the change is not possible."""
        if event.change == "create":
            if event.experiment in self.standings:
                raise ChangeError(f"the experiment {event.experiment!r} exists already; choose another name")
            try:
                spec = Experiment.of({**event.told, "name": event.experiment})
            except ValueError as problem:
                raise ChangeError(str(problem)) from None
            return self._with(Standing(spec))
        standing = self.of(event.experiment)
        match event.change:
            case "start":
                return self._with(self._started(standing, event))
            case "weights":
                return self._with(_weighted(standing, event))
            case "stop-arm":
                return self._with(_arm_stopped(standing, event))
            case "stop":
                if standing.status == "stopped":
                    raise ChangeError(f"the experiment {event.experiment!r} is stopped already")
                reason = str(event.told.get("reason", ""))
                return self._with(replace(standing, status="stopped", stopped=event.timestamp, reason=reason))
            case "shadow":
                return self._with(_reported(standing, event.told))
        raise ChangeError(f"found the change {event.change!r}, expected one of {', '.join(CHANGES)}")

    def _started(self, standing: Standing, event: ExperimentEvent) -> Standing:
        spec = standing.experiment
        if standing.status != "created":
            raise ChangeError(f"the experiment {spec.name!r} is {standing.status}; only a created one can start")
        incumbent = str(event.told.get("incumbent", ""))
        arms: dict[str, Arm] = {
            name: replace(arm, bundle=arm.bundle or incumbent) for name, arm in spec.arms.items()
        }  # fmt: skip
        slot_ranges = first_spans({name: arm.weight for name, arm in arms.items()})
        self._check_overlap(spec)
        taken = [part for other in self.running if other.experiment.layer == spec.layer for part in other.layer]
        layer = _free(taken, round(spec.share * SLOTS))
        if layer is None:
            free = 1 - sum(map(len, taken)) / SLOTS
            raise ChangeError(
                f"the layer {spec.layer!r} has {free:.1%} of its units free, but {spec.name!r} needs {spec.share:.1%};"
                " stop another experiment, reduce the share, or use another layer"
            )
        pinned = replace(spec, arms=arms)
        # arms that all use the current bundle follow promotions: it is not pinned
        pin = "bundle" in aspects(pinned) or spec.kind != "ab"
        return replace(
            standing, experiment=pinned if pin else spec, status="running", spans=slot_ranges, layer=layer,
            started=event.timestamp, phases=((event.timestamp, _shares(slot_ranges)),),
        )  # fmt: skip

    def _check_overlap(self, own: Experiment) -> None:
        """Check that no running experiment of another layer varies the same settings, as layers share units."""
        for other in self.running:
            shared = aspects(own) & aspects(other.experiment)
            if shared and other.experiment.layer != own.layer:
                raise ChangeError(
                    f"{other.experiment.name!r}, which runs in the layer {other.experiment.layer!r}, also changes"
                    f" {', '.join(sorted(shared))}; put {own.name!r} in the same layer, so that they share no unit"
                )

    def _with(self, standing: Standing) -> Roster:
        return replace(self, standings={**self.standings, standing.experiment.name: standing})


def roster_of(events: Iterable[Event], before: Roster | None = None) -> Roster:
    """Apply the experiment events to a registry; other events are ignored.

    A change that is not possible, such as the second of two concurrent ones, is logged and rejected. All processes
    read the journal in the same order, so they agree.
    """
    registry = before or Roster()
    for event in events:
        if isinstance(event, ExperimentEvent):
            try:
                registry = registry.after(event)
            except ChangeError as problem:
                _log.warning("rejected the experiment event %s: %s", event.id, problem)
                registry = replace(registry, refused={**registry.refused, event.id: str(problem)})
    return registry


def _weighted(standing: Standing, event: ExperimentEvent) -> Standing:
    spec, weights = standing.experiment, event.told.get("weights")
    if not isinstance(weights, Mapping) or not set(weights) <= set(spec.arms):
        raise ChangeError(f"found the weights {weights!r}, expected arm -> weight, of the arms {', '.join(spec.arms)}")
    try:
        arms = {name: replace(arm, weight=float(weights.get(name, arm.weight))) for name, arm in spec.arms.items()}
        changed = replace(spec, arms=arms)
    except (TypeError, ValueError) as problem:
        raise ChangeError(str(problem)) from None
    if standing.status == "stopped":
        raise ChangeError(f"the experiment {spec.name!r} is stopped; its weights can't change")
    active = {name: 0.0 if name in standing.stopped_arms else arm.weight for name, arm in arms.items()}
    if not standing.spans:
        return replace(standing, experiment=changed)
    slot_ranges = moved(standing.spans, active)
    phases = (*standing.phases, (event.timestamp, _shares(slot_ranges)))
    return replace(standing, experiment=changed, spans=slot_ranges, phases=phases)


def _arm_stopped(standing: Standing, event: ExperimentEvent) -> Standing:
    spec, arm = standing.experiment, str(event.told.get("arm", ""))
    if arm not in spec.arms or arm == spec.first:
        others = ", ".join(name for name in spec.arms if name != spec.first)
        raise ChangeError(f"found the arm {arm!r}, expected one of {others}; to stop all arms, stop the experiment")
    if arm in standing.stopped_arms:
        raise ChangeError(f"the arm {arm!r} is stopped already")
    stopped = {**standing.stopped_arms, arm: str(event.told.get("reason", ""))}
    slot_ranges = without(standing.spans, arm)
    phases = (*standing.phases, (event.timestamp, _shares(slot_ranges)))
    return replace(standing, spans=slot_ranges, stopped_arms=stopped, phases=phases)


def _reported(standing: Standing, told: Mapping[str, Any]) -> Standing:
    arm = str(told.get("arm", ""))
    numbers = {name: value for name, value in told.items() if name != "arm"}
    total = standing.shadows.get(arm)
    try:
        sums = numbers if total is None else {name: _added(total[name], value) for name, value in numbers.items()}
    except (KeyError, TypeError, ValueError):
        raise ChangeError(f"found other statistics in a report of the shadow {arm!r} than before") from None
    return replace(standing, shadows={**standing.shadows, arm: sums})


def _added(one: Any, other: Any) -> Any:
    """Add two numbers, or two lists element by element. Raises ValueError for lists of different lengths."""
    if isinstance(one, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other


def _shares(spans: Spans) -> dict[str, float]:
    return {arm: sum(map(len, ranges)) / SLOTS for arm, ranges in spans.items()}


def _free(taken: list[Span], wanted: int) -> tuple[Span, ...] | None:
    """Return the first `n_slots` free slots of a layer; None if there are too few."""
    edges = [
        0,
        *(edge for part in sorted(taken, key=lambda part: part.first) for edge in (part.first, part.stop)),
        SLOTS,
    ]
    ranges: list[Span] = []
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        size = min(stop - first, wanted)
        if size > 0:
            ranges.append(Span(first, first + size))
            wanted -= size
    return None if wanted > 0 else tuple(ranges)
