"""Feature files become rankings whose items bring their numbers and grades, whatever the layout of the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from conftest import feedrank
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from feedrank.api.home_paths import HomePaths
from feedrank.api.readers import ImportOptions, Rejects, guess_format, read_events
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import RankingEvent

NUMBERS = st.sampled_from([0.0, 1.0, -2.5, 1e-12, 3e20, 0.1])


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[int]]:
    """Draw (n, 4) numbers, n grades, and the sizes of the queries."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*[NUMBERS] * 4), min_size=sum(sizes), max_size=sum(sizes)))
    grades = draw(st.lists(st.integers(0, 4), min_size=sum(sizes), max_size=sum(sizes)))
    return np.array(rows), np.array(grades), sizes


def read(path: Path, **options: Any) -> tuple[list[RankingEvent], Rejects]:
    rejects = Rejects()
    events = list(read_events(path, rejects, None, ImportOptions(**options)))
    assert all(isinstance(event, RankingEvent) for event in events)
    for event in events:
        assert parse(json.loads(json.dumps(to_dict(event), allow_nan=False))) == event, "the journal gives it back"
    return events, rejects  # type: ignore[return-value]


def as_letor(folder: Path, matrix: Any, grades: Any, sizes: list[int], first: int) -> Path:
    """Write the file with scikit-learn, with the lines of each query."""
    queries = np.repeat(np.arange(len(sizes)) + 10, sizes)
    dump_svmlight_file(matrix, grades, str(folder / "train.txt"), zero_based=first == 0, query_id=queries, comment="x")
    return folder / "train.txt"


def with_query_file(folder: Path, matrix: Any, grades: Any, sizes: list[int], first: int) -> Path:
    dump_svmlight_file(matrix, grades, str(folder / "rank.train"), zero_based=first == 0)
    (folder / "rank.train.group").write_text("\n".join(map(str, sizes)))
    return folder / "rank.train"


def as_table(folder: Path, matrix: Any, grades: Any, sizes: list[int], first: int) -> Path:
    queries = np.repeat(np.arange(len(sizes)) + 10, sizes)
    names = [f"f{first + index}" for index in range(matrix.shape[1])]
    rows = [
        ",".join(map(repr, [int(q), int(g), *row.tolist()])) for q, g, row in zip(queries, grades, matrix, strict=True)
    ]
    (folder / "train.csv").write_text("\n".join([",".join(["qid", "label", *names]), *rows]))
    return folder / "train.csv"


@settings(max_examples=25)
@given(data=judged(), first=st.sampled_from([0, 1]))
@pytest.mark.parametrize("write", [as_letor, with_query_file, as_table])
def test_every_layout_gives_the_same_lists(write: Callable[..., Path], data: Any, first: int) -> None:
    matrix, grades, sizes = data
    with TemporaryDirectory() as folder:
        path = write(Path(folder), matrix, grades, sizes, first)
        if write is with_query_file and 2 * matrix.any(axis=1).sum() < len(matrix):
            return  # lines that are only a label are no feature file
        assert guess_format(path) == "letor"
        events, rejects = read(path)
    assert (rejects.rejected, rejects.accepted) == (0, len(grades))
    assert [len(event.items) for event in events] == sizes
    assert [grade for event in events for grade in event.labels or ()] == grades.tolist()
    names = [f"f{first + index}" for index in range(4)]
    for index, name in enumerate(names):
        found = [value for event in events for value in (event.item_fields or {}).get(name, (0.0,) * len(event.items))]
        assert found == matrix[:, index].tolist()
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    assert len({event.id for event in events}) == len(sizes)
    assert len({item for event in events for item in event.items}) == sum(sizes)


def test_numbers_are_those_that_scikit_learn_reads(sample_data: Callable[[str], Path]) -> None:
    folder = sample_data("lightgbm_lambdarank")
    events, rejects = read(folder / "rank.test.gz")
    assert (len(events), rejects.accepted, rejects.rejected) == (50, 768, 0)
    matrix, grades = load_svmlight_file(str(folder / "rank.test.gz"), zero_based=True)
    assert [grade for event in events for grade in event.labels or ()] == grades.tolist()
    for index in (1, 11, 100):
        found = [value for event in events for value in (event.item_fields or {})[f"f{index}"]]
        assert found == matrix[:, [index]].toarray()[:, 0].tolist()


LINES = "2 qid:1 1:0.5 3:1 # docid = d1\n\n# a comment\n0 qid:1 2:nan # docid = d1\n1 qid:2 1:1\n"


