"""The statistics of experiments: do they err as seldom as they say, on simulated users who come back and on real tests?

The simulated worlds are those of `models.experiments.simulator`. The real ones are the Upworthy Research Archive, each
test as counts alone (Matias et al., Scientific Data 2021).
"""

from __future__ import annotations

import csv
import gzip
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from benchmarks.bars import DATA, Bar, console
from feedrank.models.experiments.confidence_sequence import confidence_sequences, confidence_sequences_from_moments
from feedrank.models.experiments.lift import Interval, bootstrap_lifts, lifts, lifts_from_moments
from feedrank.models.experiments.moments import moments_from_counts
from feedrank.models.experiments.outcomes import find_metric
from feedrank.models.experiments.p_value_correction import holm
from feedrank.models.experiments.sample_ratio import sample_ratio_test as checked
from feedrank.models.experiments.simulator import SimulatedExperiment, simulate_experiment

WORLD = SimulatedExperiment()
RARE = SimulatedExperiment(users=1_500, click_rate=0.004, click_rate_cv=1.5)
"""Few clicks: about a user in four has any."""
SMALL = SimulatedExperiment(users=800)
METRICS = ("clicks_per_unit", "ctr", "ctr_per_unit")
"""A mean, a ratio of sums and a mean of users' own ratios."""
CAUTION = ("201325", "201401")
"""Weeks of the tests from 2013-06-25 to 2014-01-10, which the archive warns of: their arms may not have been drawn by
chance."""


