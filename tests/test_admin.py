"""The admin routes: replay of rankings, state of users and items, bundles, and training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import toyworld
from conftest import feedrank
from flask.testing import FlaskClient

from feedrank.api import compose, config
from feedrank.api.admin import create_admin_services
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.api.training_lock import training_lock
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import ItemEvent, RankingEvent
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.serving.ranking_record import RankingRecord, RecallRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.replay_check import ReplayBudget
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest
from feedrank.models.bundles import bundle, registry

NOW = toyworld.END / 1000 + 1_000


class Deployment:
    """A process that serves a home, without a socket. Its clock advances by a second with each request."""

    def __init__(self, home: Path) -> None:
        self.home = HomePaths(home)
        settings = config.load_config(self.home.config)
        self.recommender: Recommender = compose.build_recommender(self.home, settings)
        opened, self.now = bundle.load(self.home.current_bundle), NOW
        journal = self.home.journal()
        self.refresher = Refresher(
            self.home, settings, journal, self.recommender, opened, TextEncoders(self.home, opened), clock=self.clock
        )
        behind = create_admin_services(self.home, settings, journal, self.refresher.check_items)
        self.client: FlaskClient = create_app(Service(self.recommender, self.clock, admin=behind)).test_client()

    def clock(self) -> float:
        self.now += 1
        return self.now

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        response = self.client.open(path, method=method, json=body)
        assert response.status_code == status, response.text
        return response.json

    def feed(self, **options: Any) -> list[str]:
        return [one["id"] for one in self.call("POST", "/v1/recommend", options)["items"]]

    def click(self, user: str, item: str) -> None:
        event = {"event": "interaction", "type": "click", "user": user, "item": item}
        self.call("POST", "/v1/events", event, 202)


@pytest.fixture
def deployment(home: Path) -> Deployment:
    return Deployment(home)


# --- replay of rankings


def test_a_ranking_records_every_option_of_its_request() -> None:
    request = RecommendationRequest(
        "u", "s", "words", ("a", "b"), None, 7, FilterSpec(True, ("c",), ("x",), ("y",)), Diversity(2, 0.5), "home",
        {"device": "phone", "list": ["a"], "n": 3.0},
    )  # fmt: skip
    for one in (
        request,
        RecommendationRequest(),
        RecommendationRequest(items=("a", "b"), n=2),
        RecommendationRequest(history=()),
    ):
        record = RankingRecord("r", 1, one, ("a",), (1.0,), "toy", RecallRecord("explicit", ("a",), (1.0,), 1), 5, 4)
        event = parse(json.loads(json.dumps(to_dict(record.to_event()))))
        assert RankingRecord.find_own(event) == record


REQUEST_BODIES = [
    {"user": "p0", "n": 15},
    {"n": 3},
    {"user": "p1", "query": "whale", "n": 5},
    {
        "user": "p2",
        "filters": {"deny": ["ocean-3"], "include_seen": True},
        "diversity": {"weight": 0.4, "per_category": 4},
    },
    {"history": ["music-3", "music-4"], "context": {"device": "phone"}, "surface": "home"},
    {"user": "p3", "deadline_ms": 1e-6},
]


@pytest.mark.parametrize("body", REQUEST_BODIES, ids=[", ".join(one) for one in REQUEST_BODIES])
def test_a_ranking_is_replayed_exactly_despite_later_events(deployment: Deployment, body: dict[str, Any]) -> None:
    deployment.click("p0", "space-7")
    served = deployment.call("POST", "/v1/recommend", body)
    for user in ("p0", "p1", "p2", "p3"):
        deployment.click(user, served["items"][0]["id"])
    again = deployment.call("POST", f"/v1/rankings/{served['ranking']}/replay")
    assert again["identical"], again["difference"]
    assert again["items"] == served["items"]
    assert again["bundle"] == served["bundle"]


@pytest.mark.parametrize("part", ["encode_query"])
def test_a_replay_skips_the_query_encoder_by_its_old_name_too(part: str) -> None:
    budget = ReplayBudget([part])
    assert not budget.may_start("encode_query")
    assert not budget.has_time_for("encode_query", "recall")
    assert budget.has_time_for("features")


def test_a_given_list_with_cold_start_items_is_replayed(deployment: Deployment) -> None:
    deployment.call("POST", "/v1/events", {"event": "item", "item": "new", "fields": [
        {"name": "title", "value": "rocket orbit comet"}, {"name": "category", "value": "space"}]}, 202)  # fmt: skip
    deployment.refresher.check_items()
    served = deployment.call("POST", "/v1/rank", {"user": "p0", "items": ["ocean-1", "new", "unknown", "space-9"]})
    deployment.click("p0", "new")
    again = deployment.call("POST", f"/v1/rankings/{served['ranking']}/replay")
    assert again["identical"], again["difference"]


def test_a_replay_names_the_first_difference(deployment: Deployment) -> None:
    served = deployment.call("POST", "/v1/recommend", {"user": "p0", "n": 5})
    event = deployment.recommender.find(served["ranking"])
    assert isinstance(event, RankingEvent)
    scores = [*event.scores[:2], 99.0, *event.scores[3:]]
    deployment.home.journal().append([replace(event, id="altered", scores=tuple(scores))])
    again = deployment.call("POST", "/v1/rankings/altered/replay")
    assert not again["identical"]
    difference = again["difference"]
    assert (difference["position"], difference["served"]["score"], difference["features"]) == (3, 99.0, [])
    assert difference["replayed"] == served["items"][2]


def test_a_replay_without_its_bundle_is_refused(deployment: Deployment) -> None:
    served = deployment.call("POST", "/v1/recommend", {"user": "p0"})
    feedrank(deployment.home.folder, "train", "--name", "second")
    (deployment.home.bundles / "toy").rename(deployment.home.bundles / ".away")
    assert "toy" in deployment.call("POST", f"/v1/rankings/{served['ranking']}/replay", status=409)["detail"]
    deployment.home.journal().append([RankingEvent("imported", 1, ("a",))])
    deployment.call("POST", "/v1/rankings/imported/replay", status=404)


# --- state of users and items


def test_every_process_reports_and_erases_a_user(deployment: Deployment, home: Path) -> None:
    other = Deployment(home)
    deployment.click("zoë/1", "kitchen-3")
    deployment.click("zoë/1", "kitchen-4")
    feedrank(home, "snapshot")
    elsewhere = deployment.home.snapshot.read_bytes()
    known = other.call("GET", "/v1/state/user/zo%C3%AB%2F1")
    assert known["interaction_count"] == 2
    assert [one["item"] for one in known["recent_interactions"]] == ["kitchen-4", "kitchen-3"]
    assert deployment.feed(user="zoë/1")[0] == "kitchen-5"
    assert other.feed(user="zoë/1")[0] == "kitchen-5"
    gone = deployment.call("DELETE", "/v1/state/user/zo%C3%AB%2F1")
    assert gone["deleted_events"] == 4, "two clicks and two rankings"
    for one in (other, deployment):
        assert one.call("GET", "/v1/state/user/zo%C3%AB%2F1")["interaction_count"] == 0
        assert one.call("POST", "/v1/recommend", {"user": "zoë/1"})["source"] == "popular"
    assert not [one for one in deployment.home.journal().events("interaction") if getattr(one, "user", "") == "zoë/1"]
    deployment.click("zoë/1", "music-3")
    assert other.feed(user="zoë/1")[0] == "music-4", "they may come back"
    assert Deployment(home).call("GET", "/v1/state/user/zo%C3%AB%2F1")["interaction_count"] == 1
    assert not deployment.home.snapshot.exists()
    deployment.home.snapshot.write_bytes(elsewhere)  # as left by another machine, where it could not be removed
    assert Deployment(home).call("GET", "/v1/state/user/zo%C3%AB%2F1")["interaction_count"] == 1
    assert not deployment.home.snapshot.exists()


def test_erasing_a_user_keeps_the_interactions_of_others(deployment: Deployment) -> None:
    before = [deployment.feed(user=toyworld.user_id(user)) for user in range(4)]
    deployment.call("DELETE", f"/v1/state/user/{toyworld.user_id(5)}")
    after = [deployment.feed(user=toyworld.user_id(user)) for user in range(4)]
    assert [one[0] for one in after] == [one[0] for one in before]


@pytest.mark.parametrize("name", ["erased", "forgotten"])
def test_an_event_from_outside_erases_no_user(deployment: Deployment, name: str) -> None:
    event = {"event": "user", "user": "p0", "fields": [{"name": name, "value": True}]}
    assert "DELETE" in deployment.call("POST", "/v1/events", event, 400)["detail"]
    assert deployment.call("GET", "/v1/state/user/p0")["interaction_count"] > 0


def test_the_state_of_an_item_is_reported_and_the_item_hidden(deployment: Deployment) -> None:
    wanted = toyworld.expected_next_item(0)
    deployment.click("p9", wanted)
    found = deployment.call("GET", f"/v1/state/item/{wanted}")
    assert found["fields"]["title"]
    assert not found["hidden"]
    assert found["features"].keys() == set(deployment.recommender.pipeline.featurizer.names)
    assert found["features"]["since_interaction_h"] is not None
    deployment.call("DELETE", f"/v1/state/item/{wanted}")
    deployment.refresher.check_items()
    assert deployment.call("GET", f"/v1/state/item/{wanted}")["hidden"]
    assert wanted not in deployment.feed(user="p0", n=60)
    for method in ("GET", "DELETE"):
        deployment.call(method, "/v1/state/item/none", status=404)
    deployment.call("GET", "/v1/state/planet/none", status=404)


# --- rankings of described items


def test_a_list_may_describe_unknown_items(deployment: Deployment) -> None:
    described = {"id": "offer", "fields": {"title": "comet nebula satellite rocket", "category": ["space"]}}
    known = {"id": "ocean-1", "fields": {"title": "x"}}
    body = {"user": "p0", "items": ["kitchen-1", {"id": "bare"}, described, known]}
    first = deployment.call("POST", "/v1/rank", {**body, "explain": True})
    state = {
        one["id"]: sum(value is not None for value in one["explanation"]["features"].values()) for one in first["items"]
    }
    assert state["offer"] > state["bare"]
    assert deployment.recommender.catalogue.titles[deployment.recommender.catalogue.ids.row("ocean-1")] != "x"
    assert "offer" not in deployment.feed(user="p0", n=60), "nothing but a list has named it"
    count = deployment.home.journal().count_by_kind()["item"]
    second = deployment.call("POST", "/v1/rank", body)
    assert [one["id"] for one in second["items"]] == [one["id"] for one in first["items"]]
    assert deployment.home.journal().count_by_kind()["item"] == count, "it is known now"
    deployment.call(
        "POST", "/v1/events", {"event": "item", "item": "offer", "fields": [{"name": "on", "value": True}]}, 202
    )
    deployment.refresher.check_items()
    assert "offer" in deployment.feed(user="p0", n=60), "an event of its own has"
    assert not deployment.call("GET", "/v1/state/item/offer")["hidden"]
    folded = Catalogue.from_events(
        one for one in deployment.home.journal().events("item") if isinstance(one, ItemEvent)
    )
    assert folded.ids.row("offer") not in folded.hidden_rows


def test_a_list_with_a_deadline_does_not_wait_for_descriptions(deployment: Deployment) -> None:
    body = {"items": ["kitchen-1", {"id": "late", "fields": {"title": "whale reef"}}], "deadline_ms": 1000}
    hurried = deployment.call("POST", "/v1/rank", body)
    assert hurried["degraded"] == ["items"]
    deployment.refresher.check_items()
    again = deployment.call("POST", f"/v1/rankings/{hurried['ranking']}/replay")
    assert again["identical"], "the item was in the journal then, and not yet known"
    assert deployment.call("POST", "/v1/rank", body)["degraded"] == []
    bad = {"items": [{"id": "x", "fields": {"published": "never"}}]}
    assert deployment.call("POST", "/v1/rank", bad, 400)["field"] == "fields.published"


# --- bundles and training


def test_bundles_are_listed_promoted_and_rolled_back(deployment: Deployment) -> None:
    feedrank(deployment.home.folder, "train", "--name", "second")
    registry.promote(deployment.home.bundles, "toy")
    listed = deployment.call("GET", "/v1/bundles")
    assert listed["serving"] == "toy"
    assert [(one["name"], one["current"], one["has_ranker"]) for one in listed["bundles"]] == [
        ("toy", True, True), ("second", False, True)
    ]  # fmt: skip
    assert deployment.call("POST", "/v1/bundles/second/promote") == {"current": "second"}
    assert deployment.refresher.check_bundle()
    assert deployment.call("GET", "/v1/bundles")["serving"] == "second"
    assert deployment.call("POST", "/v1/bundles/rollback") == {"current": "toy"}
    deployment.call("POST", "/v1/bundles/none/promote", status=404)
    model = next((deployment.home.bundles / "second").glob("ranker*"))
    model.write_text(model.read_text()[:-20])
    assert "second" in deployment.call("POST", "/v1/bundles/second/promote", status=409)["detail"]
    assert registry.current_name(deployment.home.bundles) == "toy"


def test_training_goes_through_the_gate(interactions_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "own"
    shutil.copytree(interactions_home, home, symlinks=True)
    feedrank(home, "data", toyworld.write(tmp_path / "rankings.jsonl", toyworld.rankings(prefer_new=True)))
    feedrank(home, "train", "--name", "clicks")
    deployment = Deployment(home)
    done = deployment.call("POST", "/train/xgboost")
    assert (done["outcome"], done["bundle"], done["promoted"], done["sizeBytes"]) == (
        "too-little-new-data",
        "",
        False,
        0,
    )
    assert "too little new data" in done["reasons"][0]
    with training_lock(deployment.home):
        assert "another training" in deployment.call("POST", "/train/xgboost", status=409)["detail"]
    feedrank(home, "data", toyworld.write(tmp_path / "more.jsonl", toyworld.rankings(220, 800, True)))
    done = deployment.call("POST", "/train/xgboost")
    assert done["outcome"] in ("promoted", "refused")
    names = [one.name for one in registry.list_bundles(deployment.home.bundles)]
    assert done["bundle"] in names
    assert done["promoted"] == (registry.current_name(deployment.home.bundles) == done["bundle"])
    assert done["reasons"]
    assert sum(one["weight"] for one in done["features"]) > 0
    assert [one["id"] for one in done["iterations"]] == list(range(len(done["iterations"])))
    assert done["sizeBytes"] > 1_000


def test_a_failed_training_reports_the_reason(deployment: Deployment) -> None:
    Path(deployment.home.folder / "journal.db").unlink()
    for more in ("-wal", "-shm"):
        Path(deployment.home.folder / f"journal.db{more}").unlink(missing_ok=True)
    assert "journal" in deployment.call("POST", "/train/xgboost", status=409)["detail"]


def test_a_service_without_admin_services_refuses_admin_routes(home: Path) -> None:
    recommender = compose.build_recommender(HomePaths(home), config.load_config(HomePaths(home).config))
    client = create_app(Service(recommender, lambda: NOW)).test_client()
    assert client.get("/v1/bundles").status_code == 501
    assert client.post("/train/x").status_code == 501


# --- repeated and imported rankings


def test_a_repeated_ranking_id_returns_the_logged_ranking(deployment: Deployment) -> None:
    body = {"user": "p0", "n": 4, "ranking": "mine/1"}
    first = deployment.call("POST", "/v1/recommend", body)
    deployment.click("p0", first["items"][0]["id"])
    second = deployment.call("POST", "/v1/recommend", {**body, "explain": True})
    assert [one["id"] for one in second["items"]] == [one["id"] for one in first["items"]]
    assert second["items"][0]["explanation"]["contributions"]
    assert deployment.home.journal().count_by_kind()["ranking"] == 1
    deployment.call("POST", "/v1/events", {"event": "user", "id": "taken", "user": "u"}, 202)
    deployment.call("POST", "/v1/recommend", {"ranking": "taken"}, 409)


@pytest.mark.parametrize("name", ["/a", "//", "a\nb", "a/", "ranking/explain/"])
def test_paths_take_ids_of_any_characters(deployment: Deployment, name: str) -> None:
    deployment.call("POST", "/v1/recommend", {"ranking": name, "n": 2})
    assert deployment.call("GET", f"/v1/rankings/{quote(name, safe='')}")["ranking"] == name
    assert deployment.call("GET", f"/v1/rankings/{quote(name, safe='')}/explain")["ranking"] == name


@pytest.mark.parametrize(
    "more",
    [
        {"served": {"recall": {"items": "x", "scores": [1]}}, "bundle": "toy", "scores": [1, 2]},
        {"served": {"recall": 5, "offset": "x"}, "bundle": "toy", "scores": [1, 2]},
        {"served": {"offset": "x", "options": {"filters": {"odd": 1}}}, "bundle": "toy", "scores": [1, 2]},
        {
            "served": {"offset": 1, "options": 7, "degraded": 3, "cross_encoder_scores": "%"},
            "bundle": "toy",
            "scores": [1, 2],
        },
        {"features": {"fingerprint": "?", "rows": 2}, "bundle": "../../etc", "scores": [1, 2], "served": {"offset": 0}},
    ],
    ids=str,
)
def test_an_imported_ranking_breaks_no_route(deployment: Deployment, more: dict[str, Any]) -> None:
    if "features" in more:
        more["features"]["fingerprint"] = deployment.recommender.pipeline.featurizer.fingerprint
    event = {"event": "ranking", "id": "sent", "timestamp": 0, "items": [{"id": "a"}, {"id": "b"}], **more}
    deployment.call("POST", "/v1/events", {**event, "timestamp": round(deployment.now * 1000)}, 400)
    fields = [{"name": "source", "value": "x"}]
    deployment.home.journal().append([parse({**event, "fields": fields, "provenance": "service"})])
    assert [one["id"] for one in deployment.call("GET", "/v1/rankings/sent")["items"]] == ["a", "b"]
    explanation = deployment.call("GET", "/v1/rankings/sent/explain")
    assert explanation["items"][0]["explanation"]["recall_score"] is None
    assert (explanation["items"][0]["explanation"]["features"], explanation["features"]) == ({}, [])
    assert deployment.client.post("/v1/rankings/sent/replay").status_code in (200, 409)
