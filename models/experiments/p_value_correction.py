"""Adjusts p-values for multiple comparisons; NaN stays NaN and does not count as a test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feedrank.engine.experiments.analysis_plan import CorrectionMethod
from feedrank.models.experiments.moments import Floats


def adjust_p_values(p: Sequence[float] | Floats, method: CorrectionMethod) -> Floats:
    """Adjust N p-values, so that each may be compared with alpha."""
    return benjamini_hochberg(p) if method == "benjamini-hochberg" else holm(p)


def benjamini_hochberg(p: Sequence[float] | Floats) -> Floats:
    """Adjust N p-values to control the false discovery rate. Source: Benjamini & Hochberg 1995."""
    from scipy import stats  # takes 40 MB, which a server without readouts need not load

    values, is_known, adjusted = _split_nan(p)
    if is_known.any():
        adjusted[is_known] = stats.false_discovery_control(values[is_known], method="bh")
    return adjusted


def holm(p: Sequence[float] | Floats) -> Floats:
    """Adjust N p-values to control the family-wise error rate under any dependence. Source: Holm 1979."""
    values, is_known, result = _split_nan(p)
    n = int(is_known.sum())
    order = np.argsort(values[is_known], kind="stable")
    stepped = np.maximum.accumulate(values[is_known][order] * np.arange(n, 0, -1)) if n else np.empty(0)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    result[is_known] = adjusted
    return result


def _split_nan(p: Sequence[float] | Floats) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]], Floats]:
    values = np.asarray(p, np.float64)
    return values, ~np.isnan(values), np.full(len(values), np.nan)
