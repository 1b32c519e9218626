"""The Python client against the real service, on a real socket; only the admin routes meet a stand-in."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
import toyworld
from conftest import PROJECT
from waitress import create_server, wasyncore

from feedrank.api import compose, config
from feedrank.api.client import (
    ApiError,
    BadAnswer,
    BadRequest,
    Client,
    Clock,
    Conflict,
    Diversity,
    Feed,
    Filters,
    Forbidden,
    NotFound,
    Retries,
    Timeouts,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    requests,
    retries,
)
from feedrank.api.config import ServeConfig
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import MAX_BODY_BYTES, create_app
from feedrank.api.http.events import MAX_EVENTS
from feedrank.api.http.service import Service
from feedrank.api.keys import ApiKeys
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.serving.recommender import Recommender

NOW = toyworld.END / 1000 + 1_000
HOST = "127.0.0.1"
PATIENT = Timeouts(read_s=60)
"""A busy machine is no reason to fail."""
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@contextmanager
def served(app: Wsgi) -> Iterator[str]:
    """Serve an application on loopback and yield its address."""
    sockets: dict[Any, Any] = {}
    server = create_server(app, host=HOST, port=0, threads=4, map=sockets)
    stopping = threading.Event()

    def loop() -> None:
        while not stopping.is_set():
            wasyncore.loop(map=sockets, count=1)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield f"http://{HOST}:{server.effective_port}"
    finally:
        stopping.set()
        server.pull_trigger()
        thread.join()
        server.task_dispatcher.shutdown()
        wasyncore.close_all(sockets, ignore_all=True)  # last: a thread at the end of a request writes to the trigger


@dataclass
class FaultInjector:
    """A WSGI wrapper that counts requests and can replace an answer by the next fault of its list."""

    app: Wsgi
    tricks: list[str] = field(default_factory=list)
    """`busy`: 503 at once; `lost`: the request is carried out, and 504 answered; `late`: so late that none waits."""
    came: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.came.append(environ)
        trick = self.tricks.pop(0) if self.tricks else ""
        if trick == "busy":
            start("503 Service Unavailable", [("Retry-After", "2"), ("Content-Type", "text/plain")])
            return [b"deploying"]
        answer = self.app(environ, start if not trick else lambda *_: None)
        if trick == "lost":
            start("504 Gateway Timeout", [("Content-Type", "text/html")])
            return [b"<h1>504</h1>"]
        if trick == "late":
            time.sleep(1.0)
            start("200 OK", [("Content-Type", "application/json")])
        return answer


@dataclass
class FakeClock:
    """A clock that advances only in waits, which it records."""

    waits: list[float] = field(default_factory=list)

    def clock(self, draw: float = 0.5) -> Clock:
        return Clock(lambda: NOW, lambda: sum(self.waits), self.waits.append, lambda: draw)


@dataclass
class RunningService:
    """A service on its own home, behind a fault injector."""

    recommender: Recommender
    gate: FaultInjector
    url: str

    def client(self, key: str | None = None, *, timeouts: Timeouts = PATIENT, **more: Any) -> Client:
        """A client that ignores the proxies of the environment, with the time of the service."""
        more.setdefault("clock", Clock(now=lambda: NOW))
        return Client(self.url, key, timeouts=timeouts, transport=httpx.HTTPTransport(), **more)


@contextmanager
def running_on(home: Path, **parts: Any) -> Iterator[RunningService]:
    paths = HomePaths(home)
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    gate = FaultInjector(create_app(Service(recommender, lambda: NOW, **parts)).wsgi_app)
    with served(gate) as url:
        yield RunningService(recommender, gate, url)


@pytest.fixture
def running(home: Path) -> Iterator[RunningService]:
    with running_on(home) as found:
        yield found


def click(item: str = "ocean-3", user: str = "new", **more: Any) -> dict[str, Any]:
    return {"event": "interaction", "item": item, "type": "click", "user": user, **more}


def test_the_client_needs_httpx_alone() -> None:
    code = "import sys, feedrank.api.client; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    loaded = set(output.split())
    for name in ("numpy", "torch", "flask", "pydantic", "lightgbm", "sqlalchemy"):
        assert name not in loaded
    own = {one for one in loaded if one.startswith("feedrank.")}
    assert "feedrank.api.client" in own
    assert not [one for one in own - {"feedrank.api"} if not one.startswith("feedrank.api.client")]


# --- answers


def test_feeds_ranked_lists_and_explanations(running: RunningService) -> None:
    with running.client() as client:
        assert (client.ready().status, client.ready().items) == ("ready", 60)
        feed = client.recommend(
            user="p0", n=5, session="s", surface="home", context={"device": "phone"}, deadline_ms=60_000, explain=True
        )
        assert feed.ids[0] == toyworld.expected_next_item(0)
        assert (len(feed.items), feed.user, feed.bundle, feed.logged, feed.degraded) == (5, "p0", "toy", True, ())
        assert feed.timestamp == round(NOW * 1000)
        logged = running.recommender.find(feed.ranking)
        assert logged is not None
        assert logged.surface == "home"  # type: ignore[union-attr]
        explanation = client.explain(feed.ranking)
        assert (explanation.fallback, explanation.ids, set(explanation.recall_order)) == (
            "full",
            feed.ids,
            set(explanation.recall_order),
        )
        described = [asdict(feature) for feature in running.recommender.pipeline.featurizer.features]
        assert [asdict(feature) for feature in explanation.features] == described
        for one, again in zip(feed.items, explanation.items, strict=True):
            assert one.explanation is not None
            assert one.explanation.base is not None
            assert one.explanation == again.explanation
            assert one.score == pytest.approx(
                sum(one.explanation.contributions.values()) + one.explanation.base, abs=1e-4
            )
        plain = client.ranking(feed.ranking)
        assert type(plain) is Feed
        assert plain.ids == feed.ids
        given = ["music-3", "nobody knows", toyworld.expected_next_item(0)]
        assert client.rank(given, user="p0").ids[0] == toyworld.expected_next_item(0)
        assert len(client.rank(given, n=2).items) == 2
        priced = client.rank([{"id": "music-3", "fields": {"price": 9.5}}, "ocean-2"])
        logged = running.recommender.find(priced.ranking)
        assert isinstance(logged, RankingEvent)
        assert logged.item_fields == {"price": tuple(9.5 if item == "music-3" else None for item in priced.ids)}
        assert len(client.similar("space-3", 4).items) == 4
        assert len(client.similar("space-3").items) == 10


def test_feeds_follow_the_options_of_the_request(running: RunningService) -> None:
    with running.client() as client:
        seen = {toyworld.item("space", step) for step in range(toyworld.INTERACTIONS_PER_USER)}
        assert seen <= set(client.recommend(user="p0", n=100, filters=Filters(include_seen=True)).ids)
        music = [f"music-{position}" for position in range(toyworld.RING)]
        found = client.recommend(user="p0", n=100, filters=Filters(categories={"music"}, deny=music[:3]))
        assert set(found.ids) == set(music[3:])
        assert client.recommend(filters=Filters(allow=[])).items == ()
        many = Filters(deny=[f"no such item {n}" for n in range(5_000)])
        assert len(client.recommend(filters=many).items) == 10
        assert running.gate.came[-1]["HTTP_CONTENT_ENCODING"] == "gzip"
        mixed = client.recommend(user="p0", n=12, diversity=Diversity(per_category=3))
        genres = [toyworld.genre_of(one) for one in mixed.ids]
        assert max(genres.count(genre) for genre in genres) <= 3
        assert toyworld.genre_of(client.recommend(history=["ocean-1", "ocean-0"]).ids[0]) == "ocean"
        assert toyworld.genre_of(client.recommend(query="guitar and violin music").ids[0]) == "music"


def test_a_click_changes_the_next_feed(running: RunningService) -> None:
    with running.client() as client:
        feed = client.recommend(user="new", n=60)
        result = client.record_interaction(
            "ocean-3", ranking=feed.ranking, user="new", position=1 + feed.ids.index("ocean-3"), fields={"page": "home"}
        )
        assert (result.accepted, result.duplicate, result.rejected) == (1, 0, ())
        logged: Any = running.recommender.find(str(result.ids[0]))
        assert (logged.type, logged.ranking, logged.fields) == ("click", feed.ranking, {"page": "home"})
        assert logged.timestamp == round(1000 * NOW)
        assert client.recommend(user="new").ids[0] == "ocean-4"
        assert client.record_interaction("ocean-3", "rating", value=4.5, id=result.ids[0]).duplicate == 1


@pytest.fixture(scope="module")
def shared_service(interactions_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for all tests whose writes do not affect each other."""
    with running_on(interactions_home) as found:
        found.recommender._journal = HomePaths(tmp_path_factory.mktemp("still")).journal()
        yield found


