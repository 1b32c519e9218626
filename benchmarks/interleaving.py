"""How many impressions tell two rankers apart: in an A/B test, and by lists that are made of both.

The rankers are LambdaRank models trained on simulated clicks, which see different signals of relevance. People look at
a list from the top, place k with probability 1/k, and click by relevance and by a liking for clicking of their own;
they come back, and both tests are clustered by person. How users differ is as in `models.experiments.simulator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import norm

from benchmarks.bars import Bar, console
from feedrank.engine.experiments.interleaving import team_draft
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.evaluation.simulator import SimulatedLog, SimulatorSettings, attraction, simulate
from feedrank.models.experiments.simulator import SimulatedExperiment
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings

SIGNALS = 6
CANDIDATES, LENGTH = 40, 10
TRAIN, LISTS = 2_000, 60_000
WEAKER = (5, 4, 3)
"""Signals that the weaker ranker of a pair sees; the better one sees all."""
PEOPLE = SimulatedExperiment()
"""How people differ: how readily they click, and how often they come in the days of a test."""
REPEATS = 1_000
POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lists to the power, both arms of an A/B test together, and interleaved."""

    signals: int
    ndcg: float
    ab: float
    strangers: float
    """A/B, if every list were another person's."""
    interleaved: float
    ab_power: float
    """What so many lists find in simulation."""
    interleaved_power: float


def interleaving() -> list[Bar]:
    """The least ratio over the pairs."""
    world = SimulatorSettings(rankings=LISTS, list_length=CANDIDATES, signals=SIGNALS, policy_noise=3.0, seed=11)
    train = simulate(replace(world, rankings=TRAIN, seed=3))
    test = simulate(world)
    best = _trained(train, SIGNALS)
    found = [_sizes(test, best, _trained(train, signals), signals) for signals in WEAKER]
    table = Table(
        "signals", "nDCG@10", "A/B", "of strangers", "interleaved", "ratio", "power", title="lists to 80 % power"
    )
    for one in found:
        table.add_row(
            f"{one.signals} of {SIGNALS}", f"{one.ndcg:+.4f}", f"{one.ab:,.0f}", f"{one.strangers:,.0f}",
            f"{one.interleaved:,.0f}",
            f"{one.ab / one.interleaved:.0f}", f"{one.ab_power:.2f}, {one.interleaved_power:.2f}",
        )  # fmt: skip
    console.print(table)
    ratios = [one.ab / one.interleaved for one in found]
    strangers = min(one.strangers / one.interleaved for one in found)
    apart = max(abs(power - POWER) for one in found for power in (one.ab_power, one.interleaved_power))
    return [
        Bar("interleaving over A/B: impressions to 80 % power, least of three pairs of rankers (each list another "
            f"person's: {strangers:.1f})", min(ratios), "x fewer", 10, "higher"),
        Bar("the same sizes tried: power found in simulation, furthest from 80 %", 100 * apart, "points", 5, "lower"),
    ]  # fmt: skip


def _trained(world: SimulatedLog, signals: int) -> LambdaRanker:
    """On clicks on the lists of a predecessor; of the signals it sees so many."""
    features = world.features[:, :signals]
    clicked = world.clicks.ravel().astype(np.float32)
    count, length = world.relevance.shape
    kept = np.flatnonzero(world.clicks.any(axis=1))
    cut = int(0.8 * len(kept))
    place = np.tile(np.arange(1, length + 1, dtype=np.int32), count)

    def part(lists: NDArray[np.int64]) -> QueryGroups:
        rows = (lists[:, None] * length + np.arange(length)).ravel()
        return QueryGroups(
            features[rows], clicked[rows], np.arange(len(lists) + 1, dtype=np.int64) * length, place[rows]
        )

    names = tuple(f"signal_{n}" for n in range(signals))
    settings = LambdaRankSettings(seed=1, threads=1)
    return LambdaRanker.train([part(kept[:cut])], part(kept[cut:]), names, "simulated", settings)


