"""Response bodies of the HTTP API: pydantic models for the OpenAPI document, and the plain dicts that are sent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from feedrank.engine.serving.ranking_record import RankingRecord


class ScoredItem(BaseModel):
    """An item with its score; higher is better, null if it has none."""

    id: str
    score: float | None


class ItemExplanation(BaseModel):
    """Explains the score of one item of a ranking."""

    recall_score: float | None = Field(description="Score from recall.")
    features: dict[str, float | None] = Field(description="The feature row that the ranker scored; null means missing.")
    contributions: dict[str, float] = Field(description="TreeSHAP contributions; with `base` they sum to the score.")
    base: float | None = None
    categories: dict[str, str] = Field(
        default_factory=dict, description="The text of each feature that is the code of a category."
    )


class ExplainedItem(ScoredItem):
    """A scored item, with an explanation if the request asked for one."""

    explanation: ItemExplanation | None = None


class Feed(BaseModel):
    """A ranking of items, best first. The journal stores it under its id."""

    ranking: str = Field(description="Ranking id; interactions refer to it.")
    timestamp: int = Field(description="Epoch milliseconds.")
    user: str | None
    bundle: str = Field(description="The bundle that made the ranking.")
    source: str = Field(description="Source of the candidates: embedding, bm25, hybrid (both), popular, explicit, ...")
    items: list[ExplainedItem]
    degraded: list[str] = Field(description="Stages shortened or skipped to meet the deadline, or that failed.")
    experiments: dict[str, str] = Field(description="Experiment -> variant, for each experiment the request is in.")
    logged: bool = Field(
        description="False if the request said so, or if the journal could not be written; training will not see this "
        "ranking."
    )


class SimilarItems(BaseModel):
    """The items nearest to one item."""

    item: str
    items: list[ScoredItem]


class RejectedEvent(BaseModel):
    """An event that was rejected."""

    index: int = Field(description="Index in the list of events, from 0.")
    field: str
    detail: str


class EventsResult(BaseModel):
    """Result of recording events."""

    accepted: int
    duplicate: int
    rejected: list[RejectedEvent]
    ids: list[str | None] = Field(description="Event ids in the order sent; null for a rejected event.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


def feed_json(record: RankingRecord, explanations: list[dict[str, Any]]) -> dict[str, Any]:
    """Convert a ranking to a response body with an explanation of each item, as far as there are any."""
    answer = record.to_answer()
    for item, explanation in zip(answer["items"], explanations, strict=False):
        item["explanation"] = explanation
    return answer
