"""Ranking routes: read a logged ranking, explain it, or replay it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.compose.replay import ReplayError
from feedrank.api.http import answers
from feedrank.api.http.blueprint import group
from feedrank.api.http.explanations import of_event, recall_of
from feedrank.api.http.middleware import takes
from feedrank.api.http.service import one_at_a_time, service, upkeep
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.logged_features import served_here

routes = group("rankings", "Rankings")


class RankingPath(BaseModel):
    """Path parameters of the ranking routes."""

    ranking_id: str = Field(min_length=1, max_length=256)


class Explained(answers.Feed):
    """A logged ranking, with an explanation of each item."""

    step: str = Field(description="Fallback level: full, no_neural, popular or last_good.")
    candidates: int | None = Field(description="Number of candidates from recall.")
    without_ranker: list[str] = Field(description="Item ids in recall order, without the ranker.")


class Difference(BaseModel):
    """The first position at which two rankings differ."""

    place: int = Field(description="Position, from 1.")
    served: answers.ScoredItem | None = Field(description="Item as served; null after the end of the list.")
    again: answers.ScoredItem | None = Field(description="Item as replayed.")
    features: list[str] = Field(description="Names of the features that differ, if the item is the same.")


class Replayed(BaseModel):
    """Result of replaying a ranking."""

    ranking: str
    bundle: str
    identical: bool
    items: list[answers.ScoredItem] = Field(description="Items of the replayed ranking.")
    difference: Difference | None


@routes.get("/v1/rankings/<path:ranking_id>", responses={200: answers.Feed})
@takes("none")
def ranking(path: RankingPath) -> dict[str, Any]:
    """Return a ranking as it was served."""
    return answers.feed(_find(path.ranking_id))


@routes.get("/v1/rankings/<path:ranking_id>/explain", responses={200: Explained})
@takes("none")
def explain(path: RankingPath) -> dict[str, Any]:
    """Explain each item of a ranking: recall score, features, and their TreeSHAP contributions."""
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
    """Replay a ranking with its bundle and its state at that time, and return the first difference.

    Slow for a long journal: a process runs one replay at a time.
    """
    event, admin = _find(path.ranking_id), upkeep()
    with one_at_a_time(admin):
        try:
            replayed, difference = admin.replay(event)
        except ReplayError as problem:
            raise Conflict(str(problem)) from None
    items = [{"id": item, "score": score} for item, score in zip(replayed.items, replayed.extra["scores"], strict=True)]
    return {
        "ranking": event.id,
        "bundle": event.extra["bundle"],
        "identical": difference is None,
        "items": items,
        "difference": None if difference is None else {
            "place": difference.place, "served": _entry(difference.served), "again": _entry(difference.again),
            "features": list(difference.features),
        },
    }  # fmt: skip


def _entry(one: tuple[str, float | None] | None) -> dict[str, Any] | None:
    return None if one is None else {"id": one[0], "score": one[1]}


def _find(ranking_id: str) -> RankingEvent:
    event = service().recommender.find(ranking_id)
    if event is None or not served_here(event):
        raise NotFound(f"found no ranking {ranking_id!r} that this service served")
    return event
