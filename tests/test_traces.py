"""Traces: a span for each request and each stage, without user data, and a collector that receives them."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import toyworld
from conftest import PROJECT, feedrank

pytest.importorskip("opentelemetry.sdk.trace", reason="pip install 'feedrank[traces]'")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from feedrank.api import compose, config, traces
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.api.metrics import STAGES
from feedrank.api.traces import RequestTracer

NOW = toyworld.END / 1000 + 1_000
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRETS = ("ann-the-user", "guitar for beginners", "space-3", "vendor-note", "baggage-note", "agent-note")


class Clock:
    """A clock in unix nanoseconds that advances by a millisecond with each read."""

    now = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


@dataclass
class InMemoryTraces:
    """Traces whose spans are kept in memory."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    share: float = 1.0

    def __post_init__(self) -> None:
        self.traces = RequestTracer(self.exporter, self.share, Clock())

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Shut the exporter down and return all spans."""
        self.traces.close()
        return self.exporter.get_finished_spans()


@pytest.fixture
def memory_traces() -> InMemoryTraces:
    return InMemoryTraces()


def is_in(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span is a child of another and lies within its time."""
    assert child.parent is not None
    assert parent.start_time is not None
    assert child.start_time is not None
    assert child.end_time is not None
    assert parent.end_time is not None
    within = parent.start_time <= child.start_time <= child.end_time <= parent.end_time
    return child.parent.span_id == parent.context.span_id and within


# --- spans


def test_stages_follow_each_other_up_to_where_the_feed_was_made(memory_traces: InMemoryTraces) -> None:
    trace = memory_traces.traces.start("POST", "/v1/recommend")
    assert trace is not None
    began = Clock.now + 1_000_000
    trace.record_stages({"recall": 0.000_2, "features": 0.000_5, "rank": 0.000_3})
    trace.end(200, "4f1c", ["r1", "r 2"], "toy", ["cross_encoder"])
    recall, features, rank, whole = memory_traces.spans()
    assert (whole.start_time, whole.end_time) == (began, began + 2_000_000)
    assert (recall.start_time, rank.end_time) == (began, began + 1_000_000)
    assert (recall.end_time, features.end_time) == (features.start_time, rank.start_time)
    assert [span.name for span in (recall, features, rank)] == ["recall", "features", "rank"]
    assert all(is_in(span, whole) for span in (recall, features, rank))
    assert (whole.name, whole.kind, whole.parent) == ("POST /v1/recommend", SpanKind.SERVER, None)
    assert dict(whole.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
        "feedrank.request_id": "4f1c",
        "feedrank.rankings": ("r1", "?"),
        "feedrank.bundle": "toy",
        "feedrank.degraded": ("cross_encoder",),
    }
    attributes = whole.resource.attributes
    assert attributes["service.name"] == "feedrank"
    assert attributes["service.instance.id"]


@pytest.mark.parametrize(
    ("traceparent", "share", "spans", "parent"),
    [
        (f"00-{TRACE}-{PARENT}-01", 0.0, 1, PARENT),
        (f"00-{TRACE}-{PARENT}-00", 1.0, 0, None),
        (f"00-{'0' * 32}-{PARENT}-01", 1.0, 1, None),
        ("ann-the-user", 1.0, 1, None),
        (None, 1.0, 1, None),
        (None, 0.0, 0, None),
    ],
)
def test_who_calls_may_decide(traceparent: str | None, share: float, spans: int, parent: str | None) -> None:
    memory_traces = InMemoryTraces(share=share)
    trace = memory_traces.traces.start("GET", "/v1/rankings/<path:ranking_id>", traceparent)
    assert (trace is not None) == bool(spans)
    if trace is not None:
        trace.end(200)
    found = memory_traces.spans()
    assert len(found) == spans
    for span in found:
        assert (span.parent and f"{span.parent.span_id:016x}") == parent
        assert (f"{span.context.trace_id:032x}" == TRACE) == (parent is not None)


