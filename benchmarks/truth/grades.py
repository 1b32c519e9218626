"""Graded labels: `evaluate` against ir_measures, items that the catalogue lacks, and columns of labels."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ir_measures
from click.testing import CliRunner
from ir_measures import AP, RR, nDCG

from benchmarks.bars import Bar, console
from feedrank.api.cli import main

ITEMS, SHOWN, RANKINGS, USERS = 60, 8, 700, 40
TEST = slice(round(0.8 * RANKINGS), RANKINGS)
"""The rankings that `evaluate` tests on."""
START_MS, MINUTE_MS = 1_700_000_000_000, 60_000
CONFIG = """
[journal]
create_items = false
[embedder]
model = "none"
[ranker]
rounds = 40
threads = 1
"""
Label = Callable[[random.Random, int, int], float | None]
"""Maps a source of chance, the number of a ranking and the number of an item to a label; None: no label."""
GAINS: dict[str, dict[int, int]] = {
    "linear": {},
    "exponential": {label: 2**label - 1 for label in range(6)},
    "0,1,4,9,16,50": dict(enumerate((0, 1, 4, 9, 16, 50))),
}
"""Gain setting of `evaluate` -> the gains of ir_measures."""
COLUMNS: dict[str, tuple[Label, str]] = {
    "41 to 100": (lambda dice, ranking, item: 41 + item, "exceed 30"),
    "0.4 and 0.5": (lambda dice, ranking, item: 0.4 + item % 2 / 10, "have fractions"),
    "half stars": (lambda dice, ranking, item: (1 + item % 10) / 2, "have fractions"),
    "prices": (lambda dice, ranking, item: round(dice.lognormvariate(3, 1), 2), "exceed 30"),
    "seconds": (lambda dice, ranking, item: dice.randrange(300), "exceed 30"),
    "0 to 1": (lambda dice, ranking, item: dice.random(), "have fractions"),
    "-2 to 2": (lambda dice, ranking, item: item % 5 - 2, "negative"),
    "-1 and 1": (lambda dice, ranking, item: item % 2 * 2 - 1, "negative"),
    "percentages": (lambda dice, ranking, item: 25.0 * (item % 5), "exceed 30"),
    "all 1": (lambda dice, ranking, item: 1, "every one of the 5,600 logged labels is 1"),
    "all 0": (lambda dice, ranking, item: 0, "every one of the 5,600 logged labels is 0"),
    "all 3.5": (lambda dice, ranking, item: 3.5, "every one of the 5,600 logged labels is 3.5"),
    "all missing": (lambda dice, ranking, item: None, "none of the 700 rankings has a logged label"),
    "negative only": (
        lambda dice, ranking, item: -1.0 - item % 3,
        "none of the 700 rankings has a logged label above 0",
    ),
    "one a ranking": (lambda dice, ranking, item: ranking % 3, "every item has the same label"),
    "all relevant": (lambda dice, ranking, item: 1 + item % 5, "set labels.relevance_level"),
}
"""What a column of labels holds -> the labels, and the words that a report or an error must say of them."""


def bars() -> list[Bar]:
    """Compare each report with ir_measures, and read what is said of each column of labels."""
    return [*_gains(), *_figures(), _unknown_items(), _order_of_the_log(), _label_columns()]


def _gains() -> Iterator[Bar]:
    """Graded labels under three gain settings, relevant from label 2 on."""
    log = list(_rankings(lambda dice, ranking, item: max(0, 5 - item // 5)))
    for setting, gains in GAINS.items():
        measures = {"ndcg@10": nDCG(gains=gains) @ 10 if gains else nDCG @ 10, "map": AP(rel=2), "mrr": RR(rel=2)}
        report = _evaluate([*_items(ITEMS), *log], log, measures, "--gain", setting, "--relevance-level", "2")
        yield Bar(f"nDCG, MAP and MRR against ir_measures, gain {setting}: largest difference", report.difference, "",
                  1e-6, "lower")  # fmt: skip


def _figures() -> Iterator[Bar]:
    """The labels 4, 3, 2, 1, 0 and 5, 4, 3, 2, 1, 1, ... by the number of the item; any binary reading is far off."""
    for name, highest, lowest in (("4, 3, 2, 1, 0, 0", 4, 0), ("5, 4, 3, 2, 1, 1", 5, 1)):
        log = list(_rankings(lambda dice, ranking, item: max(lowest, highest - item // 6)))  # noqa: B023  # used at once
        report = _evaluate([*_items(ITEMS), *log], log, {"ndcg@10": nDCG @ 10})
        console.print(f"labels {name}: nDCG@10 of random order {report.values['random']['ndcg@10']:.4f}")
        yield Bar(f"labels {name} by id: nDCG@10 against ir_measures", report.difference, "", 1e-6, "lower")


def _unknown_items() -> Bar:
    """Ten of 60 items are not in the catalogue; their clicks stay in the ideal."""
    dice = random.Random(5)
    rankings = list(_rankings(lambda dice, ranking, item: None))
    clicks = [
        {
            "event": "interaction", "id": f"c-{ranking['id']}-{entry['id']}", "timestamp": ranking["timestamp"] + 1_000,
            "type": "click", "item": entry["id"], "user": ranking["user"], "ranking": ranking["id"],
        }
        for ranking in rankings
        for entry in dice.sample(ranking["items"], 2)
    ]  # fmt: skip
    clicked = {(click["ranking"], click["item"]) for click in clicks}
    judged = [
        ranking | {"items": [{"id": e["id"], "label": (ranking["id"], e["id"]) in clicked} for e in ranking["items"]]}
        for ranking in rankings
    ]
    measures = {"ndcg@10": nDCG @ 10, "ndcg@5": nDCG @ 5, "map": AP, "mrr": RR}
    report = _evaluate([*_items(ITEMS - 10), *rankings, *clicks], judged, measures)
    console.print(f"10 of 60 items unknown: nDCG@10 of random order {report.values['random']['ndcg@10']:.4f}")
    return Bar(
        "10 of 60 clicked items unknown: against ir_measures with all clicks", report.difference, "", 1e-6, "lower"
    )


def _order_of_the_log() -> Bar:
    """The same rankings as they are, and with the clicked items first; some methods give equal scores only."""
    log = list(_rankings(lambda dice, ranking, item: int(dice.random() < 0.2)))
    first = [event | {"items": sorted(event["items"], key=lambda entry: -entry["label"])} for event in log]
    found = [_evaluate([*_items(ITEMS), *events], events, {"ndcg@10": nDCG @ 10}).values for events in (log, first)]
    largest = max(abs(found[0][name]["ndcg@10"] - found[1][name]["ndcg@10"]) for name in found[0])
    return Bar("clicked items first in the log: largest change of a method's nDCG@10", largest, "", 1e-6, "lower")


def _label_columns() -> Bar:
    """Columns of labels that are no grades or tell nothing, and are taken without a word."""
    silent = []
    for name, (label, words) in COLUMNS.items():
        with tempfile.TemporaryDirectory() as folder:
            output = _run(Path(folder), [*_items(ITEMS), *_rankings(label)], "--json", f"{folder}/report.json")
        if words not in output:
            silent.append(name)
            console.print(f"{name}: found no {words!r} in {output}")
    what = f"{len(COLUMNS)} columns of labels that are no grades or tell nothing: taken silently"
    return Bar(what, len(silent), "columns", 0, "lower")


class _Report:
    """A report of `evaluate`, compared with ir_measures on the runs that it wrote."""

    def __init__(self, values: dict[str, dict[str, float]], difference: float) -> None:
        self.values = values
        """Method -> metric -> value."""
        self.difference = difference
        """The largest absolute difference of any method."""


def _evaluate(
    events: list[dict[str, Any]], judged: list[dict[str, Any]], measures: dict[str, Any], *options: str
) -> _Report:
    """Evaluate a log. judged: its rankings, with the label of each item; qrels are made from these."""
    with tempfile.TemporaryDirectory() as folder:
        report, runs = Path(folder) / "report.json", Path(folder) / "runs"
        _run(Path(folder), events, "--json", str(report), "--trec", str(runs), *options)
        values: dict[str, dict[str, float]] = {}
        for row in json.loads(report.read_text())["rows"]:
            values.setdefault(row["method"], {})[row["metric"]] = row["value"]
        tested = [ranking for ranking in judged[TEST] if any(entry["label"] > 0 for entry in ranking["items"])]
        qrels = [
            ir_measures.Qrel(str(query), entry["id"], int(entry["label"]))
            for query, ranking in enumerate(tested)
            for entry in ranking["items"]
        ]
        largest = 0.0
        for method, ours in values.items():
            run = list(ir_measures.read_trec_run(str(runs / f"rankings.{method}.run")))
            theirs = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
            largest = max(largest, *(abs(ours[name] - theirs[measure]) for name, measure in measures.items()))
    return _Report(values, largest)


def _run(folder: Path, events: list[dict[str, Any]], *options: str) -> str:
    """Import the events into a new home and evaluate it on its rankings; return what was printed, errors included."""
    log, config = folder / "log.jsonl", folder / "config.toml"
    log.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    config.write_text(CONFIG)
    command = ["--home", str(folder / "home"), "--config", str(config)]
    for words in (["import", str(log)], ["evaluate", *options]):
        result = CliRunner().invoke(main, [*command, *words])
        if result.exit_code not in (0, 1) or (result.exception and not isinstance(result.exception, SystemExit)):
            raise RuntimeError(f"{words} ended with {result.exception!r}: {result.output}")
    return " ".join(result.output.split())


def _items(count: int) -> list[dict[str, Any]]:
    return [
        {
            "event": "item", "id": f"item {item}", "timestamp": START_MS, "item": f"x{item:02d}",
            "fields": [{"name": "title", "value": f"thing {item} of kind {item % 3}"}],
        }
        for item in range(count)
    ]  # fmt: skip


def _rankings(label: Label) -> Iterator[dict[str, Any]]:
    """Yield rankings of random items, each with its label if it has one."""
    dice = random.Random(3)
    for number in range(RANKINGS):
        shown = dice.sample(range(ITEMS), SHOWN)
        labels = [label(dice, number, item) for item in shown]
        yield {
            "event": "ranking", "id": f"r{number}", "timestamp": START_MS + (number + 1) * MINUTE_MS,
            "user": f"u{number % USERS}",
            "items": [
                {"id": f"x{item:02d}"} | ({} if given is None else {"label": given})
                for item, given in zip(shown, labels, strict=True)
            ],
        }  # fmt: skip
