"""The journal: no acknowledged event is lost, none counts twice, and no batch is written in part."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import PROJECT
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from feedrank.engine.events.events import TOMBSTONE, Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.journal import journal as journal_module
from feedrank.engine.journal.journal import Journal, JournalError
from feedrank.engine.testing import check_event_log, toy_events


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty journal."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    server: str = request.getfixturevalue("postgresql")
    schema = f"s{uuid.uuid4().hex}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    engine.dispose()
    return f"{server}&options=-csearch_path%3D{schema}"


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    journal = Journal(url)
    yield journal
    journal.close()


def test_feeds_leave_the_wal_checkpoint_to_the_background_thread(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, words = Journal.open_sqlite(path), "word " * 2_000

    def write(first: int) -> None:
        """Write about 10 MB, more than a thousand pages."""
        for n in range(first, first + 1_000):
            journal.record([RankingEvent(f"r{n}", n, ("a",), fields={"text": words})], n)

    write(0)
    assert path.stat().st_size > 1_000_000, "as SQLite does by itself"
    journal.checkpoint()
    size = path.stat().st_size
    write(1_000)
    assert path.stat().st_size == size
    journal._writer.close()  # type: ignore[union-attr]
    write(2_000)
    assert path.stat().st_size == size, "a new connection knows too"
    journal.checkpoint()
    assert path.stat().st_size > 25_000_000
    assert sum(1 for _ in journal.events("ranking")) == 3_000
    journal.close()


def test_sent_events_wait_for_the_disk_and_a_ranking_alone_does_not(tmp_path: Path) -> None:
    journal = Journal.open_sqlite(tmp_path / "journal.db")
    line = journal._writer
    assert line is not None

    def waits(*events: Event) -> int:
        journal.record(list(events), 0)
        return int(line._connection().execute("PRAGMA synchronous").fetchone()[0])

    full, normal = 2, 1  # as SQLite numbers them
    shown = [RankingEvent(f"r{n}", n, ("a",)) for n in range(3)]
    assert waits(InteractionEvent("c0", 1, "a", "click")) == full
    assert waits(shown[0]) == normal
    assert waits(shown[1], InteractionEvent("c1", 1, "a", "click")) == full
    assert waits(shown[2]) == normal
    assert waits(item("i")) == full
    journal.close()


def item(name: str, timestamp: int = 0) -> ItemEvent:
    return ItemEvent(name, timestamp, "a")


def ids(journal: Journal, kind: str | None = None) -> list[str]:
    return [event.id for event in journal.events(kind)]


def test_the_shipped_checks(url: str) -> None:
    check_event_log(lambda: Journal(url))


@pytest.mark.parametrize("chunk", [1, 2, 5_000])
def test_an_id_counts_once(journal: Journal, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(journal_module, "CHUNK_SIZE", chunk)
    assert journal.append([item("a", 9), item("b"), item("a", 1)]) == [True, True, False]
    assert journal.append(iter([item("c"), item("b"), item("c"), item("d")])) == [True, False, False, True]
    assert journal.append([]) == []
    assert ids(journal) == ["a", "b", "c", "d"]
    assert journal.find("a") == item("a", 9)
    assert journal.find("e") is None


@settings(max_examples=20, deadline=None)
@given(appends=st.lists(st.lists(st.integers(0, 12).map(str), max_size=8), max_size=4), chunk=st.integers(1, 4))
def test_any_appends_keep_the_order_of_first_writing(appends: list[list[str]], chunk: int) -> None:
    journal = Journal("sqlite://")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "CHUNK_SIZE", chunk)
        known: list[str] = []
        for names in appends:
            expected = [name not in known and name not in names[:position] for position, name in enumerate(names)]
            assert journal.append(map(item, names)) == expected
            known += dict.fromkeys(name for name in names if name not in known)
        assert ids(journal) == known
        for since, _ in [(0, None), *journal.read()]:
            rest = [event.id for offset, event in journal.read(since=since)]
            assert rest == [event.id for offset, event in journal.read() if offset > since]
    journal.close()


def test_kinds(journal: Journal) -> None:
    events: list[Event] = [
        item("i1"), RankingEvent("r1", 5, ("a", "b"), "ann"), InteractionEvent("c1", 6, "a", "click", user="ann"),
        UserEvent("u1", 1, "ann"), item("i2", 3), InteractionEvent("c2", 2, "b", "click"),
    ]  # fmt: skip
    journal.append(events)
    assert list(journal.events()) == events
    assert ids(journal, "item") == ["i1", "i2"]
    assert ids(journal, "interaction") == ["c1", "c2"]
    assert ids(journal, "ranking") == ["r1"]
    assert journal.count_by_kind() == {"item": 2, "ranking": 1, "interaction": 2, "user": 1}
    offsets = [offset for offset, _ in journal.read()]
    assert [event.id for _, event in journal.read(since=offsets[1], kind="item")] == ["i2"]


def test_every_kind_is_read_back_unchanged(journal: Journal) -> None:
    events = toy_events()
    journal.append(events)
    assert tuple(journal.events()) == events


@pytest.mark.parametrize("chunk", [2, 5_000])
def test_a_failed_append_writes_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(journal_module, "CHUNK_SIZE", chunk)
    journal.append([item("a")])

    def source(last: Event | None) -> Iterator[Event]:
        yield from (item("b"), item("c"), item("d"), item("e"))
        if last is None:
            raise OSError("the source went away")
        yield last
        yield item("f")

    with pytest.raises(OSError, match="the source went away"):
        journal.append(source(None))
    for unreadable, reason in (
        (InteractionEvent("x", 0, "a", "rating", value=math.nan), "value: found nan"),
        (InteractionEvent("x", 0, "a", "click", position=0), "position: found 0"),
        (ItemEvent("x", 0, ""), "item: found ''"),
        (ItemEvent("x", 0, "\ud800"), "item: found .* half of a surrogate pair"),
    ):
        with pytest.raises(JournalError, match=f"event 'x' could not be read back: {reason}.*; nothing was written"):
            journal.append(source(unreadable))
    assert ids(journal) == ["a"]
    assert journal.append([item("b")]) == [True]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_text("no database at all" * 100)
    with pytest.raises(JournalError, match=r"can't open the journal at sqlite:.*not a database"):
        Journal.open_sqlite(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(JournalError, match="can't open the journal"):
        Journal.open_sqlite(tmp_path / "folder")


def writer(url: str, prefix: str, events: int, step: int) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("journal_writer.py")
    process = subprocess.Popen(
        [sys.executable, str(script), url, prefix, str(events), str(step)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_lose_and_duplicate_nothing(url: str) -> None:
    writers = [writer(url, prefix, 300, 3) for prefix in "ab"]
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    acknowledged = [process.communicate(timeout=60)[0].split() for process in writers]
    assert [process.returncode for process in writers] == [0, 0]
    journal = Journal(url)
    found = ids(journal)
    shared = [f"shared {n}" for n in range(100)]
    assert sorted(found) == sorted([f"{prefix}{n}" for prefix in "ab" for n in range(300)] + shared)
    for prefix in "ab":
        assert [name for name in found if name.startswith(prefix)] == [f"{prefix}{n}" for n in range(300)]
    # each of the shared ids was new to exactly one of the two
    assert [int(a) + int(b) for a, b in zip(acknowledged[0][1::2], acknowledged[1][1::2], strict=True)] == [1] * 100
    journal.close()


def test_acknowledged_events_survive_a_killed_process(url: str) -> None:
    for round_, acknowledgements in enumerate((1, 5, 20)):
        process = writer(url, f"{round_}:", 1_000_000, 7)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        for _ in range(acknowledgements):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        output_lines = process.stdout.read().splitlines()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        whole = [line for line in output_lines if len(line.split()) == 2]
        acknowledged = int(whole[-1].split()[0]) if whole else acknowledgements * 7
        journal = Journal(url)
        own = [int(name.partition(":")[2]) for name in ids(journal) if name.startswith(f"{round_}:")]
        assert len(own) >= acknowledged
        assert own == list(range(len(own)))
        assert len(own) % 7 == 0  # all of an append or nothing
        assert journal.append([item(f"after {round_}")]) == [True]
        journal.close()


def test_events_are_read_by_effective_time(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "CHUNK_SIZE", 2)
    late = InteractionEvent("late", 3, "a", "click", received=9)
    journal.append([item("b", 5), item("c", 9), late, item("a", 5), item("d", 9), item("first", -7)])
    assert [event.id for _, event in journal.read_by_effective_time()] == ["first", "b", "a", "c", "late", "d"]
    offset_of = {event.id: offset for offset, event in journal.read()}
    assert all(offset_of[event.id] == offset for offset, event in journal.read_by_effective_time())


def test_a_user_can_be_erased(journal: Journal, url: str) -> None:
    kept: list[Event] = [
        item("i"),
        UserEvent("u bob", 0, "bob", {"mood": "forgotten", "said": '{"name":"forgotten","value":true}'}),
        RankingEvent("r bob", 1, ("a",), "bob"),
        InteractionEvent("c bob", 2, "a", "click", user="bob"),
        InteractionEvent("nameless", 2, "a", "click", "r bob"),
    ]
    secret: list[Event] = [
        UserEvent("u ann", 0, "ann", {"city": "Xanadu-marker"}),
        RankingEvent("r ann", 1, ("a", "b"), "ann", "s ann"),
        InteractionEvent("c ann", 2, "a", "click", "r ann", "ann"),
        InteractionEvent("nameless answer", 3, "b", "click", "r ann"),
        InteractionEvent("nameless in her session", 3, "b", "click", session="s ann"),
    ]
    journal.append([*kept[:2], *secret, *kept[2:]])
    before = journal.last_offset
    assert journal.erase_user("ann", "note", 4) == 5
    assert journal.erase_user("ann", "again", 4) == 0
    assert journal.erase_user("nobody", "nobody", 4) == 0
    *left, note, other = journal.events()
    assert left == kept, "the notes are all that is left"
    assert (note.id, other.id) == ("again", "nobody"), "one of each user"
    assert "ann" not in str(note)
    if url.startswith("sqlite"):
        files = Path(url.removeprefix("sqlite:///")).parent.glob("journal.db*")
        assert not any(b"Xanadu-marker" in file.read_bytes() for file in files)
    journal.append([item("later"), UserEvent("old note", 4, "carl", {TOMBSTONE: True})])
    assert journal.last_offset > before
    assert journal.purge_before(5) == 3
    left_ids = ["i", "u bob", "again", "nobody", "later"]
    assert ids(journal) == left_ids, "a note that names a user goes with what is as old, and nothing that only looks so"
    assert journal.erase_user("bob", "bob", 5) == 1


def test_a_restored_journal_is_cleared_of_erased_users(url: str, tmp_path: Path) -> None:
    path = tmp_path / "erased.jsonl"
    events: list[Event] = [
        item("i"),
        RankingEvent("r ann", 1, ("a",), "ann", "s ann"),
        InteractionEvent("nameless", 2, "a", "click", "r ann"),
        InteractionEvent("nameless in her session", 3, "b", "click", session="s ann"),
        InteractionEvent("c bob", 3, "b", "click", user="bob", session="s ann"),
    ]
    with closing(Journal(url)) as journal:
        assert journal.remember_erasures(path) == 0
        journal.append(events)
        assert journal.erase_user("ann", "note", 4) == 3
        with journal.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM events")
        journal.append(events)
    for made_again in (1, 0):
        with closing(Journal(url)) as restored:
            assert restored.remember_erasures(path) == made_again
            assert ids(restored) == ["i", "c bob", "note"]
            assert restored.count_by_kind() == {"item": 1, "interaction": 1, "tombstone": 1}


def test_old_rankings_and_interactions_can_be_purged(journal: Journal) -> None:
    journal.append(
        [
            item("i", 1), UserEvent("u", 1, "ann"), RankingEvent("r1", 5, ("a",)), RankingEvent("r2", 9, ("a",)),
            InteractionEvent("c1", 7, "a", "click"), InteractionEvent("c2", 8, "a", "click"),
        ]
    )  # fmt: skip
    assert journal.purge_before(8) == 2
    assert ids(journal) == ["i", "u", "r2", "c2"]


def test_offsets_are_never_given_twice(journal: Journal) -> None:
    journal.append([item("a"), InteractionEvent("b", 0, "x", "click", user="ann")])
    last = journal.last_offset
    journal.erase_user("ann", "note", 0)
    journal.append([item("c")])
    assert [event.id for _, event in journal.read(since=last)] == ["note", "c"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/name", "needs the driver MySQLdb|can't be used"),
        ("nonsense", "can't be used: Could not parse"),
        ("nosuch://host/name", "can't be used: Can't load plugin"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused(url: str, reason: str) -> None:
    with pytest.raises(JournalError, match=reason):
        Journal(url)


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with create_engine(url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE events (id TEXT, kind TEXT)")
    with pytest.raises(
        JournalError, match="made by another version: it lacks body, effective_time, offset, timestamp, user_id"
    ):
        Journal(url)