def always_valid(experiments: int = 2_000) -> list[Bar]:
    """A/A tests that are looked at on each of 14 days: how often a winner is seen that isn't there."""
    found = []
    for name, world, runs in (("", WORLD, experiments), (", rare clicks", RARE, experiments // 2)):
        wrong = np.zeros(3)
        for seed in _progress(runs, f"A/A{name}"):
            outcomes = simulate_experiment(replace(world, seed=seed))
            plain, adjusted = (
                confidence_sequences(outcomes, find_metric("ctr"), planned_units=world.users, cuped=cuped)[0]
                for cuped in (False, True)
            )
            wrong += [plain.p[-1] <= 0.05, adjusted.p[-1] <= 0.05, np.nanmin(plain.fixed_p) <= 0.05]
        plain_share, cuped_share, fixed_share = (100 * wrong / runs).tolist()
        beside = f"the t-test read every day: {fixed_share:.1f} %"
        found += [
            Bar(f"A/A tests{name}, {runs:,} looked at on 14 days: a false winner by the always-valid p ({beside})",
                plain_share, "%", 5, "lower"),
            Bar(f"A/A tests{name}: the same with CUPED", cuped_share, "%", 5, "lower"),
        ]  # fmt: skip
    return found


def coverage(experiments: int = 2_000) -> list[Bar]:
    """How often intervals hold the truth, without and with a lift of 10 %."""
    held: dict[tuple[str, str, str, float], list[bool]] = defaultdict(list)
    for world_seed, lift in enumerate((0.0, 0.1)):
        world = replace(SMALL, lifts=(lift,))
        for seed in _progress(experiments, f"coverage, lift {lift:g}"):
            outcomes = simulate_experiment(replace(world, seed=2 * seed + world_seed))
            for name in METRICS:
                metric = find_metric(name)
                truth = lift * _values(world, name)
                once = {
                    "delta": lifts(outcomes, metric)[0],
                    "CUPED": lifts(outcomes, metric, cuped=True)[0],
                    "bootstrap": bootstrap_lifts(outcomes, metric, seed=seed, resamples=400)[0],
                }
                for method, one in once.items():
                    held[method, name, "absolute", lift].append(_inside(one.absolute, float(truth[-1])))
                    held[method, name, "relative", lift].append(_inside(one.relative, lift))
                looks = confidence_sequences(outcomes, metric, planned_units=world.users)[0]
                ripe = looks.enough_data
                inside = (looks.low <= truth) & (truth <= looks.high)
                within = (looks.relative_low <= lift) & (lift <= looks.relative_high)
                held["sequential", name, "absolute", lift].append(bool(inside[ripe].all()))
                held["sequential", name, "relative", lift].append(bool(within[ripe].all()))
    shares = {key: 100 * float(np.mean(values)) for key, values in held.items()}
    console.print(_coverage_table(shares))
    found = [
        Bar(f"coverage of {experiments:,} intervals at 95 %, {method}: furthest of {len(worst)} from 95 %",
            max(abs(share - 95) for share in worst), "points", 2, "lower")
        for method in ("delta", "CUPED", "bootstrap")
        for worst in [[share for key, share in shares.items() if key[0] == method]]
    ]  # fmt: skip
    least = min(share for key, share in shares.items() if key[0] == "sequential")
    found.append(Bar("coverage at all 14 looks at once, sequential: the least of 12", least, "%", 95, "higher"))
    return found


def sample_ratio() -> list[Bar]:
    """A split that is a little off, and fair ones."""
    generator = np.random.default_rng(0)
    p = np.array([checked(_split(generator, 100_000, 0.49)).p for _ in range(200)])
    alarms = sum(checked(_split(generator, 100_000, 0.5)).mismatch for _ in range(1_000))
    return [
        Bar(f"49/51 instead of 50/50 at 100,000 units: median p of 200 draws ({np.mean(p < 0.001):.0%} alarm)",
            float(np.median(p)), "", 0.001, "lower"),
        Bar("1,000 fair splits of 100,000 units: alarms", alarms / 10, "%", 1, "lower"),
    ]  # fmt: skip


def cuped(experiments: int = 200) -> list[Bar]:
    """What two weeks before take off the variance of the click rate, where four users in five keep their taste."""
    saved, moved, truth = [], [], []
    world = replace(WORLD, lifts=(0.1,), stable_rate_share=0.8)
    for seed in _progress(experiments, "CUPED"):
        outcomes = simulate_experiment(replace(world, seed=seed))
        plain, adjusted = (lifts(outcomes, find_metric("ctr"), cuped=used)[0] for used in (False, True))
        half = (plain.absolute.high - plain.absolute.low) / 2
        saved.append(100 * adjusted.variance_reduction)
        moved.append((adjusted.absolute.value - plain.absolute.value) / half)
        truth.append(adjusted.relative.value)
    console.print(f"mean lift with CUPED {np.mean(truth):+.2%}, true +10 %; least variance saved {min(saved):.1f} %")
    return [
        Bar("CUPED, users who come back: variance of the click rate's lift saved", float(np.mean(saved)), "%", 20,
            "higher"),
        Bar("CUPED: how far the lift moves, 95 % of tests", float(np.quantile(np.abs(moved), 0.95)),
            "half intervals", 1, "lower"),
        Bar("CUPED: how far the mean lift moves", abs(float(np.mean(moved))), "half intervals", 0.1, "lower"),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of one test."""

    week: str
    fixed: bool
    """An arm differs from the first by a two-sided test with Holm's correction over arms."""
    sequential: bool
    """The same by the always-valid interval with alpha shared among arms."""
    flagged: bool
    """Upworthy named a winner."""


def upworthy(path: Path = DATA / "upworthy" / "packages.csv.gz") -> list[Bar]:
    """Every test of the archive from its counts, with warnings as errors."""
    tests: dict[str, list[dict[str, str]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            tests[row["clickability_test_id"]].append(row)
    read: list[_Read] = []
    warned = 0
    for rows in track(list(tests.values()), "Upworthy", console=console):
        if len(rows) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read.append(_read(rows))
            except Warning as problem:
                warned += 1
                console.print(f"{rows[0]['clickability_test_id']}: {problem!r}")
    cautious = [one for one in read if not CAUTION[0] <= one.week <= CAUTION[1]]
    drawn = Table("tests", "number", "a winner, fixed", "sequential", "Upworthy's flag", "fixed and sequential agree")
    for name, some in (("all", read), (f"without weeks {CAUTION[0]} to {CAUTION[1]}", cautious)):
        shares = (_share(one.fixed for one in some), _share(one.sequential for one in some))
        agree = _share(one.fixed == one.sequential for one in some)
        drawn.add_row(name, f"{len(some):,}", *shares, _share(one.flagged for one in some), agree)
    console.print(drawn)
    wins = sum(one.sequential and not one.fixed for one in read)
    return [
        Bar(f"Upworthy, {len(read):,} tests read from counts: numeric warnings", warned, "", 0, "lower"),
        Bar("Upworthy: winners by the always-valid interval that the fixed test doesn't see", wins, "", 0, "lower"),
    ]


def _read(rows: Sequence[dict[str, str]]) -> _Read:
    arms = [row["eyecatcher_id"] + str(n) for n, row in enumerate(rows)]
    clicks, impressions = (np.array([int(row[name]) for row in rows]) for name in ("clicks", "impressions"))
    moments = moments_from_counts(arms, clicks, impressions)
    adjusted = holm([lift.p for lift in lifts_from_moments(moments, "ctr")])
    looks = confidence_sequences_from_moments(
        moments, "ctr", planned_units=float(impressions.sum()), alpha=0.05 / (len(arms) - 1)
    )
    sure = any(one.last_difference.low > 0 or one.last_difference.high < 0 for one in looks)
    flagged = any(row["winner"] == "True" for row in rows)
    return _Read(rows[0]["test_week"], bool((adjusted <= 0.05).any()), sure, flagged)


def _values(world: SimulatedExperiment, name: str) -> Any:
    """(days,) what the first arm's metric is expected to be of all rows until each day, where all begin at once."""
    until = np.arange(1, world.days + 1)
    if name != "clicks_per_unit":
        return np.full(world.days, world.click_rate)
    seen = 1 - (1 + until * world.rankings_per_day / world.activity_shape) ** -world.activity_shape
    return world.click_rate * world.ranking_length * world.rankings_per_day * until / seen


def _coverage_table(shares: dict[tuple[str, str, str, float], float]) -> Table:
    heads = list(dict.fromkeys(key[0] for key in shares))
    drawn = Table("metric", "lift", "true lift", *heads, title="coverage, %")
    for name, kind, lift in dict.fromkeys(key[1:] for key in shares):
        drawn.add_row(name, kind, f"{lift:.0%}", *(f"{shares[head, name, kind, lift]:.1f}" for head in heads))
    return drawn


def _inside(span: Interval, truth: float) -> bool:
    return bool(span.low <= truth <= span.high)


def _split(generator: np.random.Generator, units: int, share: float) -> Any:
    first = generator.binomial(units, share)
    return np.array([first, units - first])


def _share(values: Iterable[bool]) -> str:
    return f"{np.mean(list(values)):.1%}"


def _progress(runs: int, what: str) -> Iterator[int]:
    yield from track(range(runs), what, console=console)


def experiment_statistics() -> list[Bar]:
    """All of it."""
    return [*always_valid(), *coverage(), *sample_ratio(), *cuped(), *upworthy()]


if __name__ == "__main__":
    from benchmarks.bars import measure

    measure("experiment_statistics", experiment_statistics)
