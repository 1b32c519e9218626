"""A full disk, a read-only home and a locked database, under load, while the workers are killed one after the other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console
from benchmarks.load import Call, Outcome, run
from benchmarks.serving import JSON, children, send, serving

RATE, SECONDS = 50, 20
TROUBLE_S, KILLS_S, GRACE_S = 2.0, (4.0, 13.0), 2.0
"""Seconds from the start of the load to the trouble and to each killed worker; and what the server has after that."""
TIMEOUT_S = 2.0
"""Seconds after which a feed counts as failed: an answer that waits for a lock is none."""
NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
MOUNTS = {
    "full": 'mount -t tmpfs -o size={size} tmpfs "$0" && cp -a {source}/. "$0" && exec "$@"',
    "read-only": 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
}
"""Shell commands in a mount namespace of the server's own, before it is started on its home $0."""
SPARE_BYTES = 4 * 1024 * 1024
HOLDER = """
import fcntl, sqlite3, sys
lock = open(sys.argv[1] + "-lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
"""A process that holds the write lock of a journal, as one does that was stopped in a write."""


def bars() -> list[Bar]:
    """One row for each trouble: feeds that failed, but for two seconds after each killed worker."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        toy_home(source)
        rows = [_locked(Path(shutil.copytree(source, Path(folder) / "locked", symlinks=True)))]
        if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
            console.print("no mount namespaces here: a full disk and a read-only home are not measured")
            return rows
        return [_full(Path(folder) / "full", source), _read_only(source, Path(folder) / "read-only"), *rows]


def toy_home(home: Path) -> None:
    """Make a home of the tests' toy world, with the default embedder and a trained ranker."""
    sys.path.append(str(PROJECT / "tests"))
    import toyworld

    home.mkdir()
    (home / "feedrank.toml").write_text(toyworld.CONFIG)
    toyworld.write(home / "log.jsonl", toyworld.items() + toyworld.interactions())
    for command in (["import", str(home / "log.jsonl")], ["train", "--name", "toy"]):
        subprocess.run(
            [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command], cwd=PROJECT, check=True,
            capture_output=True,
        )  # fmt: skip


def _full(home: Path, source: Path) -> Bar:
    """The home is a small file system in memory, which is filled to its last byte."""
    home.mkdir()
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    mount = MOUNTS["full"].format(size=2 * size + SPARE_BYTES, source=source)
    with serving(home, settle=False, prefix=[*NAMESPACE, mount, str(home)]) as (port, parent):

        def fill() -> None:
            with suppress(OSError), (Path(f"/proc/{parent}/root") / home.relative_to("/") / "fill").open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()

        return _through("disk full", port, parent, fill)


def _read_only(source: Path, home: Path) -> Bar:
    """The home is mounted read-only before the server starts."""
    shutil.copytree(source, home, symlinks=True)
    with serving(home, settle=False, prefix=[*NAMESPACE, MOUNTS["read-only"], str(home)]) as (port, parent):
        return _through("read-only home", port, parent, lambda: None)


def _locked(home: Path) -> Bar:
    """Another process holds the database's write lock and its lock file, and does not let go."""
    with serving(home, settle=False) as (port, parent), _holder() as hold:
        return _through("database locked", port, parent, lambda: hold(home / "journal.db"))


@contextmanager
def _holder() -> Iterator[Callable[[Path], None]]:
    held: list[subprocess.Popen[str]] = []

    def hold(path: Path) -> None:
        command = [sys.executable, "-c", HOLDER, str(path)]
        held.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert held[-1].stdout is not None
        if held[-1].stdout.readline() != "held\n":
            raise RuntimeError("found no lock, expected the process to hold it")

    try:
        yield hold
    finally:
        for process in held:
            process.communicate("")


def _through(what: str, port: int, parent: int, trouble: Callable[[], None]) -> Bar:
    """Feeds before, during and after a trouble, in which each worker of the start is killed."""
    while send(port, "GET", "/readyz")[0] != 200:
        time.sleep(0.1)
    time.sleep(1)  # the other process may still load
    first, outcome = children(parent), list[Outcome]()

    def call(place: int) -> Call:
        return Call("POST", "/v1/recommend", json.dumps({"user": f"p{place % 60}", "n": 5}).encode(), JSON)

    def load() -> None:
        outcome.append(run("127.0.0.1", port, call, RATE, SECONDS, timeout=TIMEOUT_S, keep_bodies=True))

    thread = threading.Thread(target=load)
    started = time.perf_counter()
    thread.start()
    actions = [(TROUBLE_S, trouble), *((at, _killer(pid)) for at, pid in zip(KILLS_S, first, strict=True))]
    for at, action in actions:
        time.sleep(max(0.0, started + at - time.perf_counter()))
        action()
    thread.join()
    console.print(outcome[0].table(what))
    return _row(what, outcome[0])


def _killer(pid: int) -> Callable[[], None]:
    return lambda: os.kill(pid, signal.SIGKILL)


def _row(what: str, outcome: Outcome) -> Bar:
    """Count the feeds that failed. Raises RuntimeError if all feeds were logged, as there was no trouble then."""
    late = outcome.scheduled > TROUBLE_S + GRACE_S
    bodies: Sequence[bytes] = outcome.bodies or ()
    kept = [b'"logged":true' in body for body, is_late in zip(bodies, late, strict=True) if is_late and body]
    if any(kept):
        raise RuntimeError(f"{what}: {sum(kept)} feeds were logged, expected none")
    for at in KILLS_S:
        late &= (outcome.scheduled < at) | (outcome.scheduled > at + GRACE_S)
    failed = (outcome.status != 200) & late
    what = f"{what}, each worker killed: feeds that fail 2 s later, of {np.count_nonzero(late):,}"
    return Bar(what, float(np.count_nonzero(failed)), "", 0, "lower")
