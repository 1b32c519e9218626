"""Events that could stop the readers of a journal: numbers at their extremes, rows that can't be read, forgeries.

FEEDRANK_POISON_EVENTS says how many accepted events are tried, 10,000 by default.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar, console
from benchmarks.faults.event_readers import SPECS, failing_readers
from benchmarks.faults.extreme_events import NOW_MS, extreme_event
from benchmarks.request_files import toy_home
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event

EVENTS = int(os.environ.get("FEEDRANK_POISON_EVENTS", "10000"))
BATCH = 250
SEED = 7
RANKING = {"event": "ranking", "id": "x", "timestamp": NOW_MS, "user": "u", "items": [{"id": "a"}, {"id": "b"}]}
FORGED: dict[str, Any] = {
    "served": {"experiments": [["ab", "other"]]}, "features": {"fingerprint": "f", "rows": 2, "data": "AACAPwAAgD8="},
    "team": ["usual", "other"], "variant": "other", "experiment": "ab", "propensities": [0.5, 1.0], "bundle": "toy",
    "provenance": "service",
}  # fmt: skip
UNREADABLE: tuple[Any, ...] = (
    json.dumps({**RANKING, "positions": [1e18, 1]}), json.dumps({**RANKING, "event": "purchase"}), '{"event":"item"',
    json.dumps({**RANKING, "items": 5}), "[1]", "", b"\xff\xfe\x00", 7, '{"served":' + "[" * 9_999 + "]" * 9_999 + "}",
    json.dumps({**RANKING, "timestamp": 1e300}), json.dumps({**RANKING, "timestamp": None}),
)  # fmt: skip


def bars() -> list[Bar]:
    """Try all of them."""
    logging.getLogger("feedrank").setLevel(logging.CRITICAL)
    accepted = _accepted_events(EVENTS)
    with tempfile.TemporaryDirectory() as folder:
        home = toy_home(Path(folder))
        in_service = [_sent_to_a_service(home), _unreadable_rows(home), _forged_words(home)]
    return [_generated(accepted), *in_service, _forged_log()]


def _accepted_events(count: int) -> list[Event]:
    """Return as many generated events as `parse` accepts."""
    dice, accepted, number = random.Random(SEED), [], 0
    while len(accepted) < count:
        number += 1
        try:
            accepted.append(parse(extreme_event(dice, number)))
        except EventError:
            continue
    kinds = Counter(type(event).__name__ for event in accepted)
    console.print(f"{number:,} events generated, {len(accepted):,} accepted: {dict(kinds)}")
    return accepted


def _generated(accepted: Sequence[Event]) -> Bar:
    """Read the accepted events with every reader; of a batch that stops one, name the events that do."""
    stopping: dict[str, str] = {}
    for first in range(0, len(accepted), BATCH):
        batch = accepted[first : first + BATCH]
        for reader, problem in failing_readers(batch).items():
            alone = [event for event in batch if failing_readers([event], [reader])]
            for event in alone or batch[:1]:
                stopping[event.id] = f"{reader}: {problem}"
    for event_id, problem in list(stopping.items())[:10]:
        console.print(f"{event_id}: {problem}")
    return Bar(f"accepted events of {len(accepted):,} that make any reader raise", len(stopping), "events", 0, "lower")


class _Service:
    """A process that serves a home, with keys, and a clock that stands behind all events."""

    def __init__(self, home: Path) -> None:
        from feedrank.api import compose, config
        from feedrank.api.admin import create_admin_services
        from feedrank.api.home_paths import HomePaths
        from feedrank.api.http.app import create_app
        from feedrank.api.http.service import Service
        from feedrank.api.keys import ApiKeys

        paths = HomePaths(home)
        self.journal, self.path, self.now = paths.journal(), paths.journal_path, NOW_MS / 1000
        settings = config.load_config(paths.config)
        self.recommender = compose.build_recommender(paths, settings, self.journal)
        keys = ApiKeys(paths.keys)
        self.tokens = {scope: keys.create(scope, ["read", scope], 0)[1] for scope in ("write", "admin")}
        admin = create_admin_services(paths, settings, self.journal, lambda: 0)
        self.client = create_app(Service(self.recommender, self._clock, keys, admin=admin)).test_client()

    def _clock(self) -> float:
        self.now += 2
        return self.now

    def call(self, method: str, path: str, body: Any, scope: str = "admin") -> Any:
        return self.client.open(
            path, method=method, json=body, headers={"Authorization": f"Bearer {self.tokens[scope]}"}
        )

    def answers(self) -> bool:
        """Return whether a feed is answered and logged, and the service is ready."""
        feed = self.call("POST", "/v1/recommend", {"user": "p1"})
        state = self.call("GET", "/v1/state/user/u1", None)
        return (
            feed.status_code == 200 and feed.json["logged"] and bool(feed.json["items"]) and state.status_code == 200
            and self.client.get("/readyz").status_code == 200
        )  # fmt: skip


@contextmanager
def _serving(home: Path) -> Iterator[_Service]:
    service = _Service(home)
    try:
        yield service
    finally:
        service.journal.close()


def _sent_to_a_service(home: Path) -> Bar:
    """Send events as a client, with a key that may import, while another process serves the same journal."""
    dice, failed, taken = random.Random(SEED + 1), 0, 0
    with _serving(home) as first, _serving(home) as second:
        for start in range(0, EVENTS // 4, BATCH):
            bodies = [extreme_event(dice, start + number) for number in range(BATCH)]
            answer = first.call("POST", "/v1/events", {"events": _as_json(bodies)})
            failed += answer.status_code != 202
            taken += answer.json.get("accepted", 0)
            failed += not first.answers()
            failed += not second.answers()
    with _serving(home) as restarted:
        failed += not restarted.answers()
    console.print(f"{taken:,} new events taken by the service")
    return Bar("answers that fail, of two processes and a restart, after such events", failed, "answers", 0, "lower")


def _as_json(bodies: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the bodies that JSON can hold, of finite numbers: one other makes a service refuse them all."""
    kept = []
    for body in bodies:
        try:
            text = json.dumps(body, allow_nan=False)
            text.encode()
        except (ValueError, UnicodeEncodeError):
            continue
        if not re.search(r"\d{309}", text):
            kept.append(body)
    return kept


