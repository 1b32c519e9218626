"""No event stops a reader: what is accepted can be learnt from, and what can't be read is passed over and named."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import toyworld
from conftest import feedrank
from flask.testing import FlaskClient
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchmarks.faults.event_readers import READERS, failing_readers
from benchmarks.faults.extreme_events import extreme_event
from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.api.metrics import Metrics
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import InteractionEvent, RankingEvent
from feedrank.engine.events.learnable import check_learnable
from feedrank.engine.experiments.registry import replay_events
from feedrank.engine.experiments.spec import ExperimentSpec
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import Recommender

NOW = toyworld.END / 1000 + 1_000
CLICK = {"event": "interaction", "id": "c", "timestamp": 5, "item": "a", "type": "click"}
RANKING = {"event": "ranking", "id": "r", "timestamp": 5, "items": [{"id": "a"}, {"id": "b"}]}
UNREADABLE: dict[str, Any] = {
    "positions": json.dumps({**RANKING, "positions": [1e18, 2]}),
    "no JSON": '{"event":"user","id":"x"',
    "no object": "[1, 2]",
    "not UTF-8": b'{"event":"item","id":"x","timestamp":0,"item":"\xff\xfe"}',
    "bytes": memoryview(b"\x00\x01"),
    "a number": 7,
    "nested": '{"event":"ranking","served":' + "[" * 100_000 + "]" * 100_000 + "}",
    "another kind": json.dumps({**CLICK, "event": "purchase"}),
    "another shape": json.dumps({**RANKING, "items": {"id": "a"}, "served": {"recall": 7}}),
    "a time of no calendar": json.dumps({**CLICK, "timestamp": 1e300}),
    "not a number": '{"event":"interaction","id":"c","timestamp":5,"item":"a","type":"click","value":NaN}',
}
"""Bodies of rows that a foreign program, another version or a damaged disk may leave."""


def put_row(path: Path, name: str, body: Any, kind: str = "ranking", at: int = 1) -> int:
    """Write a row past all checks, as another program would; return its offset."""
    data: Any = body.tobytes() if isinstance(body, memoryview) else body
    with closing(sqlite3.connect(path)) as connection, connection:
        is_text = isinstance(body, bytes)
        columns, value = "id, kind, timestamp, effective_time, body", "CAST(? AS TEXT)" if is_text else "?"
        statement = f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, {value})"
        cursor = connection.execute(statement, (name, kind, at, at, data))
        return int(cursor.lastrowid or 0)


# --- what is accepted


@settings(max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.integers(0, 2**32))
def test_no_accepted_event_stops_a_reader(seed: int) -> None:
    accepted, dice = [], random.Random(seed)
    for number in range(60):
        try:
            accepted.append(parse(extreme_event(dice, number)))
        except EventError as problem:
            assert problem.field  # noqa: PT017  # nothing else may be raised
    assert failing_readers(accepted) == {}


@pytest.mark.parametrize("reader", ["columns", "state"])
def test_the_readers_notice_what_they_can_not_hold(reader: str) -> None:
    poison = RankingEvent("r", 5, ("i1",), "u", positions=(1e18,))
    assert reader in failing_readers([poison])
    with pytest.raises(EventError, match="'r'"):
        check_learnable([InteractionEvent("c", 5, "i1", "click"), poison])
    parts = {"journal", "catalogue", "columns", "state", "experiments", "off-policy", "records", "erasures"}
    assert READERS.keys() == parts


def test_nothing_is_written_with_an_event_that_can_not_be_learnt_from(tmp_path: Path) -> None:
    journal = Journal.open_sqlite(tmp_path / "journal.db")
    events = [InteractionEvent("c", 5, "a", "click"), RankingEvent("r", 5, ("a",), positions=(1e18,))]
    with pytest.raises(EventError):
        journal.append(events)
    with pytest.raises(EventError):
        journal.record(events, 5)
    assert journal.last_offset == 0


SPEC = ExperimentSpec.from_dict({"name": "e", "arms": {"a": {}, "b": {"bundle": "other"}}}).to_dict()


@pytest.mark.parametrize("value", [10**400, -1, 1e308, "x", None, True, [], {}, {"a": 10**400}], ids=repr)
@pytest.mark.parametrize("key", [*SPEC, "weight", "explore"])
def test_no_experiment_event_stops_the_registry(key: str, value: Any) -> None:
    spec = SPEC | {key: value} if key in SPEC else SPEC | {"arms": {"a": {}, "b": {key: value}}}
    bodies = [
        {"event": "experiment", "id": change, "timestamp": 5, "experiment": "e", "change": change, "payload": payload}
        for change, payload in {
            "create": spec, "start": {"incumbent": value}, "weights": {"weights": {"a": value}},
            "shadow": {"arm": value, "rankings": value}, "stop-arm": {"arm": value}, "stop": {"reason": value},
        }.items()
    ]  # fmt: skip
    registry = replay_events(parse(body) for body in bodies)
    for state in registry.states.values():
        assert state.is_active(5) in (True, False)
        json.dumps(state.experiment.to_dict())


# --- what can't be read


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_row_that_can_not_be_read_is_passed_over(
    journal_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.open_sqlite(journal_path)
    journal.append([parse(CLICK | {"id": "before"})])
    list(journal.read())
    offset = put_row(journal_path, "poison", UNREADABLE[name])
    journal.append([parse(CLICK | {"id": "after"})])
    counts: list[int] = []
    journal.decoder.on_passed_over(counts.append)
    for _ in range(3):
        assert [event.id for event in journal.events()] == ["before", "after"]
        assert [event.id for _, event in journal.read_by_effective_time()] == ["before", "after"]
        assert [event.id for _, event in journal.read(kind="interaction")] == ["before", "after"]
    assert journal.find("poison") is None
    assert journal.append([parse(CLICK | {"id": "poison"})]) == [False]
    assert journal.decoder.passed_over == {offset}
    assert counts == [0, 1]
    lines = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len(lines) == 1, "it is logged once"
    assert f"offset {offset} " in lines[0]


def test_the_check_names_what_can_not_be_read(home: Path) -> None:
    assert feedrank(home, "journal", "check").startswith("600 events, 0 of them")
    path = HomePaths(home).journal_path
    offsets = [put_row(path, name, body) for name, body in UNREADABLE.items()]
    foreign = {**RANKING, "received": 9, "experiment": "e", "variant": "v"}
    put_row(path, "foreign", json.dumps(foreign))
    from click.testing import CliRunner

    from feedrank.api.cli import main

    result = CliRunner().invoke(main, ["--home", str(home), "journal", "check"])
    assert result.exit_code == 3
    named = [line for line in result.stdout.splitlines() if line.startswith("offset ")]
    assert [int(line.split(":")[0].removeprefix("offset ")) for line in named] == offsets
    assert "positions[0]: found 1e+18, expected a whole number from 1 to 2147483647" in named[0]
    assert "1 rankings are read without" in result.stdout
    assert result.stdout.splitlines()[-1] == f"612 events, {len(offsets)} of them can't be read"


class Process:
    """A process that serves a home."""

    def __init__(self, home: Path) -> None:
        paths = HomePaths(home)
        self.path, self.journal = paths.journal_path, paths.journal()
        self.now = NOW
        self.recommender: Recommender = compose.build_recommender(paths, config.load_config(paths.config), self.journal)
        self.metrics = Metrics(lambda: self.now)
        self.journal.decoder.on_passed_over(self.metrics.set_unreadable_events)
        service = Service(self.recommender, self.clock, metrics=self.metrics)
        self.client: FlaskClient = create_app(service).test_client()

    def clock(self) -> float:
        self.now += 2.0
        return self.now

    def feed(self, user: str, **more: Any) -> list[str]:
        answer = self.client.post("/v1/recommend", json={"user": user, **more})
        assert answer.status_code == 200, answer.text
        assert answer.json["logged"]
        return [entry["id"] for entry in answer.json["items"]]

    @property
    def ready(self) -> int:
        return self.client.get("/readyz").status_code


@pytest.fixture
def process(home: Path) -> Iterator[Process]:
    process = Process(home)
    yield process
    process.journal.close()


def test_a_service_goes_on_past_what_it_can_not_read(process: Process, home: Path) -> None:
    before = process.feed("fresh")
    for number, body in enumerate(UNREADABLE.values()):
        kind = ("ranking", "interaction", "item", "experiment", "tombstone")[number % 5]
        put_row(process.path, f"poison{number}", body, kind, at=round(process.now * 1000))
    click = {"event": "interaction", "item": before[0], "type": "click", "user": "fresh"}
    assert process.client.post("/v1/events", json=click).status_code == 202
    assert before[0] not in process.feed("fresh"), "the click behind the poison counts"
    assert process.ready == 200
    metrics = process.metrics.render()[0].decode()
    assert f"feedrank_journal_unreadable_events {float(len(UNREADABLE))}" in metrics
    process.recommender.find("poison0")
    again = Process(home)  # a restart, and another process
    assert before[0] not in again.feed("fresh")
    assert again.ready == 200
    again.journal.close()
    feedrank(home, "train", "--name", "later")
    assert process.client.delete("/v1/state/user/fresh").json["deleted_events"] >= 2


@pytest.mark.parametrize("error", [ValueError("odd"), OverflowError("too large"), KeyError("part")], ids=repr)
def test_the_service_is_not_ready_while_its_last_read_failed(
    process: Process, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    assert process.ready == 200

    def fail(since: int = 0, kind: str | None = None) -> Iterator[Any]:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(process.journal, "read", fail)
        answer = process.client.post("/v1/recommend", json={"user": "p1"})
        assert (answer.status_code, answer.json["logged"]) == (200, False), "feeds go on from the last state"
        assert process.ready == 503
        assert "journal" in process.client.get("/readyz").json["detail"]
        assert process.client.get("/healthz").status_code == 200
    process.now += 5
    process.feed("p1")
    assert process.ready == 200


@pytest.mark.parametrize(
    ("stored", "part"),
    [
        ({**CLICK, "dwell_ms": -1}, "dwell_ms"),
        ({**CLICK, "value": 1e300}, "value"),
        ({**CLICK, "position": 2**40}, "position"),
        ({**RANKING, "positions": [0, 1]}, "positions"),
        ({**RANKING, "positions": [1.5, 2]}, "positions"),
        ({**RANKING, "scores": [1e300, 2]}, "scores"),
        ({**RANKING, "items": [{"id": "a", "label": 1e300}, {"id": "b", "label": 1}]}, "labels"),
    ],
    ids=str,
)
def test_numbers_that_older_versions_took_in_cost_no_event(
    journal_path: Path, stored: dict[str, Any], part: str
) -> None:
    journal = Journal.open_sqlite(journal_path)
    put_row(journal_path, stored["id"], json.dumps(stored), stored["event"])
    (event,) = journal.events()
    found = getattr(event, part)
    assert found is None or str(found) == "(nan, 1.0)"
