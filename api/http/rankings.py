"""Rankings that were served: what they showed, and why."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, NotFound

from api.compose.replay import ReplayError
from api.http import answers
from api.http.explanations import of_event, recall_of
from api.http.group import group
from api.http.guards import takes
from api.http.service import one_at_a_time, service, upkeep
from engine.events import RankingEvent
from engine.served import served_here

routes = group("rankings", "Rankings")


class RankingPath(BaseModel):
    """Which ranking."""

    ranking_id: str = Field(min_length=1, max_length=256)


class Explained(answers.Feed):
    """A ranking and why it is in this order."""

    step: str = Field(description="full, or the plainer list that stood in: no_neural, popular, last_good.")
    candidates: int | None = Field(description="How many recall found.")
    without_ranker: list[str] = Field(description="What would have been shown in the order of recall.")


class Difference(BaseModel):
    """The first place at which two rankings are not the same."""

    place: int = Field(description="From 1.")
    served: answers.ScoredItem | None = Field(description="What was shown; null where the list had ended.")
    again: answers.ScoredItem | None
    features: list[str] = Field(description="The features of that item that differ.")


class Replayed(BaseModel):
    """A ranking that was made again."""

    ranking: str
    bundle: str
    identical: bool
    items: list[answers.ScoredItem] = Field(description="As they are made again.")
    difference: Difference | None


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
    served, recall = event.extra.get("served", {}), recall_of(event)
    return {
        **answers.feed(event, of_event(event, service().recommender.live)),
        "step": served.get("step", "full"),
        "candidates": recall.get("found"),
        "without_ranker": recall.get("items", []),
    }


@routes.post("/v1/rankings/<path:ranking_id>/replay", responses={200: Replayed})
@takes("none", "admin")
def replay(path: RankingPath) -> dict[str, Any]:
    """Make a ranking again, by the bundle that made it from the state as it was then: the same, or where it differs.

    Slow where the journal is long, so it is done one at a time.
    """
    event, behind = _find(path.ranking_id), upkeep()
    with one_at_a_time(behind):
        try:
            again, found = behind.replay(event)
        except ReplayError as problem:
            raise Conflict(str(problem)) from None
    items = [{"id": item, "score": score} for item, score in zip(again.items, again.extra["scores"], strict=True)]
    return {
        "ranking": event.id,
        "bundle": event.extra["bundle"],
        "identical": found is None,
        "items": items,
        "difference": None if found is None else {
            "place": found.place, "served": _entry(found.served), "again": _entry(found.again),
            "features": list(found.features),
        },
    }  # fmt: skip


def _entry(one: tuple[str, float | None] | None) -> dict[str, Any] | None:
    return None if one is None else {"id": one[0], "score": one[1]}


def _find(ranking_id: str) -> RankingEvent:
    event = service().recommender.find(ranking_id)
    if event is None or not served_here(event):
        raise NotFound(f"found no ranking {ranking_id!r} that was served here")
    return event
