"""Deadlines: the latency budget of one request, and estimates of what its stages cost."""

from __future__ import annotations

import math
from collections.abc import Callable


class Watch:
    """The latency budget of one request: times its stages, and decides which ones still fit before the deadline.

    It starts when it is created. clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], seconds: float = math.inf, costs: Costs | None = None) -> None:
        """limit_s: seconds from now to the deadline; infinite: none. estimator: learns the cost of each stage."""
        self._clock = clock
        self._last = clock()
        self._ends = self._last + seconds
        self._costs = costs
        self.stages: dict[str, float] = {}
        """Stage -> seconds spent so far."""
        self.skipped: list[str] = []
        """The parts that were skipped or cut short."""
        self.counts: dict[str, int] = {}
        """Named counts, such as the cross-encoder scores that came from the cache."""

    @property
    def left(self) -> float:
        """Seconds until the deadline; infinite if there is none."""
        return self._ends - self._clock() if self._ends < math.inf else math.inf

    def mark(self, stage: str, units: int = 1) -> None:
        """Record the end of a stage that began when the previous one ended. units: of work, such as scored items."""
        now = self._clock()
        seconds = now - self._last
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        self._last = now
        if self._costs is not None and units > 0:
            self._costs.note(stage, seconds / units)

    def skip(self, what: str) -> None:
        """Record that a part was skipped or cut short."""
        if what not in self.skipped:
            self.skipped.append(what)

    def count(self, what: str, number: int) -> None:
        """Add to a named count."""
        self.counts[what] = self.counts.get(what, 0) + number

    def knows(self, stage: str) -> bool:
        """Return True if there is no deadline or the stage has a cost estimate."""
        return self._ends == math.inf or (self._costs is not None and self._costs.of(stage) > 0)

    def allows(self, *stages: str, units: int = 1) -> bool:
        """Return True if these stages fit before the deadline. units: of work in the first stage."""
        remaining = self.left
        if remaining == math.inf or self.needs(*stages, units=units) <= remaining:
            return True
        if self._costs is not None:
            self._costs.ease(stages[0])
        return False

    def needs(self, *stages: str, units: int = 1) -> float:
        """Estimate the seconds that these stages take. units: of work in the first stage."""
        if self._costs is None or not stages:
            return 0.0
        return units * self._costs.of(stages[0]) + sum(map(self._costs.of, stages[1:]))

    def fits(self, stage: str, most: int, *later: str) -> int:
        """Return how many of the wanted units of a stage fit if the following stages must still run."""
        remaining = self.left
        cost = 0.0 if self._costs is None else self._costs.of(stage)
        if remaining == math.inf or cost <= 0 or most <= 0:
            return most
        units = max(0, min(most, int((remaining - self.needs(*later)) / cost)))
        if not units and self._costs is not None:
            self._costs.ease(stage)
        return units


class Costs:
    """Estimates the seconds per unit of each stage: a running mean plus `DEVIATIONS` mean deviations.

    This is TCP's estimator of round-trip times (Jacobson, Congestion Avoidance and Control, 1988).
    """

    MARGIN = 4.0
    """Mean deviations added to the mean."""
    GAIN = 1 / 16
    """Weight of the newest measurement."""
    EASE = 1 / 500
    """Relative decrease per skip: small, so a stage that is truly too slow is tried in under 1 % of requests."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}
        self._apart: dict[str, float] = {}

    def note(self, stage: str, seconds: float) -> None:
        """Record the measured seconds of one unit of a stage."""
        mean = self._mean.get(stage)
        if mean is None:
            self._mean[stage], self._apart[stage] = seconds, seconds / 2
            return
        error = seconds - mean
        self._mean[stage] = mean + self.GAIN * error
        self._apart[stage] += 2 * self.GAIN * (abs(error) - self._apart[stage])

    def ease(self, stage: str) -> None:
        """Lower the estimate of a skipped stage a little; otherwise it would never run and never be measured again."""
        for column in (self._mean, self._apart):
            if stage in column:
                column[stage] *= 1 - self.EASE

    def of(self, stage: str) -> float:
        """Estimate the seconds per unit, with the margin; 0 if the stage was never measured."""
        return self._mean.get(stage, 0.0) + self.MARGIN * self._apart.get(stage, 0.0)


def no_watch() -> Watch:
    """Return a budget without a deadline that measures nothing."""
    return Watch(lambda: 0.0)
