"""A click simulator: people whose taste is known look at lists in a known way, and click.

Two ways of looking. Position-based: the item at place k is examined with a probability of its own, whatever stands
above it (Richardson et al., Predicting Clicks, 2007). Cascade: places are examined from the top until the first click
(Craswell et al., An Experimental Comparison of Click Position-Bias Models, 2008). An examined item is clicked with a
probability that grows with its relevance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, InteractionEvent, ItemEvent, RankingEvent
from engine.types import Matrix, Offsets

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """The simulated world."""

    rankings: int = 5_000
    length: int = 10
    """Items in a list."""
    signals: int = 4
    """Noisy sights of relevance that a ranker may use."""
    noise: float = 1.0
    """Their standard deviation; relevance has 1."""
    policy_noise: float = 0.5
    """How far the scores that made the logged order are from relevance, as a standard deviation."""
    examination: Literal["position", "cascade"] = "position"
    eta: float = 1.0
    """Place k is examined with probability 1 / k^eta; not read by the cascade."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rankings, self.length, self.signals) < 1:
            raise ValueError("rankings, length and signals must be at least 1")


@dataclass(frozen=True, eq=False, slots=True)
class Simulated:
    """R lists of L items, in the order in which they were shown."""

    relevance: NDArray[np.float64]
    """(R, L) true relevance, standard normal."""
    signals: NDArray[np.float64]
    """(R, L, signals) what a ranker may see."""
    policy: NDArray[np.float64]
    """(R, L) the scores that made the order."""
    examined: NDArray[np.bool_]
    """(R, L)"""
    clicks: NDArray[np.bool_]
    """(R, L)"""

    @property
    def attraction(self) -> NDArray[np.float64]:
        """(R, L) probability of a click on an item that is examined."""
        return attraction(self.relevance)

    @property
    def grades(self) -> NDArray[np.float32]:
        """(R, L) true relevance as labels 0 to 4."""
        return np.searchsorted([0.0, 0.7, 1.3, 1.9], self.relevance).astype(np.float32)

    @property
    def features(self) -> Matrix:
        """(R x L, signals + 1) the signals, then the score of the policy that made the order."""
        columns = np.concatenate([self.signals, self.policy[..., None]], axis=2)
        return columns.reshape(-1, columns.shape[2]).astype(np.float32)

    @property
    def offsets(self) -> Offsets:
        """(R + 1,) bounds of each list in flattened columns."""
        count, length = self.relevance.shape
        return np.arange(0, count * length + 1, length, dtype=np.int64)

    def events(self) -> Iterator[Event]:
        """The log that such a service would have written: items, then lists and clicks; all items are different."""
        count, length = self.relevance.shape
        for item in range(count * length):
            yield ItemEvent(f"item {item}", 0, f"i{item}")
        for r in range(count):
            at = (r + 1) * HOUR_MS
            items = tuple(f"i{r * length + place}" for place in range(length))
            positions = list(range(1, length + 1))
            yield RankingEvent(f"ranking {r}", at, items, f"u{r}", extra={"positions": positions})
            for place in np.flatnonzero(self.clicks[r]).tolist():
                click = f"click {r} {place}"
                yield InteractionEvent(click, at + 1_000 * (place + 1), items[place], "click", f"ranking {r}", f"u{r}")


def attraction(relevance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of a click on an examined item: logistic in relevance, about 1 in 9 on average."""
    return 1 / (1 + np.exp(2.5 - 1.5 * relevance))


def simulate(settings: SimulatorSettings | None = None) -> Simulated:
    """Lists, what was examined, and what was clicked; the same for the same seed."""
    settings = settings or SimulatorSettings()
    random = np.random.default_rng(settings.seed)
    shape = (settings.rankings, settings.length)
    relevance = random.standard_normal(shape)
    policy = relevance + settings.policy_noise * random.standard_normal(shape)
    order = np.argsort(-policy, axis=1, kind="stable")
    relevance = np.take_along_axis(relevance, order, 1)
    policy = np.take_along_axis(policy, order, 1)
    signals = relevance[..., None] + settings.noise * random.standard_normal((*shape, settings.signals))
    attracted = random.random(shape) < attraction(relevance)
    if settings.examination == "cascade":
        examined: NDArray[np.bool_] = np.cumsum(attracted, axis=1) - attracted == 0
    else:
        examined = random.random(shape) < 1 / np.arange(1, settings.length + 1) ** settings.eta
    return Simulated(relevance, signals, policy, examined, attracted & examined)
