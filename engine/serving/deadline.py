"""Deadlines: the latency budget of one request, and estimates of what its stages cost."""

from __future__ import annotations

import math
from collections.abc import Callable


class LatencyBudget:
    """The latency budget of one request: times its stages, and decides which ones still fit before the deadline.

    It starts when it is created. clock: monotonic seconds.
    """

    def __init__(
        self, clock: Callable[[], float], limit_s: float = math.inf, estimator: LatencyEstimator | None = None
    ) -> None:
        """limit_s: seconds from now to the deadline; infinite: none. estimator: learns the cost of each stage."""
        self._clock = clock
        self._stage_start = clock()
        self._deadline = self._stage_start + limit_s
        self._estimator = estimator
        self.stage_seconds: dict[str, float] = {}
        """Stage -> seconds spent so far."""
        self.skipped: list[str] = []
        """The parts that were skipped or cut short."""
        self.counts: dict[str, int] = {}
        """Named counts, such as the cross-encoder scores that came from the cache."""

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; infinite if there is none."""
        return self._deadline - self._clock() if self._deadline < math.inf else math.inf

    def record(self, stage: str, units: int = 1) -> None:
        """Record the end of a stage that began when the previous one ended. units: of work, such as scored items."""
        now = self._clock()
        seconds = now - self._stage_start
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        self._stage_start = now
        if self._estimator is not None and units > 0:
            self._estimator.observe(stage, seconds / units)

    def skip(self, part: str) -> None:
        """Record that a part was skipped or cut short."""
        if part not in self.skipped:
            self.skipped.append(part)

    def count(self, name: str, number: int) -> None:
        """Add to a named count."""
        self.counts[name] = self.counts.get(name, 0) + number

    def may_start(self, stage: str) -> bool:
        """Return True if there is no deadline or the stage has a cost estimate."""
        return self._deadline == math.inf or (self._estimator is not None and self._estimator.estimate(stage) > 0)

    def has_time_for(self, *stages: str, units: int = 1) -> bool:
        """Return True if these stages fit before the deadline. units: of work in the first stage."""
        remaining = self.remaining
        if remaining == math.inf or self.estimate(*stages, units=units) <= remaining:
            return True
        if self._estimator is not None:
            self._estimator.decay(stages[0])
        return False

    def estimate(self, *stages: str, units: int = 1) -> float:
        """Estimate the seconds that these stages take. units: of work in the first stage."""
        if self._estimator is None or not stages:
            return 0.0
        return units * self._estimator.estimate(stages[0]) + sum(map(self._estimator.estimate, stages[1:]))

    def units_in_budget(self, stage: str, wanted: int, *following: str) -> int:
        """Return how many of the wanted units of a stage fit if the following stages must still run."""
        remaining = self.remaining
        cost = 0.0 if self._estimator is None else self._estimator.estimate(stage)
        if remaining == math.inf or cost <= 0 or wanted <= 0:
            return wanted
        units = max(0, min(wanted, int((remaining - self.estimate(*following)) / cost)))
        if not units and self._estimator is not None:
            self._estimator.decay(stage)
        return units


class LatencyEstimator:
    """Estimates the seconds per unit of each stage: a running mean plus `DEVIATIONS` mean deviations.

    This is TCP's estimator of round-trip times (Jacobson, Congestion Avoidance and Control, 1988).
    """

    DEVIATIONS = 4.0
    """Mean deviations added to the mean."""
    GAIN = 1 / 16
    """Weight of the newest measurement."""
    DECAY = 1 / 500
    """Relative decrease per skip: small, so a stage that is truly too slow is tried in under 1 % of requests."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}
        self._deviation: dict[str, float] = {}

    def observe(self, stage: str, seconds: float) -> None:
        """Record the measured seconds of one unit of a stage."""
        mean = self._mean.get(stage)
        if mean is None:
            self._mean[stage], self._deviation[stage] = seconds, seconds / 2
            return
        error = seconds - mean
        self._mean[stage] = mean + self.GAIN * error
        self._deviation[stage] += 2 * self.GAIN * (abs(error) - self._deviation[stage])

    def decay(self, stage: str) -> None:
        """Lower the estimate of a skipped stage a little; otherwise it would never run and never be measured again."""
        for column in (self._mean, self._deviation):
            if stage in column:
                column[stage] *= 1 - self.DECAY

    def estimate(self, stage: str) -> float:
        """Estimate the seconds per unit, with the margin; 0 if the stage was never measured."""
        return self._mean.get(stage, 0.0) + self.DEVIATIONS * self._deviation.get(stage, 0.0)


def unlimited_budget() -> LatencyBudget:
    """Return a budget without a deadline that measures nothing."""
    return LatencyBudget(lambda: 0.0)
