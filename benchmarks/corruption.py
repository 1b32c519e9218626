"""Broken input: 1,000 kinds of one bad line among good ones, over the formats; what is lost, what is not reported."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.bars import Bar
from feedrank.api.readers import Rejects, read_events

KINDS = 1_000
GOOD_AFTER = 3
"""Good lines after the bad one; as many come before."""


class Kind(NamedTuple):
    """A file's header, its good lines, and one bad line to go between them."""

    format: str
    ending: str
    header: str
    good: list[str]
    bad: bytes


def corrupted(seed: int = 0) -> list[Bar]:
    """Every kind read in a file of its own."""
    kinds = list(_kinds())
    chosen = np.random.default_rng(seed).permutation(len(kinds))[:KINDS]
    lost = unreported = broken = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in chosen.tolist():
            kind = kinds[number]
            path = Path(folder) / f"broken-{number}{kind.ending}"
            lines = [kind.header.encode()] if kind.header else []
            before = len(lines) + GOOD_AFTER
            good = [line.encode() for line in kind.good]
            path.write_bytes(b"\n".join([*lines, *good[:GOOD_AFTER], kind.bad, *good[GOOD_AFTER:]]) + b"\n")
            heard = _Heard()
            try:
                events = list(read_events(path, heard, kind.format))
            except Exception:  # what a user would see as a traceback
                broken += 1
                continue
            lost += max(0, len(good) - len(events))
            unreported += not any(line == before + 1 and reason for line, reason in heard.found)
            path.unlink()
    assert len(chosen) == KINDS
    return [
        Bar(f"{KINDS:,} kinds of corrupted input: good lines lost", lost, "", 0, "lower"),
        Bar(f"{KINDS:,} kinds of corrupted input: bad lines not reported", unreported, "", 0, "lower"),
        Bar(f"{KINDS:,} kinds of corrupted input: tracebacks", broken, "", 0, "lower"),
    ]  # fmt: skip


class _Heard(Rejects):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def reject(self, source: str, line_number: int, reason: str, line: str | bytes = "") -> None:
        super().reject(source, line_number, reason, line)
        self.found.append((line_number, reason))


def _kinds() -> Iterator[Kind]:
    for format, make in (("jsonl", _events), ("ubi", _ubi)):
        for shape in range(len(make(0))):
            good = [json.dumps(make(n)[shape]) for n in range(2 * GOOD_AFTER)]
            body = make(99)[shape]
            line = json.dumps(body).encode()
            bad = [line[:place] for place in range(1, len(line))]
            bad += [line[:place] + byte + line[place:] for byte in (b"\0", b"\xff") for place in range(0, len(line), 5)]
            for name in body:
                if name not in ("fields", "session_id", "user", "user_query", "application", "client_id"):
                    without = {key: value for key, value in body.items() if key != name}
                    bad += [json.dumps(without).encode()] if name not in ("query_id",) or shape == 0 else []
            bad += [line.replace(b'"timestamp": 1', b'"timestamp": "x1'), b"[" + line, line.replace(b'"', b"'")]
            yield from (Kind(format, ".jsonl", "", good, one) for one in bad)
    for format, header, make_line, numbers in (
        ("csv", "item,user,timestamp,type,value", "i{0},u{0},{0},click,1.5", (2, 4)),
        ("gorse", "feedback_type,user_id,item_id,value,timestamp", "star,u{0},i{0},1.5,{0}", (3, 4)),
        ("open-bandit", "timestamp,item_id,position,click,propensity_score",
         "2019-11-24 00:00:0{0}+00:00,{0},1,1,0.5", (0, 1, 2, 3, 4)),
    ):  # fmt: skip
        good = [make_line.format(n) for n in range(2 * GOOD_AFTER)]
        if format == "open-bandit":
            good = [line.replace(",1,0.5", ",0,0.5") for line in good]
        cells = make_line.format(7).split(",")
        bad = [",".join(cells[:width]).encode() for width in range(1, len(cells))]
        bad += [",".join([*cells, *["x"] * more]).encode() for more in range(1, 20)]
        for column in numbers:
            for value in ("x", "1e999", "nan", "--1", "2023-13-45", "\u0663x", "{}", "0x1f", "1_0"):
                bad.append(",".join([*cells[:column], value, *cells[column + 1 :]]).encode())
        line = make_line.format(7).encode()
        bad += [line[:place] + byte + line[place:] for byte in (b"\0", b"\xff") for place in range(len(line) + 1)]
        yield from (Kind(format, ".csv", header, good, one) for one in bad)


def _events(n: int) -> list[dict[str, object]]:
    at = 1_700_000_000_000 + n
    return [
        {"event": "item", "id": f"e{n}", "timestamp": at, "item": f"i{n}", "fields": [{"name": "title", "value": "x"}]},
        {"event": "user", "id": f"e{n}", "timestamp": at, "user": f"u{n}"},
        {"event": "ranking", "id": f"e{n}", "timestamp": at, "user": f"u{n}", "items": [{"id": "a"}, {"id": "b"}]},
        {"event": "interaction", "id": f"e{n}", "timestamp": at, "item": f"i{n}", "type": "click", "user": f"u{n}"},
    ]


def _ubi(n: int) -> list[dict[str, object]]:
    at = 1_700_000_000_000 + n
    touched = {"object": {"object_id": "a"}}
    return [
        {"query_id": f"q{n}", "timestamp": at, "user_query": "x", "query_response_hit_ids": ["a"], "client_id": "c"},
        {"action_name": "click", "timestamp": at, "query_id": f"q{n}", "event_attributes": touched},
    ]  # fmt: skip


if __name__ == "__main__":
    from benchmarks.bars import measure

    measure("corruption", corrupted)
