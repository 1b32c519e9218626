"""Recommendation routes: recommend items, rank given items, and find similar items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.http import answers
from feedrank.api.http.blueprint import group
from feedrank.api.http.bodies import LONGEST_LIST, QuestionBody, RankBody, RecommendBody
from feedrank.api.http.explanations import of_event
from feedrank.api.http.middleware import demand, takes
from feedrank.api.http.observability import tell
from feedrank.api.http.service import new_id, service
from feedrank.engine.events.catalogue import RANK_ONLY
from feedrank.engine.events.events import Event, parse
from feedrank.engine.serving.deadline import Watch
from feedrank.engine.serving.recommender import IdTaken
from feedrank.engine.serving.request import Asked

routes = group("feeds", "Feeds")


class ItemPath(BaseModel):
    """Path parameters of the similar-items route."""

    item_id: str = Field(min_length=1, max_length=256)


class SimilarQuery(BaseModel):
    """Query parameters of the similar-items route."""

    model_config = ConfigDict(extra="forbid")
    n: int = Field(default=10, ge=1, le=LONGEST_LIST)


@routes.post("/v1/recommend", responses={200: answers.Feed})
@takes("json")
def recommend(body: RecommendBody) -> dict[str, Any]:
    """Recommend items, best first. The ranking is in the journal before the response is sent."""
    return _answer(body, body.asked(), service().watch(body.deadline_ms))


@routes.post("/v1/rank", responses={200: answers.Feed})
@takes("json")
def rank(body: RankBody) -> dict[str, Any]:
    """Rank the given items, best first; of unknown items only the fields sent with them are used.

    The ranking is logged. Unknown items with fields are registered in the catalogue, which needs the scope `write`
    and takes a moment. Recommendations show them only after an item event.
    """
    watch = service().watch(body.deadline_ms)
    if body.described:
        demand("write")  # the items are written to the journal
        introduce(body.described, watch)
    return _answer(body, body.asked(), watch)


@routes.get("/v1/items/<path:item_id>/similar", responses={200: answers.Similar})
@takes("none")
def similar(path: ItemPath, query: SimilarQuery) -> dict[str, Any]:
    """Return what recall finds for a user whose only interaction is this item. The result is not logged."""
    svc = service()
    candidates = svc.recommender.similar(svc.clock(), path.item_id, query.n)
    if candidates is None:
        raise NotFound(f"found no item {path.item_id!r}; send it as an item event first")
    names = svc.recommender.catalogue.ids.names(candidates.rows)
    items = [{"id": name, "score": score} for name, score in zip(names, candidates.scores.tolist(), strict=True)]
    return {"item": path.item_id, "items": items}


def introduce(items: Mapping[str, Mapping[str, Any]], watch: Watch) -> None:
    """Register the items that the catalogue lacks: now if the time budget allows, otherwise in the background."""
    svc = service()
    known = svc.recommender.catalogue.ids
    new = {item: fields for item, fields in items.items() if item not in known}
    if not new:
        return
    now = svc.clock()
    events = [_description(item, fields, round(now * 1000)) for item, fields in new.items()]
    svc.recommender.record(events, now)
    if svc.upkeep is None or not (watch.knows("items") and watch.allows("items", "features", "rank", "journal")):
        watch.skip("items")
        return
    svc.upkeep.take_in()
    watch.mark("items")


def _description(item: str, fields: Mapping[str, Any], moment: int) -> Event:
    """Build the item event; its id is a digest of the item and its fields, so repeats count once."""
    content = json.dumps([item, fields], sort_keys=True)
    named = [{"name": name, "value": value} for name, value in {**fields, RANK_ONLY: True}.items()]
    body = {"event": "item", "id": f"described-{sha256(content.encode()).hexdigest()[:32]}", "timestamp": moment}
    return parse({**body, "item": item, "fields": named})


def _answer(body: QuestionBody, asked: Asked, watch: Watch) -> dict[str, Any]:
    svc = service()
    try:
        event = svc.recommender.recommend(body.ranking or new_id(), svc.clock(), asked, watch)
    except IdTaken as problem:
        raise Conflict(str(problem)) from None
    tell(svc, event, watch)
    return answers.feed(event, of_event(event, svc.recommender.live) if body.explain else None)
