"""Groups of routes: under one heading of the document, behind keys, with the problems that any of them may answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = {
    status: {"description": said, "content": _PROBLEM}
    for status, said in {
        "400": "The request is wrong; `field` says where.",
        "401": "The API key is missing, unknown or out of date.",
        "403": "The API key has not the scope.",
        "404": "There is no such thing.",
        "409": "It can't be done as things are; the detail says why.",
        "413": "The body is too large.",
        "415": "The content type or encoding is another one.",
        "429": "Too many requests with this key.",
        "500": "The request failed.",
        "501": "This service only serves.",
        "503": "The journal can't be written or read; nothing was lost, try again.",
    }.items()
}


def group(name: str, heading: str, keys: bool = True) -> APIBlueprint:
    """Routes under a heading; keys: whether the document says that they want one."""
    security: list[dict[str, list[str]]] | None = [{"key": []}] if keys else None
    return APIBlueprint(name, __name__, abp_tags=[Tag(name=heading)], abp_security=security, abp_responses=PROBLEMS)
