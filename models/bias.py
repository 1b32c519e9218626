"""Position bias: how much more often an item is answered for standing at a place, as LambdaRank learnt it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.files import written_aside

_LINE = re.compile(r"\[Debug\]\s+(\d+)\s+(-?[\d.]+(?:e[+-]?\d+)?|-?inf|nan)\s*$")


@dataclass(frozen=True, eq=False, slots=True)
class PositionBias:
    """The learnt curve."""

    positions: NDArray[np.int64]
    """Places, from 1, in order."""
    biases: NDArray[np.float64]
    """What standing there adds to the score, relative to the first place."""

    @property
    def propensities(self) -> NDArray[np.float64]:
        """e^bias: the odds of being answered there, relative to the first place."""
        return np.exp(self.biases)

    def weights(self, labels: NDArray[np.float32], positions: NDArray[np.int32]) -> NDArray[np.float64]:
        """(N,) the gain 2^label - 1 of each row over the propensity of its place.

        Weighed so, clicks are on average what they would be without bias (Joachims et al., Unbiased Learning-to-Rank
        with Biased Feedback, 2017). Propensities below 0.05 are taken as that: one click must not outweigh the rest.
        """
        places = np.clip(np.searchsorted(self.positions, positions), 0, len(self.positions) - 1)
        found: NDArray[np.float64] = (np.exp2(labels) - 1) / np.clip(self.propensities[places], 0.05, None)
        return found

    def save(self, path: Path) -> None:
        """Write as JSON."""
        body = {"positions": self.positions.tolist(), "biases": np.round(self.biases, 6).tolist()}
        with written_aside(path) as aside:
            aside.write_text(json.dumps(body) + "\n")

    @classmethod
    def load(cls, path: Path) -> PositionBias:
        """Read what `save` wrote."""
        body = json.loads(path.read_text())
        return cls(np.array(body["positions"], np.int64), np.array(body["biases"]))

    @classmethod
    def mean(cls, curves: list[PositionBias]) -> PositionBias | None:
        """Of several boosters' curves; None where there is none."""
        return cls(curves[0].positions, np.mean([curve.biases for curve in curves], axis=0)) if curves else None


class Listener:
    """Hears what LightGBM says, and keeps the biases that it said last: it gives them out in no other way."""

    def __init__(self) -> None:
        self._said: dict[int, float] = {}

    def info(self, message: str) -> None:
        """Called by LightGBM."""
        if found := _LINE.search(message):
            self._said[int(found[1])] = float(found[2])

    def warning(self, message: str) -> None:
        """Called by LightGBM; what it warns of, `verbosity` decides."""

    @property
    def curve(self) -> PositionBias | None:
        """The biases after the last round; None where none were learnt."""
        if not self._said:
            return None
        positions = np.array(sorted(self._said), np.int64)
        biases = np.array([self._said[position] for position in positions.tolist()])
        return PositionBias(positions, biases - biases[0])


@contextmanager
def listening() -> Iterator[Listener]:
    """Hear LightGBM within the block; it must be trained with `verbosity` 2 there."""
    listener = Listener()
    before = lgb.basic._LOGGER, lgb.basic._INFO_METHOD_NAME, lgb.basic._WARNING_METHOD_NAME
    lgb.register_logger(listener)
    try:
        yield listener
    finally:
        lgb.register_logger(before[0], before[1], before[2])
