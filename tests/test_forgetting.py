"""Forgetting is whole: nothing of an erased user stays, comes back with a backup or an import, or is left unsaid."""

from __future__ import annotations

import gc
import json
import random
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import toyworld
from conftest import feedrank
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from test_admin import Deployment

from feedrank import Home
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.user_data import UserEventReader, user_document
from feedrank.engine.events.codec import to_dict
from feedrank.engine.events.erasure import Erasure, Erasures, hash_tie, make_salt, pseudonym
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.experiments.arm_servers import ArmServers
from feedrank.engine.journal import upkeep
from feedrank.engine.journal.journal import Journal, JournalError
from feedrank.engine.journal.user_events import MAX_SESSION_USERS, UserEvents
from feedrank.models.text.score_cache import SqliteScoreCache, clear_file

ANN, BOB = "ann-é-4711", "bob-0815"
START = 1_700_000_000_000
LATER = START + 10_000_000

USERS = st.sampled_from([ANN, ANN, BOB, "carl", None, None, None])
SESSIONS = st.sampled_from([None, *(f"session-{number}-" for number in range(6))])


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """A log in which users, sessions and rankings are tied in every way."""
    events: list[Event] = [ItemEvent("item", 0, "a", {"title": "t"}), UserEvent("fields", 0, ANN, {"city": "Xanadu"})]
    n_rankings = draw(st.integers(1, 6))
    for number in range(n_rankings):
        at = START + draw(st.integers(0, 1_000))
        events.append(
            RankingEvent(f"r{number}", at, ("a", "b"), draw(USERS), draw(SESSIONS), {"query": f"words of r{number}"})
        )
    for number in range(draw(st.integers(1, 10))):
        ranking = draw(st.sampled_from([None, *(f"r{index}" for index in range(n_rankings))]))
        at = START + draw(st.integers(0, 1_000))
        events.append(InteractionEvent(f"c{number}", at, "a", "click", ranking, draw(USERS), draw(SESSIONS)))
    return list(draw(st.permutations(events)))


def expected_ids(events: list[Event], user: str) -> tuple[set[str], set[str]]:
    """The ids of a user's events and the user's sessions, found by brute force."""
    found = {event.id for event in events if getattr(event, "user", None) == user}
    while True:
        mine = [event for event in events if event.id in found]
        sessions = {getattr(event, "session", None) for event in mine} - {None}
        rankings = {event.id for event in mine if isinstance(event, RankingEvent)}
        named = {event.ranking for event in mine if isinstance(event, InteractionEvent)}
        more = {
            event.id
            for event in events
            if isinstance(event, RankingEvent | InteractionEvent)
            and event.user is None
            and (
                event.session in sessions
                or (event.id in named if isinstance(event, RankingEvent) else event.ranking in rankings)
            )
        }
        if more <= found:
            return found, sessions
        found |= more


@contextmanager
def journal_in(folder: Path, name: str = "journal.db") -> Iterator[Journal]:
    """A journal whose erasures are remembered in the folder."""
    with closing(Journal.open_sqlite(folder / name)) as journal:
        journal.remember_erasures(folder / "erased.jsonl")
        yield journal


def bytes_of(folder: Path) -> bytes:
    """The content of all files."""
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def left(journal: Journal) -> list[Event]:
    """All events but tombstones."""
    return [event for event in journal.events() if Erasure.from_event(event) is None]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs())
def test_nothing_of_an_erased_user_stays_or_comes_back(events: list[Event]) -> None:
    found, sessions = expected_ids(events, ANN)
    kept = [event for event in events if event.id not in found]
    shared = {getattr(event, "session", None) for event in kept}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with journal_in(folder) as journal:
            journal.append(events)
            assert journal.erase_user(ANN, "tombstone", LATER) == len(found)
            assert left(journal) == kept
            content = bytes_of(folder)
            for secret in (ANN, "Xanadu", *(sessions - shared)):
                assert secret.encode() not in content, secret
                assert json.dumps(secret)[1:-1].encode() not in content, secret
            # the same source again
            assert not any(journal.append(journal.erasure_log.known().without(events)))
            # they may come back, later
            back = InteractionEvent("back", LATER + 1, "a", "click", user=ANN)
            assert journal.append(journal.erasure_log.known().without([back])) == [True]
        # a backup from before, and one with only what came before the user was known by name
        for backup in (events, [event for event in events if getattr(event, "user", None) != ANN]):
            (folder / "backup.db").unlink(missing_ok=True)
            with closing(Journal.open_sqlite(folder / "backup.db")) as old:
                old.append(backup)
            with journal_in(folder, "backup.db") as restored:
                remaining = {event.id for event in left(restored)}
                assert remaining.isdisjoint(event.id for event in backup if event.id in found)
                assert {event.id for event in kept} <= remaining
                assert backup is not events or remaining == {event.id for event in kept}
            with journal_in(folder, "backup.db") as restored:
                assert restored.remember_erasures(folder / "erased.jsonl") == 0, "it is done once"


