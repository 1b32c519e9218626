"""The HTTP API on the toy world, through Flask's test client: real embeddings, a real index, a real ranker."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from flask import Flask
from flask.testing import FlaskClient

from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.events import MAX_EVENTS
from feedrank.api.http.service import Service
from feedrank.api.readers import Rejects, read_events
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.types import Matrix
from feedrank.features.replay import PointInTimeQueries, insert_reads, operations_of
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle


@dataclass
class Clock:
    """A clock that advances by an odd part of a second with each read."""

    now: float = toyworld.END / 1000

    def __call__(self) -> float:
        self.now += 7.123_456_7
        return self.now


@dataclass
class Server:
    """The application on its own home, and its journal."""

    app: Flask
    client: FlaskClient
    journal: Journal
    recommender: Recommender
    clock: Clock

    def feed(self, **body: Any) -> dict[str, Any]:
        """The answer to a request that must succeed."""
        response = self.client.post("/v1/recommend", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json
        return answer

    def items(self, **body: Any) -> list[str]:
        """The ids of a feed."""
        return [one["id"] for one in self.feed(**body)["items"]]

    def events(self, body: Any, status: int = 202) -> dict[str, Any]:
        """The answer to events."""
        response = self.client.post("/v1/events", json=body)
        assert response.status_code == status, response.text
        answer: dict[str, Any] = response.json
        return answer


def click(item: str, user: str, **more: Any) -> dict[str, Any]:
    """A click as a web page would send it."""
    return {"event": "interaction", "item": item, "type": "click", "user": user, **more}


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    paths = HomePaths(home)
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    clock = Clock()
    app = create_app(Service(recommender, clock))
    journal = paths.journal()
    yield Server(app, app.test_client(), journal, recommender, clock)
    journal.close()


@pytest.fixture(scope="module")
def shared_server(interactions_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One server for all tests that change nothing."""
    paths = HomePaths(interactions_home)
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    recommender._journal = HomePaths(
        tmp_path_factory.mktemp("still")
    ).journal()  # so that the shared home stays as it is
    clock = Clock()
    app = create_app(Service(recommender, clock))
    return Server(app, app.test_client(), paths.journal(), recommender, clock)


# --- feeds


@pytest.mark.parametrize("user", [0, 13, 26, 59])
def test_a_known_user_gets_the_expected_next_item_and_genre(shared_server: Server, user: int) -> None:
    feed = shared_server.feed(user=toyworld.user_id(user), n=5)
    assert feed["items"][0]["id"] == toyworld.expected_next_item(user)
    genres = [toyworld.genre_of(one["id"]) for one in feed["items"]]
    assert genres == [toyworld.genre_of_user(user)] * 5
    scores = [one["score"] for one in feed["items"]]
    assert scores == sorted(scores, reverse=True)
    assert feed["bundle"] == "toy"
    assert feed["user"] == toyworld.user_id(user)
    assert feed["source"] == "embedding"
    assert feed["timestamp"] == round(shared_server.clock.now * 1000)


def test_an_unknown_user_gets_popular_items(server: Server) -> None:
    server.events({"events": [click("ocean-3", f"fan {n}") for n in range(20)]})
    for options in ({}, {"user": "never seen"}, {"history": []}, {"history": ["no such item"]}):
        feed = server.feed(**options, n=60)
        assert feed["source"] == "popular"
        assert len({one["id"] for one in feed["items"]}) == 60
        assert "ocean-3" in [one["id"] for one in feed["items"]]
    retrieved = server.recommender.pipeline.retriever.retrieve
    assert retrieved is not None
    popular = server.recommender.pipeline.state.popularity(server.clock())
    assert server.recommender.catalogue.ids.name(int(np.argmax(popular))) == "ocean-3"


def test_a_query_alone_finds_matching_items(shared_server: Server) -> None:
    feed = shared_server.feed(query="guitar and violin music", n=60)
    assert feed["source"] == "hybrid"
    first = [toyworld.genre_of(one["id"]) for one in feed["items"]][:10]
    assert first.count("music") >= 8


def test_a_history_alone_equals_a_known_user(shared_server: Server) -> None:
    user = 9
    walked = [toyworld.item(toyworld.genre_of_user(user), toyworld.start_position(user) + s) for s in range(9)]
    latest_first = walked[::-1]
    assert shared_server.items(history=latest_first, n=3) == shared_server.items(user=toyworld.user_id(user), n=3)
    assert shared_server.items(history=["no such item", *latest_first], n=3)[0] == toyworld.expected_next_item(user)
    assert not set(walked) & set(shared_server.items(history=latest_first, n=60))