def _unreadable_rows(home: Path) -> Bar:
    """Write rows past all checks, as another program would, while two processes serve; then restart and train."""
    from click.testing import CliRunner

    from feedrank.api.cli import main

    failed = 0
    with _serving(home) as first, _serving(home) as second:
        for number, body in enumerate(UNREADABLE):
            with closing(sqlite3.connect(first.path)) as connection, connection:
                value = "CAST(? AS TEXT)" if isinstance(body, bytes) else "?"
                connection.execute(
                    f"INSERT INTO events (id, kind, timestamp, effective_time, body) VALUES (?, ?, ?, ?, {value})",
                    (f"bad{number}", ("ranking", "item", "experiment")[number % 3], NOW_MS, NOW_MS, body),
                )
            failed += not first.answers()
            failed += not second.answers()
    with _serving(home) as restarted:
        failed += not restarted.answers()
        failed += len(restarted.journal.decoder.passed_over) < len(UNREADABLE)
    check = CliRunner().invoke(main, ["--home", str(home), "journal", "check"])
    failed += check.exit_code == 0 or check.stdout.count("offset ") < len(UNREADABLE)
    failed += CliRunner().invoke(main, ["--home", str(home), "train", "--name", "again"]).exit_code != 0
    what = f"{len(UNREADABLE)} rows that can't be read: answers, checks and trainings that fail"
    return Bar(what, failed, "failures", 0, "lower")


def _forged_words(home: Path) -> Bar:
    """Send each part that only the service writes with a key that may write."""
    taken = 0
    with _serving(home) as service:
        for number, (name, value) in enumerate(FORGED.items()):
            for path in ("/v1/events", "/feedback", "/rank/any"):
                body = {**RANKING, "id": f"forged{number}{path}", name: value}
                answer = service.call("POST", path, body, "write")
                taken += answer.status_code < 400 or name not in answer.json["field"]
        owner = service.call("POST", "/v1/recommend", {"user": "p1", "ranking": "of p1"}).json
        for body in ({"user": "p2"}, {"user": "p1", "query": "rocket"}, {"user": "p1", "history": ["ocean-1"]}):
            answer = service.call("POST", "/v1/recommend", {**body, "ranking": owner["ranking"]})
            taken += answer.status_code != 409
    return Bar(
        "forged parts that a key with the scope write gets in, or answers to another user",
        taken,
        "requests",
        0,
        "lower",
    )


def _forged_log() -> Bar:
    """Count units that forged rankings, which an older version took in, add to readouts."""
    from feedrank.engine.journal.journal import Journal
    from feedrank.models.experiments.outcome_collection import collect_outcomes

    dice, added = random.Random(SEED), 0
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.open_sqlite(Path(folder) / "journal.db")
        forged = []
        for number in range(200):
            chosen = {name: FORGED[name] for name in FORGED if name != "provenance" and dice.random() < 0.5}
            forged.append(parse({**RANKING, "id": f"f{number}", "user": f"f{number}", "received": NOW_MS, **chosen}))
        journal.append(forged)
        for spec in SPECS:
            added += len(collect_outcomes(journal.events(), spec, NOW_MS / 1000 - 1).units)
        journal.close()
    return Bar("units of readouts from forged rankings that are in a journal", added, "units", 0, "lower")
