"""Position bias, as LightGBM's LambdaRank learns it: how much a position raises the odds of a click."""

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

from feedrank.models.atomic_files import atomic_write

_BIAS_LINE = re.compile(r"\[Debug\]\s+(\d+)\s+(-?[\d.]+(?:e[+-]?\d+)?|-?inf|nan)\s*$")


@dataclass(frozen=True, eq=False, slots=True)
class PositionBias:
    """The learnt position-bias curve."""

    positions: NDArray[np.int64]
    """Positions from 1, ascending."""
    biases: NDArray[np.float64]
    """Score that each position adds, relative to the first position."""

    @property
    def propensities(self) -> NDArray[np.float64]:
        """Return e^bias: the odds of an interaction at each position, relative to the first position."""
        return np.exp(self.biases)

    def inverse_propensity_gains(self, gains: NDArray[np.float64], positions: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return (N,) inverse-propensity-weighted gains: the gain over the propensity of the row's position.

        So weighted, clicks equal unbiased clicks in expectation (Joachims et al., Unbiased Learning-to-Rank with
        Biased Feedback, 2017). Propensities are clipped to at least 0.05, so that no single click dominates.
        """
        indices = np.clip(np.searchsorted(self.positions, positions), 0, len(self.positions) - 1)
        weighted: NDArray[np.float64] = gains / np.clip(self.propensities[indices], 0.05, None)
        return weighted

    def save(self, path: Path) -> None:
        """Write the curve as JSON."""
        body = {"positions": self.positions.tolist(), "biases": np.round(self.biases, 6).tolist()}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(body) + "\n")

    @classmethod
    def load(cls, path: Path) -> PositionBias:
        """Read a curve that `save` wrote."""
        body = json.loads(path.read_text())
        return cls(np.array(body["positions"], np.int64), np.array(body["biases"]))

    @classmethod
    def mean(cls, curves: list[PositionBias]) -> PositionBias | None:
        """Return the mean of several boosters' curves; None if there is none."""
        return cls(curves[0].positions, np.mean([curve.biases for curve in curves], axis=0)) if curves else None


class PositionBiasLogger:
    """Parses position biases from LightGBM's debug log and keeps the last ones; LightGBM has no API for them."""

    def __init__(self) -> None:
        self._biases: dict[int, float] = {}

    def info(self, message: str) -> None:
        """Parse one log message; LightGBM calls this."""
        if match := _BIAS_LINE.search(message):
            self._biases[int(match[1])] = float(match[2])

    def warning(self, message: str) -> None:
        """Ignore a warning; LightGBM calls this."""

    @property
    def curve(self) -> PositionBias | None:
        """Return the biases after the last round; None if none were learnt."""
        if not self._biases:
            return None
        positions = np.array(sorted(self._biases), np.int64)
        biases = np.array([self._biases[position] for position in positions.tolist()])
        return PositionBias(positions, biases - biases[0])


@contextmanager
def capture_position_biases() -> Iterator[PositionBiasLogger]:
    """Capture the position biases that LightGBM logs within the block; train with `verbosity` 2 there."""
    listener = PositionBiasLogger()
    previous = lgb.basic._LOGGER, lgb.basic._INFO_METHOD_NAME, lgb.basic._WARNING_METHOD_NAME
    lgb.register_logger(listener)
    try:
        yield listener
    finally:
        lgb.register_logger(previous[0], previous[1], previous[2])
        # LightGBM's verbosity is global and stays at 2; a dataset sets it back, or loading a booster would print lines
        lgb.Dataset(np.zeros((2, 1)), params={"verbosity": -1}).construct()
