"""Full disks, read-only folders and locked databases: what is opened, what goes on, and what is private."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import PROJECT

from feedrank import Home
from feedrank.api import guardrail_monitor, metrics_folder
from feedrank.api.guardrail_monitor import GuardrailMonitor
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import ItemEvent, RankingEvent
from feedrank.engine.journal import sqlite_connection
from feedrank.engine.journal.journal import Journal, JournalError
from feedrank.engine.journal.sqlite_connection import WriteLock
from feedrank.models.text.score_cache import SqliteScoreCache
from feedrank.models.text.vector_cache import VectorCache

NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
"""Runs a shell command with mounts of its own."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of an SQLite file, as a process does that was stopped in a write."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def a_ranking(name: str) -> RankingEvent:
    return RankingEvent(name, 1, ("a",))


# --- the journal


def test_a_journal_with_its_tables_is_opened_without_a_write(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.open_sqlite(path).append([ItemEvent("a", 1, "a")])
    with locked(path):
        started = time.perf_counter()
        journal = Journal.open_sqlite(path)
        assert [event.id for event in journal.events()] == ["a"]
        assert time.perf_counter() - started < 1


def test_a_request_waits_once_for_a_locked_database_and_then_hardly(tmp_path: Path) -> None:
    journal = Journal.open_sqlite(tmp_path / "journal.db")
    journal.record([a_ranking("first")], 1)
    seconds = []
    with locked(tmp_path / "journal.db"):
        for number in range(4):
            started = time.perf_counter()
            with pytest.raises(JournalError, match="locked"):
                journal.record([a_ranking(f"r{number}")], 1)
            seconds.append(time.perf_counter() - started)
            assert [event.id for event in journal.events()] == ["first"], "reads go on"
    assert seconds[0] > sqlite_connection.PATIENT_MS / 1000, "an import's transaction is waited for"
    assert max(seconds[1:]) < 0.25
    assert journal.record([a_ranking("last")], 1) == [True]


def test_no_thread_waits_long_for_another_that_holds_the_write_lock(tmp_path: Path) -> None:
    lock, held, done = WriteLock(tmp_path / "lock"), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.acquire():
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    started = time.perf_counter()
    with lock.acquire(0.01):
        seconds = time.perf_counter() - started
    done.set()
    holder.join()
    assert seconds < 1


def test_a_journal_out_of_reach_is_opened_by_a_service_that_knows_it(tmp_path: Path) -> None:
    HomePaths(tmp_path).journal().append([ItemEvent("a", 1, "a")])
    (tmp_path / "journal.db").rename(tmp_path / "elsewhere")
    (tmp_path / "journal.db").mkdir()
    journal = HomePaths(tmp_path).journal(is_checked=True)
    with pytest.raises(JournalError):
        list(journal.read())
    (tmp_path / "journal.db").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "journal.db")
    assert [event.id for event in journal.events()] == ["a"]


