"""Bundles, for those who look after the service: which there are, which serves, and another one in its place."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, NotFound

from api.http.group import group
from api.http.guards import takes
from api.http.service import service, upkeep
from models import registry
from models.bundle import BundleError

routes = group("bundles", "Bundles")


class Entry(BaseModel):
    """One bundle."""

    name: str
    current: bool
    made: str | None = Field(description="When, ISO-8601.")
    bytes: int
    items: int
    ranker: bool = Field(description="False: the order of recall is the final order.")
    problem: str = Field(description="Why it can't be used; empty where nothing is known against it.")


class Bundles(BaseModel):
    """All bundles of the home."""

    serving: str = Field(description="What the process that answers serves; others may change over a moment later.")
    bundles: list[Entry]


class Current(BaseModel):
    """The bundle that every process changes over to, within a second or so."""

    current: str


class BundlePath(BaseModel):
    """Which bundle."""

    name: str = Field(min_length=1, max_length=100)


@routes.get("/v1/bundles", responses={200: Bundles})
@takes("none", "admin")
def bundles() -> dict[str, Any]:
    """All bundles, oldest first."""
    found = [
        {
            "name": one.name, "current": one.current, "made": one.made.get("at"), "bytes": one.bytes,
            "items": one.manifest.get("items", 0), "ranker": bool(one.manifest.get("ranker")), "problem": one.problem,
        }
        for one in registry.entries(upkeep().bundles)
    ]  # fmt: skip
    return {"serving": service().recommender.pipeline.bundle, "bundles": found}


@routes.post("/v1/bundles/<string:name>/promote", responses={200: Current})
@takes("none", "admin")
def promote(path: BundlePath) -> dict[str, str]:
    """Check every file of a bundle, and make it the one that serves."""
    folder = upkeep().bundles
    if path.name not in [one.name for one in registry.entries(folder)]:
        raise NotFound(f"found no bundle {path.name!r}; GET /v1/bundles names those that are there")
    return _changed(lambda: registry.promote(folder, path.name))


@routes.post("/v1/bundles/rollback", responses={200: Current})
@takes("none", "admin")
def rollback() -> dict[str, str]:
    """Go back to the bundle that served before the current one."""
    folder = upkeep().bundles
    return _changed(lambda: registry.rollback(folder))


def _changed(change: Any) -> dict[str, str]:
    try:
        change()
    except BundleError as problem:
        raise Conflict(str(problem)) from None
    return {"current": registry.current(upkeep().bundles) or ""}
