"""Drift of what is served: of its features against training, and of its scores against the first ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Matrix, Scores
from models.drift import Sketch


class Drift(NamedTuple):
    """How far what is served has moved."""

    features: dict[str, float]
    """Feature -> population stability index against the training rows."""
    score: float | None
    """The index of the scores against the first that were served; None: there are no others yet."""
    mean: float
    """Of the scores."""


class DriftWatch:
    """Keeps the latest rows that were served, and compares them with the training rows when it is asked."""

    KEPT = 5_000
    LEAST = 500
    """With fewer rows the index is noise: its bins' own scatter adds about (bins - 1) / rows."""
    MOST_OF_ONE = 100
    """Rows of one request, evenly spaced, so that a long feed does not crowd out the others."""
    REST_S = 30.0

    def __init__(self, sketch: Sketch | None, names: Sequence[str]) -> None:
        """sketch: of the training rows; None: scores alone are watched. names: the F features, in order."""
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
        """Take in the (N, F) feature rows of a feed and their (N,) scores; rows of another width are passed over."""
        if len(scores) > self.MOST_OF_ONE:
            step = -(-len(scores) // self.MOST_OF_ONE)
            features, scores = features[::step], scores[::step]
        rows = len(scores)
        if features.shape != (rows, len(self._names)):  # a plainer list has none, and a new bundle may have others
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
        """The drift as it is at `now` (unix seconds), or was up to 30 s ago; None while too little was served."""
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
        known = scores[np.isfinite(scores)].astype(np.float64)
        self._last = Drift(features, score, float(known.mean()) if len(known) else np.nan)
        return self._last
