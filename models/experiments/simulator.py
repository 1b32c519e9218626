"""A simulator of experiments: people who come back, each with a click rate of their own, split among arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.experiments.moments import summed
from models.experiments.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class SimulatedExperiment:
    """What is so in the simulated world."""

    users: int = 2_000
    days: int = 14
    lifts: tuple[float, ...] = (0.0,)
    """The true relative lift of the click rate, an arm after the first."""
    weights: tuple[float, ...] = ()
    """The share of users of each arm; none: equal."""
    rate: float = 0.05
    """The mean over users of the probability that an item shown is clicked."""
    spread: float = 0.6
    """The standard deviation of it over users, as a share of the mean; 0: all are alike."""
    shape: Literal["beta", "lognormal"] = "beta"
    """How it is distributed."""
    visits: float = 0.5
    """Mean rankings a day and user."""
    activity: float = 2.0
    """The shape of the gamma distribution of visits over users; the lower, the more they differ."""
    length: int = 10
    """Items in a ranking."""
    arriving: int = 1
    """Users begin on a day chosen evenly among the first so many."""
    before_days: int = 14
    steadiness: float = 1.0
    """The share of users whose click rate is the same as before; others have drawn another one."""
    fade: float = 0.0
    """The share of the lift that is lost by the last day, evenly from the first."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.users, self.days, self.length, self.arriving) < 1 or not self.lifts:
            raise ValueError("users, days, length and arriving must be at least 1, and there must be a lift an arm")
        if self.weights and len(self.weights) != len(self.lifts) + 1:
            raise ValueError(f"found {len(self.weights)} weights, expected one for each of {len(self.lifts) + 1} arms")
        if not 0 < self.rate < 1 or (self.shape == "beta" and self.spread**2 >= (1 - self.rate) / self.rate):
            raise ValueError(f"a rate of {self.rate} can't have a spread of {self.spread}: lower one of them")

    @property
    def arms(self) -> tuple[str, ...]:
        """control, b, c and so on."""
        return ("control", *(chr(ord("b") + n) for n in range(len(self.lifts))))


def simulate(world: SimulatedExperiment) -> Outcomes:
    """What its users do, with what they did before. The same world gives the same outcomes."""
    generator = np.random.default_rng(world.seed)
    arms, users, days = world.arms, world.users, world.days
    weights = np.array(world.weights or (1.0,) * len(arms))
    arm_of = generator.choice(len(arms), users, p=weights / weights.sum()).astype(np.int32)
    rate = _rates(world, users, generator)
    activity = generator.gamma(world.activity, world.visits / world.activity, users)

    rankings = generator.poisson(np.broadcast_to(activity, (days, users)))
    if world.arriving > 1:
        begins = generator.integers(0, world.arriving, users)
        rankings = np.where(np.arange(days)[:, None] >= begins, rankings, 0)
    day, unit = np.nonzero(rankings)  # in order of day
    shown = rankings[day, unit]
    lift = np.concatenate([[0.0], world.lifts])[arm_of[unit]] * (1 - world.fade * day / max(days - 1, 1))
    columns = _columns(world, shown, rate[unit] * (1 + lift), generator)

    before_rate = rate
    if world.steadiness < 1:
        others = generator.random(users) >= world.steadiness
        before_rate = np.where(others, _rates(world, users, generator), rate)
    earlier = generator.poisson(activity * world.before_days)
    before = _columns(world, earlier, before_rate, generator) if world.before_days else {}
    return Outcomes(arms, arm_of, unit.astype(np.int32), day.astype(np.int32), columns, before, {})


def _rates(world: SimulatedExperiment, users: int, generator: np.random.Generator) -> NDArray[np.float64]:
    mean = world.rate
    if world.spread == 0:
        return np.full(users, mean)
    if world.shape == "lognormal":
        sigma = np.sqrt(np.log1p(world.spread**2))
        return np.minimum(generator.lognormal(np.log(mean) - sigma**2 / 2, sigma, users), 0.95)
    size = (1 - mean) / mean / world.spread**2 - 1
    return generator.beta(mean * size, (1 - mean) * size, users)


def _columns(
    world: SimulatedExperiment, rankings: NDArray[np.int64], rate: NDArray[np.float64], generator: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """The columns of rows with so many rankings each. The place of a ranking's first click is geometric, so most
    rankings, which have none, cost one draw."""
    n, length = len(rankings), world.length
    row = np.repeat(np.arange(n, dtype=np.int32), rankings)
    chance = np.clip(rate, 1e-12, 1.0)[row]
    first = generator.geometric(chance)
    clicked = np.flatnonzero(first <= length)
    first, where = first[clicked], row[clicked]
    clicks = 1 + generator.binomial(length - first, chance[clicked])
    dwell = generator.gamma(clicks, 30.0)
    return {
        "rankings": rankings.astype(np.float64),
        "impressions": rankings.astype(np.float64) * length,
        "clicks": summed(where, clicks, n),
        "clicked_rankings": summed(where, np.ones(len(where)), n),
        "reciprocal": summed(where, 1.0 / first, n),
        "dwell_s": summed(where, dwell, n),
    }
