"""The reference page of the HTTP API, from the service's own OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from flask_openapi3.openapi import OpenAPI

from docs.generator.markdown import code, slug, table, text, value
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service

INTRO = """# HTTP API

The service describes itself in OpenAPI 3.1 at `/docs/openapi.json`, with Swagger UI at `/docs`.
This page is made from that document. [How to call the service](../how-to/call-the-service.md) has examples.

Requests and responses are JSON. An API key is sent as `Authorization: Bearer KEY`.
The scope of each route is the one that the key must have; `open` needs no key.
"""
ERRORS = """## Errors

Every error is a problem document (RFC 9457) with the content type `application/problem+json`.
Its fields are those of [Problem](#problem).
"""
METHODS = ("get", "post", "put", "patch", "delete")


def application() -> OpenAPI:
    """Create the Flask application without a service: enough to read its routes."""
    return create_app(Service(cast(Any, None)))


def routes(app: OpenAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (method, path, operation) of the OpenAPI document, in its order."""
    for path, operations in app.api_doc["paths"].items():
        for method in METHODS:
            if method in operations:
                yield method.upper(), path, operations[method]


def page() -> str:
    """Return the page: routes by tag, then errors, then all schemas."""
    app = application()
    scopes = _scopes(app)
    parts = [INTRO, _overview(app, scopes)]
    for tag in app.api_doc["tags"]:
        parts.append(f"## {tag['name']}\n")
        for method, path, operation in routes(app):
            if tag["name"] in operation.get("tags", ()):
                parts.append(_route(method, path, operation, scopes))
    statuses = _problem_statuses(app)
    parts += [ERRORS, table(("status", "meaning"), [(code(s), text(m)) for s, m in sorted(statuses.items())])]
    parts.append("## Schemas\n")
    schemas = app.api_doc["components"]["schemas"]
    parts += [_schema(name, schemas[name]) for name in sorted(schemas)]
    return "\n".join(parts)


def _overview(app: OpenAPI, scopes: Mapping[tuple[str, str], str]) -> str:
    rows = []
    for method, path, operation in routes(app):
        name = f"{method} {path}"
        rows.append((f"[{code(name)}](#{slug(name)})", scopes.get((method, path), "open"), text(_summary(operation))))
    return table(("route", "scope", "what it does"), rows)


def _summary(operation: Mapping[str, Any]) -> str:
    return str(operation.get("summary") or operation.get("description") or "")


def _scopes(app: OpenAPI) -> dict[tuple[str, str], str]:
    """Return (method, path as in the document) -> the scope that the route's policy requires."""
    found: dict[tuple[str, str], str] = {}
    for rule in app.url_map.iter_rules():
        policy = getattr(app.view_functions[rule.endpoint], "feedrank", ("none", "open"))
        path = "".join(f"{{{part}}}" if dynamic else part for dynamic, part in rule._trace[1:]).replace("|", "")
        found.update({(method, path): policy[1] for method in rule.methods or ()})
    return found


def _route(method: str, path: str, operation: Mapping[str, Any], scopes: Mapping[tuple[str, str], str]) -> str:
    parts = [f"### {method} {path}\n", f"{text(_summary(operation))}\n"]
    if description := operation.get("description"):
        parts.append(f"{text(description.replace('<br/>', ' '))}\n")
    parts.append(f"Scope: {code(scopes.get((method, path), 'open'))}.\n")
    rows = [
        (code(one["name"]), one["in"], _type(one["schema"]), _limits(one["schema"], one.get("required", False)),
         text(one.get("description") or one["schema"].get("description", "")))
        for one in operation.get("parameters", ())
    ]  # fmt: skip
    parts.append(table(("parameter", "in", "type", "limits", "meaning"), rows))
    body = _content(operation.get("requestBody", {}))
    if body:
        parts.append(f"Body: {body}\n")
    answers = [f"{status} {_content(one) or text(one.get('description', ''))}" for status, one in sorted(
        operation["responses"].items()) if status.startswith("2")]  # fmt: skip
    parts.append(f"Response: {'; '.join(answers)}.\n")
    return "\n".join(part for part in parts if part)


def _content(body: Mapping[str, Any]) -> str:
    shown = [f"{_type(media['schema'])} ({code(kind)})" if kind != "application/json" else _type(media["schema"])
             for kind, media in body.get("content", {}).items() if "schema" in media]  # fmt: skip
    return ", ".join(shown)


def _problem_statuses(app: OpenAPI) -> dict[str, str]:
    statuses: dict[str, str] = {}
    for _, _, operation in routes(app):
        for status, answer in operation["responses"].items():
            if "application/problem+json" in answer.get("content", {}):
                statuses.setdefault(status, answer["description"])
    return statuses


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (code(key), _type(one), _limits(one, key in required), text(one.get("description", "")))
        for key, one in schema.get("properties", {}).items()
    ]
    about = text(schema.get("description", ""))
    return f"### {name}\n\n{about}\n\n{table(('field', 'type', 'limits', 'meaning'), rows)}"


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema in a few words, with links to other schemas."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{slug(name)})"
    if "enum" in schema:
        return ", ".join(value(one) for one in schema["enum"])
    if "const" in schema:
        return value(schema["const"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, Mapping) and values else "object"
    return str(kind)


_LIMITS = (
    ("minimum", "≥ {}"), ("exclusiveMinimum", "> {}"), ("maximum", "≤ {}"), ("exclusiveMaximum", "< {}"),
    ("minLength", "≥ {} characters"), ("maxLength", "≤ {} characters"),
    ("minItems", "≥ {} entries"), ("maxItems", "≤ {} entries"), ("maxProperties", "≤ {} keys"),
)  # fmt: skip


def _limits(schema: Mapping[str, Any], required: bool) -> str:
    parts = ["required"] if required else []
    for part in (schema, *schema.get("anyOf", ())):
        parts += [form.format(f"{part[key]:g}") for key, form in _LIMITS if key in part]
    if not required and schema.get("default") not in (None, "", [], {}):
        parts.append(f"default {value(schema['default'])}")
    return ", ".join(dict.fromkeys(parts))
