"""Ranking routes: read a logged ranking, explain it, or replay it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.compose.replay import ReplayError
from feedrank.api.http import responses
from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import Id
from feedrank.api.http.explanations import explain_ranking, explained_features
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import admin_services, current_service, exclusive
from feedrank.engine.serving.ranking_record import RankingRecord

routes = make_blueprint("rankings", "Rankings")


class RankingPath(BaseModel):
    """Path parameters of the ranking routes."""

    ranking_id: Id


class FeatureDescription(BaseModel):
    """Describes one feature of the ranker."""

    name: str
    family: str = Field(description="The feature family that computes it.")
    sentence: str = Field(description="What it says, in one sentence.")
    unit: str
    missing: str = Field(description="When the value is missing (null), for an item of the catalogue.")
    is_category: bool = Field(description="Whether values are codes of a category; `categories` has their texts.")


class RankingExplanation(responses.Feed):
    """A logged ranking, with an explanation of each item."""

    fallback: str = Field(description="Fallback level: full, no_neural, popular or last_good.")
    candidates: int | None = Field(description="Number of candidates from recall.")
    recall_order: list[str] = Field(description="Item ids in recall order, without the ranker.")
    features: list[FeatureDescription] = Field(
        description="What the features of the explanations mean, in column order; empty if those have none."
    )


class RankingDifference(BaseModel):
    """The first position at which two rankings differ."""

    position: int = Field(description="Position, from 1.")
    served: responses.ScoredItem | None = Field(description="Item as served; null after the end of the list.")
    replayed: responses.ScoredItem | None = Field(description="Item as replayed.")
    features: list[str] = Field(description="Names of the features that differ, if the item is the same.")


class ReplayResult(BaseModel):
    """Result of replaying a ranking."""

    ranking: str
    bundle: str
    identical: bool
    items: list[responses.ScoredItem] = Field(description="Items of the replayed ranking.")
    difference: RankingDifference | None


@routes.get("/v1/rankings/<path:ranking_id>", responses={200: responses.Feed})
@route_policy("none")
def ranking(path: RankingPath) -> dict[str, Any]:
    """Return a ranking as it was served."""
    return _find_own_ranking(path.ranking_id).to_answer()


@routes.get("/v1/rankings/<path:ranking_id>/explain", responses={200: RankingExplanation})
@route_policy("none")
def explain(path: RankingPath) -> dict[str, Any]:
    """Explain each item of a ranking: recall score, features, and their TreeSHAP contributions.

    `features` says once for all items what each feature means.
    """
    record, snapshot = _find_own_ranking(path.ranking_id), current_service().recommender.snapshot
    return {
        **responses.feed_json(record, explain_ranking(record, snapshot)),
        "fallback": record.fallback,
        "candidates": record.recall.candidates,
        "recall_order": list(record.recall.items),
        "features": explained_features(record, snapshot),
    }


@routes.post("/v1/rankings/<path:ranking_id>/replay", responses={200: ReplayResult})
@route_policy("none", "admin")
def replay(path: RankingPath) -> dict[str, Any]:
    """Replay a ranking with its bundle and its state at that time, and return the first difference.

    Slow for a long journal: a process runs one replay at a time.
    """
    record, admin = _find_own_ranking(path.ranking_id), admin_services()
    with exclusive(admin):
        try:
            replayed, difference = admin.replay(record)
        except ReplayError as problem:
            raise Conflict(str(problem)) from None
    items = [{"id": item, "score": score} for item, score in zip(replayed.items, replayed.scores, strict=True)]
    return {
        "ranking": record.id,
        "bundle": record.bundle,
        "identical": difference is None,
        "items": items,
        "difference": None
        if difference is None
        else {
            "position": difference.position,
            "served": _scored_item(difference.served),
            "replayed": _scored_item(difference.replayed),
            "features": list(difference.features),
        },
    }


def _scored_item(entry: tuple[str, float | None] | None) -> dict[str, Any] | None:
    return None if entry is None else {"id": entry[0], "score": entry[1]}


def _find_own_ranking(ranking_id: str) -> RankingRecord:
    record = RankingRecord.find_own(current_service().recommender.find(ranking_id))
    if record is None:
        raise NotFound(f"found no ranking {ranking_id!r} that this service served")
    return record
