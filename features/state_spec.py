"""What a behavioural state stores: half-lives, counters, declared features, and what the interaction types mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from feedrank.engine.events.interaction_types import InteractionTypes
from feedrank.features import custom_counters
from feedrank.features.custom_counters import CounterSpec
from feedrank.features.declared import counter_plan
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.kernel import COUNTER_KINDS

ENTITIES = ("item", "category", "all")
"""Entities whose counters a read returns: the candidate, its categories (summed), the whole catalogue."""


@dataclass(frozen=True, slots=True)
class StateSettings:
    """[state] What the behavioural state stores."""

    half_lives_h: tuple[float, ...] = (1.0, 6.0, 24.0, 168.0, 720.0, float("inf"))
    """Half-lives of the decayed counters of items and categories; inf: no decay."""
    history_length: int = 50
    """Number of a user's latest interactions that the features read. Unit: interactions."""
    counters: tuple[CounterSpec, ...] = ()
    """Custom counters, in addition to the built-in ones: one table [[state.counters]] each."""

    def __post_init__(self) -> None:
        if not self.half_lives_h or min(self.half_lives_h) <= 0:
            raise ValueError(f"half_lives_h is {self.half_lives_h}; expected at least one, all above 0")
        if self.history_length < 1:
            raise ValueError(f"history_length is {self.history_length}; expected at least 1")
        custom_counters.check_counters(self.counters)


@dataclass(frozen=True, slots=True)
class StateSpec(StateSettings):
    """The settings of the behavioural state, and what the interaction types mean that it observes."""

    interactions: InteractionTypes = field(default_factory=InteractionTypes)
    declared: tuple[DeclaredFeature, ...] = ()
    """The declared features, whose fields the state keeps."""

    @classmethod
    def of(
        cls, settings: StateSettings, interactions: InteractionTypes, declared: tuple[DeclaredFeature, ...] = ()
    ) -> StateSpec:
        """Join the settings of a state with what the interaction types mean and with the declared features."""
        return cls(settings.half_lives_h, settings.history_length, settings.counters, interactions, declared)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StateSpec:
        """Build the spec from the result of `to_dict`."""

        def hours(half_lives: Sequence[str]) -> tuple[float, ...]:
            return tuple(map(float, half_lives))

        counters = []
        for body in data["counters"]:
            types, over = tuple(body["types"]), tuple(body["rate_over"])
            lists = {"half_lives_h": hours(body["half_lives_h"]), "types": types, "rate_over": over}
            counters.append(CounterSpec(**{**body, **lists}))
        interactions = InteractionTypes.from_dict(data["interactions"])
        declared = tuple(map(DeclaredFeature.from_dict, data.get("declared", ())))
        return cls(hours(data["half_lives_h"]), data["history_length"], tuple(counters), interactions, declared)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-ready values. Half-lives are strings, since JSON has no infinity."""
        counters = [
            {**asdict(counter), "half_lives_h": [str(half) for half in counter.half_lives_h]}
            for counter in self.counters
        ]
        return {
            "half_lives_h": [str(half) for half in self.half_lives_h],
            "history_length": self.history_length,
            "counters": counters,
            "interactions": self.interactions.to_dict(),
            "declared": [feature.to_dict() for feature in self.declared],
        }

    @property
    def counted_types(self) -> tuple[str, ...]:
        """Interaction types that counters name: the type at index t is bit t of a type mask."""
        custom = custom_counters.interaction_types(self.counters)
        return tuple(dict.fromkeys((*custom, *counter_plan.interaction_types(self.declared))))

    def counter_column(self, entity: str, kind: str, half_life_h: float) -> int:
        """Return the column of a counter in `Batch.counters`."""
        halves = len(self.half_lives_h)
        return (
            ENTITIES.index(entity) * len(COUNTER_KINDS) + COUNTER_KINDS.index(kind)
        ) * halves + self.half_lives_h.index(half_life_h)

    @property
    def width(self) -> int:
        """Number of columns of `Batch.counters`."""
        return len(ENTITIES) * len(COUNTER_KINDS) * len(self.half_lives_h)
