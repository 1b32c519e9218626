"""The Flask application: it registers the routes, the middleware and the OpenAPI document at /docs."""

from __future__ import annotations

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.routing import PathConverter

from feedrank import __version__
from feedrank.api.http import (
    bundles,
    entities,
    events,
    experiments,
    health,
    metarank,
    middleware,
    observability,
    problems,
    quotas,
    rankings,
    recommendations,
)
from feedrank.api.http.blueprint import PROBLEM_RESPONSES
from feedrank.api.http.responses import Problem
from feedrank.api.http.service import EXTENSION_KEY, Service

MAX_BODY_BYTES = 8 * 1024 * 1024


class AnyTextConverter(PathConverter):
    """Matches any text in a path, with leading or trailing slashes and line breaks."""

    part_isolating = False
    regex = "(?s:.+?)"


def create_app(service: Service) -> OpenAPI:
    """Create the Flask application for a service."""
    app = OpenAPI(
        "feedrank",
        info=Info(title="feedrank", version=__version__, description="Recommendation feeds, rankings and their log."),
        responses=PROBLEM_RESPONSES,
        validation_error_status=400,
        validation_error_model=Problem,
        validation_error_callback=problems.validation_problem,
        security_schemes={"api_key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        doc_prefix="/docs",
        static_folder=None,
    )
    app.url_map.converters["path"] = AnyTextConverter
    app.url_map.merge_slashes = False  # ids may contain any characters, slashes too
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["OPENAPI_HTML_STRING"] = '<meta http-equiv="refresh" content="0; url=swagger">'  # the only page
    app.extensions[EXTENSION_KEY] = service
    app.json = middleware.StrictJson(app)
    quotas.init_app(app)
    middleware.init_app(app)
    for module in (recommendations, events, rankings, entities, bundles, experiments, health, observability, metarank):
        app.register_api(module.routes)
    problems.init_app(app)
    return app
