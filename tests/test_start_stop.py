"""Starts and stops: what is loaded before a service is ready, how it ends and is replaced, and homes by mistake."""

from __future__ import annotations

import http.client
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import toyworld
from click.testing import CliRunner
from conftest import PROJECT, feedrank
from test_disks import locked

from feedrank.api import gunicorn_server, server
from feedrank.api.cli import main
from feedrank.api.cli.main import WITHOUT_HOME
from feedrank.api.compose.refresh import Refresher
from feedrank.api.config import load_config
from feedrank.api.gunicorn_server import GunicornServer
from feedrank.api.home_paths import HomePaths
from feedrank.api.metrics_folder import MEMORY, PREFIX

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def plain_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without text models, whose servers start at once."""
    home = tmp_path_factory.mktemp("plain") / "home"
    log = toyworld.write(tmp_path_factory.mktemp("log") / "log.jsonl", toyworld.items() + toyworld.interactions())
    assert "new home" in feedrank(home, "import", log)
    (home / "feedrank.toml").write_text(f'{toyworld.CONFIG}\n[embedder]\nmodel = "none"\n')
    feedrank(home, "index")
    return home


@contextmanager
def serving(home: Path, workers: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a session of its own, and its port once it is ready."""
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "serve", "--no-keys", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    errors: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline()
        assert "127.0.0.1:" in line, "".join(errors)
        port = int(line.split("127.0.0.1:")[1].split()[0])
        wait_for(lambda: ask(port, "GET", "/readyz")[0] == 200)
        yield process, port
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and decoded body of one request on a connection of its own; 0: no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def wait_for(condition: Any) -> None:
    """Wait until a condition holds, at most 30 s."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_killed_worker_is_replaced_by_one_that_serves_beside_a_locked_journal(plain_home: Path) -> None:
    before = set(MEMORY.glob(f"{PREFIX}*")) if MEMORY.exists() else set()
    with serving(plain_home, workers=1) as (process, port), locked(plain_home / "journal.db"):
        (first,) = children(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: ask(port, "POST", "/v1/recommend", {"user": "p1"})[0] == 200)
        status, feed = ask(port, "POST", "/v1/recommend", {"user": "p1", "n": 3})
        assert (status, len(feed["items"]), feed["logged"]) == (200, 3, False)
        assert children(process.pid) != [first]
        assert ask(port, "GET", "/readyz")[0] == 200
        process.terminate()
        assert process.wait(10) == 0
    if MEMORY.exists():
        assert set(MEMORY.glob(f"{PREFIX}*")) <= before, "the folder of metrics is removed"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_soon_and_answers_what_it_accepted(
    plain_home: Path, workers: int, number: signal.Signals
) -> None:
    with serving(plain_home, workers) as (process, port):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        idle[1].sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\n")  # and never the rest
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        started = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        time.sleep(0.1)
        kept.request("POST", "/v1/recommend", json.dumps({"user": "p1"}), JSON)
        answer = kept.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["items"]
        assert answer.will_close, "the client must not send another one"
        assert process.wait(20) == 0
        assert time.monotonic() - started < 5
        for connection in (*idle, kept):
            connection.close()


@pytest.mark.parametrize("after", [0.3, 1.0, 2.0])
def test_ctrl_c_ends_a_start_at_once(plain_home: Path, after: float) -> None:
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(plain_home), "serve", "--no-keys", "--port", "0"]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        assert process.stdout is not None
        time.sleep(after)
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        while select.select([process.stdout], [], [], 20)[0] and process.stdout.read1(4096):
            pass  # until all processes have ended
        assert time.monotonic() - started < 4


def test_text_models_are_loaded_before_a_worker_serves(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, steps = HomePaths(home), list[str]()
    monkeypatch.setattr(server, "limit_blas_threads", lambda: None)
    monkeypatch.setattr(Refresher, "load_models", lambda self: steps.append("models"))
    monkeypatch.setattr(Refresher, "start", lambda self: steps.append("start"))
    monkeypatch.setattr(server, "warm_up", lambda *_: steps.append("warm up"))
    config = load_config(paths.config)
    assert server.create_worker_app(paths, config, server.preload(paths, config), time.time)
    assert steps == ["models", "warm up", "start"]


@pytest.mark.parametrize("is_replacement", [False, True])
def test_a_worker_that_can_not_be_loaded_ends_the_server_only_at_its_start(
    monkeypatch: pytest.MonkeyPatch, is_replacement: bool
) -> None:
    def fails() -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr("feedrank.api.gunicorn_server.RETRY_LOAD_S", 0)
    gunicorn = GunicornServer(fails, {}, lambda _: None)
    gunicorn._is_replacement = is_replacement
    with pytest.raises(SystemExit if is_replacement else OSError) as caught:
        gunicorn.load()
    if is_replacement:
        assert caught.value.code == 1, "3 and 4 would end the server"


FAILS = """
from feedrank.api.gunicorn_server import GunicornServer
def fail():
    raise OSError("the disk is gone")
