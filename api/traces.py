"""Traces by OpenTelemetry: a server span for each request, and a child for each stage of its feed.

Off unless a collector is named, and then nothing of OpenTelemetry is imported. As in the log, no attribute tells of a
person, a query or an item: there is the rule of the route in place of the path, the status, ranking ids, the bundle and
what was skipped. Of what a caller sends, `traceparent` alone is read; `tracestate` and `baggage` are free text.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from api.logs import UNREADABLE
from api.metrics import METHODS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

UNTRACED = ("/healthz", "/readyz", "/health", "/metrics")
"""Routes that something asks for all day long, and that nobody looks for."""
SEND_S = 3.0
"""How long one batch may take, with its repetitions; a server that stops waits for the few that are left."""
SELDOM_S = 60.0
"""The pause between two words of a collector that can't be reached."""
_WORD = re.compile(r"[A-Za-z0-9._:~-]{1,100}")
"""What an id may be made of to be told, as in the log: clients make some of them."""


def check(url: str) -> None:
    """Import what traces take, which is best done before workers are forked. Raises ValueError, as `to` would."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"found traces = {url!r}, expected the address of an OTLP collector: http://127.0.0.1:4318")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401  # for whether it can be had
    except ImportError as problem:
        raise ValueError(
            f"traces = {url!r} wants OpenTelemetry, which can't be imported ({problem}): pip install 'feedrank[traces]'"
        ) from None


def to(url: str, share: float = 1.0) -> Traces | None:
    """Traces that go to a collector, by OTLP over HTTP; None for an empty address. Raises ValueError.

    OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_BSP_* are heeded.
    """
    if not url:
        return None
    check(url)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    sender = logging.getLogger(OTLPSpanExporter.__module__)
    if not any(isinstance(one, _Seldom) for one in sender.filters):
        sender.addFilter(_Seldom())
    path = "/v1/traces"  # what a collector takes traces at
    return Traces(OTLPSpanExporter(url.rstrip("/").removesuffix(path) + path, timeout=SEND_S), share)


class Traces:
    """The traces of one process. A thread sends them: make it after the process was forked."""

    def __init__(self, exporter: SpanExporter, share: float = 1.0, clock: Callable[[], int] = time.time_ns) -> None:
        """share: of the requests that bring no traceparent; with one, its sampled flag decides. clock: unix ns."""
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.name": "feedrank", "service.version": _version(), "service.instance.id": str(uuid.uuid4())}
        resource = Resource.create(about).merge(OTELResourceDetector().detect())
        # at exit it sends what waits; it is no global one, so that nothing else is traced
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("feedrank", _version())
        self._parent = TraceContextTextMapPropagator()
        self._clock = clock

    def begin(self, method: str, route: str | None, traceparent: str | None = None) -> Trace | None:
        """A request came in; None where it is not traced. route: the rule that matched, never the path."""
        if route in UNTRACED:
            return None
        from opentelemetry.trace import SpanKind

        method = method if method in METHODS else "_OTHER"
        told = {"http.request.method": method} | ({"http.route": route} if route else {})
        span = self._tracer.start_span(
            f"{method} {route}" if route else method,
            self._parent.extract({"traceparent": traceparent or ""}),
            SpanKind.SERVER,
            told,
            start_time=self._clock(),
        )
        return Trace(self._tracer, span, self._clock) if span.is_recording() else None

    def close(self) -> None:
        """Send what waits, and end the thread."""
        self._provider.shutdown()


class Trace:
    """One request's span, and those of its stages."""

    def __init__(self, tracer: Tracer, span: Span, clock: Callable[[], int]) -> None:
        self._tracer, self._span, self._clock = tracer, span, clock

    def stages(self, seconds: Mapping[str, float]) -> None:
        """A feed is made: its stages, as its watch has them, one after the other up to now.

        A watch adds up what comes twice, so there a span may be longer, and begin earlier, than its stage's last turn.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        above = set_span_in_context(self._span, Context())
        start = self._clock() - sum(map(_ns, seconds.values()))
        for name, took in seconds.items():
            stop = start + _ns(took)
            self._tracer.start_span(name, above, start_time=start).end(stop)
            start = stop

    def end(
        self,
        status: int,
        request_id: str | None = None,
        rankings: Sequence[str] = (),
        bundle: str | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        """The request is answered. request_id: that of its line in the log."""
        from opentelemetry.trace import StatusCode

        span = self._span
        span.set_attribute("http.response.status_code", status)
        for name, one in (("request_id", request_id), ("bundle", bundle)):
            if one is not None:
                span.set_attribute(f"feedrank.{name}", _word(one))
        for name, several in (("rankings", rankings), ("skipped", skipped)):
            if several:
                span.set_attribute(f"feedrank.{name}", [_word(one) for one in several])
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        span.end(self._clock())


class _Seldom(logging.Filter):
    """Lets one record through, and the next after a while: a collector that is gone is no news every few seconds."""

    _next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + SELDOM_S
        return True


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _word(value: str) -> str:
    return value if _WORD.fullmatch(value) else UNREADABLE


def _version() -> str:
    try:
        return version("feedrank")
    except PackageNotFoundError:
        return "0"
