"""Lines that can't be read, by the hundred, each under a name that says what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

GOOD: dict[str, dict[str, Any]] = {
    "item": {
        "event": "item",
        "id": "i1",
        "timestamp": 1_700_000_000_000,
        "item": "a",
        "fields": [{"name": "title", "value": "Crème brûlée"}, {"name": "tags", "value": ["x", "y"]}],
    },
    "user": {
        "event": "user",
        "id": "u1",
        "timestamp": "2024-02-29T12:00:00+01:00",
        "user": "ann",
        "fields": [{"name": "age", "value": 41}],
    },
    "ranking": {
        "event": "ranking",
        "id": "r1",
        "timestamp": "1700000000000",
        "user": "ann",
        "session": "s",
        "items": [{"id": "a", "label": 1}, {"id": "b", "label": 0}],
    },
    "interaction": {
        "event": "interaction",
        "id": "c1",
        "timestamp": 1_700_000_000_001,
        "item": "a",
        "type": "click",
        "ranking": "r1",
        "user": "ann",
        "value": 4.5,
        "position": 1,
    },
}

REQUIRED = {
    "item": ("id", "item"),
    "user": ("id", "user"),
    "ranking": ("id",),
    "interaction": ("id", "item", "type"),
}
NO_TEXT: tuple[Any, ...] = ("", 1.5, True, False, [], ["a"], {}, {"id": "a"})
NO_MOMENT: tuple[Any, ...] = (
    None, "", "yesterday", True, [], {}, 1e15, -1e15, 1e300, 10**400, "nan", "inf", "-inf", "1e400",
    "2024-02-30T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00+99:00",
    "2024-01-01T00:00:00 Mars/Olympus", "12:00", "1/2/2024", "0x10",
)  # fmt: skip
NO_NUMBER: tuple[Any, ...] = ("", "4.5", True, [], [4], {}, 10**400)
NO_LIST: tuple[Any, ...] = (
    None,
    "",
    "a",
    1,
    True,
    {},
    [],
    ["a"],
    [1],
    [None],
    [[]],
    [{}],
    [{"id": ""}],
    [{"id": None}],
)
NO_FIELDS: tuple[Any, ...] = (
    "a", 1, True, {"title": "A"}, ["a"], [None], [[]], [{}], [{"name": "", "value": 1}], [{"name": "a"}],
    [{"name": "a", "value": {}}], [{"name": "a", "value": [1, "b"]}],
    [{"name": "a", "value": [True]}], [{"name": 1.5, "value": 1}],
    [{"name": "a", "value": 10**400}], [{"name": "a", "value": [10**400]}], [{"value": 1}],
)  # fmt: skip
NO_KIND: tuple[Any, ...] = (None, "", "click", "Item", "items", 1, True, [], ["item"], {})


def good_line(name: str) -> bytes:
    """A good line with an id of its own."""
    kind = list(GOOD)[len(name) % len(GOOD)]
    return json.dumps(GOOD[kind] | {"id": name}, ensure_ascii=False).encode()


def broken_jsonl() -> dict[str, bytes]:
    """Name -> line; none holds a line end, none is blank."""
    found: dict[str, bytes] = {}

    def add(name: str, line: bytes) -> None:
        assert b"\n" not in line
        assert line.strip()
        found[name] = line

    def change(name: str, kind: str, **parts: Any) -> None:
        add(name, json.dumps(GOOD[kind] | parts, ensure_ascii=False).encode())

    for kind, body in GOOD.items():
        line = json.dumps(body, ensure_ascii=False).encode()
        for position in range(1, len(line), 9):
            add(f"{kind} cut at byte {position}", line[:position])
            add(f"{kind} without its first {position} bytes", line[position:])
        for position in range(0, len(line), 31):
            add(f"{kind} with a NUL at {position}", line[:position] + b"\0" + line[position:])
            add(f"{kind} with byte 0xff at {position}", line[:position] + b"\xff" + line[position:])
        add(f"{kind} in a list", b"[" + line + b"]")
        add(f"{kind} as a string", json.dumps(line.decode()).encode())
        add(f"{kind} in UTF-16", line.decode().encode("utf-16-le").replace(b"\n", b""))
        add(f"{kind} with single quotes", line.replace(b'"', b"'"))
        add(f"{kind} with a tab in its id", line.replace(b'"id": "', b'"id": "\t', 1))
        for part in (*REQUIRED[kind], "timestamp", "event"):
            without = {name: value for name, value in body.items() if name != part}
            add(f"{kind} without {part}", json.dumps(without).encode())
        for part in REQUIRED[kind]:
            for value in NO_TEXT:
                change(f"{kind} with {part} {value!r}", kind, **{part: value})
            change(f"{kind} with {part} null", kind, **{part: None})
        for value in NO_MOMENT:
            change(f"{kind} at {str(value)[:40]!r} {type(value).__name__}", kind, timestamp=value)
        for value in NO_FIELDS:
            change(f"{kind} with fields {str(value)[:40]}", kind, fields=value)
        for value in NO_KIND:
            change(f"{kind} said to be {value!r}", kind, event=value)
        for constant in (
            b"Infinity",
            b"-Infinity",
            b"1e999",
            b"-1e999",
            b"1" * 5000,
            b"01",
            b"+1",
            b".5",
            b"1.",
        ):
            stated = f"{kind} with a field of {constant[:12].decode()}"
            add(stated, line[:-1] + b', "fields": [{"name": "x", "value": ' + constant + b"}]}")
        for escape in (rb"\ud800", rb"\udfff", rb"\ude00\ud83d", rb"\uZZZZ", rb"\x41", rb"\u12 "):
            add(f"{kind} with the escape {escape.decode()}", line.replace(b'"id": "', b'"id": "' + escape, 1))
    for part in ("user", "session"):
        for value in NO_TEXT[1:]:  # empty text is a missing user
            change(f"ranking with {part} {value!r}", "ranking", **{part: value})
    for part in ("ranking", "user", "session"):
        for value in NO_TEXT[1:]:
            change(f"interaction with {part} {value!r}", "interaction", **{part: value})
    for part in ("value", "dwell_ms", "position"):
        for value in NO_NUMBER:
            change(
                f"interaction with {part} {str(value)[:20]!r} {type(value).__name__}", "interaction", **{part: value}
            )
    for value in NO_LIST:
        change(f"ranking of {value!r}", "ranking", items=value)
    for value in NO_NUMBER:
        label = [{"id": "a", "label": value}]
        change(f"ranking with label {str(value)[:20]!r} {type(value).__name__}", "ranking", items=label)
    change("ranking with an item twice", "ranking", items=[{"id": "a"}, {"id": "b"}, {"id": "a"}])
    change("ranking with an item as text and as number", "ranking", items=[{"id": "1"}, {"id": 1}])
    for value in ("yesterday", True, [1.0], "2024-01-01T00:00:00", 1e300):
        change(f"item published {value!r}", "item", fields=[{"name": "published", "value": value}])
    for name, line in {
        "a number": b"1", "a string": b'"item"', "null": b"null", "true": b"true", "an empty object": b"{}",
        "an empty list": b"[]", "text": b"hello", "a comment": b"# item", "XML": b"<item/>", "CSV": b"item,i1,0,a",
        "a quote": b'"', "a brace": b"{", "a closing brace": b"}", "only NUL bytes": b"\0" * 4096,
        "Latin-1": '{"id": "Crème"}'.encode("latin-1"), "half a character": "é".encode()[:1],
        "an overlong encoding": b"\xc0\xaf", "an encoded surrogate": b"\xed\xa0\x80", "a gzip header": b"\x1f\x8b\x08",
        "deep lists": b"[" * 100_000, "deep lists, closed": b"[" * 50_000 + b"]" * 50_000,
        "deep objects": b'{"a":' * 100_000, "a deep field": b'{"event":"item","fields":' + b"[" * 90_000,
    }.items():  # fmt: skip
        add(name, line)
    return found