@pytest.mark.parametrize("name", ["a/b", ".", "..", "ünï", "a%2Fb", "?x#y", "a b+c&d=e;f", "100%", "日本\\", "ä\t"])
def test_an_id_may_hold_any_characters(shared_service: RunningService, name: str) -> None:
    item = {"event": "item", "id": name, "item": name}
    shown = RankingEvent(name, 0, (name,), fields={"source": "given"}, scores=(0.5,), bundle="toy")
    shared_service.recommender._journal.append([shown])
    with shared_service.client() as client:
        assert client.record_events(item).ids == (name,)
        for found in (client.ranking(name), client.explain(name)):
            assert (found.ranking, found.ids) == (name, (name,))
        with pytest.raises(NotFound) as caught:
            client.similar(name)
        assert repr(name) in caught.value.detail


# --- authentication and limits


def test_api_keys_are_required_and_never_shown(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = ApiKeys(home / "keys.json")
    _, reads = keys.create("web", ["read"], 0)
    wrong = reads[:-1] + ("a" if reads[-1] != "a" else "b")
    with running_on(home, keys=keys) as running:
        with running.client(f"{reads}\n") as client:
            assert len(client.recommend().items) == 10
            with pytest.raises(Forbidden, match="expected write; use a key with that scope") as refused:
                client.record_interaction("ocean-3", user="new")
            assert refused.value.unacknowledged[0]["item"] == "ocean-3"
        assert reads not in repr(client) + str(vars(client)) + repr(refused.value)
        for key, found in ((None, "found no key"), (wrong, "unknown or expired")):
            with running.client(key) as client, pytest.raises(Unauthorized, match=found) as caught:
                client.recommend()
            assert caught.value.status == 401
            assert wrong not in str(caught.value)
    assert reads not in caplog.text
    assert wrong not in caplog.text
    for bad in ("two words", "", "schlüssel", "line\nbreak"):
        with pytest.raises(ValueError, match="found a key that") as raised:
            Client("http://service", bad)
        assert not bad or bad not in str(raised.value)


def test_a_rate_limited_client_learns_how_long_to_wait(home: Path) -> None:
    patience = FakeClock()
    with running_on(home, config=ServeConfig(rate_limit="3/minute")) as running:
        with running.client(clock=patience.clock()) as client:
            for _ in range(3):
                client.recommend()
            with pytest.raises(TooManyRequests, match=r"POST /v1/recommend: 429 .* wait \d+ s") as caught:
                client.recommend()
            assert caught.value.retry_after_s is not None
            assert 0 < caught.value.retry_after_s <= 61
            assert client.ready().status == "ready", "probes are not counted"
        assert len(running.gate.came) == 3 + 1 + 1, "a minute is longer than it may wait"
    assert patience.waits == []


def test_an_invalid_request_names_the_field(shared_service: RunningService) -> None:
    with shared_service.client() as client:
        with pytest.raises(BadRequest, match="400 Bad request") as caught:
            client.recommend(n=0)
        assert (caught.value.field, caught.value.status) == ("n", 400)
        with pytest.raises(BadRequest) as caught:
            client.record_events({"event": "interaction", "item": "ocean-3"})
        assert caught.value.field == "type"
        result = client.record_events([click(), {"event": "nothing"}, click()])
        assert (result.accepted, result.rejected[0].index, result.rejected[0].field) == (2, 1, "event")
        assert [one is None for one in result.ids] == [False, True, False]
        for wrong, error, message in (
            (lambda: client.recommend(history="space-1"), TypeError, "expected several ids"),
            (lambda: client.rank("space-1"), TypeError, "expected several items"),
            (lambda: client.recommend(context={"age": float("nan")}), ValueError, "can't be written as JSON"),
            (lambda: client.recommend(context={"at": object()}), TypeError, "can't be written as JSON"),
            (lambda: client.similar(""), ValueError, "empty id"),
            (lambda: client.record_events("click"), TypeError, r"events\[0\]: found str"),
            (lambda: client.record_events({"events": [click()]}), ValueError, "pass the list"),
            (lambda: client.record_events([click(), click(value={1})]), TypeError, r"events\[1\]"),
        ):
            before = len(shared_service.gate.came)
            with pytest.raises(error, match=message):
                wrong()
            assert len(shared_service.gate.came) == before
    with pytest.raises(RuntimeError, match="closed"):
        client.ready()


# --- retries


def test_a_retried_write_counts_once(running: RunningService) -> None:
    patience = FakeClock()
    with running.client(clock=patience.clock()) as client:
        running.gate.tricks = ["busy", "busy"]
        result = client.record_events([click() for _ in range(3)])
        assert (result.accepted, result.duplicate) == (3, 0)
        assert patience.waits == [2.05, 2.1], "what was asked for, and a chance share of the backoff"
        running.gate.tricks = ["busy"]
        assert len(client.recommend().items) == 10
        running.gate.tricks = ["busy"] * 9
        with pytest.raises(Unavailable, match=r"4 times: 503 .*deploying.*try again later") as caught:
            client.recommend()
        assert caught.value.retry_after_s == 2
        with pytest.raises(Unavailable):
            client.ready()
        assert running.gate.tricks == ["busy"] * 4, "it is asked once whether it is ready"
    with running.client(clock=patience.clock(), retries=Retries(total_s=1)) as client:
        before = len(patience.waits)
        with pytest.raises(Unavailable, match="recommend: 503"):
            client.recommend()
        assert len(patience.waits) == before, "it would be too late"


@pytest.mark.parametrize("trick", ["lost", "late"])
def test_events_whose_response_was_lost_count_once(running: RunningService, trick: str) -> None:
    patience, hurried = FakeClock(), Timeouts(read_s=0.8 if trick == "late" else 60)
    with running.client(clock=patience.clock(), timeouts=hurried) as client:
        running.gate.tricks = [trick]
        result = client.record_events([click(), click()])
    assert (result.accepted, result.duplicate) == (0, 2)
    assert len(running.gate.came) == 2
    count = running.recommender._journal.count_by_kind()["interaction"]  # type: ignore[attr-defined]
    assert count == 2 + toyworld.USERS * toyworld.INTERACTIONS_PER_USER


@pytest.mark.parametrize("trick", ["lost", "late"])
def test_a_feed_whose_response_was_lost_is_logged_once(running: RunningService, trick: str) -> None:
    patience, hurried = FakeClock(), Timeouts(read_s=0.8 if trick == "late" else 60)
    with running.client(clock=patience.clock(), timeouts=hurried) as client:
        running.gate.tricks = [trick]
        feed = client.recommend(user="p1")
        assert client.ranking(feed.ranking).ids == feed.ids
        running.gate.tricks = ["late"]
        assert len(client.rank(["space-1"], deadline_ms=60_000).items) == 1, "the deadline makes it wait longer"
    paths = [one["PATH_INFO"] for one in running.gate.came]
    assert (paths.count("/v1/recommend"), paths.count("/v1/rank")) == (2, 1)
    assert running.recommender._journal.count_by_kind()["ranking"] == 2  # type: ignore[attr-defined]


def test_no_service_and_no_answer() -> None:
    patience = FakeClock()
    with socket.socket() as free:
        free.bind((HOST, 0))
        url = f"http://{HOST}:{free.getsockname()[1]}"
    with (
        Client(url, clock=patience.clock(), transport=httpx.HTTPTransport()) as client,
        pytest.raises(Unreachable, match=r"no response from http://127.0.0.1:\d+ after 4 attempts") as caught,
    ):
        client.recommend()
    assert not caught.value.sent
    assert len(patience.waits) == 3
    with socket.create_server((HOST, 0)) as listener:

        def cut() -> None:
            for _ in range(8):
                listener.accept()[0].close()

        thread = threading.Thread(target=cut)
        thread.start()
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        with Client(url, clock=patience.clock(), transport=httpx.HTTPTransport()) as client:
            for call in (client.recommend, lambda: client.record_events(click())):
                with pytest.raises(Unreachable, match="4 attempts") as caught:
                    call()
                assert caught.value.sent
        thread.join()


def test_waits_grow_and_are_bounded() -> None:
    policy = Retries(base_s=0.1, cap_s=1)
    assert [policy.wait_s(made, 1.0, None) for made in (1, 2, 3, 4, 5, 5_000)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
    assert policy.wait_s(3, 0.0, None) == 0
    assert policy.wait_s(3, 0.5, 7) == 7.2
    for wrong in ({"attempts": 0}, {"total_s": -1}, {"base_s": float("nan")}, {"cap_s": float("inf")}):
        with pytest.raises(ValueError, match="expected"):
            Retries(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), (formatdate(NOW + 90, usegmt=True), 90), (formatdate(NOW - 90), 0), ("soon", None), ("-1", None)],
)
def test_retry_after_is_parsed(value: str, seconds: float | None) -> None:
    assert retries.retry_after(httpx.Response(503, headers={"Retry-After": value}), int(NOW)) == seconds


