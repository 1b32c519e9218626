"""Observability: metrics, traces and the log line of every request."""

from __future__ import annotations

import time
import uuid
from typing import get_args

from flask import Flask, Response, g, request

from feedrank.api import logs
from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import RESPONSE_STAGE, Service, current_service
from feedrank.api.metrics import ScoreOrigin
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.fallback import FULL
from feedrank.engine.serving.ranking_record import RankingRecord

routes = make_blueprint("observability", "Health")


def init_app(app: Flask) -> None:
    """Register the hooks that time every request; they run before and after all others."""
    app.before_request(_start_request)
    app.after_request(_finish_request)


@routes.get("/metrics", responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}})
@route_policy("none")
def metrics() -> Response:
    """Return the metrics of all workers, for Prometheus."""
    recorder = current_service().metrics
    if recorder is None:
        return Response("", 200, mimetype="text/plain")
    text, content_type = recorder.render()
    return Response(text, 200, content_type=content_type)


def record_feed(service: Service, record: RankingRecord, budget: LatencyBudget) -> None:
    """Record a ranking in the metrics, the trace and the request's log line."""
    g.ranked_at = time.perf_counter()
    g.rankings = [record.id]
    g.bundle = record.bundle
    g.degraded = budget.skipped
    if (trace := g.get("trace")) is not None:
        trace.record_stages(budget.stage_seconds)
    metrics, recommender = service.metrics, service.recommender
    if metrics is None:
        return
    metrics.observe_stages(budget.stage_seconds)
    metrics.count_degraded(budget.skipped)
    for origin in get_args(ScoreOrigin):
        metrics.count_cross_encoder_scores(origin, budget.counts.get(f"cross_encoder_{origin}", 0))
    metrics.observe_candidates(record.source, record.recall.candidates or 0)
    if record.fallback != FULL:
        metrics.count_fallback(record.fallback)
    for experiment, variant in record.experiments:
        metrics.count_exposure(experiment, variant)
    if not record.logged:
        metrics.count_journal_failure()
    if (queue := recommender.prefetch_queue) is not None:
        metrics.update_prefetch(queue.completed, queue.dropped, queue.failed)
    metrics.set_state_lag(recommender.lag_s)
    metrics.set_item_count(len(recommender.catalogue))


def _start_request() -> None:
    g.started = time.perf_counter()
    if (traces := current_service().traces) is not None:
        rule = None if request.url_rule is None else request.url_rule.rule
        g.trace = traces.start(request.method, rule, request.headers.get("traceparent"))


def _finish_request(response: Response) -> Response:
    started = g.get("started")
    if started is None:
        return response
    seconds = time.perf_counter() - started
    route = None if request.url_rule is None else request.url_rule.rule
    metrics = current_service().metrics
    if metrics is not None:
        metrics.observe_request(route, request.method, response.status_code, seconds)
    request_id = uuid.uuid4().hex
    if (trace := g.get("trace")) is not None:
        trace.end(response.status_code, request_id, g.get("rankings", ()), g.get("bundle"), g.get("degraded", ()))
    logs.log_request(
        request_id=request_id,
        route=route,
        method=request.method,
        status=response.status_code,
        seconds=seconds,
        rankings=g.get("rankings", ()),
        bundle=g.get("bundle"),
        key=g.get("key_id"),
        degraded=g.get("degraded", ()),
    )
    if (ranked_at := g.get("ranked_at")) is not None:
        current_service().latencies.observe(RESPONSE_STAGE, time.perf_counter() - ranked_at)
    return response