def test_numbers_that_are_left_out_are_zero_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(LINES)
    (one, two), rejects = read(path)
    assert one.items == ("d1", "d1#2")
    assert two.items == ("a.txt:2:1",)
    assert one.item_fields == {"f1": (0.5, 0.0), "f2": (0.0, None), "f3": (1.0, 0.0)}
    assert two.item_fields == {"f1": (1.0,), "f2": (0.0,), "f3": (0.0,)}
    assert any("are 0, as in SVMlight" in note for note in rejects.notes)
    assert any("got ids that end with #2" in note for note in rejects.notes)
    (one, two), rejects = read(path, missing="absent")
    assert one.item_fields == {"f1": (0.5, None), "f3": (1.0, None)}
    assert two.item_fields == {"f1": (1.0,)}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x qid:1 1:2", "expected a label first"),
        ("1e300 qid:1 1:2", "expected a label first"),
        ("1 1:2", "found no query id"),
        ("1 qid: 1:2", "found no query id after qid:"),
        ("1 qid:1 1:2 1:3", "found the feature 1 twice"),
        ("1 qid:1 1:inf", "expected a finite number after 1:"),
        ("1 qid:1 1:1_0", "expected a finite number after 1:"),
        ("1 qid:1 a:1", "expected index:number"),
        ("1 qid:1 -1:1", "expected index:number"),
        ("1 qid:1 1", "expected index:number"),
        ("1 qid:1 1:2 # docid = " + "d" * 300, "docid: found 300 characters"),
        ("1 qid:0 1:2", "query '0' stands elsewhere in the file too"),
        (f"1 qid:{'q' * 300} 1:2", "found a query id of 300 characters"),
    ],
)
def test_a_line_that_can_not_be_read_is_counted(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"2 qid:0 1:1\n2 qid:1 1:1\n{line}\n1 qid:1 1:5\n0 qid:2 1:1\n")
    events, rejects = read(path)
    is_split = "query" in reason and "found no" not in reason  # the line parts the two lines of query 1
    assert (rejects.rejected, rejects.accepted, len(events)) == ((2, 3, 3) if is_split else (1, 4, 3))
    assert any(reason in rejects.example(found)[1] for found in rejects.reasons())


def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text, sizes, message in (
        ("1 1:2\n", None, r"without qid: and no file a\.txt\.query or a\.txt\.group beside it"),
        ("1 1:2\n", "2\n", "sizes that add up to 2 lines, expected 1"),
        ("1 1:2\n", "one\n", "found 'one', expected the number of lines"),
        ("1 qid:1 " + " ".join(f"{n}:1" for n in range(1_001)), None, "more than 1,000 features"),
        ("user,item\n1,2\n", None, "expected a feature file"),
        ("qid,label\n1,2\n", None, "expected a feature file"),
    ):
        path.write_text(text)
        sizes_file = tmp_path / "a.txt.query"
        sizes_file.unlink(missing_ok=True)
        if sizes is not None:
            sizes_file.write_text(sizes)
        with pytest.raises(ValueError, match=message):
            list(read_events(path, Rejects(), "letor"))
    path.write_text("search,grade,bm25\n1,2,3\n")
    with pytest.raises(ValueError, match="expected also qid; give them with --map"):
        list(read_events(path, Rejects(), "letor", ImportOptions({"grade": "label"})))
    (event,), _ = list(read_events(path, Rejects(), "letor", ImportOptions({"search": "qid"}))), None
    assert isinstance(event, RankingEvent)
    assert event.item_fields == {"bm25": (3.0,)}


def test_the_command_imports_feature_files(tmp_path: Path) -> None:
    folder, home = tmp_path / "fold", tmp_path / "home"
    folder.mkdir()
    (folder / "train.txt").write_text(LINES + "one qid:3 1:1\n")
    (folder / "test.txt").write_text("1 qid:1 1:1\n")
    (folder / "README").write_text("a fold\n")
    output = feedrank(home, "import", folder, "--missing", "absent")
    for part in ("letor", "rejected", "leaves out are missing", "not read: README", "synthetic timestamp"):
        assert part in output
    rankings = list(HomePaths(home).journal().events("ranking"))
    assert [event.id for event in rankings] == ["letor:train.txt:1", "letor:train.txt:2", "letor:test.txt:1"]
    again = feedrank(home, "import", folder, "--missing", "absent")
    assert len(list(HomePaths(home).journal().events("ranking"))) == 3, again
