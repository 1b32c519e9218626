"""Times of events against clocks: what is ahead is refused at the door, passed over where it is stored, and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toyworld
from hypothesis import given
from hypothesis import strategies as st
from test_behavioural_state import CATALOGUE, FULL, START, random_events
from test_snapshot import same

from feedrank.api import compose, config
from feedrank.api.compose import serving, training_inputs
from feedrank.api.compose.item_updates import ItemUpdates
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.event_time import MAX_AHEAD_MS, FutureEvents, check_not_ahead, format_time, limit_to_clock
from feedrank.engine.events.events import InteractionEvent, ItemEvent, RankingEvent, effective_time
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.recommender import MAX_SKEW_MS, Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.bundles import bundle, snapshot

NOW = toyworld.END + 1_000_000
FAR = 253_402_300_799_000
"""The last second of the year 9999."""


def click(name: str, at: int, received: int | None = None, item: str = "ocean-1") -> InteractionEvent:
    return InteractionEvent(name, at, item, "click", user="p0", received=received)


# --- one event


TIMES = st.integers(-10, 10).map(lambda hours: NOW + hours * 3_600_000 * 6)


@given(timestamp=TIMES, received=st.none() | TIMES)
def test_an_imported_event_takes_effect_now_at_the_latest(timestamp: int, received: int | None) -> None:
    event = click("c", timestamp, received)
    if max(timestamp, received or timestamp) > NOW + MAX_AHEAD_MS:
        with pytest.raises(EventError, match="more than a day after now"):
            limit_to_clock(event, NOW)
        return
    limited = limit_to_clock(event, NOW)
    assert effective_time(limited) == min(effective_time(event), NOW)
    assert limited.timestamp == timestamp
    assert (limited is event) == (effective_time(event) <= NOW)


def test_what_is_ahead_is_named() -> None:
    check_not_ahead(click("c", NOW + MAX_AHEAD_MS), NOW)
    with pytest.raises(EventError) as error:
        check_not_ahead(click("c", FAR), NOW)
    assert error.value.field == "timestamp"
    assert "found 253402300799000 (9999-12-31 23:59:59 UTC), more than a day after now" in str(error.value)
    with pytest.raises(EventError, match="received: found"):
        check_not_ahead(click("c", NOW, received=FAR), NOW)
    assert format_time(999_999_999_999_999) == "999999999999999 ms"


def test_future_events_are_counted_named_and_released_when_their_time_has_come() -> None:
    future = FutureEvents(NOW)
    days = [click(f"d{day}", NOW + day * MAX_AHEAD_MS + 1) for day in (5, 0, 2, 1, 3)]
    assert [event.id for _, event in future.skip(enumerate(days))] == ["d0"]
    assert future.count == 4
    (note,) = future.notes
    assert "passed over 4 events more than a day ahead" in note
    assert "'d5' at " in note
    assert note.endswith(", ...")
    assert future.release(NOW + 1) == [days[3]]
    assert [event.id for event in future.release(NOW + 9 * MAX_AHEAD_MS)] == ["d2", "d3", "d5"]
    assert future.release(NOW + 99 * MAX_AHEAD_MS) == []
    assert FutureEvents(NOW).notes == ()


# --- the door


def test_the_service_refuses_a_future_event(home: Path) -> None:
    service = Service(recommender_of(home), lambda: NOW / 1000)
    client = create_app(service).test_client()
    for kind in ("item", "user", "interaction", "ranking"):
        for times in ({"timestamp": FAR}, {"timestamp": NOW, "received": FAR}):
            body = {"event": kind, "item": "ocean-1", "user": "p0", "type": "click", "items": [{"id": "ocean-1"}]}
            body |= times
            for path, sent in (("/v1/events", body), ("/feedback", body), ("/feedback", [body])):
                answer = client.post(path, json=sent)
                assert answer.status_code == 400, answer.text
                assert "more than a day after now" in answer.json["detail"]
            several = [{**body, "timestamp": NOW, "received": NOW}, body]
            many = client.post("/v1/events", json={"events": several}).json
            assert (many["accepted"], [one["index"] for one in many["rejected"]]) == (1, [1])
            if kind == "ranking":
                assert client.post("/rank/any", json=body).status_code == 400
    assert service.recommender.snapshot.high_watermark_ms == NOW


# --- the clock of a service


def recommender_of(home: Path) -> Recommender:
    paths = HomePaths(home)
    return compose.build_recommender(paths, config.load_config(paths.config))


def feeds(recommender: Recommender, at_ms: int) -> list[tuple[str, ...]]:
    requests = [RecommendationRequest(f"p{user}") for user in range(8)]
    return [recommender.recommend("x", at_ms / 1000, request, log=False).items for request in requests]


def test_one_click_of_the_future_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recommender = recommender_of(home)
    expected, journal = feeds(recommender, NOW), HomePaths(home).journal()
    journal.append([click("far", FAR, item="kitchen-3"), click("also", FAR, received=FAR, item="kitchen-3")])
    assert feeds(recommender, NOW) == expected
    record = recommender.recommend("mine", NOW / 1000 + 1, RecommendationRequest("p1"))
    assert record.timestamp == NOW + 1_000
    assert recommender.record([click("next", NOW)], NOW / 1000 + 2) == [True]
    assert recommender.find("next") == replace(click("next", NOW), received=NOW + 2_000)
    restarted = recommender_of(home)
    assert "passed over 2 events more than a day ahead" in capsys.readouterr().err
    assert feeds(restarted, NOW + 3_000) == feeds(recommender, NOW + 3_000)


def test_an_erased_user_does_not_come_back(home: Path) -> None:
    recommender = recommender_of(home)
    soon = NOW + 3 * MAX_AHEAD_MS
    HomePaths(home).journal().append([click("soon", soon, item="kitchen-3"), replace(click("other", soon), user="p1")])
    feeds(recommender, NOW)
    assert len(recommender.snapshot.future.postponed) == 2
    recommender.erase_user("p0", "erased", NOW / 1000)
    assert [event.id for event in recommender.snapshot.future.postponed] == ["other"]
    feeds(recommender, soon)
    snapshot = recommender.snapshot
    assert len(snapshot.state.history(snapshot.users.row("p0"))[0]) == 0


def test_each_batch_of_future_events_is_reported_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    recommender, journal = recommender_of(home), HomePaths(home).journal()
    for number in range(2):
        journal.append([click(f"far {number}", FAR)])
        recommender.catch_up(NOW / 1000)
    messages = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert [("1 event " in message, f"far {number}" in message) for number, message in enumerate(messages)] == [
        (True, True), (True, True),
    ]  # fmt: skip


def test_time_never_runs_ahead_of_the_clock_by_more_than_the_skew(home: Path) -> None:
    recommender, journal = recommender_of(home), HomePaths(home).journal()
    for ahead_ms, expected in ((500, 500), (3_600_000, MAX_SKEW_MS)):
        journal.append([click(f"of another process {ahead_ms}", NOW, received=NOW + ahead_ms)])
        assert recommender.recommend("x", NOW / 1000, log=False).timestamp == NOW + expected
    back = NOW - 10 * MAX_SKEW_MS  # the clock is set back
    assert recommender.recommend("x", back / 1000, log=False).timestamp <= back + MAX_SKEW_MS
    times = [recommender.recommend("x", at / 1000, log=False).timestamp for at in (NOW, NOW + 5, NOW + 3, NOW + 9)]
    assert times == sorted(times)


def test_a_future_event_takes_effect_when_its_time_has_come(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, journal = recommender_of(home), HomePaths(home).journal()
    soon = NOW + 3 * MAX_AHEAD_MS
    journal.append([click("soon", soon, item="kitchen-3")])
    for at, count in ((NOW, 0), (soon - MAX_AHEAD_MS - 5_000, 0), (soon, 1)):
        monkeypatch.setattr(serving, "clock_ms", lambda at=at: at)
        live.catch_up(at / 1000)
        row = live.catalogue.ids.row("kitchen-3")
        for one in (live, recommender_of(home)):
            history, _ = one.snapshot.state.history(one.snapshot.users.row("p0"))
            assert history.tolist().count(row) == count, at


# --- snapshots


def test_a_snapshot_knows_what_it_left_out(tmp_path: Path) -> None:
    path, start = tmp_path / "state.npz", int(START * 1000)
    journal, events = Journal.open_sqlite(tmp_path / "journal.db"), random_events(3, 100)
    end = events[-1].timestamp
    future = InteractionEvent("f", end + 5 * MAX_AHEAD_MS, "i1", "click", user="u1")
    journal.append([*events[:60], future])

    def restore(now_ms: int, file: Path = path) -> snapshot.RestoredState:
        return snapshot.restore(file, journal, CATALOGUE, FULL, now_ms=now_ms)

    first = restore(end)
    assert (first.events_read, first.future.count, first.offset) == (60, 1, 61)
    snapshot.save(path, first, CATALOGUE)
    journal.append(events[60:])
    again = restore(end + 1)
    assert (again.events_read, again.future.count) == (40, 1)
    same(again, restore(end + 1, tmp_path / "none"))
    assert restore(end + 4 * MAX_AHEAD_MS).events_read == 101  # its time has come: everything is replayed in order
    same(restore(end + 9 * MAX_AHEAD_MS), restore(end + 9 * MAX_AHEAD_MS, tmp_path / "none"))
    snapshot.save(path, restore(end + 9 * MAX_AHEAD_MS), CATALOGUE)
    assert restore(end).events_read == 100  # the clock was set back: the snapshot holds what is ahead of it
    assert restore(start - 9 * MAX_AHEAD_MS).events_read == 0


# --- items


def item(name: str, at: int, title: str, received: int | None = None) -> ItemEvent:
    return ItemEvent(name, at, "ocean-1", {"title": title}, received)


def test_the_same_value_of_a_field_wins_live_and_at_the_next_training(home: Path) -> None:
    paths = HomePaths(home)
    journal = paths.journal()
    updates = ItemUpdates(journal, bundle.load(paths.current_bundle))
    updates.applied(updates.read(NOW))
    titles = []
    for events in (
        [item("far", FAR, "of the future"), item("new", NOW - 10_000, "newer")],
        [item("old", NOW - 20_000, "older")],
        [item("ahead", NOW + 60_000, "clock ahead", NOW), item("fix", NOW + 1, "correction", NOW + 1)],
        [ItemEvent("price", NOW - 15_000, "ocean-1", {"title": "late", "price": 5.0})],
    ):
        journal.append(events)
        new = updates.read(NOW)
        assert updates.read(NOW) == new, "a batch that was not applied is read again"
        updates.applied(new)
        live = Catalogue.from_events([*initial_items(journal), *new.events])
        future = FutureEvents(NOW)
        trained = Catalogue.from_events(
            event for _, event in future.skip(journal.read(kind="item")) if isinstance(event, ItemEvent)
        )
        row = trained.ids.row("ocean-1")
        titles.append(trained.titles[row])
        merged = merged_live(live, new.events)
        assert merged["title"] == trained.titles[row], events
    assert titles == ["newer", "newer", "correction", "correction"]
    assert trained.fields[row]["price"] == 5.0
    assert merged["price"] == 5.0


def test_an_item_event_of_the_future_takes_effect_when_its_time_has_come(home: Path) -> None:
    paths, day = HomePaths(home), MAX_AHEAD_MS
    journal = paths.journal()
    opened = bundle.load(paths.current_bundle)
    built = bundle.built_ms(opened)
    opened = replace(opened, manifest={**opened.manifest, "window": {"offset": journal.last_offset + 1}})
    journal.append([item("passed over in training", built + 3 * day, "in three days")])
    updates = ItemUpdates(journal, opened)
    journal.append([item("live", built + 5 * day, "in five days"), item("now", built, "now")])

    def titles(now_ms: int) -> list[object]:
        batch = updates.read(now_ms)
        updates.applied(batch)
        return [event.fields["title"] for event in batch.events]

    assert titles(built + 1) == ["now"]
    assert not updates.has_due(built + 1)
    assert updates.has_due(built + 2 * day)
    assert titles(built + 2 * day) == ["in three days"]
    assert titles(built + 3 * day) == []
    assert titles(built + 4 * day) == ["in five days"]
    restarted = ItemUpdates(journal, opened).read(built + 6 * day).events
    assert [event.fields["title"] for event in restarted][-3:] == ["now", "in three days", "in five days"]


def initial_items(journal: Journal) -> list[ItemEvent]:
    return [event for event in journal.events("item") if isinstance(event, ItemEvent) and event.timestamp < NOW - 1e6]


def merged_live(catalogue: Catalogue, events: list[ItemEvent]) -> dict[str, object]:
    fields: dict[str, object] = dict(catalogue.to_items()["ocean-1"])
    for event in events:
        fields |= event.fields
    return fields


# --- training


def test_training_passes_over_the_future_and_keeps_clicks_of_late_rankings(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_inputs, "clock_ms", lambda: NOW)
    paths = HomePaths(home)
    settings = config.load_config(paths.config)
    journal = paths.journal()
    journal.append(
        [
            click("far", FAR), item("far item", FAR, "of the future"),
            replace(click("early", NOW - 9_000, NOW - 9_000), ranking="late"),
            RankingEvent("late", NOW - 9_500, ("ocean-1",), "p0", received=NOW - 1_000),
            RankingEvent("before", NOW - 9_900, ("ocean-1",), "p0", received=NOW - 9_900),
            replace(click("own", NOW - 8_000, NOW - 8_000), ranking="before"),
        ]
    )  # fmt: skip
    kinds, original = [], Journal.read
    monkeypatch.setattr(
        Journal, "read", lambda self, *args, **named: kinds.append(named.get("kind")) or original(self, *args, **named)
    )
    inputs = compose.load_training_inputs(paths, settings, since=NOW / 1000 - 5)
    assert kinds.count("item") == 1, "one read is for the catalogue and for the check of ids"
    assert (inputs.window["future_events"], inputs.window["moved_interactions"]) == (2, 1)
    assert len(inputs.notes) == 2
    assert inputs.log.interactions.ranking.tolist() == [0]
    assert np.max(inputs.log.at) <= NOW / 1000
    assert inputs.item_inputs.catalogue.titles[inputs.item_inputs.catalogue.ids.row("ocean-1")] != "of the future"