# --- many events


def test_many_events_are_sent_in_compressed_batches(running: RunningService) -> None:
    events = [click(user=f"u{n % 7}") for n in range(MAX_EVENTS + 1)]
    with running.client() as client:
        result = client.record_events(iter(events))
    assert (result.accepted, result.rejected) == (MAX_EVENTS + 1, ())
    assert len(set(result.ids)) == MAX_EVENTS + 1
    first, second = running.gate.came
    assert first["HTTP_CONTENT_ENCODING"] == "gzip"
    assert "HTTP_CONTENT_ENCODING" not in second
    assert "id" not in events[0], "the caller's events stay as they were"


def test_events_that_were_not_accepted_are_returned(running: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_EVENTS", 2)
    with running.client(retries=Retries(attempts=1)) as client:
        running.gate.tricks = ["", "lost"]
        with pytest.raises(ApiError, match="504 Gateway Timeout") as caught:
            client.record_events([click(), {"event": "nothing"}, click(), click(), click()])
        before, left = caught.value.partial_result, caught.value.unacknowledged
        assert before is not None
        assert (before.accepted, before.rejected[0].index, len(left)) == (1, 1, 3)
        result = client.record_events([*left, {"event": "nothing"}])
    assert (result.accepted, result.duplicate) == (1, 2)
    assert [one.index for one in result.rejected] == [3], "places count over all parts"
    assert result.ids == (*(one["id"] for one in left), None)


@pytest.mark.parametrize("length", [10, 3_000_000, 8_388_590])
def test_no_batch_exceeds_the_limit_of_the_service(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (requests.MAX_BODY_BYTES, requests.MAX_EVENTS) == (MAX_BODY_BYTES, MAX_EVENTS)
    lines = [b'"' + str(n).encode() * length + b'"' for n in range(5)]
    lines = [line[: min(length, MAX_BODY_BYTES - 13) - 1] + b'"' for line in lines]
    parts = list(requests.batches(lines))
    assert [number for first, last, _ in parts for number in range(first, last)] == list(range(5))
    assert len(parts) == {10: 1, 3_000_000: 3, 8_388_590: 5}[length]
    for first, last, body in parts:
        assert len(body) <= MAX_BODY_BYTES
        assert json.loads(body)["events"] == [json.loads(line) for line in lines[first:last]]
    full = [b"1"] * (MAX_EVENTS // 2)
    monkeypatch.setattr(requests, "MAX_BODY_BYTES", len(b'{"events":[1]}') + 2 * (len(full) - 1))
    assert [len(body) for _, _, body in requests.batches([*full, b"1"])] == [
        requests.MAX_BODY_BYTES,
        len(b'{"events":[1]}'),
    ]
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"events\[1\]: found 8,388,608 bytes"):
        list(requests.batches([b"1", b"1" * MAX_BODY_BYTES]))


def test_threads_share_a_client(shared_service: RunningService) -> None:
    with shared_service.client() as client, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: client.recommend(user=f"p{n}", n=1).ids[0], range(40)))
    assert found == [toyworld.expected_next_item(n) for n in range(40)]


