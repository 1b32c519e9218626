"""Corrections for many looks at p-values: NaN stays, and is not counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from models.experiments.moments import Floats

Method = Literal["benjamini-hochberg", "holm"]


def corrected(p: Sequence[float] | Floats, method: Method) -> Floats:
    """(N,) p-values that may be compared with alpha."""
    return benjamini_hochberg(p) if method == "benjamini-hochberg" else holm(p)


def benjamini_hochberg(p: Sequence[float] | Floats) -> Floats:
    """Of what falls below alpha, at most that share is false. Source: Benjamini & Hochberg 1995."""
    from scipy import stats  # 40 MB that a server without a readout need not have

    values, known, made = _split(p)
    if known.any():
        made[known] = stats.false_discovery_control(values[known], method="bh")
    return made


def holm(p: Sequence[float] | Floats) -> Floats:
    """The chance that anything false falls below alpha is at most alpha, however they depend. Source: Holm 1979."""
    values, known, made = _split(p)
    n = int(known.sum())
    order = np.argsort(values[known], kind="stable")
    stepped = np.maximum.accumulate(values[known][order] * np.arange(n, 0, -1)) if n else np.empty(0)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    made[known] = adjusted
    return made


def _split(p: Sequence[float] | Floats) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]], Floats]:
    values = np.asarray(p, np.float64)
    return values, ~np.isnan(values), np.full(len(values), np.nan)