def _sizes(world: SimulatedLog, better: LambdaRanker, weaker: LambdaRanker, signals: int) -> Sizes:
    random = np.random.default_rng(5)
    shape = world.relevance.shape
    scores = [
        ranker.score(world.features[:, : len(ranker.names)]).reshape(shape) for ranker in (weaker, better)
    ]  # fmt: skip
    orders = [np.argsort(-one, axis=1, kind="stable")[:, :LENGTH] for one in scores]
    gains = [_ndcg(one, world) for one in scores]
    person, liking = _people(shape[0], random)
    clicks = [_clicks(world, one, liking, random).sum(axis=1).astype(float) for one in orders]
    effect = float(clicks[1].mean() - clicks[0].mean())
    ab = _needed(effect, 2 * sum(_spread(column, person) for column in clicks))
    strangers = _needed(effect, 2 * sum(float(column.var()) for column in clicks))
    mixed, teams = _drafted(orders)
    hit = _clicks(world, mixed, liking, random)
    credit = (hit * (teams == 1)).sum(axis=1) - (hit * (teams == 0)).sum(axis=1).astype(float)
    interleaved = _needed(float(credit.mean()), _spread(credit, person))
    people = np.split(np.arange(shape[0]), np.flatnonzero(np.diff(person)) + 1)
    ab_power = _power(lambda: _ab_test(clicks, people, ab, random))
    interleaved_power = _power(lambda: _one_sample(credit, people, interleaved, random))
    return Sizes(signals, gains[1] - gains[0], ab, strangers, interleaved, ab_power, interleaved_power)


def _people(lists: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(lists,) whose each list is, and how readily that person clicks, 1 on average; lists of one person together."""
    each = random.poisson(
        random.gamma(PEOPLE.activity_shape, PEOPLE.rankings_per_day * PEOPLE.days / PEOPLE.activity_shape, lists)
    )
    person = np.repeat(np.arange(lists), each)[:lists]
    sigma = math.sqrt(math.log1p(PEOPLE.click_rate_cv**2))
    return person, np.exp(sigma * random.standard_normal(lists) - sigma**2 / 2)[person]


def _spread(values: NDArray[np.float64], person: NDArray[np.int64]) -> float:
    """The variance that one list adds to a mean of lists, those of a person going together."""
    return float(np.sum(np.bincount(person, values - values.mean()) ** 2) / len(values))


def _clicks(
    world: SimulatedLog, lists: NDArray[np.int64], liking: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.bool_]:
    """(R, LENGTH) which of the items of (R, LENGTH) lists are looked at and clicked."""
    relevance = np.take_along_axis(world.relevance, lists, 1)
    chance = np.minimum(attraction(relevance) * liking[:, None], 1.0) / np.arange(1, LENGTH + 1)
    return random.random(chance.shape) < chance


def _drafted(orders: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(R, LENGTH) the interleaved lists, and the team of each item."""
    items, teams = np.empty_like(orders[0]), np.empty_like(orders[0])
    for place, (one, other) in enumerate(zip(orders[0].tolist(), orders[1].tolist(), strict=True)):
        made = team_draft(([str(item) for item in one], [str(item) for item in other]), LENGTH, place)
        items[place] = [int(item) for item in made.items]
        teams[place] = made.teams
    return items, teams


def _needed(effect: float, variance: float) -> float:
    """Rows at which a two-sided test of a mean finds the effect so often."""
    return float((norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) ** 2 * variance / effect**2)


def _power(test: Callable[[], bool]) -> float:
    return float(np.mean([test() for _ in range(REPEATS)]))


def _drawn(people: list[NDArray[np.int64]], lists: float, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """People drawn with replacement until they have so many lists: the lists of each."""
    mean = np.mean([len(one) for one in people])
    return [people[one] for one in random.integers(0, len(people), max(round(lists / mean), 2)).tolist()]


def _mean(values: NDArray[np.float64], drawn: list[NDArray[np.int64]]) -> tuple[float, float]:
    """A mean over lists, and its variance clustered by person."""
    sums = np.array([values[one].sum() for one in drawn])
    counts = np.array([len(one) for one in drawn])
    mean = float(sums.sum() / counts.sum())
    return mean, float(np.sum((sums - mean * counts) ** 2) / counts.sum() ** 2)


def _ab_test(
    clicks: list[NDArray[np.float64]], people: list[NDArray[np.int64]], lists: float, random: np.random.Generator
) -> bool:
    (one, v1), (other, v2) = (_mean(column, _drawn(people, lists / 2, random)) for column in clicks)
    return bool(abs(other - one) > norm.ppf(1 - ALPHA / 2) * math.sqrt(v1 + v2))


def _one_sample(
    values: NDArray[np.float64], people: list[NDArray[np.int64]], lists: float, random: np.random.Generator
) -> bool:
    mean, variance = _mean(values, _drawn(people, lists, random))
    return bool(abs(mean) > norm.ppf(1 - ALPHA / 2) * math.sqrt(variance))


def _ndcg(scores: NDArray[np.float32], world: SimulatedLog) -> float:
    by = order(scores.ravel(), world.offsets)
    return float(evaluate(["ndcg@10"], world.grades.ravel()[by], world.offsets)["ndcg@10"].mean())
