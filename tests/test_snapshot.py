"""Snapshots: a restarted process restores the same state, whatever was saved when, and whatever was damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toyworld
from conftest import feedrank
from test_behavioural_state import CATALOGUE, FULL, START, random_events

from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.events import Event, InteractionEvent
from feedrank.engine.journal.journal import Journal
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import snapshot
from feedrank.models.bundles.snapshot import RestoredState


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open_sqlite(tmp_path / "journal.db")


def same(a: RestoredState, b: RestoredState) -> None:
    assert list(a.users) == list(b.users)
    assert (a.offset, a.high_watermark_ms) == (b.offset, b.high_watermark_ms)
    for (name, one), other in zip(a.state.arrays().items(), b.state.arrays().values(), strict=True):
        used = {
            "histories.previous",
            "histories.pool",
            "custom_counters.keys",
            "custom_counters.sums",
            "custom_counters.hash_index",
        }
        length = (
            min(len(one), len(other)) if name.startswith(("histories", "dislike_marks")) or name in used else len(one)
        )
        if name != "custom_counters.hash_index":  # its size, and so its order, depends on how room was made
            assert np.array_equal(one[:length], other[:length], equal_nan=one.dtype.kind == "f"), name


def restored(path: Path, journal: Journal) -> RestoredState:
    return snapshot.restore(path, journal, CATALOGUE, FULL)


def test_a_snapshot_and_the_rest_are_the_whole(journal: Journal, tmp_path: Path) -> None:
    events = random_events(3, 240)
    path = tmp_path / "state.npz"
    for first in range(0, 240, 60):
        journal.append(events[first : first + 60])
        restored_state = restored(path, journal)
        assert restored_state.events_read == 60
        same(restored_state, restored(tmp_path / "none", journal))
        snapshot.save(path, restored_state, CATALOGUE)
    same(restored(path, journal), restored(tmp_path / "none", journal))
    assert restored(path, journal).events_read == 0


def test_older_events_that_were_imported_later_are_replayed_in_order(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    journal.append(random_events(3, 100))
    snapshot.save(path, restored(path, journal), CATALOGUE)
    older = InteractionEvent("older", int(START * 1000) - 5_000, "i1", "click", user="u1")
    journal.append([older])
    restored_state = restored(path, journal)
    assert restored_state.events_read == 101
    same(restored_state, restored(tmp_path / "none", journal))


def test_a_late_event_counts_from_its_ingestion(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    events = random_events(3, 100)
    journal.append(events)
    snapshot.save(path, restored(path, journal), CATALOGUE)
    now = events[-1].timestamp + 10
    journal.append([InteractionEvent("late", int(START * 1000), "i1", "click", user="u1", received=now)])
    restored_state = restored(path, journal)
    assert restored_state.events_read == 1
    rows, times = restored_state.state.history(restored_state.users.row("u1"))
    assert (rows[0], times[0]) == (1, START)
    same(restored_state, restored(tmp_path / "none", journal))


@pytest.mark.parametrize("harm", ["cut", "garbage", "empty", "other items", "other settings"])
def test_a_snapshot_that_does_not_match_is_ignored(journal: Journal, tmp_path: Path, harm: str) -> None:
    path = tmp_path / "state.npz"
    journal.append(random_events(3, 100))
    snapshot.save(path, restored(path, journal), CATALOGUE)
    catalogue, spec = CATALOGUE, FULL
    whole = path.read_bytes()
    if harm == "other items":
        catalogue = Catalogue.from_items({**CATALOGUE.to_items(), "new": {}})
    elif harm == "other settings":
        spec = replace(FULL, history_length=7)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"x" * 500, "empty": b""}[harm])
    restored_state = snapshot.restore(path, journal, catalogue, spec)
    assert restored_state.events_read == 100
    assert isinstance(restored_state.state, BehaviouralState)


def test_a_snapshot_ahead_of_its_journal_is_ignored(journal: Journal, tmp_path: Path) -> None:
    path, events = tmp_path / "state.npz", random_events(3, 100)
    journal.append(events)
    snapshot.save(path, restored(path, journal), CATALOGUE)
    backup = Journal.open_sqlite(tmp_path / "backup.db")
    backup.append(events[:60])
    for found in (restored(path, backup), snapshot.restore(path, journal, CATALOGUE, FULL, last_offset=60)):
        assert (found.events_read, found.offset) == (60, 60)
        same(found, restored(tmp_path / "none", backup))


def test_a_killed_writer_leaves_the_old_snapshot(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    journal.append(random_events(3, 50))
    snapshot.save(path, restored(path, journal), CATALOGUE)
    before = path.read_bytes()
    broken = restored(path, journal)
    broken.users = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        snapshot.save(path, broken, CATALOGUE)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if "state" in one.name] == ["state.npz"]


# --- the commands


def events_of(home: Path, user: str) -> list[Event]:
    return [one for one in HomePaths(home).journal().events() if getattr(one, "user", None) == user]


def test_an_erased_user_can_come_back(home: Path) -> None:
    output = feedrank(home, "snapshot")
    assert f"{toyworld.USERS} users" in output
    assert HomePaths(home).snapshot.exists()
    assert len(events_of(home, "p0")) == toyworld.INTERACTIONS_PER_USER
    assert f"{toyworld.INTERACTIONS_PER_USER} events of 'p0' deleted" in feedrank(home, "forget", "p0", "--yes")
    assert not HomePaths(home).snapshot.exists()
    assert not events_of(home, "p0")
    assert len(HomePaths(home).journal().erasure_log.known()) == 1, "this alone says that somebody was erased"
    assert "has no events of 'p0'" in feedrank(home, "forget", "p0", "--yes")
    feedrank(home, "recommend", "--user", "p0")


def test_nothing_is_deleted_without_a_yes(home: Path) -> None:
    assert "Aborted" in feedrank(home, "forget", "p0", code=1)
    assert len(events_of(home, "p0")) == toyworld.INTERACTIONS_PER_USER


def test_old_events_are_purged(home: Path) -> None:
    before = HomePaths(home).journal().count_by_kind()
    assert f"{before['interaction']:,} events from before" in feedrank(home, "purge", "--older-than-days", "1", "--yes")
    assert HomePaths(home).journal().count_by_kind() == {"item": before["item"]}
