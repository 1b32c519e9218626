"""Experiments: off-policy estimates on a real log, error rates and coverage, interleaving, assignment, and their cost.

Data from FEEDRANK_DATA. Nothing else should run on the machine while the cost of a request is measured, which comes
first; the rest takes some ten minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import numpy as np
from scipy.stats import chisquare

from benchmarks import experiment_statistics, off_policy
from benchmarks.bars import PROJECT, Bar, console, measure
from benchmarks.interleaving import interleaving
from benchmarks.request_cost import request_cost
from feedrank.engine.experiments.assignment import arms_of_slots, initial_slot_ranges, slot_of, slots_of

IDS, ARMS = 1_000_000, 10


def experiments() -> list[Bar]:
    """All bars, in the order they were set, but for the cost of a request."""
    cost = request_cost()
    return [
        *off_policy.open_bandit(),
        *experiment_statistics.always_valid(),
        *experiment_statistics.coverage(),
        *off_policy.coverage(),
        *interleaving(),
        *experiment_statistics.sample_ratio(),
        *experiment_statistics.cuped(),
        *assignment(),
        *experiment_statistics.upworthy(),
        *cost,
    ]


def assignment() -> list[Bar]:
    """A million ids among ten arms, and slots made by another language."""
    ids = [f"user-{n}" for n in range(IDS)]
    spans = initial_slot_ranges({f"arm {n}": 1.0 for n in range(ARMS)})
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        arms = arms_of_slots(spans, slots_of("a test", ids))
        seconds.append(time.perf_counter() - started)
    fair = float(chisquare(np.bincount(arms, minlength=ARMS)).pvalue)
    tests = PROJECT / "tests"
    cases = json.loads((tests / "assignment.json").read_text())["cases"]
    wrong = sum(slot_of(one["salt"], one["unit"]) != one["slot"] for one in cases)
    said = "golden file alone, as there is no node here"
    if (node := shutil.which("node")) is not None:
        done = subprocess.run([node, tests / "assignment.js"], input=json.dumps({"cases": cases}), capture_output=True,
                              text=True, check=True)  # fmt: skip
        wrong += sum(slot != one["slot"] for slot, one in zip(json.loads(done.stdout)["slots"], cases, strict=True))
        said = "Python, JavaScript and the golden file"
    console.print(f"{len(cases)} cases: {said}")
    return [
        Bar(f"assignment of {IDS:,} ids to {ARMS} arms: chi-square p", fair, "", 0.01, "higher"),
        Bar(f"slots that differ: {said}", float(wrong), "", 0, "lower"),
        Bar("assignment in batch, median of 5", IDS / float(np.median(seconds)), "/s", 1_000_000, "higher"),
    ]


if __name__ == "__main__":
    measure("experiments", experiments)
