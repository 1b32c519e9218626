"""A click simulator generates rankings with known relevance and clicks from a known click model.

There are two examination models. Position-based: the item at position k is examined with a probability of its own,
independent of the items above it (Richardson et al., Predicting Clicks, 2007). Cascade: positions are examined from
the top until the first click (Craswell et al., An Experimental Comparison of Click Position-Bias Models, 2008). The
click probability of an examined item grows with its relevance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.types import Matrix, Offsets

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """Settings of the simulation."""

    rankings: int = 5_000
    list_length: int = 10
    """Items per ranking."""
    signals: int = 4
    """Number of noisy observations of relevance, the ranker's features."""
    noise: float = 1.0
    """Standard deviation of their noise; relevance has 1."""
    policy_noise: float = 0.5
    """Standard deviation of the logging policy's scores around relevance."""
    examination: Literal["position", "cascade"] = "position"
    eta: float = 1.0
    """Position k is examined with probability 1 / k^eta; not used by the cascade model."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rankings, self.list_length, self.signals) < 1:
            raise ValueError("rankings, list_length and signals must be at least 1")


@dataclass(frozen=True, eq=False, slots=True)
class SimulatedLog:
    """R simulated rankings of L items, in shown order."""

    relevance: NDArray[np.float64]
    """(R, L) true relevance, standard normal."""
    signals: NDArray[np.float64]
    """(R, L, signals) the ranker's features."""
    policy_scores: NDArray[np.float64]
    """(R, L) scores of the logging policy, which determined the order."""
    examined: NDArray[np.bool_]
    """(R, L) True for examined items."""
    clicks: NDArray[np.bool_]
    """(R, L) True for clicked items."""

    @property
    def attraction(self) -> NDArray[np.float64]:
        """Return (R, L) click probabilities of examined items."""
        return attraction(self.relevance)

    @property
    def grades(self) -> NDArray[np.float32]:
        """Return (R, L) true relevance as labels 0 to 4."""
        return np.searchsorted([0.0, 0.7, 1.3, 1.9], self.relevance).astype(np.float32)

    @property
    def features(self) -> Matrix:
        """Return (R x L, signals + 1) the signals, then the logging policy's score."""
        columns = np.concatenate([self.signals, self.policy_scores[..., None]], axis=2)
        return columns.reshape(-1, columns.shape[2]).astype(np.float32)

    @property
    def offsets(self) -> Offsets:
        """Return (R + 1,) the offsets of each ranking in flattened columns."""
        count, length = self.relevance.shape
        return np.arange(0, count * length + 1, length, dtype=np.int64)

    def events(self) -> Iterator[Event]:
        """Yield the events a service would have logged: items, then rankings with clicks; no item occurs twice."""
        count, length = self.relevance.shape
        for item in range(count * length):
            yield ItemEvent(f"item {item}", 0, f"i{item}")
        for r in range(count):
            at = (r + 1) * HOUR_MS
            items = tuple(f"i{r * length + index}" for index in range(length))
            positions = tuple(range(1, length + 1))
            yield RankingEvent(f"ranking {r}", at, items, f"u{r}", positions=positions)
            for index in np.flatnonzero(self.clicks[r]).tolist():
                click = f"click {r} {index}"
                yield InteractionEvent(click, at + 1_000 * (index + 1), items[index], "click", f"ranking {r}", f"u{r}")


def attraction(relevance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the click probability of an examined item: logistic in relevance, about 1/9 on average."""
    return 1 / (1 + np.exp(2.5 - 1.5 * relevance))


def simulate(settings: SimulatorSettings | None = None) -> SimulatedLog:
    """Simulate rankings, examinations and clicks; equal seeds give equal results."""
    settings = settings or SimulatorSettings()
    random = np.random.default_rng(settings.seed)
    shape = (settings.rankings, settings.list_length)
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
        examined = random.random(shape) < 1 / np.arange(1, settings.list_length + 1) ** settings.eta
    return SimulatedLog(relevance, signals, policy, examined, attracted & examined)
