"""Off-policy evaluation: a real policy's click rate by the log of another one, and how often intervals are right.

The log is the Open Bandit sample (ZOZOTOWN's men's and women's campaigns, 10,000 rows a policy) from FEEDRANK_DATA.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.bars import DATA, Bar, console
from feedrank.models.off_policy import estimators
from feedrank.models.off_policy.estimate import (
    METHODS,
    SLATE_METHODS,
    Estimate,
    EstimateSettings,
    estimate,
    estimate_slates,
)
from feedrank.models.off_policy.intervals import Interval, bootstrap_interval, normal_interval
from feedrank.models.off_policy.log import BanditLog, Floats, SlateLog
from feedrank.models.off_policy.policies import (
    Policy,
    SlatePolicy,
    empirical_policy,
    plackett_luce,
    plackett_luce_conditionals,
)

SEED = 7
POSITIONS = 3
OF_THE_PIPELINE = {"ips": 0.311, "snips": 0.312, "dm": 0.157, "dr": 0.292}
"""Relative errors that the Open Bandit Pipeline (Saito et al. 2021) prints for random -> BTS on its own sample, 10,000
rows of the campaign "all", with logistic regression: github.com/st-tech/zr-obp, examples/obd/README.md. They are means
over 30 bootstrap samples, of other items than here, and tell the order of size alone."""


def read(path: Path) -> BanditLog:
    """A CSV of the Open Bandit data; positions 1 to 3 become 0 to 2."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> Floats:
        return np.array([float(row[name]) for row in rows])

    return BanditLog(
        action=column("item_id").astype(np.int32),
        position=column("position").astype(np.int32) - 1,
        reward=column("click"),
        propensity=column("propensity_score"),
    )


def open_bandit() -> list[Bar]:
    """The click rate of Thompson sampling by the log of the random policy, beside its own log's."""
    folder = DATA / "open_bandit_sample"
    if not folder.is_dir():
        console.print(f"no Open Bandit sample at {folder}; set FEEDRANK_DATA")
        return []
    bars = []
    table = Table("", "by", title="Open Bandit sample: random -> BTS, 10,000 rows",
                  caption="obp: campaign 'all', 10,000 rows; github.com/st-tech/zr-obp, examples/obd")  # fmt: skip
    for heading in ("click rate, %", "own log", "error", "obp", "ess"):
        table.add_column(heading, no_wrap=True)
    for campaign in ("men", "women"):
        log, own = read(folder / f"random_{campaign}.csv.gz"), read(folder / f"bts_{campaign}.csv.gz")
        items = 1 + int(max(log.action.max(), own.action.max()))
        policy = empirical_policy(own.action, own.position, POSITIONS, items)
        truth = float(own.reward.mean())
        for name, found in estimate(log, policy, tuple(OF_THE_PIPELINE), seed=SEED).items():
            assert found.refusal is None, found.refusal
            table.add_row(
                campaign, name, f"{100 * found.value:.3f} [{100 * found.low:.3f}, {100 * found.high:.3f}]",
                f"{100 * truth:.3f}", f"{abs(found.value / truth - 1):.2f}", f"{OF_THE_PIPELINE[name]:.2f}",
                f"{found.ess:,.0f}",
            )  # fmt: skip
            if name in ("snips", "dr"):
                inside = float(found.low <= truth <= found.high)
                bars.append(Bar(f"Open Bandit, {campaign}, {name}: on-policy rate inside the 95 % interval",
                                inside, "", 1, "higher"))  # fmt: skip
    console.print(table)
    return bars


REPEATS = 2_000
LOGS_OF_A_WORLD = 10
RESAMPLES = 300
ROWS = 2_000
ITEMS = 10
USERS = 300
SLATES = 1_000
PLACES = 3
SLATE_ITEMS = 6


def coverage() -> list[Bar]:
    """How often an interval of nominal 95 % holds the truth, ten logs a world; of those not refused."""
    held: dict[str, list[bool]] = {}
    refused: Counter[str] = Counter()

    def note(name: str, found: Interval | Estimate, truth: float) -> None:
        if isinstance(found, Estimate) and found.refusal is not None:
            refused[name] += 1
            return
        held.setdefault(name, []).append(found.low <= truth <= found.high)

    generator = np.random.default_rng(SEED)
    for seed in range(REPEATS):
        if seed % LOGS_OF_A_WORLD == 0:
            world, slate_world = World.drawn(generator), SlateWorld.drawn(generator)
            policy = Policy(world.candidate)
        for what, clustered in (("rows", False), ("clusters", True)):
            log = world.log(generator, clustered)
            for name, found in estimate(log, policy, tuple(METHODS), seed=seed).items():
                note(f"{name}, skewed, {what}", found, world.truth)
            for name, found in estimate(log, policy, ("ips", "snips"), EstimateSettings(clip="mse"), seed=seed).items():
                note(f"{name}, clipped, {what}", found, world.truth)
            weights = log.importance_weights(policy.logged_probabilities(log))
            snips = estimators.snips(weights, log.reward)
            note(f"snips, normal, {what}", normal_interval(snips, log.cluster), world.truth)
            note(
                f"snips, bootstrap, {what}",
                bootstrap_interval(snips, log.cluster, seed=seed, resamples=RESAMPLES),
                world.truth,
            )
        slates, slate_policy = slate_world.log(generator)
        for name, found in estimate_slates(slates, slate_policy, tuple(SLATE_METHODS), seed=seed).items():
            note(f"{name}, skewed, slates", found, slate_world.truth)
    table = Table("method, interval, units", "coverage, %", "refused", title=f"nominal 95 %, {REPEATS:,} repeats")
    covered = {name: 100 * float(np.mean(inside)) for name, inside in held.items()}
    for name, share in covered.items():
        table.add_row(name, f"{share:.2f}", str(refused[name]))
    console.print(table)
    return [
        Bar(f"coverage of a 95 % interval, {name}: |coverage - 95|", abs(share - 95), "%", 2, "lower")
        for name, share in covered.items()
    ]


