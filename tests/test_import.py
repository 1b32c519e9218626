"""The import of odd files: times, ids, encodings, what meets what, and what ends with an error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import feedrank
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.truth.import_files import event_rows, journal_events, judge, run
from benchmarks.truth.odd_files import DAY, T0, OddFile, odd_files
from feedrank.api import compose
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.id_matching import Match
from feedrank.api.python.home import Home
from feedrank.api.readers import Rejects, event_checks, read_events
from feedrank.api.readers.import_options import TIME_UNITS, ImportOptions, parse_map
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import InteractionEvent
from feedrank.engine.events.ids import (
    MISSING_IDS,
    canonical_event,
    canonical_id,
    is_missing,
    similar_form,
    similar_pairs,
)

# --- whole files


@pytest.mark.parametrize("file", odd_files(), ids=lambda file: file.name)
def test_an_odd_file_is_read_right_or_refused_with_words(file: OddFile, tmp_path: Path) -> None:
    assert judge(file, tmp_path) == ""


SEPARATORS = st.sampled_from([",", ";", "\t", "|"])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])
ENDS = st.sampled_from(["\n", "\r\n"])
TITLES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1, max_size=9
)


@settings(max_examples=60, deadline=None)
@given(titles=st.lists(TITLES, min_size=2, max_size=5), separator=SEPARATORS, encoding=ENCODINGS, end=ENDS)
def test_a_table_comes_back_in_any_encoding_and_separator(
    titles: list[str], separator: str, encoding: str, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / "items.csv"
    rows = [("id", "title"), *((f"i{n}", '"' + title.replace('"', '""') + '"') for n, title in enumerate(titles))]
    path.write_bytes(end.join(separator.join(row) for row in rows).encode(encoding))
    rejects = Rejects()
    events = list(read_events(path, rejects))
    assert rejects.rejected == 0
    assert [row[1] for row in event_rows(events, 2)] == titles


def test_options_that_a_format_does_not_understand_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="jsonl does not understand --separator"):
        read_events(tmp_path / "a.jsonl", Rejects(), options=ImportOptions(separator=";"))
    (tmp_path / "a.csv").write_text("id,title\n1,Un\n")
    with pytest.raises(ValueError, match="expected also visitor, which --map"):
        list(read_events(tmp_path / "a.csv", Rejects(), options=ImportOptions({"visitor": "user"})))
    wrong: list[dict[str, Any]] = [{"zone": "Mars"}, {"time_unit": "h"}, {"separator": ""}]
    wrong += [{"encoding": name} for name in ("utf-99", "rot13", "hex", "idna", "zlib", "undefined", "a\0b")]
    for options in wrong:
        with pytest.raises(ValueError, match="expected"):
            ImportOptions(**options)
    with pytest.raises(ValueError, match="expected column=name pairs"):
        parse_map(["visitorid"])


def test_an_option_that_only_a_table_understands_says_how_to_read_a_table(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"userId,movieId,rating,timestamp\n1,2,5,{T0}\n")
    options = ("--map", "userId=user,movieId=item,rating=value")
    code, output = run(tmp_path / "home", path, *options)
    assert (code, "Give --format csv to read it as a table" in output) == (1, True)
    assert run(tmp_path / "home", path, *options, "--format", "csv")[0] == 0


def test_an_interrupted_import_with_other_options_starts_anew(tmp_path: Path) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text(f"user,item,timestamp\nu,i,{T0 // 1000}\n")
    home = HomePaths(tmp_path / "home")
    home.folder.mkdir()
    stat = source.stat()
    entry = {"format": "csv", "options": "{}", "size": stat.st_size, "modified": stat.st_mtime_ns}
    home.import_progress.write_text(json.dumps({str(source): {**entry, "done": 1, "rejected": 0}}))
    assert "1 of 1" in feedrank(home.folder, "import", source, "--time-unit", "s")


def test_events_whose_ids_are_taken_are_named(tmp_path: Path) -> None:
    for name, item in (("a.csv", "x"), ("b.csv", "y")):
        (tmp_path / name).write_text(f"id,user,item,timestamp\n1,u,{item},{T0}\n")
    assert run(tmp_path / "home", tmp_path / "a.csv")[0] == 0
    code, output = run(tmp_path / "home", tmp_path / "b.csv")
    assert code == 1
    assert "other events have the same ids, such as '1'" in output
    code, output = run(tmp_path / "home", tmp_path / "a.csv")
    assert (code, "1 events have an id that was stored before" in output) == (0, True)


# --- times


@settings(max_examples=100, deadline=None)
@given(
    seconds=st.lists(st.integers(631_152_000, 4_000_000_000), min_size=1, max_size=20),
    unit=st.sampled_from([unit for unit in TIME_UNITS if unit != "auto"]),
    auto=st.booleans(),
    as_text=st.booleans(),
)
def test_numbers_of_any_unit_are_the_same_times(seconds: list[int], unit: Any, auto: bool, as_text: bool) -> None:
    scale = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    numbers: list[Any] = [str(second * scale) if as_text else second * scale for second in seconds]
    reader = TimeReader(ImportOptions(time_unit="auto" if auto else unit), "timestamp", numbers)
    assert [reader.read(number) for number in numbers] == [second * 1000 for second in seconds]


FORMS = (
    "%Y-%m-%dT%H:%M:%S+00:00", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S +0000 UTC", "%Y-%m-%d %H:%M:%S UTC",
    "%Y/%m/%d %H:%M:%S+00:00", "%a, %d %b %Y %H:%M:%S +0000", "%a, %d %b %Y %H:%M:%S GMT", "%d/%b/%Y:%H:%M:%S +0000",
    "%a %b %d %H:%M:%S +0000 %Y", "%Y-%m-%dT%H:%M:%S.000000000Z", "%Y-%m-%dT%H:%M:%S+00:00[UTC]", "%Y%m%dT%H%M%SZ",
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(second=st.integers(631_152_000, 4_000_000_000), form=st.sampled_from(FORMS))
def test_texts_of_any_form_are_the_same_time(second: int, form: str) -> None:
    text = datetime.fromtimestamp(second, UTC).strftime(form)
    assert TimeReader(sample=[text]).read(text) == second * 1000


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2020-09-20", None, DAY), ("2020-9-20", None, DAY), ("2020/09/20", None, DAY), ("20200920", None, DAY),
        ("44094", None, DAY), ("44094.0", None, DAY), ("20200920000000", None, DAY), (20200920, None, DAY),
        ("20200920.0", None, DAY), ("20200920000000.00", None, DAY), (20200920.0, None, DAY),
        ("2020-09-20", "Europe/Berlin", DAY - 7_200_000), ("2020-09-20 02:00", "Europe/Berlin", DAY),
        ("2020-09-20T02:00:00,5", "Europe/Berlin", DAY + 500),
    ],
)  # fmt: skip
def test_dates_and_times_without_a_zone(text: Any, zone: str | None, expected: int) -> None:
    reader = TimeReader(ImportOptions(zone=zone), "timestamp", [text])
    assert reader.read(text) == expected
    assert reader.notes()


@pytest.mark.parametrize("text", ["3/4/2024", "yesterday", "2020-02-30", "1.75E+12", "1,750,000,000", "12:00", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(EventError, match="timestamp"):
        TimeReader(sample=[text]).read(text)


def test_the_unit_is_decided_for_the_file_and_not_for_a_row() -> None:
    reader = TimeReader(ImportOptions(time_unit="auto"), "timestamp", [T0, T0 + 1, 1_750_000_000])
    assert reader.read(1_750_000_000) == 1_750_000_000
    with pytest.raises(ValueError, match="no times from 1973 to 2100"):
        TimeReader(ImportOptions(time_unit="auto"), "timestamp", [1, 2, 3])
    with pytest.raises(ValueError, match="--time-unit s"):
        TimeReader(name="published", sample=[1_600_000_000])
    for year in ("1999", "1999.0", "1999.", 1999, 1999.0):
        assert TimeReader(name="published", sample=[year, ""]).read(year) == 915_148_800_000


def test_a_time_that_is_a_list_or_an_object_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    for value in ([T0], {"at": T0}):
        pq.write_table(pa.table({"user": ["u"], "item": ["i"], "timestamp": [value]}), path)
        rejects = Rejects()
        assert list(read_events(path, rejects)) == []
        assert "expected epoch milliseconds or ISO-8601" in rejects.example(next(iter(rejects.reasons())))[1]


@pytest.mark.parametrize("options", [(), ("--time-unit", "s")])
def test_a_log_after_many_items_with_times_that_can_not_be_right_is_refused(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_checks, "FIRST_EVENTS", 5)
    rows = [f"item,i{n},," for n in range(8)] + [f"interaction,i{n},u,{1_750_000_000 + n}" for n in range(8)]
    path = tmp_path / "all.csv"
    path.write_text("\n".join(["event,item,user,timestamp", *rows]))
    code, output = run(tmp_path / "home", path, *options)
    assert code == (0 if options else 1)
    assert ("give --time-unit s" in output) == (not options)
    assert "multiply" not in output


def test_frames_are_all_looked_at_before_the_first_is_written(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", progress=False)
    items = pa.table({"item": ["a", "b"], "title": ["x", "y"]})
    old = pa.table({"user": ["u"], "item": ["a"], "timestamp": pa.array([datetime(1971, 1, 1, tzinfo=UTC)])})
    with pytest.raises(ValueError, match=r"interactions: the times can't be right.*Nothing of it was imported"):
        home.load(items=items, interactions=old)
    assert journal_events(tmp_path / "home") == []


# --- ids


@given(st.text(max_size=12))
def test_a_canonical_id_is_its_own_canonical_form(text: str) -> None:
    once = canonical_id(text)
    assert once is None or (canonical_id(once) == once and once == text.strip())
    assert (once is None) == is_missing(text) == (text.strip() in MISSING_IDS)


def test_numbers_and_texts_of_one_id_meet_and_others_stay_apart() -> None:
    click = {"event": "interaction", "id": "c", "timestamp": T0, "type": "click"}
    users = (7, 7.0, "7", " 7", "07", "7.5", "7.0", None, "null", float("nan"))
    found = []
    for user in users:
        event = parse(canonical_event({**click, "item": "1", "user": user}))
        assert isinstance(event, InteractionEvent)
        found.append(event.user)
    assert found == ["7", "7", "7", " 7", "07", "7.5", "7.0", None, None, None]
    for item in (None, "undefined", 1.5, True, "a\0b", "x" * 257):
        with pytest.raises(EventError, match="item"):
            parse(canonical_event({**click, "item": item}))


@pytest.mark.parametrize(
    ("left", "right"),
    [("1.0", "1"), ("007", "7"), (" a b", "AB"), ("Cafe\u0301", "café"), ("1e5", "100000"), ("'x'", "x"), ("１", "1")],
)
def test_ids_that_look_alike_have_one_similar_form(left: str, right: str) -> None:
    assert similar_form(left) == similar_form(right)
    assert canonical_id(left) != canonical_id(right)


def test_a_late_cell_that_is_no_whole_float_keeps_the_whole_column(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    floats = "".join(f"{n}.0,1,{T0 + n}\n" for n in range(1500))
    path.write_text(f"user,item,timestamp\n{floats}ann,1,{T0}\n")
    assert _users(path)[0] == "0.0"
    path.write_text(f"user,item,timestamp\n{floats},1,{T0}\n")
    assert _users(path)[0] == "0"


def _users(path: Path) -> list[str | None]:
    return [event.user for event in read_events(path, Rejects()) if isinstance(event, InteractionEvent)]


def test_equal_rows_are_events_of_their_own_and_a_file_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "buys.csv"
    row = f"u,i,{T0},purchase\n"
    path.write_text("user,item,timestamp,type\n" + 3 * row)
    ids = [event.id for event in read_events(path, Rejects())]
    path.write_text("user,item,timestamp,type\n" + row)
    (first,) = read_events(path, Rejects())
    assert ids == [first.id, f"{first.id}:2", f"{first.id}:3"]


# --- what meets what


def _home(tmp_path: Path, **files: str) -> tuple[Path, list[tuple[int, str]]]:
    results = []
    for name, text in files.items():
        path = tmp_path / f"{name}.csv"
        path.write_text(text)
        results.append(run(tmp_path / "home", path))
    return tmp_path / "home", results


ITEM_ROWS = "id,title\n" + "".join(f"{n},thing\n" for n in range(20))


def _click_rows(prefix: str) -> str:
    return "user,item,timestamp\n" + "".join(f"u{n % 5},{prefix}{n % 20},{T0 + n}\n" for n in range(60))


def test_clicks_on_unknown_items_end_with_an_error_and_are_not_trained_on(tmp_path: Path) -> None:
    home, ((_, _), (code, output)) = _home(tmp_path, items=ITEM_ROWS, clicks=_click_rows("00"))
    assert code == 1
    text = " ".join(output.split())
    assert "interactions that name known items: 0 of 60; unknown are '000', '001', '002', known are '0', '1'" in text
    assert "These ids look alike but differ: '000' and '0'" in text
    with pytest.raises(ValueError, match=r"100\.0% of the interactions name unknown items, expected at most 50%"):
        compose.load_training_inputs(HomePaths(home), Config())


def test_clicks_before_their_items_are_in_order_and_what_only_looks_alike_is_named(tmp_path: Path) -> None:
    _, results = _home(tmp_path, clicks=_click_rows(""), items=ITEM_ROWS)
    assert [code for code, _ in results] == [0, 0]
    assert "look like items" not in results[1][1]
    other = tmp_path / "other"
    other.mkdir()
    _, results = _home(other, clicks=_click_rows("0"), items=ITEM_ROWS)
    assert [code for code, _ in results] == [0, 0]
    assert "'01' and '1'" in results[1][1]


def test_items_created_from_ids_are_no_unknown_items(tmp_path: Path) -> None:
    source = tmp_path / "a name with blanks, and long enough for every terminal to break it in a table" / "clicks.csv"
    source.parent.mkdir()
    source.write_text(_click_rows(""))
    for written in ("20 items were", "items were, by an earlier import,"):
        code, output = run(tmp_path / "home", source)
        assert code == 0
        assert f"no item event describes the items of interactions; {written} created from ids\n" in output
        assert "known items" not in output
        assert f"{source} (csv) -> {HomePaths(tmp_path / 'home').journal_path}\n" in output
    (tmp_path / "feedrank.toml").write_text("[journal]\ncreate_items = false\n")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "feedrank.toml").rename(other / "feedrank.toml")
    assert "0 of 60; unknown are '0', '1', '2'; no items are known yet" in run(other, source)[1]


@given(st.lists(st.sampled_from(["1", "1.0", "01", "A", "a", " a", "b", "\uff11"]), unique=True), st.data())
def test_similar_pairs_are_in_the_order_of_the_unknown(ids: list[str], data: st.DataObject) -> None:
    unknown = data.draw(st.lists(st.sampled_from(ids), unique=True)) if ids else []
    known = [identifier for identifier in ids if identifier not in unknown]
    expected = [
        (identifier, min(alike))
        for identifier in unknown
        if (alike := [other for other in known if similar_form(other) == similar_form(identifier)])
    ]
    assert similar_pairs(unknown, data.draw(st.permutations(known)), 10) == expected
    assert similar_pairs(unknown, known, 1) == expected[:1]
    assert similar_pairs([], iter(lambda: pytest.fail("the known ids were read"), None), 1) == []


def test_interactions_that_name_no_ranking_are_reported(tmp_path: Path) -> None:
    log: list[dict[str, Any]] = [
        {"event": "ranking", "id": "r1", "timestamp": T0, "user": "u", "items": [{"id": "a"}, {"id": "b"}]}
    ]
    log += [
        {"event": "interaction", "id": f"c{n}", "timestamp": T0 + n, "item": "a", "type": "click", "ranking": f"R{n}"}
        for n in range(12)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(body) + "\n" for body in log))
    code, output = run(tmp_path / "home", path)
    text = " ".join(output.split())
    assert code == 1
    assert "interactions with a ranking that name known rankings: 0 of 12; unknown are 'R0', 'R1', 'R2'" in text
    assert "known are 'r1'" in text


def test_only_the_id_of_a_ranking_is_a_known_ranking(tmp_path: Path) -> None:
    rows = "".join(f"{n},u,i{n},{T0 + n},{n}\n" for n in range(20))
    _, ((code, output),) = _home(tmp_path, clicks="id,user,item,timestamp,ranking\n" + rows)
    assert code == 0  # there is nothing yet that they could name
    assert "that name known rankings: 0 of 20; unknown are '0', '1', '2'; no rankings are known yet" in output


def test_few_users_with_a_profile_are_no_error() -> None:
    profiles = Match("interactions", "users", 100, 90, ("a",), ("b",))
    assert not profiles.is_error(0.5)
    assert Match("interactions", "users", 100, 100, ("a",), ("b",)).is_error(0.5)
    assert not Match("interactions", "items", 100, 100, ("a",), ()).is_error(0.5)
    assert not Match("interactions", "items", 9, 9, ("a",), ("b",)).is_error(0.5)


def test_the_summary_states_reasons_in_full_and_types(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(f"user,item,timestamp,type\nu,i,{T0},frobnicate\nu,i,soon,click\nu,\u00e9\n")
    code, output = run(tmp_path / "home", path)
    text = " ".join(output.split())
    assert code == 0
    assert (
        "rejected 1: timestamp: found 'soon', expected epoch milliseconds or ISO-8601 with a time zone (line 3)" in text
    )
    assert "2 (66.7%)" in text
    assert "frobnicate" in text.partition("interactions are ignored")[2]
