"""Metarank-compatible routes, with its request and response bodies, so that its clients need no change.

https://docs.metarank.ai/reference/api. The model name in a path is ignored: there is one ranker.
"""

from __future__ import annotations

import time
from typing import Any

from flask import request
from pydantic import BaseModel, Field
from werkzeug.exceptions import BadRequest

from feedrank.api.http.blueprint import group
from feedrank.api.http.bodies import LONGEST_LIST
from feedrank.api.http.events import EVENT, MOST_EVENTS, take
from feedrank.api.http.explanations import of_event
from feedrank.api.http.health import Healthy
from feedrank.api.http.middleware import takes
from feedrank.api.http.observability import tell
from feedrank.api.http.service import new_id, one_at_a_time, service, upkeep
from feedrank.engine.events.events import EventError, RankingEvent, parse
from feedrank.engine.serving.request import Asked
from feedrank.models.bundles.registry import size_of

routes = group("metarank", "Metarank's routes")


class Accepted(BaseModel):
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


class Ordered(BaseModel):
    """Response of /rank and /recommend: items, best first; `took` is in ms."""

    took: int
    items: list[ItemScore]


class Trained(BaseModel):
    """Response of /train."""

    features: list[dict[str, Any]]
    iterations: list[dict[str, Any]]
    sizeBytes: int  # Metarank's name
    bundle: str
    promoted: bool
    reasons: list[str]


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_EVENTS = _body({"anyOf": [EVENT, {"type": "array", "items": EVENT, "maxItems": MOST_EVENTS}]})
_ITEM = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "minLength": 1}}}
_LIST = _body(
    {
        "type": "object",
        "required": ["items"],
        "properties": {
            "id": {"type": "string", "minLength": 1},
            "timestamp": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "user": {"type": "string", "minLength": 1},
            "session": {"type": "string", "minLength": 1},
            "items": {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": LONGEST_LIST},
        },
    }
)


class RecommendRequest(BaseModel):
    """Request body of /recommend."""

    count: int = Field(default=10, ge=1, le=LONGEST_LIST)
    user: str | None = Field(default=None, max_length=256)
    items: list[str] = Field(default_factory=list, max_length=LONGEST_LIST)


class ModelPath(BaseModel):
    """Path parameters; the model name is ignored."""

    model: str = Field(max_length=256)


@routes.post("/feedback", responses={200: Accepted}, openapi_extensions=_EVENTS)
@takes("lenient", "write")
def feedback() -> dict[str, Any]:
    """Record one event or a list of events."""
    started = time.perf_counter()
    body = request.get_json(force=True)
    result = take(service(), body if isinstance(body, list) else [body])
    if result["rejected"]:
        first = result["rejected"][0]
        raise EventError(f"[{first['place']}].{first['field']}", first["detail"])
    return {"accepted": result["accepted"], "status": "ok", "tookMillis": _since(started), "updated": 0}


@routes.post("/rank/<path:model>", responses={200: Ordered}, openapi_extensions=_LIST)
@takes("lenient")
def rank(path: ModelPath) -> dict[str, Any]:
    """Rank the items of a ranking event. Nothing is logged: the client sends the shown ranking to /feedback."""
    started = time.perf_counter()
    svc = service()
    now = svc.clock()
    body = request.get_json(force=True)
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected a ranking event")
    stamped = {"id": new_id(), "timestamp": round(now * 1000), **body, "event": "ranking"}
    event = parse(stamped)
    assert isinstance(event, RankingEvent)
    if len(event.items) > LONGEST_LIST:
        raise EventError("items", f"found {len(event.items):,} items, expected at most {LONGEST_LIST:,}")
    query = event.fields.get("query", "")
    ranking_request = Asked(
        user=event.user, session=event.session, query=query if isinstance(query, str) else "", items=event.items,
        n=len(event.items),
    )  # fmt: skip
    budget = svc.watch()
    ranking = svc.recommender.recommend(event.id, now, ranking_request, budget, keep=False)
    tell(svc, ranking, budget)
    items = [
        {"item": item, "score": score, "features": []}
        for item, score in zip(ranking.items, ranking.extra["scores"], strict=True)
    ]
    if request.args.get("explain", "false").lower() in ("true", "1", ""):
        for item, explanation in zip(items, of_event(ranking, svc.recommender.live), strict=True):
            item["features"] = [{"name": name, "value": value} for name, value in explanation["features"].items()]
    return {"took": _since(started), "items": items}


@routes.post(
    "/recommend/<path:model>",
    responses={200: Ordered},
    openapi_extensions=_body(RecommendRequest.model_json_schema()),
)
@takes("lenient")
def recommend(path: ModelPath) -> dict[str, Any]:
    """Recommend items for a user, or items similar to the given ones."""
    started = time.perf_counter()
    svc = service()
    body = RecommendRequest.model_validate(request.get_json(force=True))
    history = tuple(body.items) or None
    ranking_request = Asked(user=body.user, history=history, n=body.count)
    budget = svc.watch()
    ranking = svc.recommender.recommend(new_id(), svc.clock(), ranking_request, budget, keep=False)
    tell(svc, ranking, budget)
    items = [{"item": item, "score": score} for item, score in zip(ranking.items, ranking.extra["scores"], strict=True)]
    return {"took": _since(started), "items": items}


@routes.post("/train/<path:model>", responses={200: Trained})
@takes("none", "admin")
def train(path: ModelPath) -> dict[str, Any]:
    """Train a candidate bundle on the journal, and promote it if it passes the gate. Responds when training ends.

    `promoted` and `reasons` hold the gate's decision. `testMetric` is the validation metric after each tree, `millis`
    the mean time per tree; `trainMetric` is not measured.
    """
    admin = upkeep()
    with one_at_a_time(admin):
        report = admin.retrain()
    curve = report["learning_curve"]
    ms_per_tree = round(1000 * report["seconds"] / max(len(curve), 1))
    return {
        "features": [{"name": name, "weight": weight} for name, weight in report["importance"].items()],
        "iterations": [
            {"id": index, "millis": ms_per_tree, "testMetric": metric, "trainMetric": None}
            for index, metric in enumerate(curve)
        ],
        "sizeBytes": size_of(admin.bundles / report["bundles"]["candidate"]),
        "bundle": report["bundles"]["candidate"],
        "promoted": report["promote"],
        "reasons": report["reasons"],
    }


@routes.get("/health", responses={200: Healthy})
@takes("none", "open")
def health() -> dict[str, str]:
    """Return 200 while the process responds."""
    return {"status": "ok"}


def _since(started: float) -> int:
    return round(1000 * (time.perf_counter() - started))