@dataclass(frozen=True, eq=False, slots=True)
class World:
    """Click rates of 1 to 20 % by position and item, a logging policy, and a candidate that prefers what is clicked."""

    rates: Floats
    """(P, A)"""
    logging: Floats
    candidate: Floats

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> World:
        """Any."""
        rates = np.exp(generator.uniform(np.log(0.01), np.log(0.2), (POSITIONS, ITEMS)))
        logging = generator.dirichlet(np.full(ITEMS, 3.0), POSITIONS) * 0.8 + 0.2 / ITEMS
        candidate = np.sqrt(rates) * generator.dirichlet(np.full(ITEMS, 2.0), POSITIONS)
        return cls(rates, logging, candidate / candidate.sum(axis=1, keepdims=True))

    @property
    def truth(self) -> float:
        """The candidate's mean reward; positions are as likely as each other."""
        return float((self.candidate * self.rates).sum(axis=1).mean())

    def log(self, generator: np.random.Generator, clustered: bool) -> BanditLog:
        """Rows; clustered: of users who click a third or five thirds as often as the mean, and see much the same."""
        position = generator.integers(POSITIONS, size=ROWS).astype(np.int32)
        uniform, times, cluster = generator.random(ROWS), np.ones(ROWS), None
        if clustered:
            cluster = generator.integers(USERS, size=ROWS)
            times = generator.choice([1 / 3, 5 / 3], USERS)[cluster]
            uniform = (generator.random(USERS)[cluster] + 0.2 * uniform) % 1
        action = (uniform[:, None] > np.cumsum(self.logging, axis=1)[position]).sum(axis=1)
        action = np.minimum(action, ITEMS - 1).astype(np.int32)
        reward = (generator.random(ROWS) < times * self.rates[position, action]).astype(np.float64)
        return BanditLog(action, position, reward, self.logging[position, action], cluster=cluster)


_EVERY = np.array(list(permutations(range(SLATE_ITEMS), PLACES)), np.int32)
"""(S, K) every slate there is."""


@dataclass(frozen=True, eq=False, slots=True)
class SlateWorld:
    """Slates drawn by scores, and a candidate that prefers what is clicked; S slates are all there are."""

    clicks: Floats
    """(S, K) the chance of a click, by the item and the place alone, which every method allows."""
    logging: SlatePolicy
    candidate: SlatePolicy

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> SlateWorld:
        """Any."""
        rates = generator.uniform(0.02, 0.2, SLATE_ITEMS)
        noise = generator.normal(0, 0.4, (2, SLATE_ITEMS))
        return cls(rates[_EVERY] / np.arange(1, PLACES + 1), _policy(noise[0]), _policy(6 * rates + noise[1]))

    @property
    def truth(self) -> float:
        """The candidate's mean of clicks in a slate."""
        return float(self.candidate.logged_probabilities.prod(axis=1) @ self.clicks.sum(axis=1))

    def log(self, generator: np.random.Generator) -> tuple[SlateLog, SlatePolicy]:
        """A log of slates, and what the candidate would do with each of them."""
        drawn = generator.choice(len(_EVERY), SLATES, p=self.logging.logged_probabilities.prod(axis=1))
        rewards = (generator.random((SLATES, PLACES)) < self.clicks[drawn]).astype(np.float64)
        told, asked = self.logging, self.candidate
        assert told.marginal is not None
        assert asked.marginal is not None
        assert asked.conditional is not None
        log = SlateLog(_EVERY[drawn], rewards, told.logged_probabilities[drawn], told.marginal[drawn])
        return log, SlatePolicy(asked.logged_probabilities[drawn], asked.marginal[drawn], asked.conditional[drawn])


def _policy(scores: Floats) -> SlatePolicy:
    """Of every slate, by (A,) scores; the marginals are exact."""
    every = np.tile(scores, (len(_EVERY), 1))
    chosen = plackett_luce(every, _EVERY, 1.0)
    chances = chosen.prod(axis=1)
    table = np.stack([np.bincount(_EVERY[:, k], weights=chances, minlength=SLATE_ITEMS) for k in range(PLACES)])
    marginal = np.minimum(np.take_along_axis(table, _EVERY.T.astype(np.int64), axis=1).T, 1.0)
    return SlatePolicy(chosen, marginal, plackett_luce_conditionals(every, _EVERY, 1.0))


if __name__ == "__main__":
    from benchmarks.bars import measure

    measure("off_policy", lambda: [*open_bandit(), *coverage()])