def test_a_history_replaces_the_stored_one_and_seen_items_stay_hidden(shared_server: Server) -> None:
    feed = shared_server.items(user=toyworld.user_id(0), history=["kitchen-2", "kitchen-1"], n=60)
    assert toyworld.genre_of(feed[0]) == "kitchen"
    seen = {toyworld.item("space", step) for step in range(toyworld.INTERACTIONS_PER_USER)} | {"kitchen-1", "kitchen-2"}
    assert not seen & set(feed)


def test_a_query_and_a_history_together(shared_server: Server) -> None:
    feed = shared_server.items(query="guitar and violin music", history=["ocean-1", "ocean-0"], n=20)
    assert {toyworld.genre_of(item) for item in feed[:12]} >= {"music", "ocean"}


@pytest.mark.parametrize("n", [1, 7, 51, 1000])
def test_a_feed_has_n_items_or_all_there_are(shared_server: Server, n: int) -> None:
    items = shared_server.items(user=toyworld.user_id(1), n=n)
    assert (
        len(items) == len(set(items)) == min(n, len(toyworld.GENRES) * toyworld.RING - toyworld.INTERACTIONS_PER_USER)
    )


def test_ten_items_is_the_default(shared_server: Server) -> None:
    assert len(shared_server.items()) == 10


# --- filters


def test_seen_items_are_recommended_only_on_request(shared_server: Server) -> None:
    seen = {toyworld.item("space", step) for step in range(toyworld.INTERACTIONS_PER_USER)}
    assert not seen & set(shared_server.items(user="p0", n=100))
    assert seen <= set(shared_server.items(user="p0", n=100, filters={"include_seen": True}))


def test_categories_allow_and_deny(shared_server: Server) -> None:
    def left(**filters: Any) -> set[str]:
        return set(shared_server.items(user="p0", n=100, filters=filters))

    def all_of(genre: str) -> set[str]:
        return {toyworld.item(genre, position) for position in range(toyworld.RING)}

    assert left(categories=["music"]) == all_of("music")
    assert left(categories=["music", "ocean", "no such genre"]) == all_of("music") | all_of("ocean")
    assert left(allow=["music-1", "space-0", "space-14", "no such item"]) == {"music-1", "space-14"}
    assert left(categories=["music"], allow=["music-1", "ocean-1"]) == {"music-1"}
    assert left(categories=["music"], deny=["music-1", "no such item"]) == all_of("music") - {"music-1"}
    assert left(allow=["music-1", "music-2"], deny=["music-1"]) == {"music-2"}


@pytest.mark.parametrize("user", ["p0", "never seen"])
@pytest.mark.parametrize(
    "filters", [{"categories": ["no such genre"]}, {"categories": []}, {"allow": ["no such item"]}, {"allow": []}]
)
def test_filters_that_let_nothing_through_give_an_empty_feed(
    shared_server: Server, user: str, filters: dict[str, Any]
) -> None:
    assert shared_server.feed(user=user, filters=filters)["items"] == []


# --- bodies that are wrong