GunicornServer(fail, {"bind": "127.0.0.1:0", "workers": 2, "control_socket_disable": True}, print).serve()
"""


def test_a_server_ends_with_an_error_if_a_worker_of_its_start_can_not_be_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILS], capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "the disk is gone" in done.stderr
    assert "RuntimeError: the server ended because of an error" in done.stderr


def test_the_first_process_outlives_a_worker_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(gunicorn_server, "end_process", codes.append)
    gunicorn_server._end_worker(None, SimpleNamespace(pid=os.getpid() + 1))
    assert codes == []
    try:
        raise SystemExit(3)
    except SystemExit:
        gunicorn_server._end_worker(None, SimpleNamespace(pid=os.getpid()))
    assert codes == [3], "gunicorn ends the server for this code"


# --- homes by mistake

COMMAND_LINES = """
index
train
evaluate
recommend
serve --port 0
retrain
tune
finetune cross-encoder
distill t
bundles list
bundles show
bundles diff a b
bundles promote a
bundles rollback
bundles prune
experiment create e.toml
experiment start a
experiment stop a
experiment set-weights a a=1
experiment list
experiment readout a
experiment watch --once
ope --policy random
keys create a --scope read
keys list
keys revoke a
snapshot
journal backup b.db
journal check
features suggest
features prune
purge --older-than-days 1 --yes
forget a --yes
"""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """All commands that do something, by their names."""
    if not isinstance(command, click.Group):
        return {path: command}
    return {
        name: leaf
        for below in command.commands
        for name, leaf in leaves(command.commands[below], (*path, below)).items()
    }


def test_no_command_but_import_and_restore_makes_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.toml").write_text("")
    lines = [shlex.split(line) for line in COMMAND_LINES.strip().splitlines()]
    tried = set()
    for words in lines:
        names = [path for path in leaves(main) if list(path) == words[: len(path)]]
        tried |= set(names)
        result = CliRunner().invoke(main, ["--home", "vra", *words])
        assert result.exit_code == 1, (words, result.output)
        assert "there is no home at" in result.stderr, (words, result.output)
        assert not (tmp_path / "vra").exists(), words
    exempt = {path for path, leaf in leaves(main).items() if leaf in WITHOUT_HOME}
    assert tried | exempt == set(leaves(main)), "each command is tried, or needs no home"


def test_help_needs_no_home(tmp_path: Path) -> None:
    for path in leaves(main):
        assert "Usage" in feedrank(tmp_path / "vra", *path, "--help")
    assert not (tmp_path / "vra").exists()


@pytest.mark.parametrize("command", ["train", "recommend", "serve", "snapshot", "forget a --yes"])
def test_a_folder_that_is_no_home_gets_no_journal(
    plain_home: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.logs, "configure_logging", lambda *_: None)
    (tmp_path / "bundles").symlink_to(plain_home / "bundles")
    assert "there is no journal at" in feedrank(tmp_path, *shlex.split(command), code=1)
    assert not list(tmp_path.glob("journal*"))


def test_an_import_of_nothing_makes_no_home(tmp_path: Path) -> None:
    assert "does not exist" in feedrank(
        tmp_path / "home", "import", tmp_path / "missing.jsonl", "--format", "jsonl", code=1
    )
    assert not (tmp_path / "home").exists()