def test_errors_are_marked_and_odd_methods_are_one(memory_traces: InMemoryTraces) -> None:
    for method, route, status in (("POST", "/v1/events", 503), ("BREW", None, 404)):
        trace = memory_traces.traces.start(method, route)
        assert trace is not None
        trace.end(status)
    failed, unmatched = memory_traces.spans()
    assert (failed.status.status_code, (failed.attributes or {})["error.type"]) == (StatusCode.ERROR, "503")
    assert unmatched.name == "_OTHER"
    assert unmatched.status.status_code is StatusCode.UNSET
    assert dict(unmatched.attributes or {}) == {"http.request.method": "_OTHER", "http.response.status_code": 404}


def test_probes_are_not_traced(memory_traces: InMemoryTraces) -> None:
    assert all(memory_traces.traces.start("GET", route) is None for route in traces.UNTRACED_ROUTES)
    assert memory_traces.spans() == ()


# --- the service


def test_requests_are_traced_without_user_data(home: Path) -> None:
    memory_traces, paths = InMemoryTraces(), HomePaths(home)
    memory_traces.traces = RequestTracer(memory_traces.exporter)  # with the clock that the stages are measured beside
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    client = create_app(Service(recommender, lambda: NOW, traces=memory_traces.traces)).test_client()
    user, query, item, vendor, baggage, agent = SECRETS
    headers = {
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "tracestate": f"shop={vendor}",
        "baggage": f"user={baggage}",
        "User-Agent": agent,
    }
    body = {"user": user, "query": query, "history": [item], "n": 3}
    feed = client.post("/v1/recommend", json=body, headers=headers).json
    assert feed is not None
    click = {"event": "interaction", "item": item, "type": "click", "user": user}
    for answer, status in (
        (client.post("/v1/events", json=click), 202),
        (client.get(f"/v1/items/{item}/similar?n=2"), 200),
        (client.post("/v1/recommend", json={"user": user, "n": 0}), 400),
        (client.get(f"/v1/{user}"), 404),
        (client.get("/healthz"), 200),
    ):
        assert answer.status_code == status
    spans = memory_traces.spans()
    whole = [span for span in spans if span.kind is SpanKind.SERVER]
    assert [span.name for span in whole] == [
        "POST /v1/recommend", "POST /v1/events", "GET /v1/items/<path:item_id>/similar", "POST /v1/recommend", "GET",
    ]  # fmt: skip
    first, rest = whole[0], whole[1:]
    assert first.attributes is not None
    assert first.attributes["feedrank.rankings"] == (feed["ranking"],)
    assert first.attributes["feedrank.bundle"] == feed["bundle"] == "toy"
    assert first.parent is not None
    assert f"{first.context.trace_id:032x}-{first.parent.span_id:016x}" == f"{TRACE}-{PARENT}"
    assert all(span.parent is None for span in rest)
    stages = [span for span in spans if span.kind is SpanKind.INTERNAL]
    assert {span.name for span in stages} <= set(STAGES)
    assert {"recall", "features", "rank", "journal"} <= {span.name for span in stages}
    assert all(is_in(span, first) for span in stages)
    span_text = "".join(span.to_json() for span in spans)
    assert [secret for secret in SECRETS if secret in span_text] == []


# --- a collector


@dataclass
class Collector:
    """The requests that a collector on loopback received."""

    url: str
    heads: list[tuple[str, str]] = field(default_factory=list)
    """Path and content type."""
    batches: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self) -> list[tuple[str, Any]]:
        """(which process, span) of all."""
        found = []
        for sent in (one for batch in self.batches for one in batch.resource_spans):
            attributes = {one.key: one.value.string_value for one in sent.resource.attributes}
            assert attributes["service.name"] == "feedrank"
            found += [(attributes["service.instance.id"], span) for scope in sent.scope_spans for span in scope.spans]
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            collector.heads.append((self.path, self.headers["Content-Type"]))
            collector.batches.append(ExportTraceServiceRequest.FromString(sent))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.mark.parametrize("ending", ["", "/", "/v1/traces"])