def problem(response: Any, status: int) -> dict[str, Any]:
    """Return the problem document of a response, and assert that it is one."""
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    body: dict[str, Any] = response.json
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": 7}, "user"),
        ({"user": ""}, "user"),
        ({"user": "x" * 257}, "user"),
        ({"user": "half \ud800 of a pair"}, "user"),
        ({"query": None}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "x" * 2_001}, "query"),
        ({"history": "space-1"}, "history"),
        ({"history": ["space-1", 2]}, "history.1"),
        ({"history": ["x" * 257]}, "history.0"),
        ({"history": ["x"] * 1_001}, "history"),
        ({"n": 0}, "n"),
        ({"n": 1_001}, "n"),
        ({"n": -1}, "n"),
        ({"n": "10"}, "n"),
        ({"n": 2.5}, "n"),
        ({"n": True}, "n"),
        ({"n": None}, "n"),
        ({"n": float("nan")}, "n"),
        ({"n": 10**400}, "n"),
        ({"surface": ""}, "surface"),
        ({"context": {"price": float("nan")}}, "context.price"),
        ({"context": {"price": float("inf")}}, "context.price"),
        ({"context": {"query": "x"}}, "context"),
        ({"users": "p0"}, "users"),
        ({"filters": []}, "filters"),
        ({"filters": {"include_seen": "yes"}}, "filters.include_seen"),
        ({"filters": {"include_seen": 1}}, "filters.include_seen"),
        ({"filters": {"categories": "music"}}, "filters.categories"),
        ({"filters": {"allow": [None]}}, "filters.allow.0"),
        ({"filters": {"deny": {"a": 1}}}, "filters.deny"),
        ({"filters": {"genre": "music"}}, "filters.genre"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:40],
)
def test_a_wrong_body_is_a_problem_that_names_the_field(
    shared_server: Server, body: dict[str, Any], field: str
) -> None:
    found = problem(shared_server.client.post("/v1/recommend", json=body), 400)
    assert found["field"] == field
    assert found["detail"].startswith(field)
    assert len(found["detail"]) < 300


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events"])
@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"7", b"null", b'"x"', b'{"user": }', b"\xff\xfe", b"[" * 200_000,
        b'{"n": ' + b"9" * 5_000 + b"}",
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_a_problem(shared_server: Server, path: str, text: bytes) -> None:
    problem(shared_server.client.post(path, data=text, content_type="application/json"), 400)


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events"])
def test_other_content_types_and_large_bodies_are_problems(shared_server: Server, path: str) -> None:
    assert (
        "application/json"
        in problem(shared_server.client.post(path, data="{}", content_type="text/plain"), 415)["detail"]
    )
    problem(shared_server.client.post(path, data={"user": "p0"}), 415)
    problem(shared_server.client.post(path, data=b" " * (8 * 1024 * 1024 + 1), content_type="application/json"), 413)


def test_other_paths_and_methods_are_problems(shared_server: Server) -> None:
    problem(shared_server.client.get("/v1/nothing"), 404)
    response = shared_server.client.get("/v1/recommend")
    problem(response, 405)
    assert "POST" in response.headers["Allow"]
    problem(shared_server.client.delete("/healthz"), 405)


@pytest.mark.parametrize(
    "text", ["Zoë 🎬 日本", "a/b/../c", 'it\'s "quoted" \\ back', "<script>", "%2e; DROP TABLE", "\t\n ", "x" * 256]
)
def test_ids_hold_any_characters(server: Server, text: str) -> None:
    feed = server.feed(user=text, surface=text, query=text, filters={"deny": [text], "include_seen": True})
    assert feed["user"] == text
    server.events(click("ocean-3", text))
    assert "ocean-3" not in server.items(user=text, n=100)
    stored = server.journal.find(feed["ranking"])
    assert isinstance(stored, RankingEvent)
    assert (stored.user, stored.surface) == (text, text)


# --- events


def test_one_event_gets_an_id_and_a_time(server: Server) -> None:
    answer = server.events(click("ocean-3", "p0"))
    assert (answer["accepted"], answer["duplicate"]) == (1, 0)
    stored = server.journal.find(answer["ids"][0])
    assert stored is not None
    assert stored.timestamp == round(server.clock.now * 1000)


def test_many_events_and_the_same_again(server: Server) -> None:
    several = [click("ocean-3", "p0", id=f"e{n}", timestamp=toyworld.END + n) for n in range(5)]
    several.append({"event": "user", "id": "u", "timestamp": "2023-01-01T00:00:00Z", "user": "p0"})
    assert server.events({"events": several})["accepted"] == 6
    assert server.events({"events": [*several, click("ocean-4", "p0", id="e9")]}) == {
        "accepted": 1, "duplicate": 6, "rejected": [], "ids": [*(f"e{n}" for n in range(5)), "u", "e9"],
    }  # fmt: skip
    twice = click("ocean-5", "p0", id="twice")
    assert server.events({"events": [twice, twice]})["accepted"] == 1
    assert server.events(twice) == {"accepted": 0, "duplicate": 1, "rejected": [], "ids": ["twice"]}
    assert server.events({"events": []}) == {"accepted": 0, "duplicate": 0, "rejected": [], "ids": []}


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"event": "clique"}, "event"),
        ({"event": "interaction", "type": "click"}, "item"),
        ({"event": "interaction", "item": "ocean-1"}, "type"),
        (click("ocean-1", "p0", timestamp="yesterday"), "timestamp"),
        (click("ocean-1", "p0", timestamp="2026-01-01T00:00:00"), "timestamp"),
        (click("ocean-1", "p0", id=""), "id"),
        (click("ocean-1", "p0", id=None), "id"),
        (click("ocean-1", "p0", value="much"), "value"),
        (click("ocean-1", "half \ud800 of a pair"), "user"),
        ({"event": "ranking", "user": "p0", "items": []}, "items"),
        ({"event": "ranking", "user": "p0", "items": [{"id": "a"}, {}]}, "items[1].id"),
    ],
)
def test_a_bad_event_is_rejected_and_the_others_are_taken(server: Server, bad: dict[str, Any], field: str) -> None:
    before = server.journal.count_by_kind()
    assert problem(server.client.post("/v1/events", json=bad), 400)["field"] == field
    assert server.journal.count_by_kind() == before
    answer = server.events({"events": [click("space-9", "p0", id="good"), bad, click("space-9", "p0", id="good")]})
    assert (answer["accepted"], answer["duplicate"], answer["ids"]) == (1, 1, ["good", None, "good"])
    (rejected,) = answer["rejected"]
    assert (rejected["index"], rejected["field"]) == (1, field)
    assert rejected["detail"]
    assert server.items(user="p0", n=1) == ["space-10"]


