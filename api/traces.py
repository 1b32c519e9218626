"""OpenTelemetry traces: a server span for each request, with a child span for each stage of its feed.

Tracing is off unless a collector is configured; OpenTelemetry is not imported then. As in the log, no attribute holds
a user, a query or an item. Spans have the URL rule instead of the path, the status, ranking ids, the bundle and the
parts that were skipped. Of the caller's headers only `traceparent` is read; `tracestate` and `baggage` are free text.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from feedrank import __version__
from feedrank.api.logs import REDACTED
from feedrank.api.metrics import HTTP_METHODS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

UNTRACED_ROUTES = ("/healthz", "/readyz", "/health", "/metrics")
"""Routes of probes and scrapers, which are not traced."""
EXPORT_TIMEOUT_S = 3.0
"""Timeout, in seconds, of exporting one batch, with its retries; a server that stops waits for the last batches."""
WARNING_INTERVAL_S = 60.0
"""Minimum seconds between two warnings about an unreachable collector."""
_SAFE_ID = re.compile(r"[A-Za-z0-9._:~-]{1,100}")
"""Form of the ids that are recorded, as in the log; clients choose some of them."""


def check_endpoint(url: str) -> None:
    """Check the collector's address and import OpenTelemetry, best before workers are forked.

    Raises ValueError for an address that is not http(s), or if OpenTelemetry is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            f"found otlp_endpoint = {url!r}, expected the address of an OTLP collector: http://127.0.0.1:4318"
        )
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401  # checks that it is installed
    except ImportError as problem:
        raise ValueError(
            f"otlp_endpoint = {url!r} needs OpenTelemetry, which can't be imported ({problem}):"
            " pip install 'feedrank[traces]'"
        ) from None


def create_tracer(url: str, sample_rate: float = 1.0) -> RequestTracer | None:
    """Create a tracer that exports to a collector by OTLP over HTTP; None for an empty address.

    It respects OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_BSP_*. Raises
    ValueError as `check_endpoint` does.
    """
    if not url:
        return None
    check_endpoint(url)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter_log = logging.getLogger(OTLPSpanExporter.__module__)
    if not any(isinstance(log_filter, _RateLimitFilter) for log_filter in exporter_log.filters):
        exporter_log.addFilter(_RateLimitFilter())
    path = "/v1/traces"  # the OTLP path for traces
    return RequestTracer(
        OTLPSpanExporter(url.rstrip("/").removesuffix(path) + path, timeout=EXPORT_TIMEOUT_S), sample_rate
    )


class RequestTracer:
    """The tracer of one process. A thread exports the spans, so create it after the process was forked."""

    def __init__(
        self, exporter: SpanExporter, sample_rate: float = 1.0, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """sample_rate: share of requests without a traceparent that are traced; with one, its sampled flag decides.

        clock: unix time in nanoseconds.
        """
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        service = {"service.name": "feedrank", "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
        resource = Resource.create(service).merge(OTELResourceDetector().detect())
        # it exports pending spans at exit; it is not the global provider, so nothing else is traced
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(sample_rate)), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("feedrank", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._clock = clock

    def start(self, method: str, route: str | None, traceparent: str | None = None) -> RequestTrace | None:
        """Start the span of a request; None if it is not traced. route: the URL rule that matched, never the path."""
        if route in UNTRACED_ROUTES:
            return None
        from opentelemetry.trace import SpanKind

        method = method if method in HTTP_METHODS else "_OTHER"
        attributes = {"http.request.method": method} | ({"http.route": route} if route else {})
        span = self._tracer.start_span(
            f"{method} {route}" if route else method,
            self._propagator.extract({"traceparent": traceparent or ""}),
            SpanKind.SERVER,
            attributes,
            start_time=self._clock(),
        )
        return RequestTrace(self._tracer, span, self._clock) if span.is_recording() else None

    def close(self) -> None:
        """Export pending spans and stop the thread."""
        self._provider.shutdown()


class RequestTrace:
    """The span of one request and the child spans of its stages."""

    def __init__(self, tracer: Tracer, span: Span, clock: Callable[[], int]) -> None:
        self._tracer, self._span, self._clock = tracer, span, clock

    def record_stages(self, seconds: Mapping[str, float]) -> None:
        """Add a child span for each stage of a feed, placed one after the other so that the last ends now.

        seconds: stage -> total duration. A stage that ran twice has one span with the sum, so spans may be shifted.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        parent = set_span_in_context(self._span, Context())
        start = self._clock() - sum(map(_ns, seconds.values()))
        for name, duration in seconds.items():
            stop = start + _ns(duration)
            self._tracer.start_span(name, parent, start_time=start).end(stop)
            start = stop

    def end(
        self,
        status: int,
        request_id: str | None = None,
        rankings: Sequence[str] = (),
        bundle: str | None = None,
        degraded: Sequence[str] = (),
    ) -> None:
        """End the span of an answered request. request_id: the id of its log line."""
        from opentelemetry.trace import StatusCode

        span = self._span
        span.set_attribute("http.response.status_code", status)
        for name, value in (("request_id", request_id), ("bundle", bundle)):
            if value is not None:
                span.set_attribute(f"feedrank.{name}", _safe_id(value))
        for name, values in (("rankings", rankings), ("degraded", degraded)):
            if values:
                span.set_attribute(f"feedrank.{name}", [_safe_id(value) for value in values])
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        span.end(self._clock())


class _RateLimitFilter(logging.Filter):
    """Limits the exporter's warnings to one per `WARNING_INTERVAL_S` while the collector is unreachable."""

    _next_allowed = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next_allowed:
            return False
        self._next_allowed = record.created + WARNING_INTERVAL_S
        return True


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _safe_id(value: str) -> str:
    return value if _SAFE_ID.fullmatch(value) else REDACTED
