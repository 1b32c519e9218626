"""Experiments end to end: two bundles behind one recommender, logged rankings, the readout, and a promotion."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import feedrank
from flask.testing import FlaskClient

from feedrank.api import compose, config, experiment_config
from feedrank.api.admin import create_admin_services
from feedrank.api.compose.arm_loader import ArmLoader
from feedrank.api.compose.experiments import ExperimentService
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.replay import ReplayError, replay
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.guardrail_monitor import GuardrailMonitor
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.experiments.arm_servers import ArmServers
from feedrank.engine.experiments.registry import ChangeError
from feedrank.engine.experiments.shadows import ShadowRunner
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.bundles import bundle, registry

NOW = toyworld.END / 1000 + 1_000
DAY = 86_400.0
AB: dict[str, Any] = {
    "name": "ab", "min_days": 1, "min_units": 10, "planned_units": 120,
    "arms": {"usual": {}, "other": {"bundle": "other"}},
}  # fmt: skip


@pytest.fixture(scope="session")
def two_bundles(interactions_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose bundle `toy` serves, next to a weaker one, `other`."""
    home = tmp_path_factory.mktemp("two") / "home"
    shutil.copytree(interactions_home, home, symlinks=True)
    (home / "less.toml").write_text(toyworld.CONFIG + '[features]\nfamilies = ["rates", "recency", "categories"]\n')
    feedrank(home, "--config", home / "less.toml", "train", "--name", "other", "--promote")
    feedrank(home, "bundles", "promote", "toy")
    return home


class Deployment:
    """A home with the objects that serve it."""

    def __init__(self, folder: Path) -> None:
        self.home = HomePaths(folder)
        self.config = config.load_config(self.home.config)
        self.journal = self.home.journal()
        self.desk = ExperimentService(self.home, self.journal)
        self.at = NOW

    def start_experiment(self, body: dict[str, Any]) -> None:
        """Declare and start an experiment."""
        self.desk.create(experiment_config.parse_experiment(body, "test"), self.at)
        self.desk.start(body["name"], self.at)

    def serve(self) -> Recommender:
        """Create a recommender with the bundles of its arms loaded."""
        recommender = compose.build_recommender(self.home, self.config)
        recommender.arm_servers = ArmServers(self.desk.experiment_registry_at(recommender.snapshot.offset))
        self.arms = ArmLoader(self.home, self.config, self.journal, recommender, lambda: self.at)
        self.arms.sync()
        return recommender

    def client(self, recommender: Recommender) -> FlaskClient:
        behind = create_admin_services(self.home, self.config, self.journal, lambda: 0)
        return create_app(Service(recommender, lambda: self.at, admin=behind)).test_client()


@pytest.fixture
def deployment(two_bundles: Path, tmp_path: Path) -> Deployment:
    return Deployment(Path(shutil.copytree(two_bundles, tmp_path / "home", symlinks=True)))


def name_of(user: int) -> str:
    """The id of a user: known to the bundles first, then unknown."""
    return toyworld.user_id(user) if user < toyworld.USERS else f"n{user}"


def request_ranking(recommender: Recommender, name: str, at: float, user: str, **options: Any) -> RankingRecord:
    return recommender.recommend(name, at, RecommendationRequest(user, **options))


def three_days(
    deployment: Deployment, recommender: Recommender, click: Callable[[RankingEvent, str], float], users: int = 60
) -> None:
    """Log three days on which every user gets a feed of five and clicks with a given probability."""
    dice = np.random.default_rng(3)
    for day in range(3):
        for user in range(users):
            at = deployment.at + day * DAY + user
            event = request_ranking(recommender, f"r{day}-{user}", at, name_of(user), n=5)
            clicks = [
                InteractionEvent(f"c-{event.id}-{item}", round(at * 1000) + 1, item, "click", event.id, event.user)
                for item in event.items
                if dice.random() < click(event, item)
            ]
            recommender.record(clicks, at + 1)