def test_null_parts_and_long_ids_are_the_same_over_http_and_in_files(server: Server, tmp_path: Path) -> None:
    fields = [{"name": "title", "value": "T"}, {"name": "brand", "value": None}]
    path, at = tmp_path / "log.jsonl", round(toyworld.END)
    for number, more in enumerate(({"fields": fields}, {"fields": None}, {"item": "i" * 256})):
        body = {"event": "item", "id": f"n{number}", "timestamp": at, "item": "ocean-3", **more}
        path.write_text(json.dumps(body))
        server.events(body)
        stored = server.journal.find(f"n{number}")
        assert stored is not None
        assert list(read_events(path, Rejects())) == [replace(stored, received=None)]
    for part in ("id", "item", "user", "session", "ranking"):
        body = click("ocean-3", "p0", id="long", timestamp=at) | {part: "x" * 257}
        path.write_text(json.dumps(body))
        rejects = Rejects()
        assert list(read_events(path, rejects)) == []
        answer = problem(server.client.post("/v1/events", json=body), 400)
        assert answer["field"] == part
        assert f"{part}: {answer['detail']}".endswith(rejects.example(next(iter(rejects.reasons())))[1])


def test_events_that_are_no_list_of_objects_are_problems(server: Server) -> None:
    for body in ({"events": {}}, {"events": "e"}, {"events": [{}] * (MAX_EVENTS + 1)}, {}):
        assert problem(server.client.post("/v1/events", json=body), 400)["field"].startswith("event")


def test_a_click_changes_the_next_feed(server: Server) -> None:
    first = server.items(user="p0", n=1)[0]
    assert first == "space-9"
    server.events(click(first, "p0"))
    after = server.items(user="p0", n=60)
    assert after[0] == "space-10"
    assert first not in after


def test_an_unknown_user_is_known_after_a_click(server: Server) -> None:
    assert server.feed(user="new")["source"] == "popular"
    server.events(click("ocean-3", "new"))
    feed = server.feed(user="new", n=1)
    assert feed["source"] == "embedding"
    assert feed["items"][0]["id"] == "ocean-4"


def test_the_state_survives_a_restart(server: Server, home: Path) -> None:
    server.events({"events": [click("ocean-3", "new"), click("space-9", "p0")]})
    paths = HomePaths(home)
    again = create_app(
        Service(compose.build_recommender(paths, config.load_config(paths.config)), server.clock)
    ).test_client()
    for body in ({"user": "new"}, {"user": "p0"}):
        items = again.post("/v1/recommend", json=body | {"n": 20}).json["items"]
        assert [one["id"] for one in items] == server.items(**body, n=20)


# --- the feed is the ranking event, and its features are those of a replay


def stored_rows(event: RankingEvent) -> Matrix:
    """The feature rows in a ranking event."""
    stored = event.features
    return np.frombuffer(b64decode(stored["data"]), "<f4").reshape(stored["rows"], -1)


def test_the_feed_is_in_the_journal_before_it_is_answered(server: Server) -> None:
    feed = server.feed(user="p0", n=7, surface="home")
    event = server.journal.find(feed["ranking"])
    assert isinstance(event, RankingEvent)
    assert list(event.items) == [one["id"] for one in feed["items"]]
    assert list(event.scores or ()) == [one["score"] for one in feed["items"]]
    assert (event.bundle, event.surface) == (feed["bundle"], "home")
    assert (event.user, event.timestamp) == ("p0", feed["timestamp"])
    builder = server.recommender.pipeline.featurizer
    assert event.features["fingerprint"] == builder.fingerprint
    assert stored_rows(event).shape == (7, len(builder.names))
    assert "features" not in feed


