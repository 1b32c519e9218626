"""What the HTTP API answers: pydantic models for the API's document, and plain dicts as they are sent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from engine.events import RankingEvent


class ScoredItem(BaseModel):
    """An item and its score; higher is better, null where there is none."""

    id: str
    score: float | None


class Why(BaseModel):
    """How an item came to its place."""

    recall_score: float | None = Field(description="What recall gave it.")
    features: dict[str, float | None] = Field(description="The feature row that was scored; null is missing.")
    contributions: dict[str, float] = Field(description="TreeSHAP: with `base` they add up to the score.")
    base: float | None = None


class ExplainedItem(ScoredItem):
    """A scored item, and why where that was asked for."""

    why: Why | None = None


class Feed(BaseModel):
    """A ranking: what is shown, best first. It is in the journal under its id."""

    ranking: str = Field(description="Its id: what clicks name.")
    timestamp: int = Field(description="Epoch milliseconds.")
    user: str | None
    bundle: str = Field(description="What it was made by.")
    source: str = Field(description="Where the candidates come from: embedding, bm25, popular, given, ...")
    items: list[ExplainedItem]
    skipped: list[str] = Field(description="What was cut short or left out to hold the deadline, or because it failed.")
    experiments: dict[str, str] = Field(description="Experiments that it is part of -> the variant.")
    kept: bool = Field(description="False: the journal could not be written, so nothing will be learnt of it.")


class Similar(BaseModel):
    """The nearest items to one."""

    item: str
    items: list[ScoredItem]


class Rejected(BaseModel):
    """An event that was not taken in."""

    place: int
    field: str
    detail: str


class Taken(BaseModel):
    """What came of events."""

    accepted: int
    duplicate: int
    rejected: list[Rejected]
    ids: list[str | None] = Field(description="In the order of the events; null where one was rejected.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


def feed(event: RankingEvent, why: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The ranking event, less what only the log needs."""
    items: list[dict[str, Any]] = [
        {"id": item, "score": score} for item, score in zip(event.items, event.extra["scores"], strict=True)
    ]
    for item, one in zip(items, why or (), strict=False):
        item["why"] = one
    return {
        "ranking": event.id,
        "timestamp": event.timestamp,
        "user": event.user,
        "bundle": event.extra["bundle"],
        "source": event.fields["source"],
        "items": items,
        "skipped": event.extra.get("served", {}).get("skipped", []),
        "experiments": experiments_of(event),
        "kept": event.extra.get("served", {}).get("kept", True),
    }


def experiments_of(event: RankingEvent) -> dict[str, str]:
    """Experiment -> variant; nothing where that is not as the recommender writes it, but was sent in so."""
    told = event.extra.get("served", {}).get("experiments", ())
    if not isinstance(told, list):
        return {}
    return {str(pair[0]): str(pair[1]) for pair in told if isinstance(pair, list) and len(pair) == 2}
