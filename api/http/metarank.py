"""Metarank's own routes, with its bodies and replies, so that its clients move over without a change.

https://docs.metarank.ai/reference/api; a model's name is taken as it comes: there is one ranker.
"""

from __future__ import annotations

import time
from typing import Any

from flask import request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field
from werkzeug.exceptions import BadRequest

from api.http.bodies import LONGEST_LIST
from api.http.events import take
from api.http.explanations import of_event
from api.http.guards import takes
from api.http.service import new_id, one_at_a_time, service, upkeep
from api.http.sight import tell
from engine.asked import Asked
from engine.events import EventError, RankingEvent, parse
from models.registry import size_of

routes = APIBlueprint("metarank", __name__, abp_tags=[Tag(name="Metarank's routes")], abp_security=[{"key": []}])


class ModelPath(BaseModel):
    """Which model."""

    model: str = Field(max_length=256)


@routes.post("/feedback")
@takes("lenient", "write")
def feedback() -> dict[str, Any]:
    """Take in one event or a list of events."""
    started = time.perf_counter()
    body = request.get_json(force=True)
    taken = take(service(), body if isinstance(body, list) else [body])
    if taken["rejected"]:
        first = taken["rejected"][0]
        raise EventError(f"[{first['place']}].{first['field']}", first["detail"])
    return {"accepted": taken["accepted"], "status": "ok", "tookMillis": _since(started), "updated": 0}


@routes.post("/rank/<path:model>")
@takes("lenient")
def rank(path: ModelPath) -> dict[str, Any]:
    """Put the items of a ranking event in order. Nothing is logged: the client sends what it showed to /feedback."""
    started = time.perf_counter()
    here = service()
    now = here.clock()
    body = request.get_json(force=True)
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected a ranking event")
    stamped = {"id": new_id(), "timestamp": round(now * 1000), **body, "event": "ranking"}
    event = parse(stamped)
    assert isinstance(event, RankingEvent)
    if len(event.items) > LONGEST_LIST:
        raise EventError("items", f"found {len(event.items):,} items, expected at most {LONGEST_LIST:,}")
    query = event.fields.get("query", "")
    asked = Asked(
        user=event.user, session=event.session, query=query if isinstance(query, str) else "", items=event.items,
        n=len(event.items),
    )  # fmt: skip
    watch = here.watch()
    done = here.recommender.recommend(event.id, now, asked, watch, keep=False)
    tell(here, done, watch)
    items = [
        {"item": item, "score": score, "features": []}
        for item, score in zip(done.items, done.extra["scores"], strict=True)
    ]
    if request.args.get("explain", "false").lower() in ("true", "1", ""):
        for item, why in zip(items, of_event(done, here.recommender.live), strict=True):
            item["features"] = [{"name": name, "value": value} for name, value in why["features"].items()]
    return {"took": _since(started), "items": items}


@routes.post("/recommend/<path:model>")
@takes("lenient")
def recommend(path: ModelPath) -> dict[str, Any]:
    """Items for a person, or like the given ones."""
    started = time.perf_counter()
    here = service()
    body = RecommendRequest.model_validate(request.get_json(force=True))
    history = tuple(body.items) or None
    asked = Asked(user=body.user, history=history, n=body.count)
    watch = here.watch()
    done = here.recommender.recommend(new_id(), here.clock(), asked, watch, keep=False)
    tell(here, done, watch)
    items = [{"item": item, "score": score} for item, score in zip(done.items, done.extra["scores"], strict=True)]
    return {"took": _since(started), "items": items}


@routes.post("/train/<path:model>")
@takes("none", "admin")
def train(path: ModelPath) -> dict[str, Any]:
    """Train a candidate on the journal, and let it serve if it passes the gate; answered when that is over.

    `promoted` and `reasons` say what came of it. `testMetric` is that of the validation part after each tree, `millis`
    the mean of all; the training part is not measured.
    """
    behind = upkeep()
    with one_at_a_time(behind):
        report = behind.retrain()
    curve = report["learning_curve"]
    each = round(1000 * report["seconds"] / max(len(curve), 1))
    return {
        "features": [{"name": name, "weight": weight} for name, weight in report["importance"].items()],
        "iterations": [
            {"id": place, "millis": each, "testMetric": metric, "trainMetric": None}
            for place, metric in enumerate(curve)
        ],
        "sizeBytes": size_of(behind.bundles / report["bundles"]["candidate"]),
        "bundle": report["bundles"]["candidate"],
        "promoted": report["promote"],
        "reasons": report["reasons"],
    }


@routes.get("/health")
@takes("none", "open")
def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


class RecommendRequest(BaseModel):
    """What /recommend takes."""

    count: int = Field(default=10, ge=1, le=LONGEST_LIST)
    user: str | None = Field(default=None, max_length=256)
    items: list[str] = Field(default_factory=list, max_length=LONGEST_LIST)


def _since(started: float) -> int:
    return round(1000 * (time.perf_counter() - started))