def test_no_copy_of_a_moved_row_stays_in_the_file(tmp_path: Path) -> None:
    """SQLite moves rows between pages when others are deleted, and leaves copies that no deletion overwrites."""
    dice, users = random.Random(1), [f"user-{number:04d}-" for number in range(30)]
    with journal_in(tmp_path) as journal:
        for round_ in range(150):
            events: list[Event] = []
            for number in range(dice.randrange(1, 60)):
                user, name = dice.choice(users), f"{dice.random()} {round_} {number}"
                at, padding = START + dice.randrange(10**9), {"x": "A" * dice.choice([10, 300, 2_000, 9_000])}
                ranking = RankingEvent(f"r {user} {name}", at, ("a",), user, f"s {user}", features=padding)
                click = InteractionEvent(f"{name} {user}", at, "a", "click", user=user, session=f"s {user}")
                events.append(ranking if dice.random() < 0.4 else click)
            journal.append(events)
        for number, user in enumerate(users[:8]):
            journal.erase_user(user, f"tombstone {number}", LATER + 10**9)
            assert user.encode() not in bytes_of(tmp_path), number


def test_a_session_that_many_name_ties_nothing_to_a_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for others in (MAX_SESSION_USERS, MAX_SESSION_USERS + 1):
        users = [ANN, *(f"other {number}" for number in range(others))]
        events: list[Event] = [
            InteractionEvent(f"{user} c", START, "a", "click", user=user, session="web") for user in users
        ]
        nameless = InteractionEvent("nameless", START, "a", "click", session="web")
        with journal_in(tmp_path, f"{others}.db") as journal:
            journal.append([*events, nameless])
            journal.erase_user(ANN, f"note {others}", LATER)
            assert (nameless in left(journal)) == (others > MAX_SESSION_USERS)
            assert [event.id for event in left(journal)][:others] == [event.id for event in events[1:]]
    assert "their events without a user stay" in caplog.text


