"""Counts the project's files that one feed passes: a profile of one warm `POST /v1/recommend`."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from flask.testing import FlaskClient

from benchmarks.bars import PROJECT, Bar, console, measure
from benchmarks.import_graph import PACKAGES

MAX_FILES = 30
WARM_UP_REQUESTS = 3
USER = "p1"


def files_of_a_feed(home: Path | None = None) -> dict[str, int]:
    """Return each project file that one request passes, relative to the checkout, with its number of calls.

    home: a home folder with a bundle, which gets new rankings in its journal; None: a new one of the toy world.
    """
    from feedrank.api import compose, config
    from feedrank.api.home_paths import HomePaths
    from feedrank.api.http.app import create_app
    from feedrank.api.http.service import Service

    if home is None:
        with tempfile.TemporaryDirectory() as folder:
            return files_of_a_feed(toy_home(Path(folder)))
    place = HomePaths(home)
    client = create_app(Service(compose.build_recommender(place, config.load_config(place.config)))).test_client()
    for _ in range(WARM_UP_REQUESTS):
        _post(client)
    with _count_calls() as calls:
        _post(client)
    return dict(calls)


def request_files() -> list[Bar]:
    """Print the files of a feed, most calls first, and return their number as a bar."""
    files = files_of_a_feed()
    for path, calls in sorted(files.items(), key=lambda entry: -entry[1]):
        console.print(f"{calls:5}  {path}")
    return [Bar("project files that one warm feed passes", len(files), "files", MAX_FILES, "lower")]


def toy_home(folder: Path) -> Path:
    """Make a home of the tests' toy world: four genres of items, and a trained ranker."""
    sys.path.append(str(PROJECT / "tests"))
    import toyworld
    from click.testing import CliRunner

    from feedrank.api.cli import main

    (folder / "feedrank.toml").write_text(toyworld.CONFIG)
    log = toyworld.write(folder / "walks.jsonl", toyworld.items() + toyworld.interactions())
    for command in (["import", str(log)], ["train"]):
        result = CliRunner().invoke(main, ["--home", str(folder), *command], catch_exceptions=False)
        if result.exit_code:
            raise RuntimeError(f"feedrank {' '.join(command)} failed: {result.output}")
    return folder


def _post(client: FlaskClient) -> None:
    answer = client.post("/v1/recommend", json={"user": USER})
    if answer.status_code != 200 or not answer.json["items"]:
        raise RuntimeError(f"the feed failed with status {answer.status_code}: {answer.text}")


@contextmanager
def _count_calls() -> Iterator[Counter[str]]:
    """Count the calls of this thread by project file, relative to the checkout."""
    calls: Counter[str] = Counter()
    names: dict[str, str | None] = {}

    def name_of(filename: str) -> str | None:
        path = Path(filename).resolve()
        inside = path.is_relative_to(PROJECT) and path.relative_to(PROJECT).parts[0] in PACKAGES
        return str(path.relative_to(PROJECT)) if inside else None

    def observe(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            filename = frame.f_code.co_filename
            if filename not in names:
                names[filename] = name_of(filename)
            if (name := names[filename]) is not None:
                calls[name] += 1

    sys.setprofile(observe)
    try:
        yield calls
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    measure("request_files", request_files)
