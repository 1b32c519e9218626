"""The bodies of the HTTP API: what is accepted, by pydantic models, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from engine.checks import shown
from engine.events import RankingEvent
from engine.recommender import FilterIds

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LONGEST_LIST = 1_000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FiltersBody(_Body):
    """Which items may come back."""

    seen: bool = False
    categories: list[Id] | None = Field(default=None, max_length=LONGEST_LIST)
    allow: list[Id] | None = Field(default=None, max_length=100_000)
    deny: list[Id] = Field(default_factory=list, max_length=100_000)

    def ids(self) -> FilterIds:
        """The same for the engine."""
        return FilterIds(
            seen=self.seen,
            categories=None if self.categories is None else tuple(self.categories),
            allow=None if self.allow is None else tuple(self.allow),
            deny=tuple(self.deny),
        )


class RecommendBody(_Body):
    """A request for a feed."""

    user: Id | None = None
    query: str = Field(default="", max_length=2_000)
    history: list[Id] | None = Field(default=None, max_length=LONGEST_LIST)
    n: int = Field(default=10, ge=1, le=LONGEST_LIST)
    surface: Id | None = None
    filters: FiltersBody = Field(default_factory=FiltersBody)


def explained(error: ValidationError) -> tuple[str, str]:
    """The place of the first thing that is wrong, and what was found and expected there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return place, "there is no such key"
    if first["type"] in ("dataclass_type", "model_type", "model_attributes_type"):
        return place, f"found {shown(first['input'])}, expected a table of keys and values"
    if first["type"] == "value_error":
        return place, str(first["ctx"]["error"])
    return place, f"found {shown(first['input'])}; {first['msg'][:1].lower()}{first['msg'][1:]}"


def feed_body(event: RankingEvent) -> dict[str, Any]:
    """The answer: the ranking event, less the feature rows."""
    scores = event.extra["scores"]
    return {
        "ranking": event.id,
        "timestamp": event.timestamp,
        "user": event.user,
        "bundle": event.extra["bundle"],
        "source": event.fields["source"],
        "items": [{"id": item, "score": score} for item, score in zip(event.items, scores, strict=True)],
    }
