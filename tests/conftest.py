"""Fixtures shared by all tests. No test uses the network."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import postgres
import pytest
import toyworld
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# a busy machine is no reason to fail
settings.register_profile("feedrank", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("feedrank")

PROJECT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FEEDRANK_DATA", PROJECT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def sample_data() -> Callable[[str], Path]:
    """A folder of the sample data by name; the test skips where it is absent."""

    def folder(name: str) -> Path:
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"no sample data at {path}; set FEEDRANK_DATA to the folder that holds {name}")
        return path

    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server; the test skips where none is installed."""
    folder = postgres.programs()
    if folder is None:
        pytest.skip("no PostgreSQL server on this machine; install one, such as Debian's package postgresql")
    with postgres.server(folder) as server:
        yield server.url


def feedrank(home: Path, *arguments: object, code: int = 0) -> str:
    """Run a command on a home and return what it prints; fail if its exit code is another one."""
    from feedrank.api.cli import main

    result = CliRunner().invoke(main, ["--home", str(home), *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def parse_command(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command line of feedrank: the command and its parameters. Nothing is run. Raises UsageError."""
    from feedrank.api.cli import main

    assert Path(words[0]).name == "feedrank"
    context = main.make_context("feedrank", list(words[1:]))
    _, rest, _ = main.make_parser(context).parse_args(list(words[1:]))
    command: click.Command = main
    path, params = [], dict(context.params)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0]) if rest else None
        assert found is not None, f"there is no command {rest[:1]} in {shlex.join(words)}"
        command, name, rest = found, rest[0], rest[1:]
        path.append(name)
        is_own = isinstance(command, click.Group) and command.invoke_without_command
        if isinstance(command, click.Group) and not (is_own and (not rest or rest[0].startswith("-"))):
            continue
        context = command.make_context(name, rest, parent=context)
        params |= context.params
        break
    return " ".join(path), params


@pytest.fixture(scope="session")
def interactions_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only home with the interactions of the toy world and a trained ranker. Tests that write use `home`."""
    home = tmp_path_factory.mktemp("interactions")
    (home / "feedrank.toml").write_text(toyworld.CONFIG)
    feedrank(home, "data", toyworld.write(home / "walks.jsonl", toyworld.items() + toyworld.interactions()))
    feedrank(home, "train", "--name", "toy")
    return home


@pytest.fixture(scope="session")
def rankings_home(interactions_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only home with the interactions, then rankings with clicks, and no bundle."""
    home = tmp_path_factory.mktemp("rankings")
    shutil.copytree(
        interactions_home, home, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("bundles")
    )
    feedrank(home, "data", toyworld.write(home / "rankings.jsonl", toyworld.rankings()))
    return home


@pytest.fixture
def home(interactions_home: Path, tmp_path: Path) -> Path:
    """A copy of `interactions_home` that a test may change."""
    return Path(shutil.copytree(interactions_home, tmp_path / "home", symlinks=True))
