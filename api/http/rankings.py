"""Rankings that were served: what they showed, and why."""

from __future__ import annotations

from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from api.http import answers
from api.http.explanations import of_event
from api.http.guards import takes
from api.http.service import service
from engine.events import RankingEvent

routes = APIBlueprint("rankings", __name__, abp_tags=[Tag(name="Rankings")], abp_security=[{"key": []}])


class RankingPath(BaseModel):
    """Which ranking."""

    ranking_id: str = Field(min_length=1, max_length=256)


class Explained(answers.Feed):
    """A ranking and why it is in this order."""

    step: str = Field(description="full, or the plainer list that stood in: no_neural, popular, last_good.")
    candidates: int | None = Field(description="How many recall found.")
    without_ranker: list[str] = Field(description="What would have been shown in the order of recall.")


@routes.get("/v1/rankings/<path:ranking_id>", responses={200: answers.Feed})
@takes("none")
def ranking(path: RankingPath) -> dict[str, Any]:
    """A ranking as it was answered."""
    return answers.feed(_find(path.ranking_id))


@routes.get("/v1/rankings/<path:ranking_id>/explain", responses={200: Explained})
@takes("none")
def explain(path: RankingPath) -> dict[str, Any]:
    """Why each item is where it is: recall score, features, and their TreeSHAP contributions."""
    event = _find(path.ranking_id)
    served = event.extra.get("served", {})
    recall = served.get("recall", {})
    return {
        **answers.feed(event, of_event(event, service().recommender.live)),
        "step": served.get("step", "full"),
        "candidates": recall.get("found"),
        "without_ranker": recall.get("items", []),
    }


def _find(ranking_id: str) -> RankingEvent:
    event = service().recommender.find(ranking_id)
    if not isinstance(event, RankingEvent) or "bundle" not in event.extra:
        raise NotFound(f"found no ranking {ranking_id!r} that was served here")
    return event