# --- what else may answer


def test_answers_of_another_server_are_recognised() -> None:
    replies = {
        "/v1/rankings/page": ("200 OK", "text/html", "<h1>Sign in</h1> {key}"),
        "/v1/rankings/list": ("200 OK", "application/json", "[]"),
        "/v1/rankings/other": ("200 OK", "application/json", '{"ranking": "{key}"}'),
        "/v1/rankings/gateway": ("502 Bad Gateway", "text/html", "<h1>Bad gateway</h1> {key}"),
        "/v1/rankings/moved": ("302 Found", "text/html", ""),
        "/v1/rankings/problem": ("409 Conflict", "application/problem+json", '{"title": "No", "detail": "{key}"}'),
    }

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, text = replies[environ["PATH_INFO"]]
        start(status, [("Content-Type", kind), ("Location", "/login")])
        return [text.replace("{key}", environ["HTTP_AUTHORIZATION"]).encode()]

    with (
        served(app) as url,
        Client(url, "frk_secret", retries=Retries(attempts=1), transport=httpx.HTTPTransport()) as client,
    ):
        for name, error, message in (
            ("page", BadAnswer, r"bytes of text/html, which begin with '<h1>Sign in</h1> Bearer \*\*\*', expected"),
            ("list", BadAnswer, "expected a JSON object"),
            ("other", BadAnswer, "JSON of another shape .KeyError: 'timestamp'"),
            ("gateway", ApiError, "502 Bad Gateway: found .* expected a problem document"),
            ("moved", ApiError, "302 Found: found a redirect to '/login'"),
            ("problem", Conflict, r"409 No: Bearer \*\*\*"),
        ):
            with pytest.raises(error, match=message) as caught:
                client.ranking(name)
            assert "frk_secret" not in f"{caught.value!r} {vars(caught.value)}"