def test_a_collector_receives_what_was_traced(ending: str) -> None:
    with collecting() as collector:
        tracer = traces.create_tracer(collector.url + ending)
        assert tracer is not None
        trace = tracer.start("POST", "/v1/rank", f"00-{TRACE}-{PARENT}-01")
        assert trace is not None
        trace.record_stages({"recall": 0.001})
        trace.end(200, rankings=["r1"])
        tracer.close()
    assert set(collector.heads) == {("/v1/traces", "application/x-protobuf")}
    (_, stage), (_, whole) = collector.spans()
    assert (stage.name, whole.name) == ("recall", "POST /v1/rank")
    assert whole.trace_id.hex() == stage.trace_id.hex() == TRACE
    assert (whole.parent_span_id.hex(), stage.parent_span_id) == (PARENT, whole.span_id)
    assert stage.end_time_unix_nano - stage.start_time_unix_nano == 1_000_000
    assert {one.key for one in whole.attributes} == {
        "http.request.method", "http.route", "http.response.status_code", "feedrank.rankings",
    }  # fmt: skip


def test_a_collector_that_is_gone_costs_no_answer_and_few_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "EXPORT_TIMEOUT_S", 0.5)
    logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").filters.clear()  # what spoke before
    with socket.socket() as held:  # bound and not listening: the port is taken, and no server answers
        held.bind(("127.0.0.1", 0))
        tracer = traces.create_tracer(f"http://127.0.0.1:{held.getsockname()[1]}")
        assert tracer is not None
        started = time.perf_counter()
        for _ in range(600):
            trace = tracer.start("POST", "/v1/recommend")
            assert trace is not None
            trace.end(200)
        assert time.perf_counter() - started < 2
        tracer.close()
        assert time.perf_counter() - started < 10
    assert len([one for one in caplog.records if one.name.startswith("opentelemetry.exporter")]) == 1


def test_every_process_of_a_server_sends_what_it_traced(home: Path) -> None:
    request_count = 40
    with collecting() as collector:
        settings = f'{toyworld.CONFIG}\n[serve]\notlp_endpoint = "{collector.url}"\n'
        (home / "feedrank.toml").write_text(settings)
        command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "serve", "--no-keys", "--port", "0"]
        with subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"COLUMNS": "200"},
        ) as server:  # fmt: skip
            try:
                assert server.stdout is not None
                found = re.search(r"http://\S+:\d+", server.stdout.readline())
                assert found
                kind = {"Content-Type": "application/json"}
                rankings = set()
                for _ in range(request_count):
                    request = urllib.request.Request(f"{found[0]}/v1/recommend", b'{"user": "p0"}', kind)
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        rankings.add(json.load(answer)["ranking"])
            finally:
                server.send_signal(signal.SIGTERM)
                assert server.wait(timeout=60) == 0
    spans = [(process, span) for process, span in collector.spans() if span.name == "POST /v1/recommend"]
    sent = [
        value.string_value
        for _, span in spans
        for one in span.attributes
        if one.key == "feedrank.rankings"
        for value in one.value.array_value.values
    ]
    assert sorted(sent) == sorted(rankings)
    assert len(rankings) == request_count
    assert 1 <= len({process for process, _ in spans}) <= 2


# --- on, off, and not there


def test_nothing_is_imported_where_there_are_no_traces() -> None:
    assert traces.create_tracer("") is None
    code = (
        "import sys, feedrank.api.cli, feedrank.api.server, feedrank.api.http.app, feedrank.api.traces as traces; "
        "assert traces.create_tracer('') is None; "
        "print([one for one in sys.modules if one.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "http://c:4318/?key=1"])
def test_an_address_that_is_none_is_refused_before_anything_is_loaded(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected the address of an OTLP collector"):
        traces.create_tracer(url)
    (tmp_path / "feedrank.toml").write_text(f'[serve]\notlp_endpoint = "{url}"\n')
    assert "expected the address of an OTLP collector" in feedrank(tmp_path, "serve", "--no-keys", code=1)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ValueError, match=r"needs OpenTelemetry.*pip install 'feedrank\[traces\]'"):
        traces.check_endpoint("http://127.0.0.1:4318")
