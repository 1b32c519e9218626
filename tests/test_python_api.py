"""The public Python API on the toy world: frames of three libraries in, tables and feeds out."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toyworld
from conftest import PROJECT, feedrank

import feedrank as public
from feedrank import Client, Evaluation, Feed, Filters, Home, LoadReport, Recommender, __version__
from feedrank.api.home_paths import HomePaths
from feedrank.api.readers import ImportOptions, Rejects, read_events
from feedrank.engine.events.events import InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.serving.ranking_record import RankingRecord

FRAMES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "pyarrow": pa.Table.from_pylist,
}


def item_rows() -> list[dict[str, Any]]:
    """A row for each item, under names that shops use."""
    return [
        {"item_id": event["item"], **{field["name"]: field["value"] for field in event["fields"]}}
        for event in toyworld.items()
    ]


def interaction_rows() -> list[dict[str, Any]]:
    """A row for each interaction, in the columns of MovieLens."""
    return [
        {"userId": event["user"], "movieId": event["item"], "rating": event["value"],
         "timestamp": event["timestamp"] // 1000}
        for event in toyworld.interactions()
    ]  # fmt: skip


def toy(folder: Path) -> Home:
    """A home with the toy world's config."""
    folder.mkdir(exist_ok=True)
    (folder / "feedrank.toml").write_text(toyworld.CONFIG)
    return Home(folder)


def one_click(**columns: Any) -> pd.DataFrame:
    """A frame of interactions; each column has its usual name unless it is given."""
    usual = {"user": ["u"], "item": ["i"], "timestamp": [1_700_000_000]}
    return pd.DataFrame({**usual, **columns})


