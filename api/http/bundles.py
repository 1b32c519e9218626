"""Bundle administration routes: list bundles, promote one, roll back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, NotFound

from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import admin_services, current_service
from feedrank.models.bundles import registry
from feedrank.models.bundles.bundle import BundleError

routes = make_blueprint("bundles", "Bundles")


class BundleInfo(BaseModel):
    """Metadata of one bundle."""

    name: str
    current: bool
    built_at: str | None = Field(description="Build time, ISO-8601.")
    size_bytes: int
    items: int
    has_ranker: bool = Field(description="False if the bundle keeps recall order.")
    problem: str = Field(description="Why the bundle can't be loaded; empty if no problem is known.")


class BundleList(BaseModel):
    """All bundles of the home folder."""

    serving: str = Field(description="Bundle that this process serves; other processes may switch a moment later.")
    bundles: list[BundleInfo]


class CurrentBundle(BaseModel):
    """The current bundle; every process switches to it within about a second."""

    current: str


class BundlePath(BaseModel):
    """Path parameters of the bundle routes."""

    name: str = Field(min_length=1, max_length=100)


@routes.get("/v1/bundles", responses={200: BundleList})
@route_policy("none", "admin")
def bundles() -> dict[str, Any]:
    """List all bundles, oldest first."""
    entries = [
        {
            "name": entry.name, "current": entry.current, "built_at": entry.build_info.get("at"),
            "size_bytes": entry.bytes, "items": entry.manifest.get("items", 0),
            "has_ranker": bool(entry.manifest.get("ranker")), "problem": entry.problem,
        }
        for entry in registry.list_bundles(admin_services().bundles)
    ]  # fmt: skip
    return {"serving": current_service().recommender.pipeline.bundle, "bundles": entries}


@routes.post("/v1/bundles/<string:name>/promote", responses={200: CurrentBundle})
@route_policy("none", "admin")
def promote(path: BundlePath) -> dict[str, str]:
    """Verify every file of a bundle, and make it the current one."""
    folder = admin_services().bundles
    if path.name not in [entry.name for entry in registry.list_bundles(folder)]:
        raise NotFound(f"found no bundle {path.name!r}; GET /v1/bundles lists the bundles")
    return _apply(lambda: registry.promote(folder, path.name))


@routes.post("/v1/bundles/rollback", responses={200: CurrentBundle})
@route_policy("none", "admin")
def rollback() -> dict[str, str]:
    """Make the previously current bundle current again."""
    folder = admin_services().bundles
    return _apply(lambda: registry.rollback(folder))


def _apply(change: Any) -> dict[str, str]:
    try:
        change()
    except BundleError as problem:
        raise Conflict(str(problem)) from None
    return {"current": registry.current_name(admin_services().bundles) or ""}