READ_ONLY = """
import sys
from pathlib import Path
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.journal.journal import JournalError
from feedrank.api.home_paths import HomePaths
journal = HomePaths(Path(sys.argv[1])).journal()
print(journal.last_offset, [event.id for event in journal.events()])
for write in (lambda: journal.record([ItemEvent("b", 1, "b")], 1), lambda: journal.append([ItemEvent("b", 1, "b")])):
    try:
        write()
    except JournalError as problem:
        print(problem)
print([event.id for event in journal.events()])
"""


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "in use"])
def test_a_journal_in_a_read_only_folder_is_read(tmp_path: Path, is_open: bool) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here, and root may write to any folder")
    home = tmp_path / "home"
    journal = HomePaths(home).journal()
    journal.append([ItemEvent("a", 1, "a")])
    if not is_open:
        journal.close()
        assert not (home / "journal.db-wal").exists()
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    command = [*NAMESPACE, mount, str(home), sys.executable, "-c", READ_ONLY, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
    journal.close()
    assert done.returncode == 0, done.stderr
    first, *refused, last = done.stdout.splitlines()
    assert (first, last) == ("1 ['a']", "['a']")
    assert len(refused) == 2
    assert all("readonly database" in line for line in refused)


# --- caches and monitors


def test_a_cache_of_scores_works_without_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    rows = np.array([0, 1], np.int32)
    for path in (tmp_path / "file" / "scores.db", tmp_path / "file"):
        cache = SqliteScoreCache(path, "model", ["a", "b"], 100)
        cache.add("text", rows, np.array([1, 2], np.float32))
        assert cache.scores("text", rows).tolist() == [1, 2]


def test_a_cache_of_scores_does_not_wait_for_a_locked_file(tmp_path: Path) -> None:
    path, rows = tmp_path / "scores.db", np.array([0], np.int32)
    SqliteScoreCache(path, "model", ["a"], 100).close()
    with locked(path):
        cache = SqliteScoreCache(path, "model", ["a"], 100)
        started = time.perf_counter()
        for number in range(50):
            cache.add(f"text {number}", rows, np.array([number], np.float32))
        assert time.perf_counter() - started < 1
        assert cache.scores("text 7", rows).tolist() == [7]
    cache._write_again_at = 0
    cache.add("later", rows, np.array([5], np.float32))
    assert SqliteScoreCache(path, "model", ["a"], 100).scores("later", rows).tolist() == [5]


def test_vectors_that_can_not_be_cached_are_only_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    VectorCache(tmp_path / "file" / "vectors").add({b"k" * 16: np.zeros((1, 2), np.float32)})
    assert "could not be cached" in caplog.text


def test_the_guardrail_monitor_survives_a_folder_that_it_can_not_write_to(tmp_path: Path, running: None) -> None:
    (tmp_path / "experiments-guard").mkdir()
    GuardrailMonitor(HomePaths(tmp_path), None)._check_under_lock()  # type: ignore[arg-type]  # it is not asked


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check is started."""
    monkeypatch.setattr(guardrail_monitor.subprocess_cli, "run_cli", None)


# --- metrics


FULL = """
import errno, os, sys
from pathlib import Path
from feedrank.api import metrics
metrics.prepare_multiprocess(Path(sys.argv[1]))
from prometheus_client import values
allocate, left = os.posix_fallocate, [int(sys.argv[2])]
def full(descriptor, offset, size):
    left[0] -= 1
    if left[0] < 0:
        raise OSError(errno.ENOSPC, "no space left")
    allocate(descriptor, offset, size)
os.posix_fallocate = full
made = metrics.Metrics(lambda: 1.0)
for path in Path(sys.argv[1]).glob("*.db"):
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size, (path, "has pages without space")
for number in range(600):
    made.count_exposure(f"experiment {number} " + "x" * 400, "a")
    made.count_exposure(f"experiment {number} " + "x" * 400, "a")
made.observe_request("/v1/recommend", "POST", 200, 0.1)
value = made._exposures.labels("experiment 599 " + "x" * 400, "a")._value.get()
print(value, made.render()[0].count(b"feedrank_exposures_total{"))
"""


@pytest.mark.parametrize("allocations", [0, 2, 4, 100])
def test_metrics_go_on_where_there_is_no_space_for_them(tmp_path: Path, allocations: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(allocations)], capture_output=True, text=True, cwd=PROJECT,
        env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
    value, shared = done.stdout.split()
    assert value == "2.0"
    assert (int(shared) == 600) is (allocations == 100), "what has no space is not shared"


def test_the_folder_of_metrics_is_private_and_removed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_folder, "MEMORY", tmp_path)
    killed = tmp_path / f"{metrics_folder.PREFIX}killed"
    killed.mkdir()
    (killed / metrics_folder.LOCK).touch()
    with metrics_folder.metrics_folder() as folder:
        assert folder is not None
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not killed.exists(), "its server holds no lock any more"
        with metrics_folder.metrics_folder() as second:
            assert second != folder
            assert folder.exists(), "its server holds the lock"
    assert not list(tmp_path.iterdir())


def test_processes_count_alone_where_there_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(metrics_folder.tempfile, "mkdtemp", full)
    with metrics_folder.metrics_folder() as folder:
        assert folder is None
    assert "counts its own metrics" in caplog.text


# --- modes


def readable_by_others(folder: Path) -> list[str]:
    """The files and folders below a folder, and itself, that not only their owner may use."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    return [str(path) for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    home = tmp_path / "home"
    config = tmp_path / "feedrank.toml"
    config.write_text(f'{toyworld.CONFIG}\n[embedder]\nmodel = "none"\n')
    log = toyworld.write(tmp_path / "log.jsonl", toyworld.items() + toyworld.interactions(), ["not an event"])
    for command in (["import", str(log)], ["index"], ["keys", "create", "a", "--scope", "read"], ["snapshot"]):
        done = subprocess.run(
            [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "--config", str(config), *command],
            capture_output=True, text=True, cwd=PROJECT, umask=0, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    found = {path.name for path in home.rglob("*")}
    assert {"journal.db", "manifest.json", "keys.json", "state.npz", "rejects.jsonl", "promotions.jsonl"} <= found
    assert readable_by_others(home) == []


def test_files_of_the_python_api_are_private_whatever_the_umask(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    before = os.umask(0)
    try:
        home = Home(tmp_path / "home")
        home.load(items=pyarrow.table({"item": ["a", "b"], "title": ["one", "two"]}))
        cache = SqliteScoreCache(HomePaths(home.folder).cross_encoder_scores, "model", ["a"], 100)
        cache.add("text", np.array([0], np.int32), np.array([1], np.float32))
        journal = HomePaths(home.folder).journal()
        journal.record([ItemEvent("c", 1, "c")], 1)
        assert readable_by_others(home.folder) == [], "also SQLite's own files beside them"
        journal.close()
    finally:
        assert os.umask(before) == 0, "the umask is the program's own"
