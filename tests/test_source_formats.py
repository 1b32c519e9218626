"""Exports of other systems: each is recognised and read right, and what joins nothing is said."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import feedrank

from benchmarks.truth.exports import EXPORTS, Export
from feedrank.api.home_paths import HomePaths
from feedrank.api.readers import FORMATS, ImportOptions, Rejects, guess_format, read_events, synthetic_times
from feedrank.api.readers.event_checks import check_events
from feedrank.api.readers.folders import Folder
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.reader_check import check_reader

POSITIVE = ("click", "add_to_cart", "purchase")


def load(path: Path, format: str | None = None, options: ImportOptions | None = None) -> tuple[list[Event], Rejects]:
    rejects = Rejects()
    return list(read_events(path, rejects, format, options or ImportOptions())), rejects


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
    return path


def lines(*bodies: Any) -> str:
    return "".join(json.dumps(body) + "\n" for body in bodies)


def interactions(events: list[Event]) -> list[InteractionEvent]:
    return [event for event in events if isinstance(event, InteractionEvent)]


# --- every format


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_an_export_is_recognised_and_read_right(export: Export, tmp_path: Path) -> None:
    assert export.faults(export.write(tmp_path / "export")) == []


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_a_reader_keeps_the_rules_of_readers(export: Export, tmp_path: Path) -> None:
    path = export.write(tmp_path / "export")
    reader = FORMATS[export.format]
    events = check_reader(lambda path, rejects: reader(path, rejects, ImportOptions()), path, export.rejected)
    assert len(events) == len(load(path)[0])


def test_every_format_of_another_system_has_an_export() -> None:
    ours = {"jsonl", "csv", "parquet", "mind", "open-bandit"}  # tested with their own files
    assert {export.format for export in EXPORTS} == set(FORMATS) - ours


def test_a_folder_in_a_zip_is_the_same(tmp_path: Path) -> None:
    import shutil

    folders = [export for export in EXPORTS if len(export.files) > 1]
    known = {"ubi", "movielens", "recbole", "retailrocket", "hm", "lastfm", "letor"}
    assert {export.format for export in folders} == known
    for number, export in enumerate(folders):
        path = export.write(tmp_path / str(number) / "inside")
        archive = Path(shutil.make_archive(str(tmp_path / f"archive{number}"), "zip", path))
        assert guess_format(archive) == export.format
        assert load(archive)[0] == load(path)[0]


def test_the_notes_of_macos_in_a_zip_are_no_data(tmp_path: Path) -> None:
    tables = [export for export in EXPORTS if any(name.endswith((".csv", ".jsonl")) for name in export.files)]
    for number, export in enumerate(tables):
        path = export.write(tmp_path / str(number))
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as target:
            for name in export.files:
                target.write(tmp_path / str(number) / name, name)
                target.writestr(f"__MACOSX/._{name}", b"\0\5\x16\7")
            target.writestr(".DS_Store", b"\0")
        assert guess_format(archive) == export.format, export.name
        assert sorted(map(repr, load(archive)[0])) == sorted(map(repr, load(path)[0])), export.name
    folder = tables[0].write(tmp_path / "folder" / "data").parent
    (folder / "._ratings.csv").write_bytes(b"\0")
    assert Folder(folder).names == list(tables[0].files)


MIND = {"news.tsv": "N1\tnews\tx\tT\tA\nN2\tnews\tx\tT\tA\n",
        "behaviors.tsv": "1\tU1\t11/11/2019 9:05:58 AM\tN2\tN1-1 N2-0\n"}  # fmt: skip
WITH_TEXT_IDS = [
    Export("MIND", "mind", MIND, (2, 0, 1, 2), ({"item": "N1"}, {"user": "U1"})),
    Export("a reader of one's own", "custom_reader:read", {"a.txt": f"{10**12} u1 i1 click\n"}, (0, 0, 0, 1),
           ({"item": "i1"}, {"user": "u1"})),
    *(export for export in EXPORTS if export.format != "movielens" and set(map(type, export.files.values())) == {str}),
]  # fmt: skip


@pytest.mark.parametrize("wrong", ["x" * 300, "null"], ids=["too long", "null"])
@pytest.mark.parametrize("export", WITH_TEXT_IDS, ids=lambda export: export.name)
def test_no_reader_lets_through_an_id_that_can_not_be_used(export: Export, wrong: str, tmp_path: Path) -> None:
    ids = {str(event[part]) for event in export.events for part in ("item", "user") if event.get(part)}
    ids |= {str(item) for event in export.events for item in event.get("items", ())}
    tried = 0
    for identifier in ids:
        token = re.compile(rf"(?<![\w.]){re.escape(identifier)}(?![\w.:])")
        files = {name: token.sub(wrong, str(text)) for name, text in export.files.items()}
        path = replace(export, files=files).write(tmp_path / str(tried))
        rejects = Rejects()
        tried += 1
        try:
            found = list(check_events(read_events(path, rejects, export.format), rejects, str(path), 2 * 10**12))
        except ValueError:
            continue
        for event in found:
            named = [
                *getattr(event, "items", ()),
                *(getattr(event, part, None) for part in ("item", "user", "session")),
            ]
            assert wrong not in named
    assert tried == len(ids) > 0


def test_a_reject_of_a_reader_that_sorts_names_no_wrong_line(tmp_path: Path) -> None:
    rows = [f"1,{n},5,{second}" for n, second in enumerate((1_600_000_000, 1_500_000_000, 5, 1_400_000_000))]
    path = put(tmp_path / "ratings.csv", "\n".join(["userId,movieId,rating,timestamp", *rows]))
    rejects = Rejects(tmp_path / "rejects.jsonl")
    with rejects:
        assert len(list(check_events(read_events(path, rejects), rejects, str(path), 2 * 10**12))) == 3
    (entry,) = map(json.loads, (tmp_path / "rejects.jsonl").read_text().splitlines())
    assert entry["line"] == 0
    assert '"item": "2"' in entry["text"]


# --- tables


CSV_EXPORTS = [export for export in EXPORTS if any(name.endswith(".csv") for name in export.files)]
ID_COLUMNS = ("user_id", "item_id", "userId", "movieId", "visitorid", "itemid", "categoryid", "parentid", "article_id",
              "session", "aid")  # fmt: skip


def rewritten(export: Export, separator: str, floats: bool) -> Export:
    """Return an export whose tables were read and written by another tool, such as pandas."""
    files = dict(export.files)
    for name, content in export.files.items():
        if name.endswith(".csv") and isinstance(content, str):
            header, *rows = csv.reader(io.StringIO(content, newline=""))
            wanted = [index for index, column in enumerate(header) if column in ID_COLUMNS and floats]
            for index in wanted:
                if all(row[index].isdecimal() or not row[index] for row in rows):
                    for row in rows:
                        row[index] = row[index] and str(float(row[index]))
            out = io.StringIO(newline="")
            csv.writer(out, delimiter=separator).writerows([header, *rows])
            files[name] = out.getvalue()
    return replace(export, files=files)


def test_all_exports_as_tables_are_among_those_that_are_rewritten() -> None:
    known = {"gorse", "movielens", "retailrocket", "hm", "otto", "amazon", "letor"}
    assert {export.format for export in CSV_EXPORTS} == known


@pytest.mark.parametrize("floats", [False, True], ids=["ids as they are", "ids as floats"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("export", CSV_EXPORTS, ids=lambda export: export.name)
def test_a_table_with_another_separator_and_ids_of_pandas_is_the_same(
    export: Export, separator: str, floats: bool, tmp_path: Path
) -> None:
    changed = rewritten(export, separator, floats)
    assert changed.faults(changed.write(tmp_path / "export")) == []


def test_equal_purchases_are_two_and_stay_two(tmp_path: Path) -> None:
    export = next(export for export in EXPORTS if export.format == "hm")
    path, home = export.write(tmp_path / "hm"), tmp_path / "home"
    feedrank(home, "import", path)
    feedrank(home, "import", path)
    bought = list(HomePaths(home).journal().events("interaction"))
    assert len(bought) == 3
    assert [event.item for event in bought if isinstance(event, InteractionEvent)].count("0108775015") == 2


def test_tables_as_parquet(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    columns = {
        "session": np.array([0, 0], np.int32),
        "aid": np.array([5, 6], np.int32),
        "ts": np.array([1659304800, 1659304801], np.int32),
        "type": np.array([0, 2], np.uint8),
    }
    pq.write_table(pa.table(columns), path)
    assert guess_format(path) == "otto"
    events, rejects = load(path)
    assert rejects.rejected == 0
    assert [(event.user, event.item, event.type, event.timestamp) for event in interactions(events)] == [
        ("0", "5", "clicks", 1659304800000), ("0", "6", "orders", 1659304801000)
    ]  # fmt: skip


def test_options_of_tables(tmp_path: Path) -> None:
    renamed = put(tmp_path / "a.csv", "timestamp;user;action;thing\n1433221332;7;view;9\n1433221333;8;addtocart;9\n")
    options = ImportOptions({"thing": "item"}, type_column="action", separator=";", time_unit="s")
    for format in ("csv", "retailrocket"):
        events, rejects = load(renamed, format, options)
        assert rejects.rejected == 0
        assert [(event.user, event.item, event.type, event.timestamp) for event in interactions(events)] == [
            ("7", "9", "view", 1433221332000), ("8", "9", "addtocart", 1433221333000)
        ]  # fmt: skip


def test_a_column_event_of_interaction_types(tmp_path: Path) -> None:
    rows = "1433221332117,7,view,9,\n1433221332118,7,addtocart,9,\n"
    ours = put(tmp_path / "renamed.csv", "timestamp,user,event,item,transactionid\n" + rows)
    theirs = put(tmp_path / "events.csv", "timestamp,visitorid,event,itemid,transactionid\n" + rows)
    mapped = ImportOptions({"visitorid": "user", "itemid": "item"}, type_column="event")
    for path, options in ((ours, None), (ours, ImportOptions(type_column="event")), (theirs, mapped)):
        for format in {None, "csv"} if options else {None}:
            events, rejects = load(path, format, options)
            assert rejects.rejected == 0
            assert [event.type for event in interactions(events)] == ["view", "addtocart"]
            assert {(event.user, event.item) for event in interactions(events)} == {("7", "9")}
    kinds = put(tmp_path / "kinds.csv", "timestamp,user,event,item\n1433221332117,7,interaction,9\n")
    assert guess_format(kinds) == "csv"


def test_a_table_without_a_header(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "u1,9,1433221332,view\nu2,8,1433221333,view\n")
    options = ImportOptions({"0": "user", "1": "item", "2": "timestamp"}, type_column="3", time_unit="s")
    events, rejects = load(path, None, options)
    assert rejects.rejected == 0
    assert [(event.user, event.item, event.type, event.timestamp) for event in interactions(events)] == [
        ("u1", "9", "view", 1433221332000), ("u2", "8", "view", 1433221333000)
    ]  # fmt: skip
    header = put(tmp_path / "b.csv", "0,1,2\nu1,9,1433221332000\n")
    events, rejects = load(header, None, ImportOptions({"0": "user", "1": "item", "2": "timestamp"}))
    assert [(event.user, event.item) for event in interactions(events)] == [("u1", "9")]


def test_a_file_with_other_columns_is_an_error_that_names_them(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "when,who,what\n1,2,3\n")
    for format in ("retailrocket", "hm", "otto"):
        with pytest.raises(ValueError, match="found the columns when, who, what, expected"):
            load(path, format)
    with pytest.raises(ValueError, match=r"expected a type after it, such as user_id:token"):
        load(put(tmp_path / "a.inter", "user\titem\n1\t2\n"))
    with pytest.raises(ValueError, match="can't tell users from items"):
        load(put(tmp_path / "r.csv", "0205616461,0558925278,5.0,1369699200\n"))


def test_invalid_rows_of_tables_are_counted(tmp_path: Path) -> None:
    events, rejects = load(
        put(
            tmp_path / "events.csv",
            "timestamp,visitorid,event,itemid,transactionid\n1433221332117,,view,1,\nsoon,1,view,1,\n"
            "1433221332117,1,view,,\n1433221332117,1,view\n1433221332117,1,view,1,\n",
        )
    )
    assert (len(events), rejects.rejected) == (2, 3)  # an event without a user is one all the same


def test_the_encoding_of_movielens_can_be_given(tmp_path: Path) -> None:
    put(tmp_path / "ml" / "ratings.dat", "1::2::5::978300760\n")
    films = tmp_path / "ml" / "movies.dat"
    films.write_bytes("2::Łódź (1996)::Drama\n".encode("iso-8859-2"))
    for path in (tmp_path / "ml", films):
        events, _ = load(path, None, ImportOptions(encoding="iso-8859-2"))
        assert isinstance(events[0], ItemEvent)
        assert events[0].fields["title"] == "Łódź (1996)"


# --- synthetic timestamps and tags


def test_synthetic_timestamps_say_the_order_and_nothing_else(sample_data: Callable[[str], Path]) -> None:
    rejects = Rejects()
    path = sample_data("amazon_sequences") / "Beauty.txt.gz"
    assert guess_format(path) == "sequences"
    clicks = [event for event in read_events(path, rejects) if isinstance(event, InteractionEvent)]
    assert len({click.id for click in clicks}) == len(clicks) == 198_502
    assert rejects.total == 22_363
    users: dict[str | None, list[int]] = {}
    for click in clicks:
        users.setdefault(click.user, []).append(click.timestamp)
    assert all((np.diff(times) == synthetic_times.DAY_MS).all() for times in users.values())
    starts = np.array([times[0] for times in users.values()], float)
    order = np.arange(len(starts))
    assert abs(np.corrcoef(order, starts)[0, 1]) < 0.02
    assert abs(np.corrcoef([len(times) for times in users.values()], starts)[0, 1]) < 0.02
    parts = np.histogram(starts, 10)[0] / len(starts)
    assert (abs(parts - 0.1) < 0.01).all()


def test_tags_are_those_of_their_time(sample_data: Callable[[str], Path]) -> None:
    events, rejects = load(sample_data("movielens_latest_small") / "tags.csv.gz")
    assert (rejects.total, rejects.rejected) == (3_683, 0)
    items: dict[str, list[ItemEvent]] = {}
    for event in events:
        assert isinstance(event, ItemEvent)
        items.setdefault(event.item, []).append(event)
    for history in items.values():
        for before, after in pairwise(history):
            assert before.timestamp <= after.timestamp
            earlier, later = before.fields["tags"], after.fields["tags"]
            assert isinstance(earlier, list)
            assert isinstance(later, list)
            assert later[:-1] == earlier


# --- gorse


def test_a_hidden_item_of_gorse_is_removed_until_it_is_shown_again(tmp_path: Path) -> None:
    header = "item_id,is_hidden,categories,time_stamp,labels,description\r\n"
    states = []
    for hidden in ("true", "false", "true"):
        text = header + f'1,{hidden},x,2024-03-01 08:00:00 +0000 UTC,,"Lamp"\r\n'
        events, _ = load(put(tmp_path / "items.csv", text))
        states += events
        catalogue = Catalogue.from_events([event for event in states if isinstance(event, ItemEvent)])
        assert len(catalogue.hidden_rows) == (hidden == "true")


@pytest.mark.parametrize(
    ("text", "is_hidden"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False), ("", False)]
)
def test_a_column_removed_hides_items(tmp_path: Path, text: str, is_hidden: bool) -> None:
    events, _ = load(put(tmp_path / "items.csv", f"item,title,removed\n1,Lamp,{text}\n2,Rug,\n"))
    catalogue = Catalogue.from_events([event for event in events if isinstance(event, ItemEvent)])
    assert catalogue.hidden_rows.tolist() == ([0] if is_hidden else [])


def test_times_of_gorse_without_a_zone_are_utc(tmp_path: Path) -> None:
    path = put(tmp_path / "f.csv", "FeedbackType,UserId,ItemId,Timestamp\nstar,u,i,2022-06-24 21:20:00\n")
    assert load(path)[0][0].timestamp == 1656105600000
    options = ImportOptions(zone="Asia/Tokyo")
    assert load(path, None, options)[0][0].timestamp == 1656105600000 - 9 * 3_600_000


# --- UBI


def test_positives_of_the_ubi_sample(sample_data: Callable[[str], Path]) -> None:
    path = sample_data("ubi_esci_synthetic") / "ubi_queries_events.ndjson.gz"
    assert guess_format(path) == "ubi"
    events, rejects = load(path)
    shown = {event.id: event.items for event in events if isinstance(event, RankingEvent)}
    assert (len(shown), sum(map(len, shown.values()))) == (81, 1_526)
    seen: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for event in interactions(events):
        if event.ranking in shown and event.item in shown[event.ranking]:
            seen[event.type in POSITIVE].add((event.ranking, event.item))
    # 122 of them are in the last list of their query, and 4 in the first of a query with two lists.
    assert len(seen[True]) == 126
    assert len(seen[True] | seen[False]) == 904
    assert rejects.rejected + rejects.accepted == 3_921
    assert rejects.tallies["events of an item that no list of their query showed"] == 50


NOON = 1_718_452_800_000
"""2024-06-15 12:00 UTC in epoch milliseconds."""
UBI_LISTS = (
    {
        "query_id": "q",
        "client_id": "c",
        "user_query": "a",
        "timestamp": NOON + 1_000,
        "query_response_hit_ids": ["1", "2"],
    },
    {
        "query_id": "q",
        "client_id": "c",
        "user_query": "a",
        "timestamp": NOON + 2_000,
        "query_response_hit_ids": ["2", "3"],
    },
)


def ubi_click(item: str, at: int, **target: Any) -> dict[str, Any]:
    attributes = {"object": {"object_id": item, **target}}
    return {"action_name": "click", "query_id": "q", "client_id": "c", "timestamp": NOON + at,
            "event_attributes": attributes}  # fmt: skip


def test_events_are_joined_to_lists_that_were_imported_earlier(tmp_path: Path) -> None:
    home = tmp_path / "home"
    items = [
        {"event": "item", "id": f"i{n}", "timestamp": 0, "item": str(n),
         "fields": [{"name": "sku", "value": f"S{n}"}, {"name": "ean", "value": [400 + n]}]}
        for n in range(1, 4)
    ]  # fmt: skip
    clicks = [
        ubi_click("1", 500), ubi_click("2", 1_500), ubi_click("2", 2_000), ubi_click("3", 1),
        ubi_click("S3", 2_500, object_id_field="sku"), ubi_click("401", 2_501, object_id_field="ean"),
        ubi_click("S9", 2_502, object_id_field="sku"), ubi_click("9", 2_503),
    ]  # fmt: skip
    feedrank(home, "import", put(tmp_path / "items.jsonl", lines(*items)))
    feedrank(home, "import", put(tmp_path / "first.ndjson", lines(UBI_LISTS[1])))
    feedrank(home, "import", put(tmp_path / "second.ndjson", lines(*UBI_LISTS)))
    output = " ".join(feedrank(home, "import", put(tmp_path / "events.ndjson", lines(*clicks))).split())
    journal = HomePaths(home).journal()
    shown = {event.items: event.id for event in journal.events("ranking") if isinstance(event, RankingEvent)}
    assert shown == {("2", "3"): "q", ("1", "2"): "q:2"}
    found = [(event.item, event.ranking) for event in interactions(list(journal.events("interaction")))]
    assert found == [
        ("1", "q:2"), ("2", "q:2"), ("2", "q"), ("3", "q"), ("3", "q"), ("1", "q:2"), ("9", "q"),
    ]  # fmt: skip
    assert "events of an item that no list of their query showed: 1" in output
    assert "lines rejected │ 1" in output
    again = " ".join(feedrank(home, "import", tmp_path / "events.ndjson").split())
    assert "new events │ 0 of 7" in again


def test_an_event_counts_once_whatever_it_was_joined_to(tmp_path: Path) -> None:
    home = tmp_path / "home"
    events = put(tmp_path / "events.ndjson", lines(ubi_click("3", 2_001)))
    output = " ".join(feedrank(home, "import", events).split())
    assert "events of a query without a list: import queries before events: 1" in output
    feedrank(home, "import", put(tmp_path / "queries.ndjson", lines(*UBI_LISTS)))
    output = " ".join(feedrank(home, "import", events).split())
    assert "events that were imported before the list of their query, and stay joined as they were: 1" in output
    assert len(list(HomePaths(home).journal().events("interaction"))) == 1


def test_events_of_ours_may_be_among_those_of_ubi(tmp_path: Path) -> None:
    item = {"event": "item", "id": "i", "timestamp": 0, "item": "3", "fields": [{"name": "sku", "value": "S3"}]}
    put(tmp_path / "ubi" / "items.jsonl", lines(item))
    put(tmp_path / "ubi" / "log.jsonl", lines(*UBI_LISTS, ubi_click("S3", 2_100, object_id_field="sku")))
    events, rejects = load(tmp_path / "ubi")
    assert rejects.rejected == 0
    assert parse(item) in events
    assert [(event.item, event.ranking) for event in interactions(events)] == [("3", "q:2")]
