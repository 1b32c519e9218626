"""The route of the metrics, for Prometheus."""

from __future__ import annotations

from flask import Response

from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import current_service

routes = make_blueprint("observability", "Health")


@routes.get("/metrics", responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}})
@route_policy("none")
def metrics() -> Response:
    """Return the metrics of all workers, for Prometheus."""
    recorder = current_service().metrics
    if recorder is None:
        return Response("", 200, mimetype="text/plain")
    text, content_type = recorder.render()
    return Response(text, 200, content_type=content_type)
