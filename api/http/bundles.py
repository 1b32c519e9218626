"""Bundle administration routes: list bundles, promote one, roll back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.http.blueprint import group
from feedrank.api.http.middleware import takes
from feedrank.api.http.service import service, upkeep
from feedrank.models.bundles import registry
from feedrank.models.bundles.bundle import BundleError

routes = group("bundles", "Bundles")


class Entry(BaseModel):
    """Metadata of one bundle."""

    name: str
    current: bool
    made: str | None = Field(description="Build time, ISO-8601.")
    bytes: int
    items: int
    ranker: bool = Field(description="False if the bundle keeps recall order.")
    problem: str = Field(description="Why the bundle can't be loaded; empty if no problem is known.")


class Bundles(BaseModel):
    """All bundles of the home folder."""

    serving: str = Field(description="Bundle that this process serves; other processes may switch a moment later.")
    bundles: list[Entry]


class Current(BaseModel):
    """The current bundle; every process switches to it within about a second."""

    current: str


class BundlePath(BaseModel):
    """Path parameters of the bundle routes."""

    name: str = Field(min_length=1, max_length=100)


@routes.get("/v1/bundles", responses={200: Bundles})
@takes("none", "admin")
def bundles() -> dict[str, Any]:
    """List all bundles, oldest first."""
    entries = [
        {
            "name": entry.name, "current": entry.current, "made": entry.made.get("at"), "bytes": entry.bytes,
            "items": entry.manifest.get("items", 0), "ranker": bool(entry.manifest.get("ranker")),
            "problem": entry.problem,
        }
        for entry in registry.entries(upkeep().bundles)
    ]  # fmt: skip
    return {"serving": service().recommender.pipeline.bundle, "bundles": entries}


@routes.post("/v1/bundles/<string:name>/promote", responses={200: Current})
@takes("none", "admin")
def promote(path: BundlePath) -> dict[str, str]:
    """Verify every file of a bundle, and make it the current one."""
    folder = upkeep().bundles
    if path.name not in [entry.name for entry in registry.entries(folder)]:
        raise NotFound(f"found no bundle {path.name!r}; GET /v1/bundles lists the bundles")
    return _changed(lambda: registry.promote(folder, path.name))


@routes.post("/v1/bundles/rollback", responses={200: Current})
@takes("none", "admin")
def rollback() -> dict[str, str]:
    """Make the previously current bundle current again."""
    folder = upkeep().bundles
    return _changed(lambda: registry.rollback(folder))


def _changed(change: Any) -> dict[str, str]:
    try:
        change()
    except BundleError as problem:
        raise Conflict(str(problem)) from None
    return {"current": registry.current(upkeep().bundles) or ""}