def events_of(home: Home, kind: str) -> list[Any]:
    """The events of one type in the journal of a home."""
    return list(HomePaths(home.folder).journal().events(kind))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The toy world, loaded from pandas and trained; read it only."""
    home = toy(tmp_path_factory.mktemp("trained"))
    home.load(items=pd.DataFrame(item_rows()), interactions=pd.DataFrame(interaction_rows()))
    report = home.train("toy")
    assert report.bundle == "toy"
    assert report.trees >= 1
    assert sum(report.importance.values()) == pytest.approx(1)
    assert report.to_pandas()["feature"][0] in repr(report)
    return home


@pytest.fixture
def recommender(trained: Home) -> Iterator[Recommender]:
    with trained.recommender(log=False) as opened:
        yield opened


# --- what import costs, and what there is


def test_the_package_imports_nothing_and_the_client_httpx_alone() -> None:
    heavy = "('numpy', 'torch', 'flask', 'pyarrow', 'pandas', 'lightgbm', 'pydantic', 'sqlalchemy')"
    for code, allowed in (("import feedrank", []), ("from feedrank import Client, NotFound", ["httpx"])):
        seen = f"import sys; {code}; print([one for one in (*{heavy}, 'httpx') if one in sys.modules])"
        run = subprocess.run([sys.executable, "-c", seen], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == str(allowed), code


def test_every_public_name_exists() -> None:
    for name in public.__all__:
        assert getattr(public, name) is not None
    assert set(public.__all__) <= set(dir(public))
    assert issubclass(public.NotFound, public.ClientError)
    assert Client is public.Client
    with pytest.raises(AttributeError, match="its public names are"):
        _ = public.Hom


def test_the_version_has_one_source_and_is_in_each_bundle(trained: Home) -> None:
    assert "version = attr: feedrank.__version__" in (PROJECT / "setup.cfg").read_text()
    build = json.loads((trained.folder / "bundles" / "toy" / "build.json").read_text())
    assert build["version"] == __version__
    assert f"version {__version__}" in feedrank(trained.folder, "--version")
    assert __version__ in feedrank(trained.folder, "bundles", "list")
    assert f"build.version │ {__version__}" in " ".join(feedrank(trained.folder, "bundles", "show").split())


def test_type_checkers_see_every_public_name() -> None:
    root = PROJECT / "src" / "feedrank"
    assert (root / "py.typed").is_file()
    (block,) = (
        node
        for node in ast.parse((root / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    lazy = {name: module for module, names in public._MODULES.items() for name in names}
    assert typed == lazy
    assert {*typed, "__version__"} == set(public.__all__)


# --- load


@pytest.mark.parametrize("library", FRAMES)
def test_frames_of_each_library_are_the_same_events(library: str, tmp_path: Path) -> None:
    home, frame = toy(tmp_path / "home"), FRAMES[library]
    report = home.load(items=frame(item_rows()), interactions=frame(interaction_rows()))
    assert isinstance(report, LoadReport)
    assert (report["items"].new, report["interactions"].new, report.rejected) == (60, 540, 0)
    assert report.journal == {"item": 60, "interaction": 540}
    assert report["interactions"].columns == {
        "user": "userId", "item": "movieId", "timestamp": "timestamp", "value": "rating"
    }  # fmt: skip
    assert (report["interactions"].known_items, report["interactions"].unknown_items) == (540, 0)
    output = repr(report)
    for part in ("user <- userId", "epoch seconds", "the type is 'rating'", "2023-11-14 22:13:20 UTC", "540 of 540"):
        assert part in output
    # whatever the library, the same row has the same id
    again = home.load(items=pd.DataFrame(item_rows()), interactions=pl.DataFrame(interaction_rows()))
    assert (again.new, again["items"].duplicates, again["interactions"].duplicates) == (0, 60, 540)
    first = events_of(home, "interaction")[0]
    assert (first.user, first.item, first.type, first.value, first.timestamp) == (
        "p0", toyworld.item("space", 0), "rating", 4.0, toyworld.START
    )  # fmt: skip
    item = events_of(home, "item")[0]
    assert item.fields == {"title": "the rocket book", "category": "space"}


def test_columns_can_be_named_and_the_rest_become_fields(tmp_path: Path) -> None:
    home = Home(tmp_path)
    frame = pd.DataFrame(
        {"customer_no": ["a"], "sku": ["x"], "ts": [1_700_000_000], "store": ["north"], "raw": [b"\0"], "none": [None]}
    )
    report = home.load(interactions=frame, columns={"user": "customer_no"})["interactions"]
    assert report.columns == {"user": "customer_no", "item": "sku", "timestamp": "ts"}
    assert report.fields == ("store",)
    assert report.unused == {"none": "it is empty", "raw": report.unused["raw"]}
    assert "binary" in report.unused["raw"]
    (event,) = events_of(home, "interaction")
    assert (event.user, event.item, event.type, event.fields) == ("a", "x", "click", {"store": "north"})


def test_columns_per_frame_and_columns_that_are_not_to_be_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    items = pd.DataFrame({"code": ["x"], "name": ["a chair"], "product_name": ["the chair"]})
    clicks = one_click(score=[3.0])
    columns = {"items": {"item": "code", "title": "product_name"}, "interactions": {"value": None}}
    report = home.load(items=items, interactions=clicks, columns=columns)
    assert report["items"].columns == {"item": "code", "title": "product_name"}
    assert report["items"].fields == ("name",)
    (event,) = events_of(home, "interaction")
    assert (event.value, event.fields) == (None, {"score": 3.0})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"usr": "user"}, "found the part 'usr', expected one of these"),
        ({"user": "client"}, "'user' is to be the column 'client', which no frame has"),
        ({"clicks": {"user": "user"}}, "found the frame 'clicks', expected one of interactions"),
    ],
)
def test_wrong_columns_are_refused(columns: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Home(tmp_path).load(interactions=one_click(), columns=columns)


def test_an_object_that_is_no_frame_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(TypeError, match="interactions: found list, expected a data frame with the Arrow stream"):
        home.load(interactions=[{"user": "u"}])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="found no data frame"):
        home.load()
    with pytest.raises(ValueError, match=r"no column for timestamp among user, item; name it with columns=\{'times"):
        home.load(items=pd.DataFrame({"item": ["x"]}), interactions=pd.DataFrame({"user": ["u"], "item": ["x"]}))
    with pytest.raises(ValueError, match="a column can't be read as Arrow"):
        home.load(interactions=one_click(user=["u"], extra=[object()]))
    with pytest.raises(ValueError, match="expected text or integers"):
        home.load(interactions=one_click(item=[[1]]))
    with pytest.raises(ValueError, match=r"numbers such as 3, which are no times from 1973 to 2100"):
        home.load(interactions=one_click(timestamp=[3]))
    assert not (home.folder / "journal.db").exists() or not events_of(home, "item"), "nothing is written of a bad load"


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([1_700_000_000], "epoch seconds"),
        ([1_700_000_000.0], "epoch seconds"),
        (["1700000000"], "epoch seconds"),
        ([1_700_000_000_000], "epoch milliseconds"),
        ([1_700_000_000_000_000], "epoch microseconds"),
        ([1_700_000_000_000_000_000], "epoch nanoseconds"),
        ([875_000_000], "epoch seconds"),  # 1997: MovieLens-100K
        (pd.to_datetime(["2023-11-14 22:13:20"]), "no zone and were read as UTC"),
        (pd.to_datetime(["2023-11-14 23:13:20+01:00"]), "have the zone"),
        (["2023-11-14 22:13:20"], "1 times without a zone in 'timestamp' were read in UTC"),
        (["2023-11-14T22:13:20Z"], ""),
        (["2023-11-14 22:13:20 UTC"], ""),
    ],
)
def test_times_of_every_kind(values: Any, note: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    report = home.load(interactions=one_click(timestamp=values))["interactions"]
    assert note in " ".join(report.notes)
    expected = 875_000_000_000 if values[0] == 875_000_000 else 1_700_000_000_000
    assert [event.timestamp for event in events_of(home, "interaction")] == [expected]
    assert report.first_at == report.last_at == expected / 1000


def test_times_of_another_size_than_most_are_noted(tmp_path: Path) -> None:
    frame = one_click(user=["u"] * 3, item=["i"] * 3, timestamp=[1_700_000_000, 1_700_000_001, 0])
    assert "1 times in 'timestamp' are of another size than most" in repr(Home(tmp_path).load(interactions=frame))


TIMES_OF_FRAMES: list[list[Any]] = [
    ["2020/09/20 10:00:00"], ["20200920", "20200921"], [20200920, 20200921], [44094.5, None], ["44094.5", ""],
    ["1600560000", "1600560001"], [1_600_560_000_123_456_789], ["Sun, 20 Sep 2020 00:00:00 GMT", "NaN"],
    ["2020-09-20"], ["2020-09-20 02:00:00 +0200", "soon"], [1_600_560_000, 1_600_560_001, 5 * 10**16],
    ["1600560000", "1.6E+9"],
]  # fmt: skip


@pytest.mark.parametrize("values", TIMES_OF_FRAMES, ids=str)
def test_times_of_a_frame_are_those_of_a_file(values: list[Any], tmp_path: Path) -> None:
    report = Home(tmp_path / "frame").load(
        interactions=one_click(user=["u"] * len(values), item=["i"] * len(values), timestamp=values)
    )
    rows = "".join(f'u,i,"{"" if value is None else value}"\n' for value in values)
    (tmp_path / "clicks.csv").write_text("user,item,timestamp\n" + rows)
    rejects, options = Rejects(), ImportOptions(time_unit="auto", zone="UTC")
    in_file = [event.timestamp for event in read_events(tmp_path / "clicks.csv", rejects, options=options)]
    assert [event.timestamp for event in events_of(Home(tmp_path / "frame"), "interaction")] == in_file != []
    assert report.rejected == rejects.rejected
    assert [note for note in rejects.notes if "'timestamp'" in note] == [
        note for note in report["interactions"].notes if "'timestamp'" in note and "another size" not in note
    ]


def test_years_of_items_are_no_milliseconds(tmp_path: Path) -> None:
    home = Home(tmp_path)
    report = home.load(items=pd.DataFrame({"item": ["a", "b", "c"], "published": [1999, 1950, None]}))
    assert "years from 1 January" in repr(report)
    assert [event.fields.get("published") for event in events_of(home, "item")] == [
        915_148_800_000.0, -631_152_000_000.0, None
    ]  # fmt: skip


def test_dates_are_midnight(tmp_path: Path) -> None:
    import datetime

    home = Home(tmp_path)
    frame = pl.DataFrame({"user": ["u"], "item": ["i"], "date": [datetime.date(2024, 1, 2)]})
    report = home.load(interactions=frame)["interactions"]
    assert "midnight UTC" in " ".join(report.notes)
    assert events_of(home, "interaction")[0].timestamp == 1_704_153_600_000


def test_ids_of_every_kind(tmp_path: Path) -> None:
    home = Home(tmp_path)
    frame = pd.DataFrame(
        {
            "user": [1.0, float("nan"), 3.0, 4.0],
            "item": pd.Categorical(["a", "b", "", None]),
            "time": [1_700_000_000 + n for n in range(4)],
        }
    )
    report = home.load(interactions=frame)["interactions"]
    assert [(event.user, event.item) for event in events_of(home, "interaction")] == [("1", "a"), (None, "b")]
    assert "floats in 'user' were read as integer ids" in report.notes
    assert "1 rows have no user and count for the items only" in report.notes
    assert report.rejected == 2
    (reason,) = report.reasons
    assert (reason.count, reason.example_row) == (2, 3)
    assert "item: found nothing, expected a non-empty string" in reason.example
    written = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(one["source"], one["line"]) for one in written] == [("interactions", 3), ("interactions", 4)]


def test_ids_that_lost_digits_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(ValueError, match=r"found the id 1\.5, expected integers or text"):
        home.load(interactions=one_click(user=[1.5]))
    with pytest.raises(ValueError, match="which have lost digits"):
        home.load(interactions=one_click(user=[1e17]))
    report = home.load(interactions=one_click(user=["nan"]))
    assert "1 rows have a word for a missing value in 'user', such as 'nan'" in repr(report)


def test_numbers_as_event_ids_do_not_meet_those_of_another_frame(tmp_path: Path) -> None:
    home = Home(tmp_path)
    rankings = pd.DataFrame({"id": [1], "items": [["i", "j"]], "user": ["u"], "ts": [1_700_000_000]})
    report = home.load(rankings=rankings, interactions=one_click(id=[1], ranking=[1]))
    assert report.new == 2
    assert events_of(home, "ranking")[0].id == "1"
    (click,) = events_of(home, "interaction")
    assert (click.id, click.ranking) == ("interaction:1", "1")
    assert Home(tmp_path).load(interactions=one_click(id=["uuid-1"])).new == 1
    assert events_of(home, "interaction")[1].id == "uuid-1"


def test_a_rejected_row_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Home(tmp_path).load(interactions=one_click(user=["u"] * 2, item=["i", None], timestamp=[1_700_000_000, 2e9]))
    assert "interactions: 1 of 2 rows were rejected" in caplog.text


def test_items_that_only_interactions_name(tmp_path: Path) -> None:
    home = Home(tmp_path)
    items = pd.DataFrame({"item": ["a"], "genres": ["Drama|Comedy"], "year": [1999]})
    clicks = one_click(user=["u"] * 3, item=["a", "b", "b"], timestamp=[1_700_000_000 + n for n in range(3)])
    report = home.load(items=items, interactions=clicks, create_items=False)
    assert (report.items_created, report.items_left_unknown) == (0, 1)
    assert (report["interactions"].known_items, report["interactions"].unknown_items) == (1, 2)
    assert "ids that no item describes: 1" in repr(report)
    report = home.load(interactions=clicks)
    assert (report.items_created, report["interactions"].duplicates) == (1, 3)
    assert "items created from ids that no item describes: 1" in repr(report)
    described, created = events_of(home, "item")
    assert isinstance(described, ItemEvent)
    assert described.fields == {"category": ["Drama", "Comedy"], "year": 1999.0}
    assert (created.item, created.fields, created.timestamp) == ("b", {}, 0)
    assert home.load(interactions=clicks).items_created == 0


def test_the_config_can_turn_off_created_items_for_the_command_too(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text("[journal]\ncreate_items = false\n")
    assert Home(tmp_path).load(interactions=one_click()).items_created == 0
    source = tmp_path / "clicks.csv"
    source.write_text("user,item,timestamp\nu,i,1700000000000\n")
    feedrank(tmp_path, "import", source)
    assert events_of(Home(tmp_path), "item") == []
    (tmp_path / "feedrank.toml").unlink()
    assert "items created from ids that no item describes" in feedrank(tmp_path, "import", source)
    assert [event.item for event in events_of(Home(tmp_path), "item")] == ["i"]


def test_users(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.load(users=pd.DataFrame({"id": [7], "country": ["CH"]}))
    (event,) = events_of(home, "user")
    assert isinstance(event, UserEvent)
    assert (event.user, event.fields) == ("7", {"country": "CH"})


@pytest.mark.parametrize("library", FRAMES)
def test_rankings_as_lists_and_as_rows_are_the_same(library: str, tmp_path: Path) -> None:
    lists, rows = Home(tmp_path / "lists"), Home(tmp_path / "rows")
    lists.load(
        rankings=FRAMES[library](
            [
                {"ranking_id": "r1", "user": "u", "ts": 1_700_000_000, "items": ["a", "b"], "clicked": [0, 1]},
                {"ranking_id": "r2", "user": "v", "ts": 1_700_000_100, "items": ["c"], "clicked": [1]},
            ]
        )
    )
    impression = {"user": "u", "ts": 1_700_000_000, "impression_id": "r1", "device": "phone"}
    report = rows.load(
        rankings=FRAMES[library](
            [
                {**impression, "item_id": "b", "clicked": True, "position": 1, "price": 2.0},
                {**impression, "item_id": "a", "clicked": False, "position": 0, "price": 1.0},
                {**impression, "item_id": "c", "clicked": True, "position": 0, "price": 1.0, "impression_id": "r2",
                 "user": "v", "ts": 1_700_000_100},
                {**impression, "item_id": "c", "clicked": True, "position": 0, "price": 1.0, "impression_id": None},
            ]
        )
    )["rankings"]  # fmt: skip
    one, other = events_of(lists, "ranking"), events_of(rows, "ranking")
    for event in (*one, *other):
        assert isinstance(event, RankingEvent)
    read = [(event.id, event.user, event.timestamp, event.items, event.labels) for event in one]
    assert read == [(event.id, event.user, event.timestamp, event.items, event.labels) for event in other]
    assert read[0] == ("r1", "u", 1_700_000_000_000, ("a", "b"), (0.0, 1.0))
    assert other[0].positions == (1, 2)
    assert other[0].fields == {"device": "phone"}
    assert [event.item_fields for event in other] == [{"price": (1.0, 2.0)}, {"price": (1.0,)}]  # type: ignore[union-attr]
    assert (report.fields, report.unused) == (("device", "price"), {})
    assert (report.rows, report.new, report.rejected) == (4, 2, 1)
    assert "positions in 'position' start at 0" in " ".join(report.notes)
    assert {event.item for event in events_of(rows, "item")} == {"a", "b", "c"}


def test_a_ranking_id_of_several_users_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"request_id": ["r", "r"], "item": ["a", "b"], "user": ["u", "v"], "time": [1.7e9, 1.7e9]})
    report = Home(tmp_path).load(rankings=frame)["rankings"]
    assert (report.new, report.rejected) == (0, 1)
    assert "found several users in one ranking" in report.reasons[0].example


def test_an_index_with_a_name_is_a_column(tmp_path: Path) -> None:
    home = Home(tmp_path)
    frame = one_click(user=["u", "v"], item=["i", "j"], timestamp=[1_700_000_000, 1_700_000_001])
    report = home.load(interactions=frame[frame.user == "v"])["interactions"]
    assert (report.new, report.fields, report.unused) == (1, (), {})
    report = home.load(interactions=frame.set_index("user"))["interactions"]
    assert (report.columns["user"], report.duplicates) == ("user", 1)


# --- evaluate, train, recommend


def test_an_evaluation_is_a_table_with_intervals(trained: Home, tmp_path: Path) -> None:
    evaluation = trained.evaluate(["last-item"], dataset="toy")
    assert isinstance(evaluation, Evaluation)
    frame = evaluation.to_pandas()
    assert list(frame.columns) == ["dataset", "method", "metric", "value", "low", "high", "groups"]
    assert set(frame["method"]) == {"lambdarank", "recall", "text", "popularity", "random"}
    assert ((frame["low"] <= frame["value"]) & (frame["value"] <= frame["high"])).all()
    assert evaluation.value("lambdarank", "hr@10") > evaluation.value("random", "hr@10")
    assert pl.DataFrame(evaluation).height == len(frame)
    output = repr(evaluation)
    assert "toy, 60 groups" in output
    assert "nDCG@10 gain of lambdarank over recall order" in output
    assert "note: toy" not in output, "a note is a sentence"
    with pytest.raises(KeyError, match="found no 'ndcg@7'"):
        evaluation.value("lambdarank", "ndcg@7")
    evaluation.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="found the protocol 'random', expected one of last-item"):
        trained.evaluate("random")
    assert len(list((trained.folder / "bundles").glob("*/manifest.json"))) == 2  # toy and the link to it


def test_a_feed_and_its_explanation(recommender: Recommender) -> None:
    feed = recommender.recommend(user="p0", n=5)
    assert isinstance(feed, Feed)
    assert feed.ids[0] == toyworld.expected_next_item(0)
    assert len(feed.ids) == len(feed.scores) == len(feed) == 5
    assert (feed.user, feed.bundle, feed.logged, feed.fallback) == ("p0", "toy", False, "full")
    assert "the satellite book" in repr(feed)
    explanation = feed.explain()
    for score, entry in zip(feed.scores, explanation.items, strict=True):
        assert entry.base is not None
        assert sum(entry.contributions.values()) + entry.base == pytest.approx(score, abs=1e-4)
        assert entry.features.keys() == entry.contributions.keys()
    frame = explanation.to_pandas()
    assert len(frame) == 5 * len(explanation.items[0].features)
    assert list(frame.columns) == ["position", "item", "feature", "value", "contribution", "meaning", "category"]
    assert frame["meaning"].notna().all()
    assert feed.ids[0] in repr(explanation)
    assert feed.to_pandas()["item"].tolist() == list(feed.ids)


def test_requests_have_the_options_of_the_service(recommender: Recommender) -> None:
    seen = recommender.recommend("p0", 60, filters=Filters(include_seen=True, categories=["space"]))
    assert len(seen) == toyworld.RING
    assert {toyworld.genre_of(item) for item in recommender.recommend(history=["music-1", "music-2"]).ids[:4]} == {
        "music"
    }
    assert toyworld.genre_of(recommender.recommend(query="guitar concert").ids[0]) == "music"
    assert recommender.recommend().source == "popular"
    ranked = recommender.rank(["ocean-3", toyworld.expected_next_item(0), "nowhere"], user="p0")
    assert ranked.ids[0] == toyworld.expected_next_item(0)
    assert set(ranked.ids) == {"ocean-3", toyworld.expected_next_item(0), "nowhere"}
    priced = [{"id": "ocean-3", "fields": {"price": 9.5, "bid": None}}, {"id": 7}, "music-1"]
    assert set(recommender.rank(priced).ids) == {"ocean-3", "7", "music-1"}
    for call, message in (
        (lambda: recommender.rank({"id": "a"}), "expected several items"),  # type: ignore[arg-type]
        (lambda: recommender.rank([{"fields": {}}]), "items: found None, expected an id"),
        (lambda: recommender.rank([{"id": "a", "fields": {"x": {}}}]), r"items\.0"),
        (lambda: recommender.rank([{"id": "a", "fields": {"x": float("nan")}}]), r"item_fields\.x\[0\]: found nan"),
        (lambda: recommender.recommend("p0", 0), "n: "),
        (lambda: recommender.recommend("p0", history="abc"), "expected several ids"),
        (lambda: recommender.recommend(True), "expected an id"),
        (lambda: recommender.recommend_many("p0"), "expected several ids"),
        (lambda: recommender.recommend_many(pd.DataFrame({"user": ["a"]})), "expected one column of it"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_feeds_are_logged_if_asked_and_the_recommender_closes(home: Path) -> None:
    opened = Home(home)
    with opened.recommender(log=True) as recommender:
        feed = recommender.recommend(user="p1", n=3)
        priced = recommender.rank([{"id": "ocean-3", "fields": {"price": 9.5}}, "music-1"], n=1)
        assert feed.logged
        assert recommender.bundle == "toy"
    assert "closed" in repr(recommender)
    with pytest.raises(RuntimeError, match="this recommender is closed"):
        recommender.recommend("p1")
    recommender.close()  # twice is no error
    assert len(feed.explain().items) == 3  # what was returned can still be explained
    event, of_list = events_of(opened, "ranking")
    assert (event.id, event.items) == (feed.ranking, feed.ids)
    request = RankingRecord.from_event(of_list).request
    assert (priced.ids, request.item_fields) == (of_list.items, {"price": (9.5, None)})
    assert not opened.recommender().recommend("p1").logged
    assert len(events_of(opened, "ranking")) == 2


def test_many_feeds_are_those_of_single_requests(recommender: Recommender) -> None:
    at = time.time()
    users = [toyworld.user_id(index) for index in range(toyworld.USERS)] + ["nobody"]
    many = recommender.recommend_many(users, n=7, at=at)
    frame = many.to_pandas()
    assert list(frame.columns) == ["user", "position", "item", "score", "source"]
    assert (many.users, many.unknown_users, many.empty_users) == (61, ("nobody",), ())
    assert list(dict.fromkeys(frame["user"])) == users
    for user, rows in frame.groupby("user"):
        single = recommender.recommend(user, 7, at=at)
        assert rows["item"].tolist() == list(single.ids)
        assert rows["score"].tolist() == list(single.scores)
        assert rows["position"].tolist() == list(range(1, 8))
        assert set(rows["source"]) == {single.source}
    assert "61 users, 1 of them unknown: 427 rows" in repr(many)
    assert pl.DataFrame(many).shape == (427, 5)
    assert pa.table(many).equals(many.to_pyarrow())


def test_a_batch_that_fails_is_ranked_one_by_one(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    from feedrank.engine.serving import batch_ranking

    expected = recommender.recommend_many(["p0", "p1"], at=2e9).to_pyarrow()

    def broken(*_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(batch_ranking, "_run_batch", broken)
    assert recommender.recommend_many(["p0", "p1"], at=2e9).to_pyarrow().equals(expected)


@pytest.mark.parametrize(
    "users",
    [["p0", "p1", None, "p0"], pd.Series(["p0", None, "p1"]), pl.Series(["p0", "p1"]), pa.array(["p0", "p1"]),
     iter(("p0", "p1"))],
)  # fmt: skip
def test_users_in_any_column(users: Any, recommender: Recommender) -> None:
    assert list(dict.fromkeys(recommender.recommend_many(users, n=1).to_pandas()["user"])) == ["p0", "p1"]


def test_users_as_numbers(recommender: Recommender) -> None:
    assert recommender.recommend_many(pd.Series([1.0, None]), n=1).unknown_users == ("1",)
    assert recommender.recommend_many([1, "p0"], n=1).unknown_users == ("1",)
    assert recommender.recommend(user=1).user == "1"
    assert recommender.recommend_many([], n=1).to_pyarrow().num_rows == 0


def test_many_feeds_can_be_logged(home: Path) -> None:
    opened = Home(home)
    with opened.recommender() as recommender:
        recommender.recommend_many(["p0", "p1"], n=2)
        assert events_of(opened, "ranking") == []
        many = recommender.recommend_many(["p0", "p1"], n=2, log=True)
    logged = events_of(opened, "ranking")
    assert [(event.user, list(event.items)) for event in logged] == [
        (user, rows["item"].tolist()) for user, rows in many.to_pandas().groupby("user")
    ]


def test_interactions_alone_give_feeds(tmp_path: Path) -> None:
    home = toy(tmp_path / "home")
    (home.folder / "feedrank.toml").write_text(toyworld.CONFIG + '\n[embedder]\nmodel = "none"\n')
    home = Home(home.folder)
    assert home.load(interactions=pd.DataFrame(interaction_rows())).items_created == 60
    home.train()
    with home.recommender() as recommender:
        assert recommender.recommend("p0").ids[0] == toyworld.expected_next_item(0)
    assert isinstance(events_of(home, "interaction")[0], InteractionEvent)


def test_a_home_without_data_is_an_error_with_a_hint(tmp_path: Path) -> None:
    home = Home(tmp_path / "empty")
    for call in (home.recommender, home.train, home.evaluate):
        with pytest.raises(ValueError, match=r"there is no journal at .*load"):
            call()
    assert not home.folder.exists()
    home.load(interactions=one_click())
    with pytest.raises(RuntimeError, match="build a bundle with `feedrank train`"):
        home.recommender()


def test_without_pandas_the_message_says_what_to_install(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = recommender.recommend("p0")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        feed.to_pandas()
    assert feed.to_pyarrow().num_rows == 10


# --- the command for many users


@pytest.mark.parametrize("out", ["feeds.parquet", "feeds.csv", "feeds.jsonl"])
def test_the_command_writes_the_feeds_of_a_file_of_users(out: str, trained: Home, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("p0\n\np1\nnobody\np0\n")
    path = tmp_path / out
    output = feedrank(trained.folder, "recommend", "--users", users, "--out", path, "-n", 4)
    assert "12 rows for 3 of 3 users" in output
    assert "unknown users, who got popular items: 1" in output
    assert "users per second" in output
    read = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda name: pd.read_json(name, lines=True)}
    frame = read[path.suffix](path)
    with trained.recommender(log=False) as recommender:
        expected = recommender.recommend_many(["p0", "p1", "nobody"], n=4).to_pandas()
    assert frame["item"].tolist() == expected["item"].tolist()
    assert list(frame.columns) == list(expected.columns)
    assert events_of(trained, "ranking") == []


def test_the_command_reads_tables_of_users(trained: Home, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("name,user_id\nAnn,p0\nBob,p1\n")
    pq.write_table(pa.table({"visitorid": pa.array([1, 2])}), tmp_path / "users.parquet")
    out = tmp_path / "out.csv"
    assert "for 2 of 2" in feedrank(trained.folder, "recommend", "--users", tmp_path / "users.csv", "--out", out)
    output = feedrank(trained.folder, "recommend", "--users", tmp_path / "users.parquet", "--out", out)
    assert "who got popular items: 2" in output


def test_the_command_refuses_what_it_can_not_do(trained: Home, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("a,b\n1,2\n")
    (tmp_path / "users.txt").write_text("p0\n")
    users, out = tmp_path / "users.txt", tmp_path / "feeds.parquet"
    assert "expected both" in feedrank(trained.folder, "recommend", "--users", users, code=2)
    assert "allows -n only" in feedrank(
        trained.folder, "recommend", "--users", users, "--out", out, "--user", "p0", code=2
    )
    for name, target, message in (
        ("users.csv", out, "expected one named like `user`"),
        ("nobody.csv", out, "is not there; give the path of a file of users"),
        ("users.txt", tmp_path / "feeds.xlsx", "expected one of .parquet, .csv, .jsonl"),
    ):
        output = feedrank(trained.folder, "recommend", "--users", tmp_path / name, "--out", target, code=1)
        assert message in output
    assert not out.exists()
