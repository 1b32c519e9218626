"""The time of one request: what its stages took, how long there is left, and what was left out for want of it."""

from __future__ import annotations

import math
from collections.abc import Callable


class Watch:
    """Runs from when it is made. The clock is an argument: any that counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float], seconds: float = math.inf, costs: Costs | None = None) -> None:
        """seconds: the deadline, from now. costs: learns what the stages take."""
        self._clock = clock
        self._last = clock()
        self._ends = self._last + seconds
        self._costs = costs
        self.stages: dict[str, float] = {}
        """Stage -> seconds so far."""
        self.skipped: list[str] = []
        """What was cut short or left out."""
        self.counts: dict[str, int] = {}
        """What happened how often, such as where pair scores came from."""

    @property
    def left(self) -> float:
        """Seconds until the deadline; infinite where there is none."""
        return self._ends - self._clock() if self._ends < math.inf else math.inf

    def mark(self, stage: str, units: int = 1) -> None:
        """A stage is over, which began where the last one ended; it did so many units of work."""
        now = self._clock()
        took = now - self._last
        self.stages[stage] = self.stages.get(stage, 0.0) + took
        self._last = now
        if self._costs is not None and units > 0:
            self._costs.note(stage, took / units)

    def skip(self, what: str) -> None:
        """Something was cut short or left out."""
        if what not in self.skipped:
            self.skipped.append(what)

    def count(self, what: str, number: int) -> None:
        """So many more of something."""
        self.counts[what] = self.counts.get(what, 0) + number

    def knows(self, stage: str) -> bool:
        """Whether a stage may be begun: there is no deadline, or it was measured what the stage takes."""
        return self._ends == math.inf or (self._costs is not None and self._costs.of(stage) > 0)

    def allows(self, *stages: str, units: int = 1) -> bool:
        """Whether there is time for these stages, the first of them with so many units of work."""
        left = self.left
        if left == math.inf or self.needs(*stages, units=units) <= left:
            return True
        if self._costs is not None:
            self._costs.ease(stages[0])
        return False

    def needs(self, *stages: str, units: int = 1) -> float:
        """Seconds that these stages usually take, the first of them for so many units of work."""
        if self._costs is None or not stages:
            return 0.0
        return units * self._costs.of(stages[0]) + sum(map(self._costs.of, stages[1:]))

    def fits(self, stage: str, most: int, *later: str) -> int:
        """How many units of a stage, of `most`, there is time for if the later stages are to follow."""
        left = self.left
        cost = 0.0 if self._costs is None else self._costs.of(stage)
        if left == math.inf or cost <= 0 or most <= 0:
            return most
        timely = max(0, min(most, int((left - self.needs(*later)) / cost)))
        if not timely and self._costs is not None:
            self._costs.ease(stage)
        return timely


class Costs:
    """What a unit of each stage takes: a running mean and how far from it one usually is.

    As round-trip times are estimated (Jacobson, Congestion Avoidance and Control, 1988): what is promised is the mean
    and `MARGIN` deviations.
    """

    MARGIN = 4.0
    GAIN = 1 / 16
    """Weight of the newest measure."""
    EASE = 1 / 500
    """So little that what is truly too dear is tried in fewer than one of a hundred requests."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}
        self._apart: dict[str, float] = {}

    def note(self, stage: str, seconds: float) -> None:
        """A unit took so long."""
        mean = self._mean.get(stage)
        if mean is None:
            self._mean[stage], self._apart[stage] = seconds, seconds / 2
            return
        apart = seconds - mean
        self._mean[stage] = mean + self.GAIN * apart
        self._apart[stage] += 2 * self.GAIN * (abs(apart) - self._apart[stage])

    def ease(self, stage: str) -> None:
        """A stage was left out: expect a little less of it, or a cost once too high would never be measured again."""
        for column in (self._mean, self._apart):
            if stage in column:
                column[stage] *= 1 - self.EASE

    def of(self, stage: str) -> float:
        """Seconds that a unit takes, with a margin; 0 where none was measured."""
        return self._mean.get(stage, 0.0) + self.MARGIN * self._apart.get(stage, 0.0)


def no_watch() -> Watch:
    """A watch without a deadline, that measures nothing."""
    return Watch(lambda: 0.0)
