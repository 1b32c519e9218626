"""What only the service may say of a ranking: nobody else can put it into the log, or has it read from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import feedrank
from flask.testing import FlaskClient

from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.api.keys import ApiKeys
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.event_table_builder import sorted_events_to_table
from feedrank.engine.events.events import SERVICE_FIELDS, Event, InteractionEvent, RankingEvent, service_field
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.experiments.spec import ExperimentSpec
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.ranking_record import DuplicateRankingIdError, RankingRecord, RecallRecord
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest
from feedrank.models.experiments.outcome_collection import collect_outcomes
from feedrank.models.experiments.preference import preferences

NOW = toyworld.END / 1000 + 1_000
NOW_MS = round(NOW * 1000)
FORGED: dict[str, Any] = {
    "served": {"experiments": [["e", "other"]], "offset": 5},
    "features": {"fingerprint": "f", "rows": 2, "data": "AAAAAAAAAAA="},
    "team": ["usual", "other"],
    "variant": "other",
    "experiment": "e",
    "propensities": [0.5, 1],
    "bundle": "toy",
    "provenance": "service",
}
RANKING = {
    "event": "ranking", "id": "sent", "timestamp": NOW_MS, "user": "u", "items": [{"id": "a"}, {"id": "b"}],
    "scores": [2, 1], "fields": [{"name": "source", "value": "annoy"}],
}  # fmt: skip


def test_every_field_of_the_service_is_tried() -> None:
    assert FORGED.keys() == set(SERVICE_FIELDS)


class Server:
    """An application with keys on a home."""

    def __init__(self, home: Path, require_keys: bool = True) -> None:
        paths = HomePaths(home)
        self.journal = paths.journal()
        self.recommender = compose.build_recommender(paths, config.load_config(paths.config), self.journal)
        keys = ApiKeys(paths.keys)
        self.tokens = {
            scopes: keys.create(scopes, scopes.split(), 0)[1] for scopes in ("read", "write", "write import", "admin")
        }
        app = create_app(Service(self.recommender, lambda: NOW, keys if require_keys else None))
        self.client: FlaskClient = app.test_client()

    def post(self, path: str, body: Any, scopes: str) -> Any:
        return self.client.post(path, json=body, headers={"Authorization": f"Bearer {self.tokens[scopes]}"})

    def stored(self) -> RankingEvent | None:
        found = self.journal.find("sent")
        assert found is None or isinstance(found, RankingEvent)
        return found


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    server = Server(home)
    yield server
    server.journal.close()


@pytest.mark.parametrize("name", SERVICE_FIELDS)
@pytest.mark.parametrize("path", ["/v1/events", "/feedback", "/rank/any"])
def test_a_key_that_may_write_can_not_say_what_the_service_says(server: Server, path: str, name: str) -> None:
    body = {**RANKING, name: FORGED[name]}
    answer = server.post(path, body, "read" if path == "/rank/any" else "write")
    assert answer.status_code == 400
    assert answer.json["field"].endswith(name)
    assert "only the service" in answer.json["detail"]
    assert server.stored() is None


def test_in_a_batch_only_the_forged_event_is_refused(server: Server) -> None:
    events = [RANKING | {"id": "fine"}, {**RANKING, "bundle": "toy"}, {**RANKING, "id": "not given", "bundle": None}]
    answer = server.post("/v1/events", {"events": events}, "write")
    assert answer.status_code == 202
    assert (answer.json["accepted"], [entry["field"] for entry in answer.json["rejected"]]) == (2, ["bundle"])


def test_without_keys_nobody_may_say_it(home: Path) -> None:
    server = Server(home, require_keys=False)
    assert server.client.post("/v1/events", json={**RANKING, "bundle": "toy"}).status_code == 400
    assert server.client.post("/v1/events", json=RANKING).status_code == 202


@pytest.mark.parametrize("scopes", ["write import", "admin"])
@pytest.mark.parametrize("path", ["/v1/events", "/feedback"])
def test_a_key_that_may_import_can(server: Server, path: str, scopes: str) -> None:
    body = {**RANKING, **FORGED}
    del body["provenance"]
    assert server.post(path, body, scopes).status_code in (200, 202)
    stored = server.stored()
    assert stored is not None
    assert (stored.provenance, stored.variant, stored.received is not None) == ("import", "other", True)
    assert RankingRecord.find_own(stored) is None, "the service did not make it"
    assert server.post("/v1/recommend", {"user": "u", "ranking": "sent"}, "admin").status_code == 409


def test_a_file_may_say_it(home: Path) -> None:
    body = to_dict(parse({**RANKING, **FORGED, "provenance": None, "received": NOW_MS}))
    feedrank(home, "import", toyworld.write(home / "log.jsonl", [body]))
    found = HomePaths(home).journal().find("sent")
    assert isinstance(found, RankingEvent)
    assert (found.propensities, found.variant) == ((0.5, 1), "other")


# --- rankings that are in a journal already


def old_forgery(number: int, **forged: Any) -> RankingEvent:
    """A ranking that an earlier version took from a client."""
    body = {**RANKING, "id": f"forged{number}", "user": f"f{number}", "received": NOW_MS, **forged}
    event = parse({name: value for name, value in body.items() if name != "provenance"})
    assert isinstance(event, RankingEvent)
    return event


def own(number: int, variant: str) -> RankingEvent:
    """A ranking that the service made."""
    request = RecommendationRequest(user=f"u{number}", session=f"s{number}")
    record = RankingRecord(
        f"own{number}", NOW_MS + number, request, ("a", "b"), (2.0, 1.0), "toy", RecallRecord("annoy"),
        experiments=(("e", variant),), team=("usual", "other") if variant == "interleaved" else None,
    )  # fmt: skip
    return replace(record.to_event(), received=NOW_MS + number)


SPEC = {"name": "e", "arms": {"usual": {}, "other": {"bundle": "other"}}}
SPECS: dict[str, Callable[[], ExperimentSpec]] = {
    "ab": lambda: ExperimentSpec.from_dict({**SPEC, "holdout": 0.1}),
    "interleave": lambda: ExperimentSpec.from_dict({**SPEC, "kind": "interleave"}),
    "balanced": lambda: ExperimentSpec.from_dict({**SPEC, "kind": "interleave", "interleaving": "balanced"}),
}
FORGERIES: tuple[dict[str, Any], ...] = (
    {"served": {"experiments": None}},
    {"served": {"experiments": [["e1", "interleaved"]], "places": 5}},
    {"served": {"experiments": [["e", "interleaved"]], "ranks": [[0, 1]] * 3}, "team": ["usual", "other"]},
    {"served": {"experiments": [["e", "holdout"], ["e", "other"]]}},
    {"served": {"experiments": [["e", "other"]]}},
    {"served": {"experiments": [["e", "nobody"]]}, "variant": "usual", "experiment": "e"},
    {"experiment": "e", "variant": "interleaved"},
    {"experiment": "e", "variant": "other"},
)


def collect(spec: ExperimentSpec, events: list[Event]) -> tuple[int, list[int], tuple[str, ...]]:
    """Return the number of units, the units of each arm, and the notes of a readout."""
    collected = collect_outcomes(events, spec, NOW - 1)
    if spec.kind == "interleave":
        preferences(collected.impressions, list(spec.arms), NOW - 1, 100)
    return len(collected.units), np.asarray(collected.outcomes.units).tolist(), collected.notes


@pytest.mark.parametrize("kind", SPECS)
def test_forged_rankings_of_a_journal_count_in_no_readout(kind: str, tmp_path: Path) -> None:
    spec = SPECS[kind]()
    variants = ("usual", "other") if kind == "ab" else ("interleaved",)
    shown: list[Event] = [own(number, variants[number % len(variants)]) for number in range(8)]
    clicks: list[Event] = [
        InteractionEvent(f"c{number}", NOW_MS + number, "a", "click", f"own{number}", f"u{number}")
        for number in range(8)
    ]
    forged = [old_forgery(number, **parts) for number, parts in enumerate(FORGERIES)]
    journal = Journal.open_sqlite(tmp_path / "journal.db")
    journal.append([*shown, *clicks, *forged])
    read = list(journal.events())
    assert [service_field(event) for event in read if event.id.startswith("forged")] == [None] * len(forged)
    assert collect(spec, read) == collect(spec, [*shown, *clicks])
    assert len(collect(spec, [*shown, *clicks, *forged])) == 3, "nor does one stop a readout that reads it all the same"


def test_forged_rows_are_no_training_rows(tmp_path: Path) -> None:
    journal = Journal.open_sqlite(tmp_path / "journal.db")
    rows = {"fingerprint": "f", "rows": 2, "data": "AACAPwAAgD8="}
    journal.append([old_forgery(0, features=rows), replace(own(1, "usual"), features=rows)])
    log = sorted_events_to_table(journal.events(), Vocabulary(["a", "b"]), with_logged_features=True)
    assert log.rankings.logged_features is not None
    out = np.zeros((4, 1), np.float32)
    is_logged = log.rankings.logged_features.fill(out, np.arange(4), log.rankings.offsets, "f")
    assert is_logged.tolist() == [False, False, True, True]


def test_a_forged_ranking_is_no_answer_of_the_service(server: Server) -> None:
    forged = old_forgery(0, bundle="toy", experiment="made-up", variant="label")
    server.journal.append([forged])
    assert RankingRecord.find_own(forged) is None
    answer = server.post("/v1/recommend", {"user": "f0", "ranking": "forged0"}, "read")
    assert answer.status_code == 409


# --- one ranking id, one request


def record(**parts: Any) -> RankingRecord:
    request = RecommendationRequest(**{"user": "u", "query": "q", "items": ("a", "b"), **parts})
    return RankingRecord("r", NOW_MS, request, ("a", "b"), (2.0, 1.0), "toy", RecallRecord("annoy"))


@pytest.mark.parametrize(
    "parts",
    [
        {"user": "v"}, {"user": None}, {"session": "s"}, {"query": ""}, {"query": "p"}, {"items": ("b", "a")},
        {"items": None}, {"history": ("a",)}, {"history": ()}, {"n": 3}, {"surface": "home"},
        {"filters": FilterSpec(deny=("a",))}, {"filters": FilterSpec(include_seen=True)},
    ],
    ids=str,
)  # fmt: skip
def test_an_id_belongs_to_one_request(parts: dict[str, Any]) -> None:
    logged = parse(to_dict(record().to_event()))
    with pytest.raises(DuplicateRankingIdError, match="'r'"):
        record(**parts).check_same_request(logged)
    again = record(**parts).check_same_request(parse(to_dict(record(**parts).to_event())))
    assert again.request == record(**parts).request


def test_another_user_does_not_get_the_answer(server: Server) -> None:
    first = server.post("/v1/recommend", {"user": "p1", "ranking": "mine", "n": 3}, "read")
    assert server.post("/v1/recommend", {"user": "p1", "ranking": "mine", "n": 3}, "read").json == first.json
    for other in ({"user": "p2"}, {"user": "p1", "query": "rocket"}, {}, {"user": "p1", "history": ["ocean-1"]}):
        answer = server.post("/v1/recommend", {"ranking": "mine", "n": 3, **other}, "read")
        assert answer.status_code == 409
        assert "p1" not in answer.text
    body = {"user": "p1", "ranking": "list", "items": ["ocean-1", "music-1"]}
    assert server.post("/v1/rank", body, "read").status_code == 200
    assert server.post("/v1/rank", {**body, "items": ["ocean-2", "music-1"]}, "read").status_code == 409
    assert server.post("/v1/rank", body, "read").status_code == 200
