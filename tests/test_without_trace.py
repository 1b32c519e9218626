"""Trying out leaves no trace: what nobody sees is no event, no impression, in no experiment and no metric of feeds."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import PROJECT, feedrank
from test_admin import Deployment

from feedrank import Home
from feedrank.api import experiment_config
from feedrank.api.compose.experiments import ExperimentService
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service, is_trial
from feedrank.api.metrics import Metrics
from feedrank.engine.experiments.arm_servers import ArmServers

TRIALS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/recommend", {"user": "p0"}),
    ("/v1/recommend", {"user": "nobody yet", "session": "s", "context": {"x": 1.0}, "surface": "home"}),
    ("/v1/recommend", {"user": "p1", "query": "whale reef", "explain": True}),
    ("/v1/recommend", {"history": ["space-1"], "filters": {"include_seen": True}, "diversity": {"weight": 0.5}}),
    ("/v1/recommend", {"user": "p2", "ranking": "a-name-of-ours", "deadline_ms": 1000}),
    ("/v1/rank", {"user": "p0", "items": ["ocean-1", "space-3"]}),
    (
        "/v1/rank",
        {"user": "p0", "items": ["ocean-1", {"id": "unheard-of", "fields": {"title": "comet"}}], "explain": True},
    ),
]
METARANK: list[tuple[str, dict[str, Any]]] = [
    ("/rank/xgboost", {"event": "ranking", "id": "r", "user": "p0", "items": [{"id": "ocean-1"}, {"id": "space-3"}]}),
    ("/recommend/similar", {"user": "p0", "count": 3}),
]


def journal_digest(home: HomePaths) -> str:
    """A digest of every row of the journal."""
    with closing(sqlite3.connect(home.journal_path)) as connection:
        return hashlib.sha256(
            repr(connection.execute("SELECT * FROM events ORDER BY 1").fetchall()).encode()
        ).hexdigest()


def state_of(deployment: Deployment) -> dict[str, Any]:
    """A copy of all arrays of the state, and the users and items that it knows."""
    snapshot = deployment.recommender.snapshot
    arrays = {name: array.copy() for name, array in snapshot.state.arrays().items()}  # type: ignore[attr-defined]
    return {**arrays, "users": np.array(list(snapshot.users)), "items": np.array(list(snapshot.catalogue.ids))}


def without_requests(metrics: Metrics) -> str:
    """The exposition without the counts of HTTP requests, which say nothing of feeds."""
    text = metrics.render()[0].decode()
    return "\n".join(line for line in text.splitlines() if "feedrank_request" not in line)


@pytest.fixture
def deployment(home: Path) -> Deployment:
    """A service with a running A/B test."""
    paths = HomePaths(home)
    desk, settings = ExperimentService(paths, paths.journal()), {"diversity": {"weight": 0.9}}
    body = {"name": "ab", "arms": {"a": {}, "b": settings}}
    desk.create(experiment_config.parse_experiment(body, "test"), toyworld.END / 1000)
    desk.start("ab", toyworld.END / 1000)
    deployment = Deployment(home)
    deployment.recommender.arm_servers = ArmServers(desk.experiment_registry)
    return deployment


def test_trials_change_nothing(deployment: Deployment) -> None:
    metrics = Metrics(deployment.clock)
    deployment.recommender.on_ranked(lambda rows, scores: None if is_trial() else metrics.add_drift_rows(rows, scores))
    metrics.set_bundle("toy", None, None, deployment.recommender.pipeline.featurizer.names)
    deployment.client = create_app(Service(deployment.recommender, deployment.clock, metrics=metrics)).test_client()
    seen = deployment.call("POST", "/v1/recommend", {"user": "p0"})
    assert seen["logged"]
    assert seen["experiments"], "a request that is seen is in the experiment"
    deployment.recommender.catch_up(deployment.clock())
    journal, state, counts = journal_digest(deployment.home), state_of(deployment), without_requests(metrics)
    rows = metrics._drift._filled  # type: ignore[union-attr]
    for _ in range(3):
        for path, body in TRIALS:
            answer = deployment.call("POST", path, {**body, "log": False})
            assert answer["items"]
            assert (answer["logged"], answer["experiments"]) == (False, {})
            deployment.call("GET", f"/v1/rankings/{answer['ranking']}", status=404)
    assert without_requests(metrics) == counts
    assert metrics._drift._filled == rows  # type: ignore[union-attr]
    for path, body in METARANK:
        assert deployment.call("POST", path, body)["items"]
    assert metrics._drift._filled > rows, "whoever speaks Metarank's protocol sends what was shown to /feedback"  # type: ignore[union-attr]
    deployment.recommender.catch_up(deployment.clock())
    assert journal_digest(deployment.home) == journal
    after = state_of(deployment)
    assert after.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert deployment.call("POST", "/v1/recommend", {"user": "p0"})["logged"]
    assert journal_digest(deployment.home) != journal


def test_trials_do_not_depend_on_each_other(deployment: Deployment) -> None:
    for path, body in TRIALS[:4]:
        first, second = (deployment.call("POST", path, {**body, "log": False})["items"] for _ in range(2))
        assert [item["id"] for item in first] == [item["id"] for item in second], "no trial hides an item from the next"
    left_out = deployment.call("POST", "/v1/rank", {**TRIALS[-1][1], "log": False})
    assert left_out["degraded"] == ["items"], "it says that the fields of the unknown item were not used"


def test_the_commands_and_the_python_interface_log_nothing_unless_asked(home: Path) -> None:
    paths = HomePaths(home)
    before = journal_digest(paths)
    feedrank(home, "recommend", "--user", "p0")
    assert json.loads(feedrank(home, "recommend", "--user", "p0", "--json"))["logged"] is False
    with Home(home, progress=False).recommender() as recommender:
        assert not recommender.recommend("p0", 3).logged
        assert not recommender.rank(["space-1", "space-2"], "p0").logged
        recommender.recommend_many(["p0", "p1"])
    assert journal_digest(paths) == before
    assert json.loads(feedrank(home, "recommend", "--user", "p0", "--json", "--log"))["logged"] is True
    with Home(home, progress=False).recommender(log=True) as recommender:
        assert recommender.recommend("p0", 3).logged
    with closing(paths.journal()) as journal:
        assert journal.count_by_kind()["ranking"] == 2
    message = feedrank(home, "recommend", "--users", home / "x.csv", "--out", home / "y.csv", "--log", code=2)
    assert "--log beside --users" in message


def test_no_example_of_the_first_pages_is_an_impression() -> None:
    """The demo, README and the quickstart ask for a feed of user 1, whom nobody is."""
    assert "--log" not in (PROJECT / "Makefile").read_text()
    for page in ("README.md", "docs/quickstart.md"):
        text = (PROJECT / page).read_text()
        requests = re.findall(r"/v1/recommend.*?-d '([^']*)'", text, re.DOTALL)
        assert requests
        assert all(json.loads(body)["log"] is False for body in requests), page
    for notebook in (PROJECT / "notebooks").glob("*.ipynb"):
        assert "log=True" not in notebook.read_text(), notebook
