"""Recommendation routes: recommend items, rank given items, and find similar items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from flask import g
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.config import MIN_RANK_ONLY_DAYS
from feedrank.api.http import responses
from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import MAX_LIST_LENGTH, NOT_OF_THE_REQUEST, Id, RankBody, RankingOptions, RecommendBody
from feedrank.api.http.explanations import explain_ranking
from feedrank.api.http.middleware import require_scope, route_policy
from feedrank.api.http.quotas import current_quotas
from feedrank.api.http.service import current_service, new_id
from feedrank.engine.events.catalogue import RANK_ONLY
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import MISSING_IDS
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.ranking_record import DuplicateRankingIdError
from feedrank.engine.serving.request import RecommendationRequest

routes = make_blueprint("recommendations", "Feeds")


class ItemPath(BaseModel):
    """Path parameters of the similar-items route."""

    item_id: Id


class SimilarQuery(BaseModel):
    """Query parameters of the similar-items route."""

    model_config = ConfigDict(extra="forbid")
    n: int = Field(default=10, ge=1, le=MAX_LIST_LENGTH)


@routes.post("/v1/recommend", responses={200: responses.Feed})
@route_policy("json")
def recommend(body: RecommendBody) -> dict[str, Any]:
    """Recommend items, best first. The ranking is in the journal before the response is sent."""
    budget = current_service().latency_budget(body.deadline_ms)
    return _rank_and_log(body, body.model_dump(exclude=NOT_OF_THE_REQUEST), budget)


@routes.post("/v1/rank", responses={200: responses.Feed})
@route_policy("json")
def rank(body: RankBody) -> dict[str, Any]:
    """Rank the given items, best first; of unknown items only the fields sent with them are used.

    The fields of an item belong to this list: they do not change what is stored of a known item. The ranking is
    logged, with these fields, unless `log` is false. Unknown items with fields are registered in the catalogue, which
    needs the scope `write` and takes a moment. Recommendations show them only after an item event.
    """
    budget = current_service().latency_budget(body.deadline_ms)
    if fields := body.fields_by_item:
        register_items(fields, budget, body.log)
    return _rank_and_log(body, body.to_options(), budget)


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


def register_items(items: Mapping[str, Mapping[str, Any]], budget: LatencyBudget, log: bool = True) -> None:
    """Register the items that the catalogue lacks: now if the time budget allows, otherwise in the background.

    Items beyond the key's quota are not registered. log: false for a ranking that is not shown; then they are not
    registered, and nothing but the features of the list reads their fields.
    """
    svc = current_service()
    known = svc.recommender.catalogue.ids
    new = {item: fields for item, fields in items.items() if item not in known}
    if not new:
        return
    if log:
        require_scope("write")  # the items are written to the journal
    if not log or not current_quotas().take_items(len(new)):
        budget.skip("items")
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
    """Build the item event; its id is a digest of the item, its fields and the month, so repeats of a month count once.

    After `MIN_RANK_ONLY_DAYS` training may leave the item out, and another event registers it again.
    """
    content = json.dumps([item, fields, timestamp_ms // (MIN_RANK_ONLY_DAYS * 86_400_000)], sort_keys=True)
    named = [{"name": name, "value": value} for name, value in {**fields, RANK_ONLY: True}.items()]
    body = {"event": "item", "id": f"described-{sha256(content.encode()).hexdigest()[:32]}", "timestamp": timestamp_ms}
    return parse({**body, "item": item, "fields": named})


def given_id(identifier: str | None) -> str | None:
    """Return the id of a request, or None for a word that a page writes for a missing one, such as undefined."""
    return None if identifier in MISSING_IDS else identifier


def _rank_and_log(body: RankingOptions, options: Mapping[str, Any], budget: LatencyBudget) -> dict[str, Any]:
    """Make the ranking of a request with these options, and return the response body."""
    named = {name: given_id(options.get(name)) for name in ("user", "session")}
    svc, request = current_service(), RecommendationRequest.from_options({**options, **named})
    g.is_trial = not body.log
    try:
        record = svc.recommender.recommend(given_id(body.ranking) or new_id(), svc.clock(), request, budget, body.log)
    except DuplicateRankingIdError as problem:
        raise Conflict(str(problem)) from None
    if not body.log:
        record = replace(record, logged=False)
    svc.record_feed(record, budget, is_trial=not body.log)
    if body.explain:
        return responses.feed_json(record, explain_ranking(record, svc.recommender.snapshot))
    return record.to_answer()
