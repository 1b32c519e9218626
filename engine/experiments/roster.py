"""All experiments there are, and how each of them stands: made of the journal's experiment events, one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.events import Event, ExperimentEvent
from engine.experiments.assignment import SLOTS, Span, Spans, first_spans, moved, without
from engine.experiments.declared import Arm, Experiment, aspects

Status = Literal["created", "running", "stopped"]
CHANGES = ("create", "start", "weights", "stop-arm", "stop", "shadow")
_log = logging.getLogger(__name__)


class ChangeError(ValueError):
    """A change that can't be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One experiment, and how it stands."""

    experiment: Experiment
    status: Status = "created"
    spans: Spans = field(default_factory=dict)
    """Arm -> its slots among the units that are in the experiment."""
    layer: tuple[Span, ...] = ()
    """Its slots of the layer, from when it was started; they are free again when it stops."""
    phases: tuple[tuple[int, Mapping[str, float]], ...] = ()
    """(epoch milliseconds, arm -> share of the slots from then on), one a change of weights."""
    started: int | None = None
    """Epoch milliseconds."""
    stopped: int | None = None
    stopped_arms: Mapping[str, str] = field(default_factory=dict)
    """Arm -> why."""
    reason: str = ""
    """Why it was stopped."""
    shadows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> the sums of all that shadows reported of it."""

    def in_force(self, at: int) -> bool:
        """Whether it has anybody in it at a moment, in epoch milliseconds."""
        own = self.experiment
        return self.status == "running" and (own.start is None or at >= own.start) and (own.end is None or at < own.end)


@dataclass(frozen=True, slots=True)
class Roster:
    """Name -> how it stands, in the order of creation."""

    standings: Mapping[str, Standing] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Id of an event that could not be -> why."""

    @property
    def running(self) -> list[Standing]:
        """Those that were started and not stopped."""
        return [one for one in self.standings.values() if one.status == "running"]

    @property
    def bundles(self) -> list[str]:
        """The bundles that running experiments want, each once."""
        named = (arm.bundle for one in self.running for arm in one.experiment.arms.values())
        return list(dict.fromkeys(name for name in named if name))

    def of(self, name: str) -> Standing:
        """One experiment. Raises ChangeError with the names that there are."""
        if name not in self.standings:
            known = ", ".join(self.standings) or "none"
            raise ChangeError(f"found no experiment {name!r}; there are: {known}")
        return self.standings[name]

    def after(self, event: ExperimentEvent) -> Roster:
        """After a change. Raises ChangeError where it can't be made."""
        if event.change == "create":
            if event.experiment in self.standings:
                raise ChangeError(f"there is an experiment {event.experiment!r} already; choose another name")
            try:
                made = Experiment.of({**event.told, "name": event.experiment})
            except ValueError as problem:
                raise ChangeError(str(problem)) from None
            return self._with(Standing(made))
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
                    raise ChangeError(f"the experiment {event.experiment!r} was stopped already")
                reason = str(event.told.get("reason", ""))
                return self._with(replace(standing, status="stopped", stopped=event.timestamp, reason=reason))
            case "shadow":
                return self._with(_reported(standing, event.told))
        raise ChangeError(f"found the change {event.change!r}, expected one of {', '.join(CHANGES)}")

    def _started(self, standing: Standing, event: ExperimentEvent) -> Standing:
        own = standing.experiment
        if standing.status != "created":
            raise ChangeError(f"the experiment {own.name!r} is {standing.status}; only one that was created can start")
        incumbent = str(event.told.get("incumbent", ""))
        arms: dict[str, Arm] = {
            name: replace(arm, bundle=arm.bundle or incumbent) for name, arm in own.arms.items()
        }  # fmt: skip
        spans = first_spans({name: arm.weight for name, arm in arms.items()})
        self._check_overlap(own)
        taken = [span for one in self.running if one.experiment.layer == own.layer for span in one.layer]
        layer = _free(taken, round(own.share * SLOTS))
        if layer is None:
            left = 1 - sum(map(len, taken)) / SLOTS
            raise ChangeError(
                f"the layer {own.layer!r} has {left:.1%} of its units left, and {own.name!r} asks for {own.share:.1%};"
                " stop another experiment, ask for less, or use another layer"
            )
        varied = "bundle" in aspects(replace(own, arms=arms))  # else whatever serves is what all arms are made by
        made = replace(own, arms=arms) if varied or own.kind != "ab" else own
        return replace(
            standing, experiment=made, status="running", spans=spans, layer=layer, started=event.timestamp,
            phases=((event.timestamp, _shares(spans)),),
        )  # fmt: skip

    def _check_overlap(self, own: Experiment) -> None:
        """Two layers may have a person in common, so what they change must not be the same."""
        for other in self.running:
            both = aspects(own) & aspects(other.experiment)
            if both and other.experiment.layer != own.layer:
                raise ChangeError(
                    f"{other.experiment.name!r}, which runs in the layer {other.experiment.layer!r}, also changes"
                    f" {', '.join(sorted(both))}; put {own.name!r} in the same layer, so that nobody is in both"
                )

    def _with(self, standing: Standing) -> Roster:
        return replace(self, standings={**self.standings, standing.experiment.name: standing})


