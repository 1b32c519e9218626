"""Runs all commands on degenerate catalogues and logs, in this process, and counts what must never come out.

A command may do its work or say why it can't. What counts as a fault: a traceback, an error that numpy, scipy,
LightGBM or Annoy raised, a warning of numpy, NaN in what is printed, a request that fell back because ranking failed,
and an empty feed while there is something to show.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from click.testing import CliRunner, Result

from benchmarks.truth.degenerate import START, World

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("index",), ("recommend", "--user", "u0"), ("evaluate",), ("train",), ("retrain",), ("recommend",),
    ("recommend", "--user", "u0"), ("recommend", "--query", "red shoes"),
)  # fmt: skip
"""What a user tries after an import, in this order."""
_NAN = re.compile(r"(?<![\w.])[+-]?(nan|NaN|NAN)(?!\w)")
_NOT_FOR_USERS = ("LightGBM refused", "Singular matrix", "array to concatenate", "broadcast", "ARPACK", "Annoy")


@dataclass(frozen=True, slots=True)
class Fault:
    """What came out of a command that must not."""

    world: str
    command: str
    what: str

    def __str__(self) -> str:
        return f"{self.command} on ({self.world}): {self.what}"


def run_world(
    world: World, folder: Path, commands: Sequence[Sequence[str]] = COMMANDS, embedder: str = "none"
) -> list[Fault]:
    """Import a world into a home at `folder`, run the commands in this process, and return all faults."""
    folder.mkdir(parents=True)
    (folder / "feedrank.toml").write_text(world.config(embedder), encoding="utf-8")
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in [*world.items, *world.log]), encoding="utf-8")
    faults: list[Fault] = []
    for number, command in enumerate([("import", str(path), "--format", "jsonl"), *commands]):
        extra: tuple[str, ...] = ()
        if command[0] == "recommend":
            extra = ("--json",)
        elif command[0] in ("index", "train", "retrain"):
            extra = ("--name", f"b{number}")
        result, found = run_command(folder, [*command, *extra])
        if command[0] == "recommend" and result.exit_code == 0:
            found += _feed_faults(world, command, result.stdout)
        faults += [Fault(world.name, " ".join(command), what) for what in found]
    return faults


def run_extra(world: World, folder: Path, number: int) -> list[Fault]:
    """Run one of the other ways to use a home after `run_world`; `number` chooses which."""
    name, extra = list(EXTRAS.items())[number % len(EXTRAS)]
    with _listening() as (caught, records), redirect_stderr(io.StringIO()):
        try:
            found = extra(world, folder)
        except (ValueError, RuntimeError, OSError) as problem:  # the reason why it can't be done
            raised = _library_error(problem)
            found = [raised] if raised else []
        except Exception as problem:
            found = [f"traceback: {type(problem).__name__}: {problem}"]
    found += _complaints(caught, records)
    return [Fault(world.name, name, what) for what in found]


def _tune(_: World, folder: Path) -> list[str]:
    return run_command(folder, ("tune", "--trials", "1"))[1]


def _off_policy(_: World, folder: Path) -> list[str]:
    since = ("--since", "1980-01-01T00:00:00Z")
    found = run_command(folder, ("ope", "--bundle", "b1", *since))[1]
    return found + run_command(folder, ("ope", "--policy", "old", "--variant", "new", *since))[1]


def _python_api(world: World, folder: Path) -> list[str]:
    from feedrank import Home

    home = Home(folder, progress=False)
    found: list[str] = []
    for work in (lambda: repr(home.evaluate()), lambda: repr(home.train())):
        try:
            text = work()
        except ValueError as problem:
            found += [raised] if (raised := _library_error(problem)) else []
            continue
        found += [f"NaN is printed: {text}"] if _NAN.search(text) else []
    with home.recommender() as recommender:
        feeds = [recommender.recommend("u0"), recommender.recommend(None), recommender.recommend("u1", query="red")]
        feeds.append(recommender.rank(["item0", "gone0", "never seen"], "u0"))
        many = recommender.recommend_many(["u0", "nobody"])
        found += [f"score {score}" for feed in feeds for score in feed.scores if not math.isfinite(score)]
        found += [f"NaN is printed: {text}" for text in (*map(repr, feeds), repr(many)) if _NAN.search(text)]
        for feed in feeds:
            repr(feed.explain())
    return found


def _serving(world: World, folder: Path) -> list[str]:
    """Serve requests over HTTP, let a new item come in, and recommend again."""
    from feedrank.api import compose
    from feedrank.api.admin import create_admin_services
    from feedrank.api.compose.refresh import Refresher
    from feedrank.api.compose.text_signals import TextEncoders
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.api.http.app import create_app
    from feedrank.api.http.service import Service
    from feedrank.models.bundles import registry

    home = HomePaths(folder)
    config, journal = load_config(home.config), home.journal()
    recommender = compose.build_recommender(home, config, journal)
    opened = registry.load_current(home.bundles, lambda _: None)
    refresher = Refresher(home, config, journal, recommender, opened, TextEncoders(home, opened))
    admin = create_admin_services(home, config, journal, refresher.check_items)
    client = create_app(Service(recommender, time.time, admin=admin)).test_client()
    item = {"event": "item", "id": "new", "timestamp": START, "item": "new item",
            "fields": [{"name": "title", "value": "new red shoes"}, {"name": "category", "value": "new"}]}  # fmt: skip
    found: list[str] = []
    for round_ in range(2):
        for path, body in (
            ("recommend", {"user": "u0"}), ("recommend", {"query": "red shoes", "n": 3}), ("recommend", {}),
            ("recommend", {"user": "u1", "diversity": {"weight": 0.5, "per_category": 1}}),
            ("rank", {"user": "u0", "items": ["item0", "gone0", "item1"]}), ("events", {"events": [item]}),
        ):  # fmt: skip
            response = client.post(f"/v1/{path}", json=body)
            if response.status_code >= 500 or _NAN.search(response.text):
                found.append(f"{path} {body}: {response.status_code} {response.text[:300]}")
            elif path != "events" and response.status_code == 200:
                explained = client.get(f"/v1/rankings/{response.json['ranking']}/explain")
                if explained.status_code >= 500 or _NAN.search(explained.text):
                    found.append(f"explain: {explained.status_code} {explained.text[:300]}")
        if round_ == 0:
            refresher.check_items()
    journal.close()
    return found


def _experiment(_: World, folder: Path) -> list[str]:
    (folder / "test.toml").write_text(
        'name = "ab"\nmin_days = 1\nmin_units = 10\nplanned_units = 100\n[arms.usual]\n[arms.other]\nbundle = "b1"\n'
    )
    lines = (
        ("create", str(folder / "test.toml")), ("start", "ab"), ("readout", "ab"), ("recommend", "--user", "u0"),
        ("readout", "ab", "--json", str(folder / "r.json"), "--html", str(folder / "r.html")), ("list",),
    )  # fmt: skip
    found: list[str] = []
    for line in lines:
        found += run_command(folder, line if line[0] == "recommend" else ("experiment", *line))[1]
    return found


def _upkeep(_: World, folder: Path) -> list[str]:
    (folder / "users.txt").write_text("u0\nu1\nnobody\n")
    many = ("recommend", "--users", str(folder / "users.txt"), "--out", str(folder / "feeds.csv"))
    lines = (("bundles", "list"), ("features", "--bundle", "b1"), ("snapshot",), many, ("evaluate", "--ablate"))
    return [what for line in lines for what in run_command(folder, line)[1]]


EXTRAS: dict[str, Callable[[World, Path], list[str]]] = {
    "tune": _tune, "off-policy": _off_policy, "Python API": _python_api, "serving": _serving,
    "experiment": _experiment, "upkeep": _upkeep,
}  # fmt: skip
"""What else a home is used for -> a function that tries it and returns the faults."""


def run_command(folder: Path, arguments: Sequence[str]) -> tuple[Result, list[str]]:
    """Run one command in this process; return its result and the faults found in it."""
    from feedrank.api.cli import main

    with _listening() as (caught, records):
        result = CliRunner().invoke(main, ["--home", str(folder), *arguments])
    found: list[str] = []
    problem = result.exception
    if problem is not None and not isinstance(problem, SystemExit):
        found.append(f"traceback: {type(problem).__name__}: {problem}")
    elif problem is not None and problem.__context__ is not None and (raised := _library_error(problem.__context__)):
        found.append(raised)
    found += _complaints(caught, records)
    text = result.output
    if "Traceback (most recent" in text:
        found.append("traceback is printed")
    if (match := _NAN.search(text)) is not None:
        found.append(f"NaN is printed: {_line_of(text, match.start())}")
    if wrong := next((part for part in _NOT_FOR_USERS if result.exit_code and part in text), None):
        found.append(f"the message of a library ({wrong}): {text.strip().splitlines()[-1][:300]}")
    if result.exit_code == 1 and not result.stderr.strip():
        found.append("failed without a message")
    return result, found


def _feed_faults(world: World, command: Sequence[str], text: str) -> list[str]:
    try:
        body = json.loads(text)
    except ValueError:
        return [f"not JSON: {text[:300]!r}"]
    user = command[command.index("--user") + 1] if "--user" in command else None
    listed = [entry["id"] for entry in body["items"]]
    found = [f"score {entry}" for entry in body["items"] if not math.isfinite(entry.get("score", 0.0))]
    if not listed and (expected := world.can_be_shown(user)):
        found.append(f"the feed is empty, though it may have {', '.join(sorted(expected)[:3])}")
    if extra := set(listed) & world.hidden:
        found.append(f"the feed has hidden items: {extra}")
    return found


def _complaints(caught: list[warnings.WarningMessage], records: list[logging.LogRecord]) -> list[str]:
    found = [f"{one.category.__name__}: {one.message} ({one.filename}:{one.lineno})" for one in caught]
    return found + [f"logged: {record.getMessage()}: {_error_of(record)}" for record in records]


def _library_error(problem: BaseException) -> str:
    """Return what a library raised and the project passed on; empty where the project said it itself."""
    cause = problem
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if cause.__traceback__ is None:
        return ""
    trace: TracebackType = cause.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    place = Path(trace.tb_frame.f_code.co_filename)
    own = place.is_relative_to(PROJECT) and ".venv" not in place.parts
    if own or isinstance(cause, OSError) or place.match("click/*.py"):
        return ""
    return f"raised in {place.name}:{trace.tb_lineno}: {type(cause).__name__}: {cause}"


def _error_of(record: logging.LogRecord) -> str:
    return "" if record.exc_info is None else f"{record.exc_info[1]!r}"


def _line_of(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].splitlines()[0].strip()


class _Records(logging.Handler):
    """Keeps the records of errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _listening() -> Iterator[tuple[list[warnings.WarningMessage], list[logging.LogRecord]]]:
    """Keep the warnings and the logged errors of a block; deprecations of libraries are none of ours."""
    handler = _Records()
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning):
                warnings.simplefilter("ignore", kind)
            yield caught, handler.records
    finally:
        logging.getLogger().removeHandler(handler)
