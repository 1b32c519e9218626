"""Logs of other systems: events are imported unchanged, nothing is invented, and an interrupted import resumes."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from conftest import PROJECT, feedrank

from feedrank.api.cli.import_ import CHUNK
from feedrank.api.home_paths import HomePaths
from feedrank.api.readers import Rejects, guess_format, read_events
from feedrank.api.readers.rejects import RejectedLine
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent

METARANK: list[dict[str, Any]] = [
    {"event": "item", "id": "e1", "item": "item1", "timestamp": "1599391467000", "tenant": "default",
     "fields": [{"name": "title", "value": "Nice jeans"}, {"name": "price", "value": 25.5},
                {"name": "color", "value": ["blue", "black"]}, {"name": "sizes", "value": [1.0, 2.0]},
                {"name": "availability", "value": True}]},
    {"event": "user", "id": "e2", "user": "user1", "timestamp": "1599391467001",
     "fields": [{"name": "age", "value": 33}]},
    {"event": "ranking", "id": "e3", "timestamp": "1599391467002", "user": "user1", "session": None,
     "fields": [{"name": "query", "value": "socks"}],
     "items": [{"id": "item3", "relevancy": 2.0},
               {"id": "item1", "relevancy": 1.0, "fields": [{"name": "price", "value": 9.5}]},
               {"id": "item2", "relevancy": 0.5}]},
    {"event": "interaction", "id": "e4", "ranking": "e3", "timestamp": "2020-09-06T11:24:28Z", "user": "user1",
     "session": "session1", "type": "purchase", "item": "item1", "fields": [{"name": "count", "value": 1}]},
]  # fmt: skip


def load(path: Path, format: str | None = None) -> tuple[list[Event], Rejects]:
    rejects = Rejects()
    return list(read_events(path, rejects, format)), rejects


def lines(bodies: list[Any]) -> str:
    return "\n".join(map(json.dumps, bodies)) + "\n"


SHAPES: dict[str, Callable[[list[Any]], str]] = {
    "one a line": lines,
    "one after the other": lambda bodies: "".join(map(json.dumps, bodies)),
    "spread over lines": lambda bodies: "\n".join(json.dumps(body, indent=2) for body in bodies),
    "an array": json.dumps,
    "an array over lines": lambda bodies: json.dumps(bodies, indent=1),
    "an array, one a line": lambda bodies: "[\n" + ",\n".join(map(json.dumps, bodies)) + "\n]\n",
}


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("shape", SHAPES)
def test_metaranks_events_unchanged(tmp_path: Path, shape: str, packed: str) -> None:
    data = SHAPES[shape](METARANK).encode()
    data = {"": data, ".gz": gzip.compress(data), ".zst": zstandard.compress(data)}[packed]
    path = tmp_path / f"events.json{packed}"
    path.write_bytes(data)
    events, rejects = load(path)
    assert rejects.rejected == 0
    item, user, ranking, interaction = events
    assert item == ItemEvent(
        "e1", 1599391467000, "item1",
        {"title": "Nice jeans", "price": 25.5, "color": ["blue", "black"], "sizes": [1.0, 2.0], "availability": True},
    )  # fmt: skip
    assert user == UserEvent("e2", 1599391467001, "user1", {"age": 33})
    assert isinstance(ranking, RankingEvent)
    assert (ranking.items, ranking.scores, ranking.fields) == (
        ("item3", "item1", "item2"), (2.0, 1.0, 0.5), {"query": "socks"},
    )  # fmt: skip
    assert ranking.item_fields == {"relevancy": (2.0, 1.0, 0.5), "price": (None, 9.5, None)}
    assert interaction == InteractionEvent(
        "e4", 1599391468000, "item1", "purchase", "e3", "user1", "session1", {"count": 1}
    )


def test_an_error_between_values_names_its_line(tmp_path: Path) -> None:
    good = [json.dumps({**METARANK[0], "id": f"good {n}"}, indent=2) for n in range(4)]
    path = tmp_path / "a.json"
    parts = [
        good[0],
        '{"event": "item", ',
        good[1],
        "no json at all",
        '{"event": "nothing"}',
        good[2],
        '{\n  "a": 1,\n  oops\n}',
        good[3],
    ]
    path.write_text("\n".join(parts) + "\n{")
    found: list[tuple[int, str]] = []

    class RecordedRejects(Rejects):
        def reject(self, source: str, line_number: int, reason: str, line: str | bytes = "") -> None:
            super().reject(source, line_number, reason, line)
            found.append((line_number, reason))

    events = list(read_events(path, RecordedRejects()))
    assert [event.id for event in events] == [f"good {n}" for n in range(4)]
    text = path.read_text().splitlines()
    assert [text[number - 1] for number, _ in sorted(found)] == [
        '{"event": "item", ',
        "no json at all",
        '{"event": "nothing"}',
        "{",
        "{",
    ]
    assert "expected one of item" in sorted(found)[2][1]


def test_an_unfinished_value_does_not_hold_up_a_strict_import(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"event": \n' + lines(METARANK))
    with pytest.raises(RejectedLine, match=r"a\.jsonl:1: not JSON"):
        list(read_events(path, Rejects(strict=True)))


UBI_QUERY = {
    "application": "shop", "query_id": "q1", "client_id": "c1", "session_id": "s1", "user_query": "running shoes",
    "query_response_id": "x", "query_response_hit_ids": ["a", "b", "b", 7], "timestamp": "2024-04-16T21:44:37.102Z",
}  # fmt: skip
UBI_EVENT = {
    "action_name": "click", "query_id": "q1", "client_id": "c1", "timestamp": 1713303878000, "message_type": "INFO",
    "event_attributes": {"object": {"object_id": 7, "object_id_field": "sku"}, "position": {"ordinal": 3, "x": 5}},
}  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_ubi_queries_and_events(tmp_path: Path, wrapped: bool) -> None:
    path = tmp_path / "ubi.json"
    scroll = {**UBI_EVENT, "action_name": "scroll", "event_attributes": {"position": {"y": 3}}}
    from_zero = {**UBI_EVENT, "event_attributes": {"object": {"object_id": "a"}, "position": {"ordinal": 0}}}
    bodies = [UBI_QUERY, UBI_EVENT, scroll, {**UBI_QUERY, "query_id": "q2", "query_response_hit_ids": []}, from_zero]
    path.write_text(lines([{"_index": "ubi", "_source": body} for body in bodies] if wrapped else bodies))
    assert guess_format(path) == "ubi"
    events, rejects = load(path)
    assert rejects.rejected == 2
    assert events[0] == RankingEvent(
        "q1", 1713303877102, ("a", "b", "7"), "c1", "s1", {"query": "running shoes", "application": "shop"}, None,
        positions=(1, 2, 3),
    )  # fmt: skip
    click, first = events[1:]
    assert isinstance(click, InteractionEvent)
    assert (click.item, click.type, click.ranking, click.user, click.position) == ("7", "click", "q1", "c1", 3)
    assert isinstance(first, InteractionEvent)
    assert first.position is None
    assert click.id != first.id
    assert load(path)[0] == events


def test_bulk_files_of_ubi(tmp_path: Path) -> None:
    path = tmp_path / "bulk.ndjson"
    path.write_text(lines([{"index": {"_index": "ubi_events"}}, UBI_EVENT, {"create": {}}, UBI_QUERY]))
    assert guess_format(path) == "ubi"
    events, rejects = load(path)
    assert rejects.rejected == 0
    assert [type(event) for event in events] == [InteractionEvent, RankingEvent]


def test_gorse(tmp_path: Path) -> None:
    feedback = tmp_path / "feedback.csv"
    feedback.write_text(
        "feedback_type,user_id,item_id,value,time_stamp\nstar,u1,i1,4.5,2023-01-01T00:00:00Z\n"
        "read,u1,i2,,2023-01-01T00:00:01Z\n,u1,i1,1,2023-01-01T00:00:00Z\n"
    )
    assert guess_format(feedback) == "gorse"
    events, rejects = load(feedback)
    assert rejects.rejected == 1
    star, seen = events
    assert isinstance(star, InteractionEvent)
    assert (star.type, star.user, star.item, star.value, star.timestamp) == ("star", "u1", "i1", 4.5, 1672531200000)
    assert isinstance(seen, InteractionEvent)
    assert (seen.type, seen.value) == ("read", None)
    items = tmp_path / "items.json"
    items.write_text(
        json.dumps([{"ItemId": "i1", "Timestamp": "2020-01-01T00:00:00Z", "Categories": ["a", "b"],
                     "Labels": {"tags": ["x"]}, "Comment": "A title", "IsHidden": False}])
    )  # fmt: skip
    assert guess_format(items) == "gorse"
    (item,), _ = load(items)
    assert isinstance(item, ItemEvent)
    assert item.fields == {"title": "A title", "category": ["a", "b"], "tags": ["x"], "removed": False}
    output = feedrank(tmp_path / "home", "import", feedback)
    assert "gives no rankings to train on" in " ".join(output.split())


def test_open_bandit(sample_data: Callable[[str], Path]) -> None:
    folder = sample_data("open_bandit_sample")
    path = folder / "bts_men.csv.gz"
    assert guess_format(path) == "open-bandit"
    events, rejects = load(path)
    assert rejects.rejected == 0
    rankings = [event for event in events if isinstance(event, RankingEvent)]
    clicks = [event for event in events if isinstance(event, InteractionEvent)]
    assert len(rankings) == 10_000
    assert len(rankings) + len(clicks) == len(events)
    assert 0 < len(clicks) < 300
    first = rankings[0]
    assert (first.items, first.user, first.surface, first.variant) == (("men-2",), None, "men", "bts")
    assert (first.positions, first.propensities) == ((2,), (0.045525,))
    assert {click.ranking for click in clicks} <= {ranking.id for ranking in rankings}
    items, _ = load(folder / "men_item_context.csv.gz")
    assert len(items) == 34
    shown = {ranking.items[0] for ranking in rankings}
    assert shown <= {item.item for item in items if isinstance(item, ItemEvent)}


# --- an interrupted import


def test_a_killed_import_resumes(tmp_path: Path) -> None:
    source = tmp_path / "log.jsonl"
    with source.open("w") as file:
        for n in range(90_000):
            file.write(
                json.dumps(
                    {
                        "event": "interaction",
                        "id": f"c{n}",
                        "timestamp": 1_750_000_000_000 + n,
                        "item": "i",
                        "type": "click",
                    }
                )
            )
            file.write("\n{broken\n" if n % 30_000 == 0 else "\n")
    home = HomePaths(tmp_path / "home")
    home.folder.mkdir()
    (home.folder / "feedrank.toml").write_text("[journal]\ncreate_items = false\n")
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home.folder), "import", str(source)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waited = time.monotonic() + 60
    while not home.import_progress.exists() or not json.loads(home.import_progress.read_text()):
        assert time.monotonic() < waited
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = next(iter(json.loads(home.import_progress.read_text()).values()))["done"]
    assert CHUNK <= done < 90_000
    output = feedrank(home.folder, "import", source)
    assert f"{done:,}" in output
    assert [event.id for event in home.journal().events()] == [f"c{n}" for n in range(90_000)]
    rejected = [json.loads(line)["line"] for line in home.rejects.read_text().splitlines()]
    assert sorted(set(rejected)) == [2, 30_003, 60_004]
    assert json.loads(home.import_progress.read_text()) == {}
    assert "0 of 90,000" in feedrank(home.folder, "import", source)


def test_a_file_that_has_changed_starts_anew(tmp_path: Path) -> None:
    source, home = tmp_path / "log.jsonl", HomePaths(tmp_path / "home")
    source.write_text(lines(METARANK))
    home.folder.mkdir()
    home.import_progress.write_text(
        json.dumps({str(source): {"format": "jsonl", "size": 1, "modified": 2, "done": 3, "rejected": 0}})
    )
    assert "4 of 4" in feedrank(home.folder, "import", source)
    for damaged in ("no json", "[]"):
        home.import_progress.write_text(damaged)
        assert "0 of 4" in feedrank(home.folder, "import", source)
