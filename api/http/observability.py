"""Observability: metrics, traces and the log line of every request."""

from __future__ import annotations

import time
import uuid
from typing import get_args

from flask import Flask, Response, g, request

from feedrank.api import logs
from feedrank.api.http.blueprint import group
from feedrank.api.http.middleware import takes
from feedrank.api.http.service import ANSWER, Service, service
from feedrank.api.metrics import Origin
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.serving.deadline import Watch

routes = group("sight", "Health")


def init_app(app: Flask) -> None:
    """Register the hooks that time every request; they run before and after all others."""
    app.before_request(_begin)
    app.after_request(_end)


@routes.get("/metrics", responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}})
@takes("none")
def metrics() -> Response:
    """Return the metrics of all workers, for Prometheus."""
    recorder = service().metrics
    if recorder is None:
        return Response("", 200, mimetype="text/plain")
    text, content_type = recorder.text()
    return Response(text, 200, content_type=content_type)


def tell(here: Service, event: RankingEvent, watch: Watch) -> None:
    """Record a ranking in the metrics, the trace and the request's log line."""
    g.ranked_at = time.perf_counter()
    g.rankings = [event.id]
    g.bundle = event.extra["bundle"]
    g.degraded = watch.skipped
    if (trace := g.get("trace")) is not None:
        trace.stages(watch.stages)
    metrics, recommender, served = here.metrics, here.recommender, event.extra.get("served", {})
    if metrics is None:
        return
    metrics.stages(watch.stages)
    metrics.skipped(watch.skipped)
    for origin in get_args(Origin):
        metrics.pair_scores(origin, watch.counts.get(f"pairs_{origin}", 0))
    metrics.candidates(str(event.fields["source"]), served["recall"]["found"])
    if "step" in served:
        metrics.fallback(served["step"])
    for experiment, variant in served.get("experiments", ()):
        metrics.exposed(experiment, variant)
    if served.get("kept") is False:
        metrics.journal_failed()
    if (queue := recommender.ahead) is not None:
        metrics.ahead(queue.done, queue.dropped, queue.failed)
    metrics.state_lag(recommender.lag)
    metrics.items(len(recommender.catalogue))


def _begin() -> None:
    g.started = time.perf_counter()
    if (traces := service().traces) is not None:
        rule = None if request.url_rule is None else request.url_rule.rule
        g.trace = traces.begin(request.method, rule, request.headers.get("traceparent"))


def _end(response: Response) -> Response:
    started = g.get("started")
    if started is None:
        return response
    seconds = time.perf_counter() - started
    route = None if request.url_rule is None else request.url_rule.rule
    metrics = service().metrics
    if metrics is not None:
        metrics.request(route, request.method, response.status_code, seconds)
    request_id = uuid.uuid4().hex
    if (trace := g.get("trace")) is not None:
        trace.end(response.status_code, request_id, g.get("rankings", ()), g.get("bundle"), g.get("degraded", ()))
    logs.request_line(
        request_id=request_id,
        route=route,
        method=request.method,
        status=response.status_code,
        seconds=seconds,
        rankings=g.get("rankings", ()),
        bundle=g.get("bundle"),
        key=g.get("key_id"),
        skipped=g.get("degraded", ()),
    )
    if (ranked_at := g.get("ranked_at")) is not None:
        service().costs.note(ANSWER, time.perf_counter() - ranked_at)
    return response
