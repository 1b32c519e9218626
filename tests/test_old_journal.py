"""A journal that version 0.1 wrote opens, and holds the same under the current names.

`fixtures/journal-0.1.db.zst` was written by version 0.1 on the toy world: feeds in an A/B test, an interleaved, an
exploring and a shadow experiment, with options, with a cross-encoder, an erased user. `journal-0.1.json` holds what
that version read from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import zstandard

from feedrank.api.compose.experiments import ExperimentService
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.codec import to_dict
from feedrank.engine.events.events import Event, RankingEvent, erased_user
from feedrank.engine.journal import legacy
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.ranking_record import RankingRecord

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "journal-0.1.json").read_text())


@pytest.fixture(scope="module")
def old_home(tmp_path_factory: pytest.TempPathFactory) -> HomePaths:
    """A home with the old journal; opening it migrates the table."""
    home = HomePaths(tmp_path_factory.mktemp("old"))
    data = zstandard.ZstdDecompressor().decompress((FIXTURES / "journal-0.1.db.zst").read_bytes())
    home.journal_path.write_bytes(data)
    return home


@pytest.fixture(scope="module")
def events(old_home: HomePaths) -> dict[str, Event]:
    journal = old_home.journal()
    found = {event.id: event for event in journal.events()}
    journal.close()
    return found


def test_nothing_is_lost(old_home: HomePaths, events: dict[str, Event]) -> None:
    assert old_home.journal().count_by_kind() == EXPECTED["counts"]
    assert sum(isinstance(event, RankingEvent) for event in events.values()) == EXPECTED["n_rankings"]
    assert [erased_user(event) for event in events.values() if erased_user(event)] == ["erased"]


@pytest.mark.parametrize("ranking", EXPECTED["rankings"])
def test_rankings_are_read_under_current_names(events: dict[str, Event], ranking: str) -> None:
    event, expected = events[ranking], EXPECTED["rankings"][ranking]
    assert isinstance(event, RankingEvent)
    record = RankingRecord.from_event(event)
    assert record.malformed == ()
    request, filters = record.request, record.request.filters
    found = {
        "user": record.user, "session": record.session, "query": request.query, "history": request.history,
        "items_option": request.items, "n": request.n, "seen": filters.include_seen, "categories": filters.categories,
        "allow": filters.allow, "deny": filters.deny, "surface": record.surface, "context": dict(request.context),
        "diversity": (request.diversity.weight, request.diversity.per_category), "items": record.items,
        "scores": record.scores, "bundle": record.bundle, "experiment": record.experiment, "variant": record.variant,
        "team": record.team, "propensities": record.propensities, "seed": record.seed, "offset": record.offset,
        "found": record.recall.candidates, "recall_items": record.recall.items, "step": record.fallback,
        "skipped": record.degraded, "source": {"explicit": "given"}.get(record.source, record.source),
    }  # fmt: skip
    plain = json.loads(json.dumps({name: value for name, value in found.items() if value not in (None, (), {}, "")}))
    assert plain == {name: value for name, value in expected.items() if name not in ("feature_bytes", "pairs")}
    data = record.features.data if record.features else ""
    assert hashlib.sha256(data.encode()).hexdigest()[:16] == expected["feature_bytes"]
    scores = [None if math.isnan(score) else round(float(score), 4) for score in record.decoded_cross_encoder_scores()]
    assert scores == expected.get("pairs", [])


def test_experiments_are_read_under_current_names(old_home: HomePaths) -> None:
    service = ExperimentService(old_home, old_home.journal())
    ab, mix, shade = (service.report(name) for name in ("ab", "mix", "shade"))
    assert ab.readout is not None
    assert list(ab.readout.units) == EXPECTED["readouts"]["ab"]["units"]
    lifts = {(lift.metric, lift.arm): (lift.control, lift.value) for lift in ab.readout.lifts}
    for lift in EXPECTED["readouts"]["ab"]["lifts"]:
        assert lifts[lift["metric"], lift["arm"]] == pytest.approx((lift["control"], lift["value"]))
    (preference,), (expected,) = mix.preferences, EXPECTED["readouts"]["mix"]["preferences"]
    for name in ("wins", "losses", "ties", "rankings"):
        assert getattr(preference, name).tolist() == expected[name]
    (shadow,), (expected,) = shade.shadows, EXPECTED["readouts"]["shade"]["shadows"]
    assert (shadow.rankings, shadow.overlap, shadow.kendall_tau) == (expected["feeds"], 1.0, 1.0)
    assert ab.state.experiment.plan.guardrails[0].max_relative_loss == 0.5


def test_the_table_is_migrated_once(old_home: HomePaths) -> None:
    old_home.journal().close()
    old_home.journal().close()
    with sqlite3.connect(old_home.journal_path) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        indexes = {row[1] for row in connection.execute("PRAGMA index_list(events)")}
    assert {"user_id", "effective_time"} <= columns
    assert not {"person", "known"} & columns
    assert "events_by_effective_time" in indexes
    assert "events_in_order" not in indexes


def test_current_events_are_unchanged(events: dict[str, Event]) -> None:
    for event in events.values():
        body = to_dict(event)
        assert legacy.upgrade(body) == body


def test_parts_missing_from_the_fixture_are_upgraded() -> None:
    body = {
        "event": "ranking", "fields": [{"name": "source", "value": "given"}, {"name": "x", "value": "given"}],
        "served": {"step": "popular", "skipped": ["encode", "rank", "late", "pairs"], "kept": False,
                   "arm": {"rescored": 3}, "recall": {"found": 2}},
    }  # fmt: skip
    assert legacy.upgrade(body) == {
        "event": "ranking", "fields": [{"name": "source", "value": "explicit"}, {"name": "x", "value": "given"}],
        "served": {"fallback": "popular", "degraded": ["encode_query", "rank", "late_interaction", "cross_encoder"],
                   "logged": False, "arm_overrides": {"rerank_top_k": 3}, "recall": {"candidates": 2}},
    }  # fmt: skip
    odd = {"event": "ranking", "served": {"asked": 5, "arm": None, "recall": "x", "skipped": "y"}}
    assert legacy.upgrade(odd)["served"] == {"options": 5, "arm_overrides": None, "recall": "x", "degraded": "y"}


def test_a_journal_can_be_opened_by_many_at_once(old_home: HomePaths) -> None:
    journals = [Journal.open_sqlite(old_home.journal_path) for _ in range(4)]
    assert len({journal.last_offset for journal in journals}) == 1
    for journal in journals:
        journal.close()
