"""The write lock: one holder at a time between threads and processes, and a bounded wait."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from feedrank.engine.journal import sqlite_connection
from feedrank.engine.journal.sqlite_connection import WriteLock

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_threads_take_turns(tmp_path: Path) -> None:
    mine, inside, most = WriteLock(tmp_path / "turns"), [0], [0]

    def work() -> None:
        for _ in range(50):
            with mine.acquire():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0001)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == [1]


def test_a_process_waits_for_another_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "turns"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            monkeypatch.setattr(sqlite_connection, "MAX_WAIT_S", 0.01)
            with WriteLock(path).acquire():
                pass  # begun without
            monkeypatch.setattr(sqlite_connection, "MAX_WAIT_S", 60)
            began = threading.Event()

            def work() -> None:
                with WriteLock(path).acquire():
                    began.set()

            waiting = threading.Thread(target=work)
            waiting.start()
            assert not began.wait(0.2)
        finally:
            other.kill()
    assert began.wait(10)
    waiting.join()