def test_an_error_can_be_pickled() -> None:
    error = NotFound("GET /: 404", 404, "Not Found", "found no item", "item", 3.0)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (NotFound, str(error), vars(error))


@pytest.mark.parametrize(
    "url", ["", "service:8080", "ftp://service", "http://", "http://a:b@service", "http://s/?key=x"]
)
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(url)


# --- admin routes


@pytest.mark.parametrize(
    ("call", "expected_request"),
    [
        (lambda client: client.replay("a/b"), "POST /feedrank/v1/rankings/a%2Fb/replay"),
        (lambda client: client.state("user", "ünï"), "GET /feedrank/v1/state/user/%C3%BCn%C3%AF"),
        (lambda client: client.delete_user("a/b"), "DELETE /feedrank/v1/state/user/a%2Fb"),
        (lambda client: client.hide_item(".."), "DELETE /feedrank/v1/state/item/%2E%2E"),
        (lambda client: client.bundles(), "GET /feedrank/v1/bundles"),
        (lambda client: client.promote("toy?#"), "POST /feedrank/v1/bundles/toy%3F%23/promote"),
        (lambda client: client.rollback(), "POST /feedrank/v1/bundles/rollback"),
    ],
)
def test_admin_calls_request_the_right_route(call: Callable[[Client], Any], expected_request: str) -> None:
    came: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        came.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(200, json={"done": [True]})

    with Client("https://service/feedrank/", transport=httpx.MockTransport(answer)) as client:
        assert call(client) == {"done": [True]}
    assert came == [expected_request]