def test_a_long_read_keeps_no_writer_waiting_for_an_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite empties its WAL file only without readers; writers must not wait for these."""
    monkeypatch.setattr(upkeep, "EMPTY_WAL_INTERVAL_S", 0.02)
    path = tmp_path / "journal.db"
    with journal_in(tmp_path) as journal, journal_in(tmp_path) as other:
        journal.append([InteractionEvent(f"c{n}", START, "a", "click", user=(ANN, BOB)[n % 2]) for n in range(9)])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            erasing = threading.Thread(target=journal.erase_user, args=(ANN, "note", LATER))
            erasing.start()
            wait_for(lambda: not other.find("c0"))
            for n in range(20):
                assert other.record([InteractionEvent(f"d{n}", START, "a", "click", user=BOB)], LATER) == [True]
            assert erasing.is_alive()
            assert path.with_name("journal.db-wal").stat().st_size
            assert not upkeep.empty_wal(other.engine, wait_s=0)
            assert "could not be emptied" in caplog.text
        erasing.join(10)
        assert not erasing.is_alive()
        with other.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert ANN.encode() not in bytes_of(tmp_path)


def test_what_a_user_does_during_an_erasure_is_erased_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may tie older events to the user; the journal is searched again before other writers have to wait."""
    nameless = InteractionEvent("nameless", START, "a", "click", session="late")
    late = [
        InteractionEvent("late", START, "a", "click", user=ANN, session="late"),
        InteractionEvent("later", START, "a", "click", user=ANN, session="later"),
    ]
    with journal_in(tmp_path) as journal:
        journal.append([nameless, InteractionEvent("c", START, "a", "click", user=ANN)])
        search = UserEvents.search
        searches: list[int] = []

        def search_slowly(self: UserEvents, connection: Connection) -> bool:
            found = search(self, connection)
            searches.append(self.last_offset)
            if len(searches) in (1, 3):
                journal.append([late[len(searches) // 2]])
            return found

        monkeypatch.setattr(UserEvents, "search", search_slowly)
        assert journal.erase_user(ANN, "note", LATER) == 4
        assert not left(journal)
        assert searches == [2, 3, 3, 4, 4, 4, 4]


def test_a_damaged_cache_of_scores_stops_no_erasure(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    path.write_bytes(b"no database" * 100)
    clear_file(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(OSError, match="delete the file"):
        clear_file(path)


def test_an_interrupted_erasure_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has the erasure first, so a crash before the deletion deletes at the next start."""
    with journal_in(tmp_path) as journal:
        journal.append([InteractionEvent("c", START, "a", "click", user=ANN)])
        monkeypatch.setattr(journal.erasure_log, "_write", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            journal.erase_user(ANN, "note", LATER)
        assert len(left(journal)) == 1
    with (tmp_path / "erased.jsonl").open("ab") as file:
        file.write(b'{"id":"torn')
    with journal_in(tmp_path) as journal:
        assert not left(journal)
        journal.erase_user(BOB, "other", LATER)
        assert len((tmp_path / "erased.jsonl").read_bytes().splitlines()) == 3, "a torn line spoils no other"
    with journal_in(tmp_path, "new.db") as journal:
        known = journal.erasure_log.known()
        assert known.of(ANN) is not None
        assert known.of(BOB) is not None
    assert (tmp_path / "erased.jsonl").stat().st_mode & 0o077 == 0


def test_an_erasure_that_can_not_be_remembered_deletes_nothing(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.append([InteractionEvent("c", START, "a", "click", user=ANN)])
        (tmp_path / "erased.jsonl").mkdir()
        with pytest.raises(JournalError, match="erased"):
            journal.erase_user(ANN, "note", LATER)
        assert len(left(journal)) == 1


def test_homes_that_share_a_journal_all_remember_its_erasures(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with closing(Journal.open_sqlite(tmp_path / "shared.db")) as one:
        one.remember_erasures(tmp_path / "one" / "erased.jsonl")
        one.append([InteractionEvent("c", START, "a", "click", user=ANN)])
        one.erase_user(ANN, "note", LATER)
    with closing(Journal.open_sqlite(tmp_path / "shared.db")) as other:
        assert other.remember_erasures(tmp_path / "other" / "erased.jsonl") == 0
    assert (tmp_path / "other" / "erased.jsonl").read_text() == (tmp_path / "one" / "erased.jsonl").read_text()


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.data())
def test_a_pseudonym_stands_for_one_user(names: list[str], data: st.DataObject) -> None:
    users = Vocabulary(names)
    user = data.draw(st.sampled_from([*names, "somebody else"]))
    erasure = Erasure("x", 5, pseudonym(user, make_salt("seed")), (hash_tie("session", "s", make_salt("seed")),))
    assert [users.name(row) for row in erasure.rows(users)] == [name for name in names if name == user]
    assert Erasure.from_event(erasure.to_event()) == erasure
    assert Erasure.from_dict(json.loads(json.dumps(erasure.to_dict()))) == erasure
    before, after = (InteractionEvent("c", at, "a", "click", user=user) for at in (4, 5))
    assert Erasures([erasure]).without([before, after]) == [after]


def test_arms_with_bundles_of_their_own_forget_at_once() -> None:
    """Other snapshots may lag behind, but not with a tombstone, which does not say whose requests must catch up."""

    class Snapshot:
        observed: list[Event] = []  # noqa: RUF012
        pipeline = type("Pipeline", (), {"bundle": "other"})
        offset = 0

        def observe(self, events: list[Event], now_ms: int) -> None:
            self.observed = [*self.observed, *events]

    servers, snapshot = ArmServers(), Snapshot()
    servers.add_snapshot(snapshot)  # type: ignore[arg-type]
    click = InteractionEvent("c", START, "a", "click", user=ANN)
    servers.observe([click], 1)
    assert not snapshot.observed
    tombstone = Erasure("x", LATER, pseudonym(ANN, make_salt("seed"))).to_event()
    servers.observe([tombstone], 2)
    assert snapshot.observed == [click, tombstone]
    assert snapshot.offset == 2


# --- the service and the commands


def test_the_service_hands_out_all_that_it_erases(home: Path) -> None:
    deployment = Deployment(home)
    call = deployment.call
    fields = [{"name": "city", "value": "Xanadu"}]
    call("POST", "/v1/events", {"event": "user", "user": ANN, "fields": fields}, 202)
    call("POST", "/v1/events", {"event": "user", "user": ANN, "fields": [{"name": "city", "value": "Bree"}]}, 202)
    feed = call(
        "POST", "/v1/recommend", {"user": ANN, "session": "session-1", "query": "whale reef", "context": {"x": "y"}}
    )
    for more in (
        {"user": ANN},
        {"session": "session-1"},
        {"session": "session-2", "ranking": feed["ranking"]},
        {"session": "session-2"},
    ):
        event = {"event": "interaction", "type": "click", "item": "kitchen-3", **more}
        call("POST", "/v1/events", event, 202)
    call("POST", "/v1/events", {"event": "interaction", "type": "hide", "item": "kitchen-5", "user": ANN}, 202)
    call("POST", "/v1/events", {"event": "interaction", "type": "click", "item": "kitchen-3", "user": BOB}, 202)
    document = call("GET", f"/v1/state/user/{ANN}")
    events = document["events"]
    assert [event["event"] for event in events] == ["user", "user", "ranking", *["interaction"] * 5]
    assert [event["offset"] for event in events] == sorted(event["offset"] for event in events)
    shown = events[2]
    assert {field["name"]: field["value"] for field in shown["fields"]}["query"] == "whale reef"
    assert {field["name"]: field["value"] for field in shown["fields"]}["x"] == "y"
    assert document["fields"] == {"city": "Bree"}
    assert document["sessions"] == ["session-1", "session-2"]
    assert document["disliked"] == ["kitchen-5"]
    assert document["recent_interactions"][0]["item"] == "kitchen-3"
    assert document["interaction_count"] == len(document["recent_interactions"])
    stored = {event.id: to_dict(event) for event in deployment.home.journal().events()}
    for event in events:
        body = {name: value for name, value in event.items() if name != "offset"}
        assert stored[event["id"]] == body, "complete, as it is kept"
    assert call("DELETE", f"/v1/state/user/{ANN}")["deleted_events"] == len(events)
    empty = call("GET", f"/v1/state/user/{ANN}")
    assert (empty["events"], empty["sessions"], empty["fields"], empty["interaction_count"]) == ([], [], {}, 0)
    feedrank(home, "snapshot")
    content = bytes_of(home)
    for secret in (ANN, "Xanadu", "session-1", "session-2", "whale reef"):
        assert secret.encode() not in content, secret
    late = {
        "event": "interaction",
        "type": "click",
        "item": "kitchen-3",
        "timestamp": int(1000 * deployment.now) - 60_000,
    }
    for more in ({"user": ANN}, {"session": "session-2"}):
        assert "was erased" in call("POST", "/v1/events", {**late, **more}, 400)["detail"]
    call("POST", "/v1/events", {**late, "session": "session-3"}, 202)


def test_an_event_that_can_not_be_read_cuts_no_document_of_a_user_short() -> None:
    bodies: list[dict[str, Any]] = [
        {"event": "user"},
        {"event": "user", "id": "a", "timestamp": "?", "user": ANN, "fields": [{"name": "city", "value": "Xanadu"}]},
        {"event": "user", "id": "b", "timestamp": 1, "user": ANN, "fields": [5]},
        {"event": "user", "id": "c", "timestamp": 1, "user": ANN, "fields": [{"name": "city", "value": "Bree"}]},
        {"damaged": "{"},
    ]
    parts = user_document({"id": ANN}, UserEventReader([], lambda: iter(enumerate(bodies))))
    document = json.loads("".join(parts))
    assert [{name: event[name] for name in event if name != "offset"} for event in document["events"]] == bodies
    assert document["fields"] == {"city": "Bree"}


def test_a_backup_is_restored_without_erased_users(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert "bytes" in feedrank(home, "journal", "backup", copy)
    assert copy.stat().st_mode & 0o077 == 0
    assert "exists" in feedrank(home, "journal", "backup", copy, code=1)
    with closing(HomePaths(home).journal()) as journal:
        before = journal.count_by_kind()
    (home / "rejects.jsonl").write_text('{"text": "p0"}\n')
    feedrank(home, "forget", "p0", "--yes")
    assert not (home / "rejects.jsonl").exists()
    feedrank(home, "snapshot")
    with closing(sqlite3.connect(home / "journal.db")) as reader:
        reader.execute("SELECT count(*) FROM events").fetchone()
        assert "stop the servers" in feedrank(home, "journal", "restore", copy, "--yes", code=1)
    assert "Aborted" in feedrank(home, "journal", "restore", copy, code=1)
    gc.collect()  # a command is a process of its own otherwise, which leaves no connection
    output = feedrank(home, "journal", "restore", copy, "--yes")
    assert f"after {toyworld.INTERACTIONS_PER_USER} of erased users" in output
    journal = HomePaths(home).journal()
    after = journal.count_by_kind()
    assert after == {**before, "interaction": before["interaction"] - toyworld.INTERACTIONS_PER_USER, "tombstone": 1}
    assert not [event for event in journal.events() if getattr(event, "user", None) == "p0"]
    journal.close()
    (tmp_path / "text.db").write_text("no database")
    assert "can't be read" in feedrank(home, "journal", "restore", tmp_path / "text.db", "--yes", code=1)
    assert HomePaths(home).journal().count_by_kind() == after
    # without the command, a copied file is cleared by whatever opens it first
    for more in ("", "-wal", "-shm"):
        (home / f"journal.db{more}").unlink(missing_ok=True)
    shutil.copy(copy, home / "journal.db")
    feedrank(home, "snapshot")
    assert HomePaths(home).journal().count_by_kind() == after


def test_an_import_leaves_out_erased_users(home: Path, tmp_path: Path) -> None:
    lines = [
        {
            "event": "interaction",
            "id": f"x{number}",
            "timestamp": toyworld.END,
            "item": "space-1",
            "type": "click",
            **who,
        }
        for number, who in enumerate(({"user": ANN, "session": "s"}, {"session": "s"}, {"user": BOB}))
    ]
    source = toyworld.write(tmp_path / "more.jsonl", lines)
    feedrank(home, "import", source)
    feedrank(home, "forget", ANN, "--yes")
    output = feedrank(home, "import", source)
    assert "2 events of erased users were left out" in output
    assert "1 events have an id that was stored before" in output
    assert "new events" in feedrank(home, "import", source, "--include-erased")
    assert {event.id for event in HomePaths(home).journal().events()} >= {"x0", "x1", "x2"}
    feedrank(home, "snapshot")
    assert {event.id for event in HomePaths(home).journal().events()} >= {"x0", "x1"}, "what was asked for stays"


def test_a_frame_leaves_out_erased_users(home: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    frame: Any = pa.table({"user": [ANN, BOB], "item": ["space-1"] * 2, "timestamp": [toyworld.END] * 2})
    opened = Home(home, progress=False)
    assert opened.load(interactions=frame).frames[0].new == 2
    feedrank(home, "forget", ANN, "--yes")
    report = opened.load(interactions=frame).frames[0]
    assert (report.new, report.duplicates) == (0, 1)
    assert any("erased users" in note for note in report.notes)


def test_cached_scores_go_too(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "scores.db"
    clear_file(path)
    cache = SqliteScoreCache(path, "model", ["a", "b"], 10)
    rows = np.array([0, 1], np.int32)
    cache.add("words of ann", rows, np.array([1.0, 2.0], np.float32))
    clear_file(path)
    cache.forget()
    assert np.isnan(cache.scores("words of ann", rows)).all()
    cache.add("words of ann", rows, np.array([1.0, 2.0], np.float32))
    assert cache.scores("words of ann", rows).tolist() == [1, 2]
    cache.close()