def of_the_request(name: str) -> bool:
    """Whether a feature compares a candidate with the others of its request, which a short feed does not hold."""
    return name in ("recall_pct", "candidates") or name.endswith("_z")


@pytest.mark.parametrize("n", [1000, 10])
def test_logged_features_equal_those_of_a_replay_bit_for_bit(server: Server, home: Path, n: int) -> None:
    dice = np.random.default_rng(3)
    users = ["p0", "p1", "p2", "new", None]
    served: list[str] = []
    for _ in range(25):
        user = users[int(dice.integers(len(users)))]
        feed = server.feed(user=user, n=n)
        served.append(feed["ranking"])
        for one in feed["items"][: int(dice.integers(3))]:
            answering = {"ranking": feed["ranking"]} if dice.integers(2) else {}
            server.events(click(one["id"], user or "p5", **answering))
    opened = bundle.load(HomePaths(home).current_bundle)
    catalogue = opened.item_model.catalogue
    log = events_to_table(server.journal.events(), catalogue.ids)
    happened = [event for event in server.journal.events("ranking") if isinstance(event, RankingEvent)]
    assert [event.id for event in happened] == served
    moments = PointInTimeQueries(
        before_event=log.event_positions()[len(log.interactions) :],
        at=log.rankings.at,
        user=log.rankings.user,
        offsets=log.rankings.offsets,
        rows=log.rankings.items,
    )
    batch = BehaviouralState(catalogue, opened.builder.spec).replay(insert_reads(operations_of(log), moments))
    replayed = opened.builder.matrix(batch)
    live = np.concatenate([stored_rows(event) for event in happened])
    assert live.shape == replayed.shape
    different = [
        name
        for column, name in enumerate(opened.builder.names)
        if not np.array_equal(live[:, column].view(np.uint32), replayed[:, column].view(np.uint32))
    ]
    assert not [name for name in different if n == 1000 or not of_the_request(name)]


# --- health, and many at once


def test_health_and_readiness(shared_server: Server) -> None:
    assert shared_server.client.get("/healthz").json == {"status": "ok"}
    ready = shared_server.client.get("/readyz")
    assert ready.json == {"status": "ready", "bundle": "toy", "items": 60}
    assert ready.headers["Cache-Control"] == "no-store"


def test_an_unexpected_error_reveals_no_internals(shared_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> float:
        raise ZeroDivisionError("secret")

    app = create_app(Service(shared_server.recommender, broken))
    found = problem(app.test_client().post("/v1/recommend", json={}), 500)
    assert "secret" not in json.dumps(found)
    assert "secret" in caplog.text


def test_many_threads_at_once(server: Server) -> None:
    def worker(number: int) -> list[int]:
        client = server.app.test_client()
        statuses: list[int] = []
        for turn in range(10):
            feed = client.post("/v1/recommend", json={"user": toyworld.user_id(number), "n": 5})
            statuses.append(feed.status_code)
            item = feed.json["items"][0]["id"]
            one = click(item, toyworld.user_id(number), ranking=feed.json["ranking"], id=f"{number} {turn}")
            statuses.append(client.post("/v1/events", json=one).status_code)
        return statuses

    before = server.journal.count_by_kind()
    act: Callable[[int], list[int]] = worker
    with ThreadPoolExecutor(8) as pool:
        statuses = [status for found in pool.map(act, range(8)) for status in found]
    assert sorted(set(statuses)) == [200, 202]
    after = server.journal.count_by_kind()
    assert after["ranking"] == before.get("ranking", 0) + 80
    assert after["interaction"] == before["interaction"] + 80


# --- ids that a page writes for a missing one


def test_an_id_that_stands_for_a_missing_one_names_nothing(server: Server) -> None:
    feeds = [
        server.client.post("/v1/recommend", json={"user": user, "session": "NaN", "ranking": "undefined", "n": 3}).json
        for user in ("p0", "p1", "null")
    ]
    assert len({feed["ranking"] for feed in feeds}) == 3, "none of them is the answer to another request"
    logged = [server.recommender.find(feed["ranking"]) for feed in feeds]
    assert [(event.user, event.session) for event in logged] == [("p0", None), ("p1", None), (None, None)]  # type: ignore[union-attr]
    answer = server.client.post("/v1/rank", json={"items": [{"id": "null", "fields": {"title": "of no item"}}]})
    assert answer.status_code == 400
    assert "stands for a missing id" in answer.text
    assert server.client.post("/recommend/any", json={"user": "undefined"}).status_code == 200
