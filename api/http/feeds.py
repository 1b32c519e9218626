"""Feeds, orders of given lists, and what is like an item."""

from __future__ import annotations

from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import NotFound

from api.http import answers
from api.http.bodies import LONGEST_LIST, QuestionBody, RankBody, RecommendBody
from api.http.explanations import of_event
from api.http.guards import takes
from api.http.service import new_id, service
from api.http.sight import tell
from engine.asked import Asked

routes = APIBlueprint("feeds", __name__, abp_tags=[Tag(name="Feeds")], abp_security=[{"key": []}])


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
    return _answer(body, body.asked())


@routes.post("/v1/rank", responses={200: answers.Feed})
@takes("json")
def rank(body: RankBody) -> dict[str, Any]:
    """The given items, best first; unknown ones have nothing that speaks for them. Logged as a feed is."""
    return _answer(body, body.asked())


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


def _answer(body: QuestionBody, asked: Asked) -> dict[str, Any]:
    here = service()
    watch = here.watch(body.deadline_ms)
    event = here.recommender.recommend(new_id(), here.clock(), asked, watch)
    tell(here, event, watch)
    return answers.feed(event, of_event(event, here.recommender.live) if body.explain else None)
