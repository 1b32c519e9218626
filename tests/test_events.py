"""Events: what `parse` accepts comes back unchanged; what it refuses is named, with no other error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse, parse_timestamp, to_dict
from feedrank.engine.events.events import InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.ids import canonical_event

GOOD: dict[str, dict[str, Any]] = {
    "item": {"event": "item", "id": "i", "timestamp": 5, "item": "a"},
    "user": {"event": "user", "id": "u", "timestamp": 5, "user": "ann"},
    "ranking": {"event": "ranking", "id": "r", "timestamp": 5, "items": [{"id": "a"}, {"id": "b"}]},
    "interaction": {"event": "interaction", "id": "c", "timestamp": 5, "item": "a", "type": "click"},
}
LARGE = 10**400
LONGER = 10**5_000
"""Python does not even write out so many digits."""


def field(value: object, name: object = "x") -> list[dict[str, object]]:
    return [{"name": name, "value": value}]


def ranking_with(**parts: object) -> list[dict[str, object]]:
    return [{"id": "a", **parts}, {"id": "b"}]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *(
        (kind, {"timestamp": moment}, "timestamp")
        for kind in GOOD
        for moment in (LARGE, -LARGE, LONGER, "1_000", "\ud800", math.nan, math.inf, None, True, [], "1e15", "")
    ),
    *(
        (kind, {"fields": field(value)}, "fields[0].value")
        for kind in GOOD
        for value in (
            LARGE,
            LONGER,
            math.inf,
            math.nan,
            [1, LARGE],
            [math.nan],
            "\udfff",
            ["ok", "\ud800"],
            {},
            [1, "a"],
        )
    ),
    *((kind, {"fields": field(1, name)}, "fields[0].name") for kind in GOOD for name in ("\ud800", "", None, LARGE)),
    *((kind, {"fields": fields}, "fields") for kind in GOOD for fields in (0, "", False, {}, "a", 1, {"title": "A"})),
    *((kind, {"id": name}, "id") for kind in GOOD for name in ("\ud83d", "", None, LARGE, LONGER, 1.5, True)),
    *((kind, {"event": name}, "event") for kind in GOOD for name in ("click", None, LONGER, [], "\ud800")),
    *(
        ("ranking", {"items": ranking_with(fields=fields)}, f"items[0].{path}")
        for fields, path in (
            (7, "fields"),
            ("a", "fields"),
            ([7], "fields[0]"),
            (field(LARGE), "fields[0].value"),
            (field(math.nan), "fields[0].value"),
            (field([1, "a"]), "fields[0].value"),
            (field(1, ""), "fields[0].name"),
            ({"x": {"y": 1}}, "fields[0].value"),
            ({"\ud800": 1}, "fields[0].name"),
        )
    ),
    *(("interaction", {name: "\ud800"}, name) for name in ("item", "type", "ranking", "user", "session")),
    *(
        ("interaction", {name: value}, name)
        for name in ("value", "dwell_ms", "position")
        for value in (LARGE, LONGER, math.inf, math.nan, "1", True, [1])
    ),
    *(("interaction", {"position": value}, "position") for value in (0, -1, 1.5, 0.0, 2**31)),
    *(("interaction", {"dwell_ms": value}, "dwell_ms") for value in (-1, 1e18)),
    *(("interaction", {"value": value}, "value") for value in (-1e300, 1e18)),
    *(("ranking", {"positions": [1, value]}, "positions[1]") for value in (0, -1, 1.5, 2**31, 1e18)),
    *(("ranking", {"scores": [1, value]}, "scores[1]") for value in (1e300, -1e39)),
    *(("ranking", {"items": ranking_with(label=value)}, "items[0].label") for value in (1e300, -(2**60))),
    ("ranking", {"items": [{"id": str(number)} for number in range(100_001)]}, "items"),
    *(("ranking", {"provenance": value}, "provenance") for value in ("mine", 1, True, [])),
    *(
        ("ranking", {"items": ranking_with(label=value)}, "items[0].label")
        for value in (LARGE, LONGER, math.inf, "1", True)
    ),
    ("ranking", {"items": [{"id": "a"}, {"id": "a\udfff"}]}, "items[1].id"),
    ("ranking", {"items": [{"id": 1}, {"id": "1"}]}, "items"),
    *(("ranking", {name: "\ud800"}, name) for name in ("user", "session", "surface", "variant")),
    *(
        ("ranking", {name: value}, name)
        for name in ("positions", "scores", "propensities")
        for value in (1, "1|2", {}, [], [1.0], [0.1, 0.2, 0.3])
    ),
    *(
        ("ranking", {name: [1, value]}, f"{name}[1]")
        for name in ("positions", "scores", "propensities")
        for value in (LARGE, LONGER, math.inf, math.nan, "1", None, True)
    ),
    *(("ranking", {"propensities": [0.5, value]}, "propensities[1]") for value in (0, -0.1, 1.01, 5e-324)),
    *(
        ("ranking", {name: value}, name)
        for name in ("surface", "bundle", "experiment", "variant")
        for value in (1.5, True, [], ["a"], {}, "\ud800")
    ),
    *(("ranking", {"seed": value}, "seed") for value in ("7", 1.5, True, [], LARGE, LONGER, math.nan)),
    *(
        ("ranking", {"features": value}, "features")
        for value in (
            1,
            "a",
            [1.0],
            True,
            {"a": math.nan},
            {"a": ["\ud800"]},
            {"\ud800": 1},
            {"a": LONGER},
            {"a": b"x"},
        )
    ),
    *(
        ("item", {"fields": field(value, "published")}, "fields.published")
        for value in ("yesterday", True, [1.0], "2024-01-01T00:00:00", 1e300, "1_000")
    ),
]


@pytest.mark.parametrize(("kind", "parts", "location"), REFUSED, ids=range(len(REFUSED)))
def test_a_refused_event_names_the_part(kind: str, parts: dict[str, Any], location: str) -> None:
    with pytest.raises(EventError) as caught:
        parse(GOOD[kind] | parts)
    assert caught.value.field == location
    assert len(str(caught.value).encode()) < 400


@pytest.mark.parametrize("kind", GOOD)
def test_absent_and_null_are_the_same(kind: str) -> None:
    nothing = dict.fromkeys(("fields", "session", "value", "position", "seed", "features", "positions", "surface"))
    assert parse(GOOD[kind] | nothing) == parse(GOOD[kind])
    assert parse(to_dict(parse(GOOD[kind]))) == parse(GOOD[kind])


def test_an_empty_extra_is_kept() -> None:
    ranking = parse(GOOD["ranking"] | {"bundle": "", "variant": ""})
    assert isinstance(ranking, RankingEvent)
    assert (ranking.bundle, ranking.variant, ranking.surface) == ("", "", None)


def test_every_part_is_read() -> None:
    extra = {
        "positions": [1, 2],
        "scores": [0.5, -1],
        "propensities": [1, 1e-9],
        "surface": "home",
        "bundle": "b",
        "experiment": "e",
        "variant": "v",
        "team": ["a", ""],
        "seed": 2**60 + 1,
        "features": {"rows": [[1.5, None]]},
    }
    body = {"event": "ranking", "id": 7, "timestamp": "6", "user": "ann", "session": 8, "fields": field([1, 2])}
    ranking = parse(body | {"items": ranking_with(label=1)} | extra)
    assert isinstance(ranking, RankingEvent)
    assert (ranking.id, ranking.timestamp, ranking.items) == ("7", 6, ("a", "b"))
    assert (ranking.user, ranking.session, ranking.fields) == ("ann", "8", {"x": [1.0, 2.0]})
    assert str(ranking.labels) == "(1.0, nan)"
    columns = {name: tuple(value) if isinstance(value, list) else value for name, value in extra.items()}
    assert {name: getattr(ranking, name) for name in extra} == columns
    assert to_dict(ranking)["items"] == [{"id": "a", "label": 1.0}, {"id": "b"}]
    click = parse(GOOD["interaction"] | {"ranking": "r", "user": "u", "value": 4, "dwell_ms": 1.5, "position": 2.0})
    assert click == InteractionEvent("c", 5, "a", "click", "r", "u", None, {}, 4.0, 1.5, 2)
    assert isinstance(click, InteractionEvent)
    assert isinstance(click.position, int)
    assert parse(GOOD["item"] | {"fields": field("", "published")}) == ItemEvent("i", 5, "a", {"published": ""})
    assert parse(GOOD["user"] | {"fields": field(True)}) == UserEvent("u", 5, "ann", {"x": True})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (-5, -5),
        (1.5e12, 1_500_000_000_000),
        ("1700000000000", 1_700_000_000_000),
        (" 7 ", 7),
        ("1e3", 1000),
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T01:00:01+01:00", 1000),
        ("1970-01-01T00:00:00.25Z", 250),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200_000),
        ("9999-12-31T23:59:59-14:00", 253_402_351_199_000),
    ],
)
def test_timestamps(value: object, expected: int) -> None:
    assert parse_timestamp(value) == expected


# numbers at the edges, strings with half characters, and nests of them, where an event would have something better
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([LARGE, -LARGE, "", "\ud800", "1_000"])
    | st.floats()
    | st.text(st.characters(), max_size=4),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inside, max_size=3)
    ),
    max_leaves=6,
)
PARTS = (
    "event", "id", "timestamp", "item", "user", "type", "ranking", "session", "value", "dwell_ms", "position", "items",
    "fields", "item_fields", "labels", "positions", "scores", "propensities", "surface", "seed", "features",
)  # fmt: skip


VALUES = (
    st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.lists(st.text(max_size=3), max_size=3)
    | st.lists(st.floats(-5, 5), min_size=1, max_size=3)
)
ITEM_FIELDS = st.dictionaries(st.text(min_size=1, max_size=3), st.none() | VALUES, max_size=4)


@given(rows=st.lists(ITEM_FIELDS, min_size=1, max_size=4), as_objects=st.booleans())
def test_fields_that_a_list_brings_come_back(rows: list[dict[str, Any]], as_objects: bool) -> None:
    named = [row if as_objects else [{"name": name, "value": row[name]} for name in row] for row in rows]
    body = GOOD["ranking"] | {"items": [{"id": str(n), "fields": fields} for n, fields in enumerate(named)]}
    event = parse(body)
    assert isinstance(event, RankingEvent)
    names = {name for row in rows for name, value in row.items() if value is not None}
    columns = {name: tuple(row.get(name) for row in rows) for name in names}
    assert event.item_fields == (columns or None)
    assert parse(json.loads(json.dumps(to_dict(event)))) == event
    assert parse(json.loads(json.dumps(to_dict(event, as_columns=True)))) == event, "as the journal has it"
    assert parse(canonical_event(body)) == event


@pytest.mark.parametrize(
    ("columns", "path"),
    [
        (7, "item_fields"),
        ([["x", 1]], "item_fields"),
        ({"x": 1}, "item_fields"),
        ({"x": [1]}, "item_fields.x"),
        ({"x": [1, math.nan]}, "item_fields.x[1]"),
        ({"x": [1.0, math.inf]}, "item_fields.x[1]"),
        ({"x": [LARGE, None]}, "item_fields.x[0]"),
        ({"x": [{}, None]}, "item_fields.x[0]"),
        ({"x": ["a", [1, "a"]]}, "item_fields.x[1]"),
        ({"": [1, 2]}, "item_fields"),
        ({f"f{n}": [1, 2] for n in range(1_001)}, "item_fields"),
    ],
)
def test_columns_of_a_list_that_can_not_be_read_are_refused(columns: Any, path: str) -> None:
    with pytest.raises(EventError) as problem:
        parse(GOOD["ranking"] | {"item_fields": columns})
    assert problem.value.field == path
    event = parse(GOOD["ranking"] | {"item_fields": {"x": [1, None], "y": [None, None], "z": [True, ["a"]]}})
    assert isinstance(event, RankingEvent)
    assert event.item_fields == {"x": (1.0, None), "z": (True, ["a"])}
    both = {"items": ranking_with(fields=field(1)), "item_fields": {"x": [1, 2]}}
    with pytest.raises(EventError, match="expected one of both"):
        parse(GOOD["ranking"] | both)


def test_metaranks_relevancy_is_a_field_of_the_list() -> None:
    event = parse(GOOD["ranking"] | {"items": [{"id": "a", "relevancy": 2}, {"id": "b", "fields": []}]})
    assert isinstance(event, RankingEvent)
    assert event.item_fields == {"relevancy": (2.0, None)}
    with pytest.raises(EventError, match=r"items\[0\]\.relevancy"):
        parse(GOOD["ranking"] | {"items": [{"id": "a", "relevancy": "high"}]})


def test_a_list_with_too_many_different_fields_is_refused() -> None:
    items = [{"id": str(n), "fields": {f"f{n}": 1}} for n in range(1_001)]
    with pytest.raises(EventError, match=r"1,001 different fields, expected at most 1,000"):
        parse(GOOD["ranking"] | {"items": items})
    many = [{"id": str(n)} for n in range(2_000)] + [{"id": "x", "fields": {f"f{n}": 1 for n in range(500)}}]
    with pytest.raises(EventError, match=r"500 different fields of 2,001 items, expected at most 1,000,000 values"):
        parse(GOOD["ranking"] | {"items": many})
    with pytest.raises(EventError, match=r"item_fields\.x: found 2,001 characters"):
        canonical_event(GOOD["ranking"] | {"item_fields": {"x": [None, ["a" * 2_001]]}})
    long = {"items": [{"id": "a", "fields": {"title": "x" * 2_001}}]}
    with pytest.raises(EventError, match=r"items\[0\]\.fields\[0\]\.value: found 2,001 characters"):
        canonical_event(GOOD["ranking"] | long)


@given(kind=st.sampled_from(list(GOOD)), parts=st.dictionaries(st.sampled_from(PARTS), ANYTHING, max_size=3))
def test_any_json_is_parsed_or_refused(kind: str, parts: dict[str, Any]) -> None:
    try:
        event = parse(GOOD[kind] | parts)
    except EventError:
        return
    text = json.dumps(to_dict(event), ensure_ascii=False, allow_nan=False).encode()
    assert parse(json.loads(text)) == event


@given(entries=st.lists(st.fixed_dictionaries({"name": ANYTHING, "value": ANYTHING}), max_size=3), label=ANYTHING)
def test_any_field_and_label_is_parsed_or_refused(entries: list[Any], label: Any) -> None:
    try:
        items = [{"id": "a", "label": label, "fields": entries, "relevancy": label}]
        event = parse(GOOD["ranking"] | {"fields": entries, "items": items})
    except EventError:
        return
    assert parse(json.loads(json.dumps(to_dict(event), allow_nan=False))) == event
