"""The feed service: ranking of lists, explanations, deadlines, authentication, Metarank routes, and live updates."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import feedrank
from flask.testing import FlaskClient

from feedrank.api import compose, config
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.config import ServeConfig
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.api.keys import ApiKeys
from feedrank.api.metrics import Metrics
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import InteractionEvent, RankingEvent
from feedrank.engine.events.item_fields import rows_of
from feedrank.engine.journal.journal import Journal, JournalError
from feedrank.engine.serving.deadline import LatencyBudget, LatencyEstimator
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest
from feedrank.engine.types import Batch, Candidates, Matrix, QueryVectors, ResolvedRequest
from feedrank.models.bundles import bundle, registry

NOW = toyworld.END / 1000 + 1_000


@dataclass
class RunningService:
    """A recommender on its own home, and its clients."""

    home: HomePaths
    recommender: Recommender

    def client(self, **more: Any) -> FlaskClient:
        return create_app(Service(self.recommender, lambda: NOW, **more)).test_client()


@pytest.fixture
def running(home: Path) -> RunningService:
    paths = HomePaths(home)
    return RunningService(paths, compose.build_recommender(paths, config.load_config(paths.config)))


def refresher_of(running: RunningService) -> Refresher:
    """The refresher of a service, not started."""
    home, opened = running.home, bundle.load(running.home.current_bundle)
    settings, texts = config.load_config(home.config), TextEncoders(home, opened)
    return Refresher(home, settings, home.journal(), running.recommender, opened, texts, clock=lambda: NOW)


def ask(client: FlaskClient, path: str, body: Any, status: int = 200, **more: Any) -> Any:
    """POST a body and return the decoded answer."""
    response = client.post(path, json=body, **more)
    assert response.status_code == status, response.text
    return response.json


def test_wal_checkpoints_run_whatever_else_fails(running: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    refresher, folds, done = refresher_of(running), list[float](), threading.Event()

    def checkpoint(_: Journal) -> None:
        folds.append(time.perf_counter())
        if len(folds) == 3:
            done.set()
        raise JournalError("the disk is full")

    def check_bundle(_: Refresher) -> bool:
        raise RuntimeError("nothing can be looked at")

    monkeypatch.setattr(Journal, "checkpoint", checkpoint)
    monkeypatch.setattr(Refresher, "check_bundle", check_bundle)
    monkeypatch.setattr("feedrank.api.compose.refresh.CHECKPOINT_S", 0.5)
    refresher.start()
    assert done.wait(60)
    refresher.stop()
    assert np.diff(folds).min() >= 0.5


# --- given lists


def test_a_given_list_is_ranked_and_logged(running: RunningService) -> None:
    client = running.client()
    given = ["music-3", "nobody knows", toyworld.expected_next_item(0), "ocean-5", "kitchen-2"]
    answer = ask(client, "/v1/rank", {"user": toyworld.user_id(0), "items": given, "surface": "search"})
    names = [one["id"] for one in answer["items"]]
    assert sorted(names) == sorted(given)
    assert names[0] == toyworld.expected_next_item(0)
    assert answer["source"] == "explicit"
    logged = running.recommender.find(answer["ranking"])
    assert isinstance(logged, RankingEvent)
    assert list(logged.items) == names
    assert list(RankingRecord.from_event(logged).recall.items) == given
    assert len(ask(client, "/v1/rank", {"items": given, "n": 2})["items"]) == 2
    mixed = ask(client, "/v1/rank", {"items": given, "diversity": {"weight": 0.5}})
    assert len(mixed["items"]) == 5, "of an item that is not known nothing is alike"
    for bad, field in (({"items": []}, "items"), ({"items": ["a", "a"]}, ""), ({"items": ["a"] * 1_001}, "items")):
        assert ask(client, "/v1/rank", bad, 400)["field"] == field


def test_a_given_list_brings_fields_for_known_items(running: RunningService) -> None:
    client = running.client()
    priced = {"id": "music-3", "fields": {"price": 9.5, "bid": 2, "tags": ["new"], "story": "x" * 3_000, "gone": None}}
    body = {"items": [priced, "ocean-5", {"id": "space-1", "fields": {"price": 3}}], "n": 2, "user": "p0"}
    known = running.recommender.catalogue.ids
    answer = ask(client, "/v1/rank", body)
    names = [entry["id"] for entry in answer["items"]]
    given: dict[str, dict[str, Any]] = {
        "music-3": {"price": 9.5, "bid": 2.0, "tags": ["new"]},
        "space-1": {"price": 3.0},
    }
    logged = running.recommender.find(answer["ranking"])
    assert isinstance(logged, RankingEvent)
    assert logged.item_fields is not None
    assert rows_of(logged.item_fields, 2) == [given.get(name, {}) for name in names]
    request = RankingRecord.from_event(logged).request
    assert request.item_fields is not None
    assert rows_of(request.item_fields, 3) == [given["music-3"], {}, given["space-1"]]
    assert running.recommender.catalogue.ids is known, "a list changes no item"
    many = [{"id": f"ocean-{n}", "fields": {f"f{n}.{k}": 1 for k in range(600)}} for n in (1, 2)]
    assert ask(client, "/v1/rank", {"items": many}, 400)["field"] == "items"


def test_metaranks_rank_request_brings_fields_and_a_context(running: RunningService) -> None:
    asked: list[RecommendationRequest] = []
    resolve = type(running.recommender.snapshot).resolve

    def spy(self: Any, at: float, request: RecommendationRequest, vectors: Any) -> Any:
        asked.append(request)
        return resolve(self, at, request, vectors)

    client = running.client()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(running.recommender.snapshot), "resolve", spy)
        event = {
            "user": "p0", "fields": [{"name": "query", "value": "x"}, {"name": "device", "value": "phone"}],
            "items": [{"id": "music-1", "fields": [{"name": "relevancy", "value": 2}]}, {"id": "space-9"}],
        }  # fmt: skip
        ask(client, "/rank/xgboost", event)
    (request,) = asked
    assert (request.item_fields, request.context, request.query) == (
        {"relevancy": (2.0, None)}, {"device": "phone"}, "x",
    )  # fmt: skip


def test_similar_items(running: RunningService) -> None:
    client = running.client()
    found = client.get("/v1/items/space-3/similar?n=5").json
    assert len(found["items"]) == 5
    assert "space-3" not in [one["id"] for one in found["items"]]
    assert client.get("/v1/items/no%20such%2Fitem/similar").status_code == 404
    assert client.get("/v1/items/space-3/similar?n=0").status_code == 400


# --- explanations


def test_contributions_add_up_to_the_score(running: RunningService) -> None:
    client = running.client()
    feed = ask(client, "/v1/recommend", {"user": "p0", "n": 5, "explain": True, "diversity": {"weight": 0.3}})
    explained = client.get(f"/v1/rankings/{feed['ranking']}/explain").json
    for one in (*feed["items"], *explained["items"]):
        explanation = one["explanation"]
        total = sum(explanation["contributions"].values()) + explanation["base"]
        assert one["score"] == pytest.approx(total, abs=1e-4)
        assert explanation["features"].keys() == explanation["contributions"].keys()
        assert explanation["recall_score"] > 0
    names = list(running.recommender.pipeline.featurizer.names)
    assert [feature["name"] for feature in explained["features"]] == names, "one table for all items, in column order"
    assert explained["features"][0] == {
        "name": "recall_score", "family": "recall", "unit": "dot product", "missing": "the user has no history",
        "sentence": "Dot product of the item vector with the user vector of embedding recall.",
        "is_category": False,
    }  # fmt: skip
    assert set(names) == explained["items"][0]["explanation"]["features"].keys()
    assert explained["fallback"] == "full"
    assert explained["candidates"] >= 5
    assert len(explained["recall_order"]) == 5
    plain = client.get(f"/v1/rankings/{feed['ranking']}").json
    assert [one["id"] for one in plain["items"]] == [one["id"] for one in feed["items"]]
    assert client.get("/v1/rankings/unknown").status_code == 404


# --- diversity


def test_a_feed_can_be_diversified(running: RunningService) -> None:
    client = running.client()
    mixed = ask(client, "/v1/recommend", {"user": "p0", "n": 12, "diversity": {"per_category": 3}})
    genres = [toyworld.genre_of(one["id"]) for one in mixed["items"]]
    assert max(genres.count(genre) for genre in genres) <= 3
    plain = ask(client, "/v1/recommend", {"user": "p0", "n": 12})
    varied = ask(client, "/v1/recommend", {"user": "p0", "n": 12, "diversity": {"weight": 0.9}})
    assert plain["items"][0]["id"] == varied["items"][0]["id"]
    assert len({toyworld.genre_of(one["id"]) for one in varied["items"]}) > 1
    logged = running.recommender.find(varied["ranking"])
    assert isinstance(logged, RankingEvent)
    assert logged.served["options"] == {"diversity": {"weight": 0.9}, "n": 12}


# --- deadlines


class SlowFeaturizer:
    """A featurizer that takes a fixed time, on a clock that only it advances."""

    def __init__(self, inner: Any, clock: list[float], seconds: float) -> None:
        self._inner, self._clock, self._seconds = inner, clock, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def matrix(self, batch: Batch) -> Matrix:
        self._clock[0] += self._seconds
        found: Matrix = self._inner.matrix(batch)
        return found


def test_stages_that_exceed_the_deadline_are_skipped_and_reported(running: RunningService) -> None:
    recommender, clock = running.recommender, [0.0]
    live = recommender.snapshot
    live.pipeline = replace(live.pipeline, featurizer=SlowFeaturizer(live.pipeline.featurizer, clock, 0.02))
    costs = LatencyEstimator()
    for _ in range(30):
        recommender.recommend(
            "warm", NOW, RecommendationRequest("p0"), LatencyBudget(lambda: clock[0], estimator=costs), log=False
        )
    hurried = LatencyBudget(lambda: clock[0], 0.01, costs)
    event = recommender.recommend("hurried", NOW, RecommendationRequest("p0"), hurried)
    assert hurried.remaining > 0
    assert event.degraded == ("rank",)
    assert event.features is None
    assert event.items == event.recall.items
    calm = LatencyBudget(lambda: clock[0], 0.1, costs)
    assert recommender.recommend("calm", NOW, RecommendationRequest("p0"), calm).degraded == ()


def test_a_latency_budget_gives_each_stage_its_usual_time() -> None:
    now, costs = [0.0], LatencyEstimator()
    for _ in range(100):
        watch = LatencyBudget(lambda: now[0], estimator=costs)
        now[0] += 0.030
        watch.record("cross_encoder", 30)
        now[0] += 0.001
        watch.record("rank")
    assert costs.estimate("cross_encoder") == pytest.approx(0.001, rel=0.05)
    watch = LatencyBudget(lambda: now[0], 0.0115, costs)
    assert watch.units_in_budget("cross_encoder", 30, "rank") == 10
    assert watch.has_time_for("rank")
    before = costs.estimate("cross_encoder")
    assert watch.units_in_budget("cross_encoder", 0, "rank") == 0
    assert costs.estimate("cross_encoder") == before, "nothing was left out where nothing was wanted"
    assert not watch.has_time_for("cross_encoder", units=20)
    assert LatencyBudget(lambda: now[0], estimator=costs).units_in_budget("cross_encoder", 30) == 30


@pytest.mark.parametrize(("truly", "measured_costs"), [(0.005, (0.9, 1.0)), (0.020, (0.0, 0.01))])
def test_a_cost_estimate_that_was_too_high_recovers(truly: float, measured_costs: tuple[float, float]) -> None:
    now, costs = [0.0], LatencyEstimator()
    costs.observe("features", 0.5)  # as the first ever, with all caches cold
    begun = []
    for _ in range(20_000):
        watch = LatencyBudget(lambda: now[0], 0.010, costs)
        begun.append(watch.has_time_for("features"))
        if begun[-1]:
            now[0] += truly
            watch.record("features")
    assert measured_costs[0] <= np.mean(begun[10_000:]) <= measured_costs[1]


# --- fallbacks


class FailingRetriever:
    """A retriever that always raises."""

    name = "broken"

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        raise OSError("the index is gone")

    def popularity(self, at: float) -> Any:
        raise OSError("the counters are gone")


def test_fallbacks_are_tried_in_order(running: RunningService) -> None:
    client, live = running.client(), running.recommender.snapshot
    good = ask(client, "/v1/recommend", {"user": "p0", "n": 10})
    whole = live.pipeline
    live.pipeline = replace(whole, retriever=FailingRetriever())
    popular = ask(client, "/v1/recommend", {"user": "p0", "n": 10})
    assert popular["source"] == "popular"
    assert popular["degraded"] == ["full", "no_neural"]
    found = whole.popular.retrieve(live.resolve(NOW, RecommendationRequest("p0"), QueryVectors()), 100)  # type: ignore[union-attr]
    scores = dict(zip(live.catalogue.ids.names(found.rows), found.scores.tolist(), strict=True))
    assert [one["score"] for one in popular["items"]] == [scores[one["id"]] for one in popular["items"]]
    assert len({toyworld.genre_of(one["id"]) for one in popular["items"]}) > 1, "categories take turns"
    live.pipeline = replace(whole, retriever=FailingRetriever(), popular=FailingRetriever())
    last = ask(client, "/v1/recommend", {"user": "p0", "n": 10})
    assert [one["id"] for one in last["items"]] == [one["id"] for one in good["items"]]
    explanation = client.get(f"/v1/rankings/{last['ranking']}/explain").json
    assert explanation["fallback"] == "last_good"
    assert ask(client, "/v1/rank", {"items": ["space-1", "music-1"]})["degraded"] == []


def test_feeds_go_on_without_a_journal_and_writes_say_so(
    running: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client()

    def gone(*_: Any, **__: Any) -> Any:
        raise JournalError("the disk is full")

    monkeypatch.setattr(running.recommender._journal, "record", gone)
    feed = ask(client, "/v1/recommend", {"user": "p0", "n": 5})
    assert len(feed["items"]) == 5
    assert feed["logged"] is False
    click = {"event": "interaction", "id": "c", "item": "space-9", "type": "click", "user": "p0"}
    response = client.post("/v1/events", json=click)
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    monkeypatch.undo()
    assert ask(client, "/v1/events", click, 202)["accepted"] == 1
    assert running.recommender.find(feed["ranking"]) is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"user": ""}, "user"),
        ({"session": 7}, "session"),
        ({"query": "half \ud800 of a pair"}, "query"),
        ({"history": ("space-1", 2)}, "history"),
        ({"items": ("space-1", "space-1")}, "items"),
        ({"items": ("space-1", "")}, "items"),
        ({"context": {"price": float("nan")}}, "context.price"),
        ({"context": {"many": {"a": 1}}}, "context.many"),
        ({"context": {"": 1}}, "context"),
        ({"filters": FilterSpec(deny=("\udfff",))}, "filters"),
    ],
)  # fmt: skip
def test_a_request_that_could_not_be_read_back_is_refused(
    running: RunningService, wrong: dict[str, Any], field: str
) -> None:
    before = running.recommender.snapshot.offset
    with pytest.raises(EventError) as caught:
        running.recommender.recommend("r", NOW, RecommendationRequest(**{"user": "p0", **wrong}))
    assert caught.value.field == field
    assert running.recommender.find("r") is None
    assert running.recommender.snapshot.offset == before
    assert running.recommender.recommend("r", NOW, RecommendationRequest("p0")).logged


@pytest.mark.parametrize(
    "wrong",
    [{"scores": (1.0, None)}, {"items": ("space-1", "space-1")}, {"propensities": (0.5, 0.0)}],
    ids=["score", "item", "propensity"],
)
def test_a_ranking_that_could_not_be_read_back_is_answered_and_not_logged(
    running: RunningService, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = RankingRecord.from_ranking

    def broken(*arguments: Any) -> RankingRecord:
        return replace(right(*arguments), **wrong)

    monkeypatch.setattr(RankingRecord, "from_ranking", broken)
    request = RecommendationRequest("p0", n=2)
    assert not running.recommender.recommend("broken", NOW, request).logged
    monkeypatch.undo()
    assert running.recommender.recommend("whole", NOW, request).logged, "the journal itself is not to blame"
    found = [event.id for _, event in running.home.journal().read(kind="ranking")]
    assert found == ["whole"]


# --- several processes, by two recommenders on one journal


def test_events_of_one_process_change_the_next_feed_of_another(running: RunningService) -> None:
    other = compose.build_recommender(running.home, config.load_config(running.home.config))
    first, second = running.client(), create_app(Service(other, lambda: NOW)).test_client()

    def items(client: FlaskClient) -> list[str]:
        return [one["id"] for one in ask(client, "/v1/recommend", {"user": "new", "n": 60})["items"]]

    assert items(first) == items(second)
    ask(first, "/v1/events", {"event": "interaction", "item": "ocean-3", "type": "click", "user": "new"}, 202)
    found = items(second)
    assert found[0] == "ocean-4"
    assert "ocean-3" not in found
    assert items(first) == items(second)
    running.recommender.catch_up(NOW)
    other.catch_up(NOW)
    assert other.snapshot.offset == running.recommender.snapshot.offset == running.home.journal().last_offset
    both = (running.recommender, other)
    states = [one.snapshot.state.arrays() for one in both]  # type: ignore[attr-defined]  # the state that serves has it
    for name in ("counts", "first_at", "last_at"):
        np.testing.assert_array_equal(states[0][name], states[1][name])


def test_the_moments_of_many_writers_have_the_order_of_their_offsets(tmp_path: Path) -> None:
    journals = [Journal.open_sqlite(tmp_path / "j.db") for _ in range(3)]
    clocks = (1_000, 5_000, 3_000, 90_000_000_000, 4_000, 2_000)  # one is ahead by years
    for n, now_ms in enumerate(clocks):
        event = InteractionEvent(f"e{n}", 500 + n, "i", "click", received=7)
        assert journals[n % 3].record([event, event], now_ms) == [True, False]
        assert journals[n % 3].record([event], now_ms) == [False]
    for journal in journals:
        assert [event.received for _, event in journal.read()] == [1_000, 5_000, 5_000, 90_000_000_000, 5_000, 5_000]
        assert [event.timestamp for event in journal.events()] == [500 + n for n in range(6)]


# --- live updates


def test_another_bundle_takes_over_and_a_damaged_one_does_not(
    running: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    home = running.home
    refresher = refresher_of(running)
    client = running.client()
    assert not refresher.check_bundle()
    shutil.copytree(home.bundles / "toy", home.bundles / "bad")
    (home.bundles / "bad" / "ranker-0.txt").write_text("nothing")
    (home.bundles / "current").unlink()
    (home.bundles / "current").symlink_to("bad", target_is_directory=True)
    assert not refresher.check_bundle()
    assert "ranker-0.txt is damaged" in caplog.text
    assert ask(client, "/v1/recommend", {"user": "p0"})["bundle"] == "toy"
    feedrank(home.folder, "index", "--name", "plain")
    registry.promote(home.bundles, "plain")
    ask(client, "/v1/events", {"event": "interaction", "item": "ocean-3", "type": "click", "user": "new"}, 202)
    assert refresher.check_bundle()
    feed = ask(client, "/v1/recommend", {"user": "new", "n": 1})
    assert (feed["bundle"], toyworld.genre_of(feed["items"][0]["id"])) == ("plain", "ocean"), "no state was lost"
    served = ask(client, "/v1/recommend", {"user": "p0", "n": 2})["ranking"]
    registry.promote(home.bundles, "toy")
    assert refresher.check_bundle()
    assert ask(client, "/v1/recommend", {"user": "new"})["bundle"] == "toy"
    for one in client.get(f"/v1/rankings/{served}/explain").json["items"]:
        assert one["explanation"]["features"]
        assert one["explanation"]["contributions"] == {}, "they would be of another ranker"


def item(name: str, **fields: Any) -> dict[str, Any]:
    """An item event as a shop would send it."""
    listed = [{"name": key, "value": value} for key, value in fields.items()]
    return {"event": "item", "item": name, "fields": listed}


def test_new_items_are_shown_and_removed_ones_are_not(running: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    client, refresher = running.client(), refresher_of(running)

    def feed(**body: Any) -> list[str]:
        return [one["id"] for one in ask(client, "/v1/recommend", {"n": 200, **body})["items"]]

    assert refresher.check_items() == 0, "the bundle knows all that is in the journal"
    before = ask(client, "/v1/recommend", {"user": "p0", "n": 100})
    ask(client, "/v1/events", item("nö/1", title="guitar and violin music", category="music"), 202)
    assert "nö/1" not in feed(user="p9")
    assert refresher.check_items() == 1
    assert "nö/1" in feed(user="p9")
    assert feed(query="guitar and violin music")[:3].count("nö/1") == 1
    after = ask(client, "/v1/recommend", {"user": "p0", "n": 100})
    assert {one["id"] for one in after["items"]} - {one["id"] for one in before["items"]} == {"nö/1"}
    old = [one["id"] for one in after["items"] if one["id"] != "nö/1"]
    assert old[:10] == [one["id"] for one in before["items"]][:10]
    ask(client, "/v1/events", {"event": "interaction", "item": "nö/1", "type": "click", "user": "p9"}, 202)
    assert "nö/1" not in feed(user="p9"), "it is seen now"
    ask(client, "/v1/events", item("space-9", removed=True), 202)
    ask(client, "/v1/events", item("opera/2", title="opera", category="opera"), 202)
    assert refresher.check_items() == 2
    found = feed(user="p0")
    assert "space-9" not in found
    assert "opera/2" in found
    assert feed(user="p0", filters={"categories": ["opera"]}) == ["opera/2"]
    assert "space-9" in [one["id"] for one in before["items"]]
    assert refresher.check_items() == 0
    lost = item("lost/3", title="lost and found", category="opera")
    ask(client, "/v1/events", lost, 202)
    with monkeypatch.context() as patch:
        patch.setattr(TextEncoders, "encode_items", lambda *_: (_ for _ in ()).throw(OSError("no weights")))
        with pytest.raises(OSError, match="no weights"):
            refresher.check_items()
    assert "lost/3" not in feed(user="p0")
    assert refresher.check_items() == 1, "what could not be taken in is looked at again"
    found = feed(user="p0")
    assert "lost/3" in found
    other = compose.build_recommender(running.home, config.load_config(running.home.config))
    again = RunningService(running.home, other)
    assert refresher_of(again).check_items() == 4, "a new start finds them in the journal"
    answer = ask(again.client(), "/v1/recommend", {"user": "p0", "n": 200})
    assert {one["id"] for one in answer["items"]} == set(found)


# --- authentication and limits


def test_keys_have_scopes(running: RunningService, tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path / "keys.json")
    client = running.client(keys=keys)
    _, reads = keys.create("web", ["read"], 0)
    _, writes = keys.create("log", ["write"], 0)
    _, over = keys.create("old", ["read"], 0, expires=round(NOW * 1000) - 1)
    _, valid = keys.create("new", ["read"], 0, expires=round(NOW * 1000) + 1)
    assert client.post("/v1/recommend", json={}, headers={"Authorization": f"Bearer {valid}"}).status_code == 200
    reader, writer = ({"Authorization": f"Bearer {token}"} for token in (reads, writes))
    click = {"event": "interaction", "item": "ocean-3", "type": "click", "user": "new"}
    assert len(ask(client, "/v1/recommend", {}, headers=reader)["items"]) == 10
    assert ask(client, "/v1/events", click, 202, headers=writer)["accepted"] == 1
    priced = {"items": [{"id": "music-1", "fields": {"price": 3}}]}
    assert ask(client, "/v1/rank", priced, headers=reader)["logged"], "the fields of a known item register nothing"
    for path, body, headers, status in (
        ("/v1/recommend", {}, {}, 401),
        ("/v1/recommend", {}, {"Authorization": "Bearer frk_no"}, 401),
        ("/v1/recommend", {}, {"Authorization": f"Bearer {over}"}, 401),
        ("/v1/recommend", {}, {"Authorization": "Basic abc"}, 401),
        ("/v1/recommend", {}, writer, 403),
        ("/v1/events", click, reader, 403),
        ("/feedback", click, reader, 403),
        ("/v1/rank", {"items": [{"id": "a", "fields": {"title": "b"}}]}, reader, 403),
        ("/v1/bundles/rollback", {}, writer, 403),
        ("/v1/rankings/a/replay", {}, reader, 403),
        ("/train/any", {}, writer, 403),
        ("/rank/any", {"items": [{"id": "a"}]}, {}, 401),
    ):
        response = client.post(path, json=body, headers=headers)
        assert response.status_code == status, path
        assert response.mimetype == "application/problem+json"
        assert reads not in response.text
    assert client.post("/v1/recommend", json={}).headers["WWW-Authenticate"].startswith("Bearer")
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 401
    with pytest.raises(ValueError, match="without keys anyone"):
        ServeConfig(host="0.0.0.0", require_api_key=False)


def test_a_key_is_rate_limited(running: RunningService) -> None:
    client = running.client(config=ServeConfig(rate_limit="3/minute"))
    assert [client.post("/v1/recommend", json={}).status_code for _ in range(5)] == [200] * 3 + [429] * 2


def test_bodies_may_be_packed(running: RunningService) -> None:
    client = running.client()
    events = [
        {"event": "interaction", "id": f"e{n}", "item": "ocean-3", "type": "click", "user": "new"} for n in range(500)
    ]
    packed = gzip.compress(json.dumps({"events": events}).encode())

    def send(data: bytes, encoding: str = "gzip") -> Any:
        headers = {"Content-Encoding": encoding}
        return client.post("/v1/events", data=data, content_type="application/json", headers=headers)

    assert send(packed).json["accepted"] == 500
    assert send(packed[:-20]).status_code == 400
    assert send(b"no gzip").status_code == 400
    assert send(packed, "br").status_code == 415
    bomb = gzip.compress(b" " * 9_000_000)
    assert len(bomb) < 10_000
    assert send(bomb).status_code == 413


# --- Metarank's routes


def test_metaranks_clients_are_answered_as_they_expect(running: RunningService) -> None:
    client = running.client()
    assert client.get("/health").status_code == 200
    ranking = {
        "event": "ranking", "id": "m1", "timestamp": str(toyworld.END), "user": "p0", "session": "s1",
        "fields": [{"name": "query", "value": ""}],
        "items": [{"id": "music-1", "fields": [{"name": "relevancy", "value": 2.0}]}, {"id": "space-9"}],
    }  # fmt: skip
    # its own examples send no content type of JSON
    response = client.post("/rank/xgboost?explain=true", data=json.dumps(ranking))
    assert response.status_code == 200, response.text
    assert response.json.keys() == {"took", "items"}
    assert [one["item"] for one in response.json["items"]] == ["space-9", "music-1"]
    assert {"name", "value"} == response.json["items"][0]["features"][0].keys()
    assert running.recommender.find("m1") is None, "a rank request is not a ranking that was shown"
    assert ask(client, "/rank/xgboost", ranking)["items"][0]["features"] == []
    for body, accepted in ((ranking, 1), ([ranking], 0)):
        answer = client.post("/feedback", data=json.dumps(body)).json
        assert answer.keys() == {"accepted", "status", "tookMillis", "updated"}
        assert (answer["accepted"], answer["status"]) == (accepted, "ok")
    found = ask(client, "/recommend/similar", {"count": 3, "items": ["space-3"]})["items"]
    assert len(found) == 3
    assert found[0].keys() == {"item", "score"}
    assert client.post("/feedback", data="[{}]").status_code == 400
    assert client.post("/rank/xgboost", data="7").status_code == 400
    many = {**ranking, "items": [{"id": str(n)} for n in range(1_001)]}
    assert ask(client, "/rank/xgboost", many, 400)["field"] == "items"


# --- metrics and routes


def test_requests_and_events_are_counted(running: RunningService) -> None:
    client = running.client(metrics=Metrics(lambda: NOW))
    ranked: list[tuple[int, ...]] = []
    running.recommender.on_ranked(lambda features, scores: ranked.append((*features.shape, len(scores))))
    ask(client, "/v1/recommend", {"user": "p0"})
    candidates, width = 60 - toyworld.INTERACTIONS_PER_USER, len(running.recommender.pipeline.featurizer.names)
    assert ranked == [(candidates, width, candidates)], "drift is measured on all candidates, as the ranker learnt from"
    client.post("/v1/recommend", json={"n": 0})
    client.get("/v1/nothing/here")
    text = client.get("/metrics").text
    for line in (
        'feedrank_requests_total{method="POST",route="/v1/recommend",status="200"} 1.0',
        'feedrank_requests_total{method="POST",route="/v1/recommend",status="400"} 1.0',
        'feedrank_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'feedrank_stage_seconds_count{stage="features"} 1.0',
        "feedrank_items 60.0",
    ):
        assert line in text


def test_the_document_names_every_route(running: RunningService) -> None:
    client = running.client()
    document = client.get("/docs/openapi.json").json
    paths = {
        "/v1/recommend", "/v1/rank", "/v1/items/{item_id}/similar", "/v1/events", "/v1/rankings/{ranking_id}",
        "/v1/rankings/{ranking_id}/explain", "/healthz", "/readyz", "/metrics", "/feedback", "/rank/{model}",
        "/recommend/{model}", "/health",
    }  # fmt: skip
    assert paths <= document["paths"].keys()
    assert "default" not in [tag["name"] for tag in document["tags"]], "every route stands under a heading"
    body = document["components"]["schemas"]["RecommendBody"]
    assert body["additionalProperties"] is False
    explanation = document["components"]["schemas"]["RankingExplanation"]
    assert "features" in explanation["required"]
    described = document["components"]["schemas"]["FeatureDescription"]
    assert set(described["required"]) == {"name", "family", "sentence", "unit", "missing", "is_category"}
    page = client.get("/docs/swagger", follow_redirects=True)
    assert page.status_code == 200
    linked = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert linked
    assert not [one for one in linked if "//" in one], "all that the page needs comes from the service itself"
