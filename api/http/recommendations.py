"""Recommendation routes: recommend items, rank given items, and find similar items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.http import responses
from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import MAX_LIST_LENGTH, RankBody, RankingOptions, RecommendBody
from feedrank.api.http.explanations import explain_ranking
from feedrank.api.http.middleware import require_scope, route_policy
from feedrank.api.http.service import current_service, new_id
from feedrank.engine.events.catalogue import RANK_ONLY
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.recommender import DuplicateRankingIdError
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest

routes = make_blueprint("recommendations", "Feeds")


class ItemPath(BaseModel):
    """Path parameters of the similar-items route."""

    item_id: str = Field(min_length=1, max_length=256)


class SimilarQuery(BaseModel):
    """Query parameters of the similar-items route."""

    model_config = ConfigDict(extra="forbid")
    n: int = Field(default=10, ge=1, le=MAX_LIST_LENGTH)


@routes.post("/v1/recommend", responses={200: responses.Feed})
@route_policy("json")
def recommend(body: RecommendBody) -> dict[str, Any]:
    """Recommend items, best first. The ranking is in the journal before the response is sent."""
    return _rank_and_log(body, to_recommend_request(body), current_service().latency_budget(body.deadline_ms))


@routes.post("/v1/rank", responses={200: responses.Feed})
@route_policy("json")
def rank(body: RankBody) -> dict[str, Any]:
    """Rank the given items, best first; of unknown items only the fields sent with them are used.

    The ranking is logged. Unknown items with fields are registered in the catalogue, which needs the scope `write`
    and takes a moment. Recommendations show them only after an item event.
    """
    budget = current_service().latency_budget(body.deadline_ms)
    if body.item_fields:
        require_scope("write")  # the items are written to the journal
        register_items(body.item_fields, budget)
    return _rank_and_log(body, to_rank_request(body), budget)


@routes.get("/v1/items/<path:item_id>/similar", responses={200: responses.SimilarItems})
@route_policy("none")
def similar(path: ItemPath, query: SimilarQuery) -> dict[str, Any]:
    """Return what recall finds for a user whose only interaction is this item. The result is not logged."""
    svc = current_service()
    candidates = svc.recommender.similar(svc.clock(), path.item_id, query.n)
    if candidates is None:
        raise NotFound(f"found no item {path.item_id!r}; send it as an item event first")
    names = svc.recommender.catalogue.ids.names(candidates.rows)
    items = [{"id": name, "score": score} for name, score in zip(names, candidates.scores.tolist(), strict=True)]
    return {"item": path.item_id, "items": items}


def register_items(items: Mapping[str, Mapping[str, Any]], budget: LatencyBudget) -> None:
    """Register the items that the catalogue lacks: now if the time budget allows, otherwise in the background."""
    svc = current_service()
    known = svc.recommender.catalogue.ids
    new = {item: fields for item, fields in items.items() if item not in known}
    if not new:
        return
    now = svc.clock()
    events = [_item_event(item, fields, round(now * 1000)) for item, fields in new.items()]
    svc.recommender.record(events, now)
    if svc.admin is None or not (
        budget.may_start("items") and budget.has_time_for("items", "features", "rank", "journal")
    ):
        budget.skip("items")
        return
    svc.admin.update_items()
    budget.record("items")


def _item_event(item: str, fields: Mapping[str, Any], timestamp_ms: int) -> Event:
    """Build the item event; its id is a digest of the item and its fields, so repeats count once."""
    content = json.dumps([item, fields], sort_keys=True)
    named = [{"name": name, "value": value} for name, value in {**fields, RANK_ONLY: True}.items()]
    body = {"event": "item", "id": f"described-{sha256(content.encode()).hexdigest()[:32]}", "timestamp": timestamp_ms}
    return parse({**body, "item": item, "fields": named})


def _rank_and_log(body: RankingOptions, request: RecommendationRequest, budget: LatencyBudget) -> dict[str, Any]:
    svc = current_service()
    try:
        record = svc.recommender.recommend(body.ranking or new_id(), svc.clock(), request, budget)
    except DuplicateRankingIdError as problem:
        raise Conflict(str(problem)) from None
    svc.record_feed(record, budget)
    if body.explain:
        return responses.feed_json(record, explain_ranking(record, svc.recommender.snapshot))
    return record.to_answer()


def to_rank_request(body: RankBody) -> RecommendationRequest:
    """Convert the body of a request that ranks given items."""
    return RecommendationRequest(items=tuple(body.item_ids), n=body.n or len(body.items), **_shared_options(body))


def to_recommend_request(body: RecommendBody) -> RecommendationRequest:
    """Convert the body of a request for recommendations."""
    filters = FilterSpec(
        include_seen=body.filters.include_seen,
        categories=None if body.filters.categories is None else tuple(body.filters.categories),
        allow=None if body.filters.allow is None else tuple(body.filters.allow),
        deny=tuple(body.filters.deny),
    )
    return RecommendationRequest(n=body.n, filters=filters, **_shared_options(body))


def _shared_options(body: RankingOptions) -> dict[str, Any]:
    """Convert what both kinds of requests have to arguments of `RecommendationRequest`."""
    return {
        "user": body.user,
        "session": body.session,
        "query": body.query,
        "history": None if body.history is None else tuple(body.history),
        "surface": body.surface,
        "context": body.context,
        "diversity": Diversity(body.diversity.per_category, body.diversity.weight),
    }
