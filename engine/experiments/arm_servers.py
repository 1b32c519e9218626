"""Serves the arms of experiments: the experiment registry, and a serving snapshot for each arm's bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from feedrank.engine.events.events import Event, ExperimentEvent, ItemEvent, erased_user
from feedrank.engine.experiments.bucketing import Assignment, assign
from feedrank.engine.experiments.registry import ExperimentRegistry, replay_events
from feedrank.engine.experiments.spec import Arm, ExplorationPolicy
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot

MAX_LAG_EVENTS = 500
"""Maximum number of pending events of other users before a snapshot must apply them."""


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """A request as one arm serves it."""

    name: str
    """Name of the arm; empty if rankings are not interleaved."""
    snapshot: ServingSnapshot
    pipeline: Pipeline
    request: RecommendationRequest
    explore: ExplorationPolicy | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    """Settings that the arm overrides besides the bundle and the request; logged for replay."""


class ArmServers:
    """Assigns requests to arms and holds the arms' snapshots. Not thread-safe: callers hold the recommender's lock."""

    def __init__(self, registry: ExperimentRegistry | None = None) -> None:
        self.registry = registry or ExperimentRegistry()
        self.active = bool(self.registry.running)
        """Whether an experiment runs; requests skip all code of experiments while none does."""
        self.snapshots: dict[str, ServingSnapshot] = {}
        """Bundle -> snapshot, of the bundles besides the current one."""
        self._pending_events: dict[str, list[Event]] = {}
        """Bundle -> events that its snapshot has not applied yet."""
        self._users_pending: dict[str, set[str]] = {}
        """Bundle -> users of these events."""
        self._offset = 0
        """Journal offset of the last observed event."""

    @property
    def loaded_bundles(self) -> list[str]:
        """Bundles that have a snapshot here, besides the current one."""
        return list(self.snapshots)

    def observe(self, events: Sequence[Event], offset: int) -> None:
        """Queue journal events up to an offset; experiment events apply at once, snapshots apply the others lazily."""
        self._offset = offset
        if any(isinstance(event, ExperimentEvent) for event in events):
            self.registry = replay_events(events, self.registry)
            self.active = bool(self.registry.running)
        if self.snapshots:
            users = {
                event.user for event in events if not isinstance(event, ItemEvent | ExperimentEvent) and event.user
            }
            for bundle, pending in self._pending_events.items():
                pending += events
                self._users_pending[bundle] |= users
            if any(erased_user(event) is not None for event in events):
                self.catch_up()  # a tombstone names nobody, so it counts for every user

    def catch_up(self) -> None:
        """Apply all pending events to every snapshot."""
        for bundle in self.snapshots:
            self._apply_pending(bundle)

    def set_clock(self, now_ms: int) -> None:
        """Set the clock of every snapshot, in epoch milliseconds; one with postponed events that are due applies them.

        It applies its pending events first.
        """
        for bundle, snapshot in self.snapshots.items():
            if snapshot.future.has_due(now_ms):
                self._apply_pending(bundle, now_ms)
            snapshot.future.now_ms = now_ms

    def add_snapshot(self, snapshot: ServingSnapshot) -> None:
        """Add the snapshot of another bundle; its state must include all events observed so far."""
        name = snapshot.pipeline.bundle
        self._pending_events[name], self._users_pending[name] = [], set()
        self.snapshots = {**self.snapshots, name: snapshot}  # a new dict: requests read it without the lock

    def remove_snapshot(self, bundle: str) -> None:
        """Remove the snapshot of a bundle that no experiment needs any more."""
        self.snapshots = {name: snapshot for name, snapshot in self.snapshots.items() if name != bundle}
        self._pending_events.pop(bundle, None)
        self._users_pending.pop(bundle, None)

    def replace_snapshot(self, bundle: str, make: Callable[[ServingSnapshot], ServingSnapshot]) -> None:
        """Replace the snapshot of a bundle, for example by one with new items. make: old snapshot -> new snapshot."""
        if bundle in self.snapshots:
            self._apply_pending(bundle)
            before = self.snapshots[bundle]
            self.add_snapshot(make(before))
            before.is_replaced = True

    def snapshot_for_user(self, bundle: str, main: ServingSnapshot, user: str | None) -> ServingSnapshot | None:
        """Return a bundle's snapshot for a user's request; `main` if the bundle is empty or current; None if missing.

        Its state includes all observed events of this user. It may lack up to `MAX_LAG_EVENTS` events of other users;
        its offset says which.
        """
        if bundle in ("", main.pipeline.bundle):
            return main
        snapshot = self.snapshots.get(bundle)
        if snapshot is not None and (
            user in self._users_pending[bundle] or len(self._pending_events[bundle]) > MAX_LAG_EVENTS
        ):
            self._apply_pending(bundle)
        return snapshot

    def _apply_pending(self, bundle: str, now_ms: int | None = None) -> None:
        snapshot, pending = self.snapshots[bundle], self._pending_events[bundle]
        if pending or now_ms is not None:
            self._pending_events[bundle], self._users_pending[bundle] = [], set()
            snapshot.observe(pending, now_ms)
            snapshot.offset = self._offset if pending else snapshot.offset

    def assign(self, main: ServingSnapshot, request: RecommendationRequest, ranking_id: str, at_ms: int) -> Assignment:
        """Assign a request to the running experiments. at_ms: epoch milliseconds."""
        return assign(self.registry, request, ranking_id, at_ms, {"", main.pipeline.bundle, *self.snapshots})

    def snapshot_of(self, bundle: str, main: ServingSnapshot) -> ServingSnapshot:
        """Return the snapshot of a bundle, or `main` if it has none; pending events are not applied.

        For uses that do not depend on the state.
        """
        return self.snapshots.get(bundle, main)

    def arm_requests(
        self, main: ServingSnapshot, assignment: Assignment, request: RecommendationRequest
    ) -> list[ArmRequest] | None:
        """Return the request as its arm, or each interleaved arm, serves it; None if a snapshot is missing."""
        arms = assignment.interleaved_arms or (("", assignment.arm),)
        snapshots = [self.snapshot_for_user(arm.bundle, main, request.user) for _, arm in arms]
        loaded = [snapshot for snapshot in snapshots if snapshot is not None]
        if len(loaded) < len(arms):
            return None
        return [
            build_arm_request(name, arm, snapshot, request) for (name, arm), snapshot in zip(arms, loaded, strict=True)
        ]


def build_arm_request(name: str, arm: Arm, snapshot: ServingSnapshot, request: RecommendationRequest) -> ArmRequest:
    """Apply an arm's settings to a request and to the pipeline of its snapshot."""
    pipeline = snapshot.pipeline
    overrides: dict[str, Any] = {}
    if arm.candidates:
        pipeline = replace(pipeline, n_candidates=arm.candidates)
        overrides["candidates"] = arm.candidates
    if arm.rerank_top_k >= 0 and pipeline.reranker is not None:
        pipeline = replace(pipeline, reranker=replace(pipeline.reranker, top_k=arm.rerank_top_k))
        overrides["rerank_top_k"] = arm.rerank_top_k
    if arm.diversity is not None and not request.diversity:
        request = replace(request, diversity=arm.diversity)
    explore = None if request.diversity else arm.explore
    if explore is not None:
        overrides["explore"] = asdict(explore)
    return ArmRequest(name, snapshot, pipeline, request, explore, tuple(overrides.items()))
