"""Reports: the table, the JSON and the plot show what was measured."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from rich.console import Console

from feedrank.models.evaluation.bootstrap import interval
from feedrank.models.evaluation.report import Row, plot, read_json, table, to_json, write_json

NAN = float("nan")
ROWS = [
    Row("films", "lambdarank", "ndcg@10", 0.102, 0.091, 0.114, 943),
    Row("films", "lambdarank", "recall@100", 0.600, 0.570, 0.631, 943),
    Row("films", "random", "ndcg@10", 0.003, 0.001, 0.006, 943),
    Row("films", "random", "recall@100", 0.606, 0.573, 0.640, 943),
    Row("films", "random", "auc", NAN, NAN, NAN, 0),
]


def printed(rows, width=120, model=None, styled=False):
    console = Console(width=width, force_terminal=styled, color_system="standard" if styled else None, no_color=False)
    with console.capture() as capture:
        console.print(table(rows, model))
    return capture.get()


def test_the_table_holds_every_value_and_its_interval():
    text = printed(ROWS[:4])
    assert "films, 943 groups" in text
    assert "mean [95 % interval]; bold: best" in text
    lines = [line.split("  ") for line in text.splitlines() if line.startswith(("lambdarank", "random"))]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["lambdarank", "0.102 [0.091, 0.114]", "0.600 [0.570, 0.631]"],
        ["random", "0.003 [0.001, 0.006]", "0.606 [0.573, 0.640]"],
    ]


def test_the_best_of_each_column_is_bold():
    text = printed(ROWS, styled=True)
    for value, best in (("0.102", True), ("0.003", False), ("0.600", False), ("0.606", True)):
        assert (f"\x1b[1m{value}" in text) == best, value


def test_what_is_missing_or_undefined_shows():
    lines = {line.split()[0]: line for line in printed(ROWS).splitlines() if line.strip()}
    assert lines["lambdarank"].endswith("–")
    assert lines["random"].endswith("n/a")
    assert "0–943 groups" in printed(ROWS)
    assert "nothing was measured" in printed([])


def test_a_narrow_terminal_gets_whole_intervals_or_none():
    stacked = printed(ROWS[:4], width=44)
    assert "0.102 [0.091" not in stacked
    assert "[0.091, 0.114]" in stacked
    narrow = printed(ROWS[:4], width=30)
    assert "0.102" in narrow
    assert "[0.0" not in narrow


def test_several_data_sets_share_a_table():
    rows = [*ROWS[:4], Row("news [small]", "lambdarank", "ndcg@10", 0.39, 0.38, 0.4, 1)]
    text = printed(rows)
    assert "news [small], 1 group " in text
    assert text.index("films") < text.index("943 groups") < text.index("news")
    assert "\x1b[1m0.390" in printed(rows, styled=True)  # best of its own data set


def test_json_round_trip(tmp_path):
    path = tmp_path / "deep" / "report.json"
    write_json(path, ROWS, {"train_seconds": np.float64(2.5), "latency_ms": {"p50": 21, "p99": NAN}})
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found["rows"][0] == {
        "dataset": "films",
        "method": "lambdarank",
        "metric": "ndcg@10",
        "value": 0.102,
        "low": 0.091,
        "high": 0.114,
        "groups": 943,
    }
    assert found["rows"][-1]["value"] is None
    rows, costs = read_json(path)
    assert rows[:4] == ROWS[:4]
    assert math.isnan(rows[4].value)
    assert costs == {"train_seconds": 2.5, "latency_ms": {"p50": 21, "p99": None}}
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_report(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, ROWS)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, ROWS, {"model": object()})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": [{"method": "x"}], "costs": {}}', '{"rows": [1], "costs": {}}']
)
def test_a_file_that_is_no_report_is_named(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=r"report\.json is no report"):
        read_json(tmp_path / "report.json")


def test_a_row_comes_from_an_interval():
    found = interval(np.array([0.0, 1.0, np.nan, 1.0]), seed=0)
    row = Row.from_interval("films", "random", "auc", found)
    assert (row.value, row.low, row.high, row.groups) == (found.mean, found.low, found.high, 3)
    assert to_json([row])["costs"] == {}


def test_the_same_value_twice_is_refused():
    for make in (table, to_json):
        with pytest.raises(ValueError, match="ndcg@10 of lambdarank on films comes twice"):
            make([ROWS[0], ROWS[0]])


def test_the_picture_is_a_png_of_the_same_bytes_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    plot(tmp_path / "a.png", ROWS, "lambdarank")
    plot(tmp_path / "b.png", ROWS)
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "b.png").read_bytes()
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    assert width > height > 300
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_picture_refuses_what_it_cannot_show(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="no method 'bert' to highlight; there are lambdarank, random"):
        plot(tmp_path / "a.png", ROWS, "bert")
    with pytest.raises(ValueError, match="found rows of 0 data sets"):
        plot(tmp_path / "a.png", [])


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"feedrank\[plot\]"):
        plot(tmp_path / "a.png", ROWS)