def test_an_ab_test_from_declaration_to_promotion(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_experiment(AB)
    recommender = deployment.serve()
    assert recommender.arm_servers.loaded_bundles == ["other"]
    three_days(deployment, recommender, lambda event, _: 0.2 if event.variant == "usual" else 0.6, users=140)
    events = [event for event in deployment.journal.events("ranking") if isinstance(event, RankingEvent)]
    made_by = {(event.variant, event.bundle) for event in events}
    assert made_by == {("usual", "toy"), ("other", "other")}
    for event in [one for one in events if one.variant == "other"][-3:]:
        record = RankingRecord.from_event(event)
        assert replay(deployment.home, deployment.config, deployment.journal, record)[1] is None, (
            "by its own bundle, as of its offset"
        )
    arm_of = {event.user: event.variant for event in events}
    assert all(event.variant == arm_of[event.user] for event in events), "a user stays in an arm"
    output = feedrank(
        deployment.home.folder,
        "experiment",
        "readout",
        "ab",
        "--json",
        tmp_path / "r.json",
        "--html",
        tmp_path / "r.html",
    )
    assert "ship other" in output
    readout = json.loads((tmp_path / "r.json").read_text())["readout"]
    counts = {arm: sum(one == arm for one in arm_of.values()) for arm in ("usual", "other")}
    assert dict(zip(readout["arms"], readout["units"], strict=True)) == counts
    lift = next(one for one in readout["lifts"] if one["metric"] == "ctr")
    clicks = {"usual": 0, "other": 0}
    for event in deployment.journal.events("interaction"):
        assert isinstance(event, InteractionEvent)
        if event.type == "click":
            clicks[arm_of[event.user]] += 1
    assert lift["control"] == pytest.approx(clicks["usual"] / (counts["usual"] * 15))
    assert lift["value"] == pytest.approx(clicks["other"] / (counts["other"] * 15))
    assert "Ship other" in (tmp_path / "r.html").read_text()
    assert "http" not in (tmp_path / "r.html").read_text().replace("http://www.w3.org", "")
    assert "current bundle: other" in feedrank(deployment.home.folder, "experiment", "readout", "ab", "--promote")
    assert registry.current_name(deployment.home.bundles) == "other"
    assert "stopped" in feedrank(deployment.home.folder, "experiment", "list")
    recommender.catch_up(deployment.at + 4 * DAY)
    assert request_ranking(recommender, "after", deployment.at + 4 * DAY, "n1").variant is None


def test_every_process_assigns_a_user_to_the_same_arm(deployment: Deployment) -> None:
    deployment.start_experiment(AB)
    one, two = deployment.serve(), deployment.serve()
    for user in range(20):
        first = request_ranking(one, f"one {user}", deployment.at, f"n{user}")
        second = request_ranking(two, f"two {user}", deployment.at, f"n{user}")
        assert first.variant == second.variant


def test_an_idle_arm_reports_its_journal_offset(deployment: Deployment) -> None:
    deployment.start_experiment(AB)
    recommender = deployment.serve()
    recommender.catch_up(deployment.at)  # as the background thread of a server does, without new events
    found = (request_ranking(recommender, f"w{n}", deployment.at, f"n{n}") for n in range(50))
    event = next(event for event in found if event.variant == "other")
    assert event.offset >= deployment.journal.last_offset - 50
    assert replay(deployment.home, deployment.config, deployment.journal, event)[1] is None


def test_an_arm_reads_interactions_and_items(deployment: Deployment) -> None:
    deployment.start_experiment(AB)
    recommender = deployment.serve()
    found = ((f"n{n}", request_ranking(recommender, f"w{n}", deployment.at, f"n{n}")) for n in range(50))
    user = next(user for user, event in found if event.variant == "other")
    first = request_ranking(recommender, "first", deployment.at + 1, user, n=60)
    click = InteractionEvent("click", round(deployment.at * 1000) + 2000, first.items[0], "click", "first", user)
    recommender.record([click], deployment.at + 2)
    second = request_ranking(recommender, "second", deployment.at + 3, user, n=60)
    assert second.bundle == "other"
    assert first.items[0] not in second.items, "seen items are not recommended again"
    new = ItemEvent(
        "new", round(deployment.at * 1000) + 4000, "space-new", {"title": "the orbit book", "category": "space"}
    )
    recommender.record([new], deployment.at + 4)
    deployment.arms.update_items()
    assert "space-new" in request_ranking(recommender, "third", deployment.at + 5, user, n=100).items


def test_an_interleaved_list_credits_clicks_to_its_teams(deployment: Deployment, tmp_path: Path) -> None:
    arms = {"usual": {}, "other": {"bundle": "other", "diversity": {"per_category": 2}}}
    deployment.start_experiment({**AB, "name": "mix", "kind": "interleave", "planned_units": 60, "arms": arms})
    recommender = deployment.serve()

    def click(event: RankingEvent, item: str) -> float:
        return 0.7 if event.team[event.items.index(item)] == "other" else 0.1

    three_days(deployment, recommender, click)
    event = deployment.journal.find("r0-0")
    assert isinstance(event, RankingEvent)
    assert set(event.team) <= {"usual", "other", ""}
    assert (event.experiment, event.variant) == ("mix", "interleaved")
    found = deployment.desk.report("mix")
    (preference,) = found.preferences
    assert preference.low[-1] > 0
    assert int(preference.rankings[-1]) == 180
    output = feedrank(deployment.home.folder, "experiment", "readout", "mix", "--html", tmp_path / "r.html")
    assert "other is preferred to usual" in output
    page = (tmp_path / "r.html").read_text()
    assert "other is preferred to usual" in page
    assert "clicks on other&#x27;s items - clicks on usual&#x27;s items" in page
    with pytest.raises(ReplayError, match="lists of several arms"):
        replay(deployment.home, deployment.config, deployment.journal, RankingRecord.from_event(event))


def test_balanced_interleaving_logs_ranks(deployment: Deployment) -> None:
    deployment.start_experiment(
        {**AB, "name": "mix", "kind": "interleave", "interleaving": "balanced", "planned_units": 60}
    )
    recommender = deployment.serve()
    event = request_ranking(recommender, "r", deployment.at, "n1", n=6)
    ranks = event.ranks
    assert [len(one) for one in ranks] == [6, 6]
    assert all(min(one[deployment] for one in ranks if one[deployment] >= 0) <= deployment for deployment in range(6))
    assert request_ranking(recommender, "r", deployment.at, "n1", n=6) == event, "the same id gives what was shown"


def test_a_shadow_arm_ranks_without_being_shown(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_experiment({**AB, "name": "shade", "kind": "shadow"})
    recommender = deployment.serve()
    ticks = iter(range(10_000))
    recommender.shadows = ShadowRunner(
        recommender.read_shadow_inputs,
        recommender.record,
        lambda: next(ticks) / 1000,
        lambda: f"report {next(ticks)}",
        queue_size=1_000,
    )
    for n in range(30):
        event = request_ranking(recommender, f"r{n}", deployment.at + n, f"n{n}", n=5)
        assert event.bundle == "toy"
        assert event.variant is None
        if n == 10:
            recommender.recommend(
                "given", deployment.at + n, RecommendationRequest(f"n{n}", items=("space-1", "music-2", "ocean-3"))
            )
    assert recommender.shadows.wait(30)
    recommender.shadows.stop(deployment.at + 40)
    (one,) = deployment.desk.report("shade").shadows
    assert (one.rankings, one.failed, one.dropped) == (31, 0, 0)
    assert 0 < one.overlap <= 1
    assert one.p50_ms <= 2
    output = feedrank(deployment.home.folder, "experiment", "readout", "shade", "--html", tmp_path / "r.html")
    assert "of 31 feeds" in " ".join(output.split())
    assert "of 31 feeds" in (tmp_path / "r.html").read_text()


def test_explored_rankings_can_be_replayed_and_evaluated_off_policy(deployment: Deployment) -> None:
    arms = {"only": {"explore": {"kind": "plackett-luce", "temperature": 5.0}, "candidates": 20}}
    deployment.start_experiment({**AB, "name": "explore", "arms": arms})
    recommender = deployment.serve()
    events = [request_ranking(recommender, f"r{n}", deployment.at + n, toyworld.user_id(n % 7), n=5) for n in range(20)]
    assert any(list(event.scores) != sorted(event.scores, reverse=True) for event in events)
    for event in events[::5]:
        assert all(0 < share <= 1 for share in event.propensities)
        assert event.recall.candidates <= 20
        again, difference = replay(deployment.home, deployment.config, deployment.journal, event)
        assert difference is None
        assert again.propensities == event.propensities
    mixed = recommender.recommend(
        "mixed", deployment.at + 50, RecommendationRequest("n1", diversity=Diversity(weight=0.5))
    )
    assert mixed.propensities is None, "a list that is mixed afterwards is not drawn by these"


def test_off_policy_evaluation_estimates_another_bundle(deployment: Deployment, tmp_path: Path) -> None:
    explore = {"kind": "plackett-luce", "temperature": 0.3, "depth": 12}
    deployment.start_experiment({**AB, "name": "explore", "arms": {"only": {"explore": explore}}})
    recommender = deployment.serve()
    dice = np.random.default_rng(4)
    for n in range(900):
        at, user = deployment.at + 60 * n, n % toyworld.USERS
        event = request_ranking(recommender, f"r{n}", at, toyworld.user_id(user), n=2)
        chance = [0.7 if toyworld.genre_of(item) == toyworld.genre_of_user(user) else 0.1 for item in event.items]
        hit = [item for item, own in zip(event.items, chance, strict=True) if dice.random() < own]
        deployment.journal.append(
            [InteractionEvent(f"c{n}{item}", round(at * 1000) + 1, item, "click", event.id) for item in hit]
        )
    path = tmp_path / "ope.json"
    output = feedrank(
        deployment.home.folder, "ope", "--bundle", "toy", "--temperature", "0.3", "--depth", 12, "--json", path
    )
    assert "900 rankings" in output
    report = json.loads(path.read_text())
    for name, one in report["estimates"].items():
        assert one["refusal"] is None, name
        assert one["low"] < report["mean_reward"] < one["high"], (
            "the policy that made the log earns what the log earned"
        )
    feedrank(
        deployment.home.folder, "ope", "--bundle", "other", "--temperature", "0.3", "--method", "snips", "--json", path
    )
    assert "expected 1" in json.loads(path.read_text())["estimates"]["snips"]["refusal"], (
        "it draws what was never shown"
    )
    assert json.loads(path.read_text())["estimates"].keys() == {"snips"}
    cut = feedrank(deployment.home.folder, "ope", "--bundle", "toy", "--temperature", 0.3, "--depth", 12,
                   "--clip", "mse", "--method", "snips")  # fmt: skip
    assert "weights clipped at" in cut.replace("\n", " ")
    assert "overlap" in cut
    assert "expected mse, slope or a number" in feedrank(
        deployment.home.folder, "ope", "--bundle", "toy", "--clip", "x", code=1
    )
    assert "give one" in feedrank(deployment.home.folder, "ope", code=1)
    assert "found 0 matching rankings" in feedrank(
        deployment.home.folder, "ope", "--bundle", "toy", "--variant", "none", code=1
    )


def test_a_breached_guardrail_stops_its_arm(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    deployment.start_experiment(
        {**AB, "guardrails": [{"metric": "ctr", "max_relative_loss": 0.1}], "stop_on_breach": True}
    )
    recommender = deployment.serve()
    three_days(deployment, recommender, lambda event, _: 0.6 if event.variant == "usual" else 0.05, users=140)
    guardrail_monitor = GuardrailMonitor(deployment.home, recommender)
    assert guardrail_monitor.has_guarded_experiments
    with caplog.at_level("WARNING"):
        guardrail_monitor.check()  # runs `feedrank experiment watch --once`
    assert "ab: stopped the arm other" in caplog.text
    recommender.catch_up(deployment.at + 4 * DAY)
    left = {request_ranking(recommender, f"z{n}", deployment.at + 4 * DAY, f"n{n}").variant for n in range(30)}
    assert left == {None}, "with one arm left there is nothing to compare"
    assert "violates guardrail ctr" in feedrank(deployment.home.folder, "experiment", "readout", "ab")


def test_reassigned_units_count_for_their_first_arm(deployment: Deployment) -> None:
    deployment.start_experiment({**AB, "holdout": 0.1})
    recommender = deployment.serve()
    three_days(deployment, recommender, lambda *_: 0.3)
    feedrank(deployment.home.folder, "experiment", "set-weights", "ab", "other=9")
    for n in range(60):
        request_ranking(recommender, f"z{n}", deployment.at + 3 * DAY, name_of(n))
    found = deployment.desk.report("ab")
    assert found.reassigned_units > 10
    assert found.readout is not None
    assert not found.readout.sample_ratio.mismatch, "no new users came after the weights changed"
    assert [one.arm for one in found.holdout] == ["exposed"]


def test_a_bundle_that_an_experiment_runs_on_is_not_pruned(deployment: Deployment) -> None:
    feedrank(deployment.home.folder, "bundles", "promote", "other")
    feedrank(deployment.home.folder, "bundles", "promote", "toy")
    deployment.start_experiment({**AB, "name": "ab"})
    shutil.copytree(deployment.home.bundles / "other", deployment.home.bundles / "aaa")
    assert "removed: aaa" in feedrank(deployment.home.folder, "bundles", "prune", "--keep", 0)
    (deployment.home.bundles / registry.PROMOTIONS_FILE).write_text("")
    assert "removed: nothing" in feedrank(deployment.home.folder, "bundles", "prune", "--keep", 0)
    deployment.desk.change("ab", "stop", {}, NOW)
    assert "removed: other" in feedrank(deployment.home.folder, "bundles", "prune", "--keep", 0)


def test_an_arm_of_weight_zero_is_left_out(deployment: Deployment) -> None:
    deployment.start_experiment({**AB, "arms": {**AB["arms"], "later": {"weight": 0, "candidates": 30}}})
    recommender = deployment.serve()
    three_days(deployment, recommender, lambda *_: 0.3)
    readout = deployment.desk.report("ab").readout
    assert readout is not None
    assert readout.arms == ("usual", "other")
    assert sum(readout.units) == 60


def test_a_readout_without_its_library_says_what_to_install(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.start_experiment(AB)
    recommender = deployment.serve()
    three_days(deployment, recommender, lambda *_: 0.3)
    monkeypatch.setitem(sys.modules, "tea_tasting", None)
    message = "pip install 'feedrank[experiments]'"
    assert message in feedrank(deployment.home.folder, "experiment", "readout", "ab", code=1)
    answer = deployment.client(recommender).get("/v1/experiments/ab/readout")
    assert (answer.status_code, message in answer.json["detail"]) == (501, True)


def test_a_refresher_loads_started_arms_and_drops_stopped_ones(deployment: Deployment) -> None:
    opened = bundle.load(deployment.home.current_bundle)
    recommender = compose.build_recommender(deployment.home, deployment.config)
    refresher = Refresher(
        deployment.home,
        deployment.config,
        deployment.journal,
        recommender,
        opened,
        TextEncoders(deployment.home, opened),
        clock=lambda: NOW,
    )
    assert refresher.check_arms() is False
    deployment.start_experiment(AB)
    assert request_ranking(recommender, "before", NOW, "n1").variant is None, "its bundle is not at hand yet"
    recommender.catch_up(NOW)
    assert refresher.check_arms() is True
    assert request_ranking(recommender, "now", NOW, "n1").variant is not None
    deployment.desk.change("ab", "stop", {}, NOW)
    recommender.catch_up(NOW)
    assert refresher.check_arms() is True
    assert recommender.arm_servers.loaded_bundles == []


def test_a_damaged_bundle_leaves_the_experiment_without_users(deployment: Deployment) -> None:
    deployment.start_experiment(AB)
    ranker = next(path for path in (deployment.home.bundles / "other").iterdir() if path.suffix == ".txt")
    ranker.write_text("no ranker")
    recommender = deployment.serve()
    event = request_ranking(recommender, "r", NOW, "n1")
    assert event.bundle == "toy"
    assert event.variant is None


def test_power_reports_the_required_sample_size(deployment: Deployment, tmp_path: Path) -> None:
    output = feedrank(deployment.home.folder, "experiment", "power", "--rate", 0.05, "--lift", 0.1, "--per-day", 1_000)
    # 2 x (1.96 + 0.8416)^2 x 0.05 x 0.95 / 0.005^2 = 29,826 an arm, and 60 days of 1,000
    assert "29,82" in output
    assert " 60 " in output
    assert "give one" in feedrank(deployment.home.folder, "experiment", "power", code=1)
    deployment.start_experiment(AB)
    assert "too few units yet" in feedrank(deployment.home.folder, "experiment", "power", "ab", code=1)
    three_days(deployment, deployment.serve(), lambda *_: 0.3)
    assert "a look at any time" in feedrank(deployment.home.folder, "experiment", "power", "ab", "--lift", 0.2)


def test_a_test_is_simulated_before_it_begins(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\nmin_days = 2\nmin_units = 100\nplanned_units = 600\n[arms.a]\n[arms.b]\n')
    options = ("--users", 600, "--days", 6, "--rate", 0.1, "--visits", 2, "--runs", 4)
    assert "ship b" in feedrank(deployment.home.folder, "experiment", "simulate", path, "--lift", 0.8, *options)
    assert "stop" in feedrank(deployment.home.folder, "experiment", "simulate", path, "--lift", -0.6, *options)
    path.write_text('name = "x"\nkind = "shadow"\n[arms.a]\n[arms.b]\n')
    assert "expected an ab test" in feedrank(deployment.home.folder, "experiment", "simulate", path, code=1)
    assert deployment.desk.experiment_registry.states == {}, "nothing is written"


def test_of_two_concurrent_changes_one_is_refused(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.desk.create(experiment_config.parse_experiment(AB, "test"), NOW)
    append = deployment.journal.append

    def after_another(events: list[Event]) -> list[bool]:
        monkeypatch.undo()
        deployment.desk.start("ab", NOW)
        return append(events)

    monkeypatch.setattr(deployment.journal, "append", after_another)
    with pytest.raises(ChangeError, match="is running; only a created one can start"):
        deployment.desk.start("ab", NOW)
    assert deployment.desk.experiment_registry.get("ab").status == "running"


def test_over_http(deployment: Deployment) -> None:
    client = deployment.client(deployment.serve())
    assert client.get("/v1/experiments").json == {"experiments": []}
    for body, status, message in (
        ({**AB, "arms": {"usual": {}, "other": {"bundle": "none"}}}, 409, "none"),
        ({**AB, "primary": "fame"}, 409, "found the metric 'fame'"),
        ({**AB, "metrics": {"clicks": {"type": "buy"}}}, 409, "found a metric called clicks, which is built in"),
        ({**AB, "arms": {"usual": {}, "other": {"colour": "red"}}}, 400, "unknown key arms.other.colour"),
    ):
        answer = client.post("/v1/experiments", json=body)
        assert (answer.status_code, message in answer.json["detail"]) == (status, True), answer.text
    assert client.post("/v1/experiments", json=AB).json["status"] == "created"
    assert client.get("/v1/experiments/ab/readout").status_code == 409
    assert client.post("/v1/experiments/ab/start").json["spec"]["arms"]["usual"]["bundle"] == "toy"
    assert client.post("/v1/experiments/ab/start").status_code == 409
    assert client.post("/v1/experiments/ab/weights", json={"weights": {"other": 3}}).status_code == 200
    assert client.get("/v1/experiments/ab/readout").json["readout"]["verdict"]["decision"] == "continue"
    assert client.get("/v1/experiments/nobody").status_code == 404
    stopped = client.post("/v1/experiments/ab/stop", json={"reason": "enough"}).json
    assert (stopped["status"], stopped["reason"]) == ("stopped", "enough")


def test_the_write_scope_may_not_change_experiments(deployment: Deployment) -> None:
    client = deployment.client(deployment.serve())
    event = {"event": "experiment", "experiment": "ab", "change": "create", "payload": {"arms": {}}}
    for path in ("/v1/events", "/feedback"):
        assert client.post(path, json=event).status_code == 400
    assert deployment.desk.experiment_registry.states == {}


def test_a_feed_names_its_experiment_and_variant(deployment: Deployment) -> None:
    deployment.start_experiment(AB)
    client = deployment.client(deployment.serve())
    answer = client.post("/v1/recommend", json={"user": "n1"}).json
    assert answer["experiments"].keys() == {"ab"}
    assert client.get(f"/v1/rankings/{answer['ranking']}").json["experiments"] == answer["experiments"]


def test_an_invalid_experiment_says_what_is_wrong(deployment: Deployment, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    for command in (("experiment", "list"), ("experiment", "readout", "ab"), ("ope", "--policy", "bts")):
        assert "there is no home at" in feedrank(empty, *command, code=1)
    assert not empty.exists(), "looking makes nothing"
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\n[arms.a]\n[arms.b]\nwieght = 1\n')
    assert "unknown key arms.b.wieght; the keys there are weight, bundle" in feedrank(
        deployment.home.folder, "experiment", "create", path, code=1
    )
    path.write_text("name = ")
    assert "is not TOML" in feedrank(deployment.home.folder, "experiment", "create", path, code=1)
    assert "found no experiment 'x'; there are: none" in feedrank(
        deployment.home.folder, "experiment", "start", "x", code=1
    )
    deployment.start_experiment(AB)
    with pytest.raises(ChangeError, match="has no winner"):
        deployment.desk.promote_winner(deployment.desk.report("ab"), NOW)
