"""Blueprints: groups of routes that share an OpenAPI tag, the security scheme and the problem responses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

_PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEM_RESPONSES: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = {
    status: {"description": description, "content": _PROBLEM_CONTENT}
    for status, description in {
        "400": "The request is invalid; `field` names the field.",
        "401": "The API key is missing, unknown or expired.",
        "403": "The API key lacks the required scope.",
        "404": "The resource does not exist.",
        "409": "The request conflicts with the current state; `detail` says why.",
        "413": "The body is too large.",
        "415": "The content type or content encoding is not supported.",
        "429": "Too many requests with this key.",
        "500": "The request failed.",
        "501": "This service has no admin functions, or an optional dependency is missing.",
        "503": "The journal can't be written or read; nothing was lost, retry.",
    }.items()
}


def make_blueprint(name: str, tag: str, requires_key: bool = True) -> APIBlueprint:
    """Create a blueprint with an OpenAPI tag. keys: document that its routes need an API key."""
    security: list[dict[str, list[str]]] | None = [{"api_key": []}] if requires_key else None
    return APIBlueprint(
        name, __name__, abp_tags=[Tag(name=tag)], abp_security=security, abp_responses=PROBLEM_RESPONSES
    )
