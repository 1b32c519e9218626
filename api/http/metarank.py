"""Metarank-compatible routes, with its request and response bodies, so that its clients need no change.

https://docs.metarank.ai/reference/api. The model name in a path is ignored: there is one ranker.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from flask import request
from pydantic import BaseModel, Field, StringConstraints
from werkzeug.exceptions import BadRequest

from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import MAX_LIST_LENGTH, RESERVED_NAMES
from feedrank.api.http.events import EVENT_SCHEMA, MAX_EVENTS, check_service_fields, record_events
from feedrank.api.http.explanations import explain_ranking
from feedrank.api.http.health import HealthStatus
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.recommendations import given_id
from feedrank.api.http.service import admin_services, current_service, exclusive, new_id
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.event_time import check_not_ahead
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.ids import MAX_ID_CHARS, canonical_event
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.bundles.registry import bundle_size

routes = make_blueprint("metarank", "Metarank API")


class FeedbackResponse(BaseModel):
    """Response of /feedback."""

    accepted: int
    status: str
    tookMillis: int  # Metarank's name
    updated: int


class ItemScore(BaseModel):
    """An item with its score, and its features if the request asked for them."""

    item: str
    score: float | None
    features: list[dict[str, Any]] = Field(default_factory=list)


class RankResponse(BaseModel):
    """Response of /rank and /recommend: items, best first; `took` is in ms."""

    took: int
    items: list[ItemScore]


class TrainResponse(BaseModel):
    """Response of /train."""

    features: list[dict[str, Any]]
    iterations: list[dict[str, Any]]
    sizeBytes: int  # Metarank's name
    bundle: str = Field(description="Name of the candidate's bundle; empty: nothing was trained.")
    promoted: bool
    outcome: Literal["promoted", "refused", "too-little-new-data"]
    reasons: list[str]


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_FEEDBACK_BODY = _json_body({"anyOf": [EVENT_SCHEMA, {"type": "array", "items": EVENT_SCHEMA, "maxItems": MAX_EVENTS}]})
_ITEM_SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "fields": {
            "type": "array",
            "items": {"type": "object", "required": ["name", "value"], "properties": {"name": {"type": "string"}}},
        },
    },
}
_RANK_BODY = _json_body(
    {
        "type": "object",
        "required": ["items"],
        "properties": {
            "id": {"type": "string", "minLength": 1},
            "timestamp": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "user": {"type": "string", "minLength": 1},
            "session": {"type": "string", "minLength": 1},
            "items": {"type": "array", "items": _ITEM_SCHEMA, "minItems": 1, "maxItems": MAX_LIST_LENGTH},
        },
    }
)


class RecommendRequest(BaseModel):
    """Request body of /recommend."""

    count: int = Field(default=10, ge=1, le=MAX_LIST_LENGTH)
    user: str | None = Field(default=None, max_length=MAX_ID_CHARS)
    items: list[Annotated[str, StringConstraints(max_length=MAX_ID_CHARS)]] = Field(
        default_factory=list, max_length=MAX_LIST_LENGTH, fail_fast=True
    )


class ModelPath(BaseModel):
    """Path parameters; the model name is ignored."""

    model: str = Field(max_length=256)


@routes.post("/feedback", responses={200: FeedbackResponse}, openapi_extensions=_FEEDBACK_BODY)
@route_policy("lenient", "write")
def feedback() -> dict[str, Any]:
    """Record one event or a list of events."""
    started = time.perf_counter()
    body = request.get_json(force=True)
    result = record_events(current_service(), body if isinstance(body, list) else [body])
    if result["rejected"]:
        first = result["rejected"][0]
        raise EventError(f"[{first['index']}].{first['field']}", first["detail"])
    return {"accepted": result["accepted"], "status": "ok", "tookMillis": _elapsed_ms(started), "updated": 0}


@routes.post("/rank/<path:model>", responses={200: RankResponse}, openapi_extensions=_RANK_BODY)
@route_policy("lenient")
def rank(path: ModelPath) -> dict[str, Any]:
    """Rank the items of a ranking event. Nothing is logged: the client sends the shown ranking to /feedback."""
    started = time.perf_counter()
    svc = current_service()
    now = svc.clock()
    body = request.get_json(force=True)
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected a ranking event")
    stamped = {"id": new_id(), "timestamp": round(now * 1000), **canonical_event({**body, "event": "ranking"})}
    event = check_service_fields(parse(stamped))
    check_not_ahead(event, round(now * 1000))
    assert isinstance(event, RankingEvent)
    if len(event.items) > MAX_LIST_LENGTH:
        raise EventError("items", f"found {len(event.items):,} items, expected at most {MAX_LIST_LENGTH:,}")
    query = event.fields.get("query", "")
    ranking_request = RecommendationRequest(
        user=event.user, session=event.session, query=query if isinstance(query, str) else "", items=event.items,
        n=len(event.items), item_fields=event.item_fields,
        context={name: value for name, value in event.fields.items() if name not in RESERVED_NAMES},
    )  # fmt: skip
    budget = svc.latency_budget()
    ranking = svc.recommender.recommend(event.id, now, ranking_request, budget, log=False)
    svc.record_feed(ranking, budget)
    items: list[dict[str, Any]] = [
        {"item": item, "score": score, "features": []}
        for item, score in zip(ranking.items, ranking.scores, strict=True)
    ]
    if request.args.get("explain", "false").lower() in ("true", "1", ""):
        for item, explanation in zip(items, explain_ranking(ranking, svc.recommender.snapshot), strict=True):
            item["features"] = [{"name": name, "value": value} for name, value in explanation["features"].items()]
    return {"took": _elapsed_ms(started), "items": items}


@routes.post(
    "/recommend/<path:model>",
    responses={200: RankResponse},
    openapi_extensions=_json_body(RecommendRequest.model_json_schema()),
)
@route_policy("lenient")
def recommend(path: ModelPath) -> dict[str, Any]:
    """Recommend items for a user, or items similar to the given ones."""
    started = time.perf_counter()
    svc = current_service()
    body = RecommendRequest.model_validate(request.get_json(force=True))
    history = tuple(body.items) or None
    ranking_request = RecommendationRequest(user=given_id(body.user), history=history, n=body.count)
    budget = svc.latency_budget()
    ranking = svc.recommender.recommend(new_id(), svc.clock(), ranking_request, budget, log=False)
    svc.record_feed(ranking, budget)
    items = [{"item": item, "score": score} for item, score in zip(ranking.items, ranking.scores, strict=True)]
    return {"took": _elapsed_ms(started), "items": items}


@routes.post("/train/<path:model>", responses={200: TrainResponse})
@route_policy("none", "admin")
def train(path: ModelPath) -> dict[str, Any]:
    """Train a candidate bundle on the journal, and promote it if it passes the gate. Responds when training ends.

    `promoted`, `outcome` and `reasons` hold the gate's decision; with too little new data nothing is trained. Responds
    409 if the training fails, or another one is running. `testMetric` is the validation metric after each tree,
    `millis` the mean time per tree; `trainMetric` is not measured.
    """
    admin = admin_services()
    with exclusive(admin):
        report = admin.retrain()
    curve, bundle = report["learning_curve"], report["bundles"].get("candidate", "")
    ms_per_tree = round(1000 * report["seconds"] / max(len(curve), 1))
    return {
        "features": [{"name": name, "weight": weight} for name, weight in report["importance"].items()],
        "iterations": [
            {"id": index, "millis": ms_per_tree, "testMetric": metric, "trainMetric": None}
            for index, metric in enumerate(curve)
        ],
        "sizeBytes": bundle_size(admin.bundles / bundle) if bundle else 0,
        "bundle": bundle,
        "promoted": report["promote"],
        "outcome": report["outcome"],
        "reasons": report["reasons"],
    }


@routes.get("/health", responses={200: HealthStatus})
@route_policy("none", "open")
def health() -> dict[str, str]:
    """Return 200 while the process responds."""
    return {"status": "ok"}


def _elapsed_ms(started: float) -> int:
    return round(1000 * (time.perf_counter() - started))
