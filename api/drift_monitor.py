"""Monitor the drift of served features against the training rows, and of served scores against the first scores."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Matrix, Scores
from feedrank.models.retraining.drift import Sketch


class Drift(NamedTuple):
    """How far served features and scores have drifted, as population stability indexes (PSI)."""

    features: dict[str, float]
    """Feature -> PSI against the training rows."""
    score: float | None
    """PSI of the scores against the first window of served scores; None while that window is not yet full."""
    mean: float
    """Mean of the scores in the window; NaN where none is finite."""


class DriftWatch:
    """Keeps a window of the latest served rows and compares it with the training rows on demand."""

    KEPT = 5_000
    LEAST = 500
    """With fewer rows the PSI is noise: the sampling noise of the bins adds about (bins - 1) / rows."""
    MOST_OF_ONE = 100
    """Rows taken from one request, evenly spaced, so that a long feed does not crowd out the others."""
    REST_S = 30.0
    """Seconds for which a computed report is reused."""

    def __init__(self, sketch: Sketch | None, names: Sequence[str]) -> None:
        """histogram: of the training rows; None: only scores are monitored. feature_names: the F names, in order."""
        self._sketch = sketch
        self._names = tuple(names)
        self._rows = np.empty((self.KEPT, len(self._names)), np.float32)
        self._scores = np.empty(self.KEPT, np.float32)
        self._next = self._filled = 0
        self._first: NDArray[np.float32] | None = None
        self._first_sketch: Sketch | None = None
        self._last: Drift | None = None
        self._read_at = -np.inf
        self._lock = threading.Lock()

    def add(self, features: Matrix, scores: Scores) -> None:
        """Add the (N, F) feature rows of a feed and their (N,) scores; rows of another width are ignored."""
        if len(scores) > self.MOST_OF_ONE:
            step = -(-len(scores) // self.MOST_OF_ONE)
            features, scores = features[::step], scores[::step]
        rows = len(scores)
        if features.shape != (rows, len(self._names)):  # fallback lists have none, and a new bundle may have others
            return
        with self._lock:
            if self._next + rows > self.KEPT:
                if self._first is None:
                    self._first = self._scores[: self._filled].copy()
                self._next = 0
            stop = self._next + rows
            self._rows[self._next : stop] = features
            self._scores[self._next : stop] = scores
            self._next, self._filled = stop, max(self._filled, stop)

    def read(self, now: float) -> Drift | None:
        """Return the drift at `now` (unix seconds), at most 30 s old; None while fewer than `MIN_ROWS` were served."""
        with self._lock:
            if 0 <= now - self._read_at < self.REST_S or self._filled < self.LEAST:
                return self._last
            self._read_at = now
            rows, scores = self._rows[: self._filled].copy(), self._scores[: self._filled].copy()
            first = self._first
        features = {} if self._sketch is None else self._sketch.drift(rows, self._names)
        score = None
        if first is not None:
            self._first_sketch = self._first_sketch or Sketch.of(first[:, None], ["score"])
            score = self._first_sketch.drift(scores[:, None], ["score"])["score"]
        finite = scores[np.isfinite(scores)].astype(np.float64)
        self._last = Drift(features, score, float(finite.mean()) if len(finite) else np.nan)
        return self._last
