"""Monitor the drift of served features against the training rows, and of served scores against the first scores."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Matrix, Scores
from feedrank.models.retraining.drift import FeatureHistogram


class DriftReport(NamedTuple):
    """How far served features and scores have drifted, as population stability indexes (PSI)."""

    feature_psi: dict[str, float]
    """Feature -> PSI against the training rows."""
    score_psi: float | None
    """PSI of the scores against the first window of served scores; None while that window is not yet full."""
    mean_score: float
    """Mean of the scores in the window; NaN where none is finite."""


class DriftMonitor:
    """Keeps a window of the latest served rows and compares it with the training rows on demand."""

    WINDOW_ROWS = 5_000
    MIN_ROWS = 500
    """With fewer rows the PSI is noise: the sampling noise of the bins adds about (bins - 1) / rows."""
    MAX_ROWS_PER_REQUEST = 100
    """Rows taken from one request, evenly spaced, so that a long feed does not crowd out the others."""
    MIN_INTERVAL_S = 30.0
    """Seconds for which a computed report is reused."""

    def __init__(self, histogram: FeatureHistogram | None, feature_names: Sequence[str]) -> None:
        """histogram: of the training rows; None: only scores are monitored. feature_names: the F names, in order."""
        self._histogram = histogram
        self._feature_names = tuple(feature_names)
        self._rows = np.empty((self.WINDOW_ROWS, len(self._feature_names)), np.float32)
        self._scores = np.empty(self.WINDOW_ROWS, np.float32)
        self._next = self._filled = 0
        self._reference_scores: NDArray[np.float32] | None = None
        self._reference_histogram: FeatureHistogram | None = None
        self._last_report: DriftReport | None = None
        self._computed_at = -np.inf
        self._lock = threading.Lock()

    def add(self, features: Matrix, scores: Scores) -> None:
        """Add the (N, F) feature rows of a feed and their (N,) scores; rows of another width are ignored."""
        if len(scores) > self.MAX_ROWS_PER_REQUEST:
            step = -(-len(scores) // self.MAX_ROWS_PER_REQUEST)
            features, scores = features[::step], scores[::step]
        rows = len(scores)
        if features.shape != (
            rows,
            len(self._feature_names),
        ):  # fallback lists have none, and a new bundle may have others
            return
        with self._lock:
            if self._next + rows > self.WINDOW_ROWS:
                if self._reference_scores is None:
                    self._reference_scores = self._scores[: self._filled].copy()
                self._next = 0
            stop = self._next + rows
            self._rows[self._next : stop] = features
            self._scores[self._next : stop] = scores
            self._next, self._filled = stop, max(self._filled, stop)

    def report(self, now: float) -> DriftReport | None:
        """Return the drift at `now` (unix seconds), at most 30 s old; None while fewer than `MIN_ROWS` were served."""
        with self._lock:
            if 0 <= now - self._computed_at < self.MIN_INTERVAL_S or self._filled < self.MIN_ROWS:
                return self._last_report
            self._computed_at = now
            rows, scores = self._rows[: self._filled].copy(), self._scores[: self._filled].copy()
            first = self._reference_scores
        features = {} if self._histogram is None else self._histogram.psi(rows, self._feature_names)
        score = None
        if first is not None:
            self._reference_histogram = self._reference_histogram or FeatureHistogram.from_matrix(
                first[:, None], ["score"]
            )
            score = self._reference_histogram.psi(scores[:, None], ["score"])["score"]
        finite = scores[np.isfinite(scores)].astype(np.float64)
        self._last_report = DriftReport(features, score, float(finite.mean()) if len(finite) else np.nan)
        return self._last_report
