"""Feeds, orders of given lists, and what is like an item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import Conflict, NotFound

from api.http import answers
from api.http.bodies import LONGEST_LIST, QuestionBody, RankBody, RecommendBody
from api.http.explanations import of_event
from api.http.group import group
from api.http.guards import demand, takes
from api.http.service import new_id, service
from api.http.sight import tell
from engine.asked import Asked
from engine.catalogue import RANK_ONLY
from engine.events import Event, parse
from engine.recommender import IdTaken
from engine.watch import Watch

routes = group("feeds", "Feeds")


class ItemPath(BaseModel):
    """Which item."""

    item_id: str = Field(min_length=1, max_length=256)


class SimilarQuery(BaseModel):
    """How many."""

    model_config = ConfigDict(extra="forbid")
    n: int = Field(default=10, ge=1, le=LONGEST_LIST)


@routes.post("/v1/recommend", responses={200: answers.Feed})
@takes("json")
def recommend(body: RecommendBody) -> dict[str, Any]:
    """A feed, best first. It is in the journal, under its ranking id, before it is answered."""
    return _answer(body, body.asked(), service().watch(body.deadline_ms))


@routes.post("/v1/rank", responses={200: answers.Feed})
@takes("json")
def rank(body: RankBody) -> dict[str, Any]:
    """The given items, best first; unknown ones have nothing that speaks for them but the fields that come with them.

    Logged as a feed is. Unknown items with fields become known, which takes a moment and the scope `write`, to lists
    alone: feeds show them once an item event has named them.
    """
    watch = service().watch(body.deadline_ms)
    if body.described:
        demand("write")  # they are written to the journal
        introduce(body.described, watch)
    return _answer(body, body.asked(), watch)


@routes.get("/v1/items/<path:item_id>/similar", responses={200: answers.Similar})
@takes("none")
def similar(path: ItemPath, query: SimilarQuery) -> dict[str, Any]:
    """The items that recall would find for somebody who touched this one alone. They are not logged."""
    here = service()
    found = here.recommender.similar(here.clock(), path.item_id, query.n)
    if found is None:
        raise NotFound(f"found no item {path.item_id!r}; send it as an item event first")
    names = here.recommender.catalogue.ids.names(found.rows)
    items = [{"id": name, "score": score} for name, score in zip(names, found.scores.tolist(), strict=True)]
    return {"item": path.item_id, "items": items}


def introduce(items: Mapping[str, Mapping[str, Any]], watch: Watch) -> None:
    """Make those of these items known that are not, where there is time; else soon."""
    here = service()
    known = here.recommender.catalogue.ids
    new = {item: fields for item, fields in items.items() if item not in known}
    if not new:
        return
    now = here.clock()
    events = [_description(item, fields, round(now * 1000)) for item, fields in new.items()]
    here.recommender.record(events, now)
    if here.upkeep is None or not (watch.knows("items") and watch.allows("items", "features", "rank", "journal")):
        watch.skip("items")
        return
    here.upkeep.take_in()
    watch.mark("items")


def _description(item: str, fields: Mapping[str, Any], moment: int) -> Event:
    """The same words make the same event, so that it counts once."""
    said = json.dumps([item, fields], sort_keys=True)
    named = [{"name": name, "value": value} for name, value in {**fields, RANK_ONLY: True}.items()]
    body = {"event": "item", "id": f"described-{sha256(said.encode()).hexdigest()[:32]}", "timestamp": moment}
    return parse({**body, "item": item, "fields": named})


def _answer(body: QuestionBody, asked: Asked, watch: Watch) -> dict[str, Any]:
    here = service()
    try:
        event = here.recommender.recommend(body.ranking or new_id(), here.clock(), asked, watch)
    except IdTaken as problem:
        raise Conflict(str(problem)) from None
    tell(here, event, watch)
    return answers.feed(event, of_event(event, here.recommender.live) if body.explain else None)