def roster_of(events: Iterable[Event], before: Roster | None = None) -> Roster:
    """After these events; others than experiments' are passed over.

    A change that can't be made, because two processes made one at the same time, is logged and passed over: the journal
    has an order, so all that read it agree.
    """
    roster = before or Roster()
    for event in events:
        if isinstance(event, ExperimentEvent):
            try:
                roster = roster.after(event)
            except ChangeError as problem:
                _log.warning("the experiment event %s is passed over: %s", event.id, problem)
                roster = replace(roster, refused={**roster.refused, event.id: str(problem)})
    return roster


def _weighted(standing: Standing, event: ExperimentEvent) -> Standing:
    own, weights = standing.experiment, event.told.get("weights")
    if not isinstance(weights, Mapping) or not set(weights) <= set(own.arms):
        raise ChangeError(f"found the weights {weights!r}, expected arm -> weight, of the arms {', '.join(own.arms)}")
    try:
        arms = {name: replace(arm, weight=float(weights.get(name, arm.weight))) for name, arm in own.arms.items()}
        changed = replace(own, arms=arms)
    except (TypeError, ValueError) as problem:
        raise ChangeError(str(problem)) from None
    if standing.status == "stopped":
        raise ChangeError(f"the experiment {own.name!r} was stopped")
    live = {name: 0.0 if name in standing.stopped_arms else arm.weight for name, arm in arms.items()}
    if not standing.spans:
        return replace(standing, experiment=changed)
    spans = moved(standing.spans, live)
    return replace(
        standing, experiment=changed, spans=spans, phases=(*standing.phases, (event.timestamp, _shares(spans)))
    )


def _arm_stopped(standing: Standing, event: ExperimentEvent) -> Standing:
    own, arm = standing.experiment, str(event.told.get("arm", ""))
    if arm not in own.arms or arm == own.first:
        others = ", ".join(name for name in own.arms if name != own.first)
        raise ChangeError(f"found the arm {arm!r} to stop, expected one of {others}; to end the experiment, stop it")
    if arm in standing.stopped_arms:
        raise ChangeError(f"the arm {arm!r} was stopped already")
    stopped = {**standing.stopped_arms, arm: str(event.told.get("reason", ""))}
    spans = without(standing.spans, arm)
    return replace(
        standing, spans=spans, stopped_arms=stopped, phases=(*standing.phases, (event.timestamp, _shares(spans)))
    )


def _reported(standing: Standing, told: Mapping[str, Any]) -> Standing:
    arm = str(told.get("arm", ""))
    numbers = {name: value for name, value in told.items() if name != "arm"}
    known = standing.shadows.get(arm)
    try:
        sums = numbers if known is None else {name: _added(known[name], value) for name, value in numbers.items()}
    except (KeyError, TypeError, ValueError):
        raise ChangeError(f"a report of the shadow {arm!r} has other numbers than those before it") from None
    return replace(standing, shadows={**standing.shadows, arm: sums})


def _added(one: Any, other: Any) -> Any:
    """Numbers, or lists of them place by place."""
    if isinstance(one, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other


def _shares(spans: Spans) -> dict[str, float]:
    return {arm: sum(map(len, own)) / SLOTS for arm, own in spans.items()}


def _free(taken: list[Span], wanted: int) -> tuple[Span, ...] | None:
    """The first free slots of a layer, so many; None where there are not enough."""
    edges = [
        0,
        *(edge for span in sorted(taken, key=lambda span: span.first) for edge in (span.first, span.stop)),
        SLOTS,
    ]
    found: list[Span] = []
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        size = min(stop - first, wanted)
        if size > 0:
            found.append(Span(first, first + size))
            wanted -= size
    return None if wanted > 0 else tuple(found)
