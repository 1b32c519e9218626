"""Simulates experiments: returning users with individual click rates, split among arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feedrank.models.experiments.moments import sum_by_index
from feedrank.models.experiments.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class SimulatedExperiment:
    """Holds the settings of a simulated experiment. Raises ValueError for impossible ones."""

    users: int = 2_000
    days: int = 14
    lifts: tuple[float, ...] = (0.0,)
    """The true relative lift of the click rate of each arm after the control."""
    weights: tuple[float, ...] = ()
    """The share of users of each arm; empty: equal shares."""
    click_rate: float = 0.05
    """The mean over users of the click probability of an impression."""
    click_rate_cv: float = 0.6
    """The coefficient of variation of the click rate over users; 0: all users have the same."""
    click_rate_distribution: Literal["beta", "lognormal"] = "beta"
    """The distribution of the click rate over users."""
    rankings_per_day: float = 0.5
    """Mean rankings per user and day."""
    activity_shape: float = 2.0
    """The shape of the gamma distribution of rankings per day over users; the lower, the more users differ."""
    ranking_length: int = 10
    """Items in a ranking."""
    arrival_days: int = 1
    """Each user starts on a random day among the first days, this many."""
    pre_period_days: int = 14
    """The length of the pre-period; 0: there is none."""
    stable_rate_share: float = 1.0
    """The share of users with the same click rate as in the pre-period; the others get a new one."""
    lift_decay: float = 0.0
    """The share of the lift that is lost linearly from the first to the last day."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.users, self.days, self.ranking_length, self.arrival_days) < 1 or not self.lifts:
            raise ValueError(
                "found users, days, ranking_length or arrival_days below 1, or no lifts; expected 1 or more of each"
            )
        if self.weights and len(self.weights) != len(self.lifts) + 1:
            raise ValueError(f"found {len(self.weights)} weights, expected one per arm: {len(self.lifts) + 1}")
        if not 0 < self.click_rate < 1 or (
            self.click_rate_distribution == "beta" and self.click_rate_cv**2 >= (1 - self.click_rate) / self.click_rate
        ):
            raise ValueError(
                f"a click_rate of {self.click_rate} can't have a click_rate_cv of"
                f" {self.click_rate_cv}: lower one of them"
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms: control, b, c and so on."""
        return ("control", *(chr(ord("b") + n) for n in range(len(self.lifts))))


def simulate_experiment(world: SimulatedExperiment) -> Outcomes:
    """Simulate the users' outcomes, with those of the pre-period. The same settings give the same outcomes."""
    generator = np.random.default_rng(world.seed)
    arms, users, days = world.arms, world.users, world.days
    weights = np.array(world.weights or (1.0,) * len(arms))
    arm_of = generator.choice(len(arms), users, p=weights / weights.sum()).astype(np.int32)
    rate = _click_rates(world, users, generator)
    activity = generator.gamma(world.activity_shape, world.rankings_per_day / world.activity_shape, users)

    rankings = generator.poisson(np.broadcast_to(activity, (days, users)))
    if world.arrival_days > 1:
        first_day = generator.integers(0, world.arrival_days, users)
        rankings = np.where(np.arange(days)[:, None] >= first_day, rankings, 0)
    day, unit = np.nonzero(rankings)  # in order of day
    row_rankings = rankings[day, unit]
    lift = np.concatenate([[0.0], world.lifts])[arm_of[unit]] * (1 - world.lift_decay * day / max(days - 1, 1))
    columns = _columns(world, row_rankings, rate[unit] * (1 + lift), generator)

    before_rate = rate
    if world.stable_rate_share < 1:
        has_new_rate = generator.random(users) >= world.stable_rate_share
        before_rate = np.where(has_new_rate, _click_rates(world, users, generator), rate)
    pre_period_rankings = generator.poisson(activity * world.pre_period_days)
    before = _columns(world, pre_period_rankings, before_rate, generator) if world.pre_period_days else {}
    return Outcomes(arms, arm_of, unit.astype(np.int32), day.astype(np.int32), columns, before, {})


def _click_rates(world: SimulatedExperiment, users: int, generator: np.random.Generator) -> NDArray[np.float64]:
    mean = world.click_rate
    if world.click_rate_cv == 0:
        return np.full(users, mean)
    if world.click_rate_distribution == "lognormal":
        sigma = np.sqrt(np.log1p(world.click_rate_cv**2))
        return np.minimum(generator.lognormal(np.log(mean) - sigma**2 / 2, sigma, users), 0.95)
    size = (1 - mean) / mean / world.click_rate_cv**2 - 1
    return generator.beta(mean * size, (1 - mean) * size, users)


def _columns(
    world: SimulatedExperiment,
    rankings: NDArray[np.int64],
    click_rate: NDArray[np.float64],
    generator: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Simulate the outcome columns of rows with this many rankings each.

    The position of a ranking's first click is geometric, so a ranking without clicks, as most are, costs one draw.
    """
    n, length = len(rankings), world.ranking_length
    row = np.repeat(np.arange(n, dtype=np.int32), rankings)
    probability = np.clip(click_rate, 1e-12, 1.0)[row]
    first = generator.geometric(probability)
    clicked = np.flatnonzero(first <= length)
    first, clicked_row = first[clicked], row[clicked]
    clicks = 1 + generator.binomial(length - first, probability[clicked])
    dwell = generator.gamma(clicks, 30.0)
    return {
        "rankings": rankings.astype(np.float64),
        "impressions": rankings.astype(np.float64) * length,
        "clicks": sum_by_index(clicked_row, clicks, n),
        "clicked_rankings": sum_by_index(clicked_row, np.ones(len(clicked_row)), n),
        "reciprocal_rank": sum_by_index(clicked_row, 1.0 / first, n),
        "dwell_s": sum_by_index(clicked_row, dwell, n),
    }
