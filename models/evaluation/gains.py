"""The gain of a label in DCG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Gain = Literal["linear", "exponential"] | Sequence[float]
"""`linear`: the label, as in trec_eval; `exponential`: 2^label - 1, as in LightGBM; or the gains of labels 0, 1, 2, and
so on, where label 0 must have the gain 0."""


def gains(labels: NDArray[Any], gain: Gain) -> NDArray[np.float64]:
    """Return (N,) the gain of each label; 0 for labels <= 0.

    Raises ValueError for an unknown name, and for a label that is not in the list of gains.
    """
    positive = np.where(labels > 0, labels, 0).astype(np.float64)
    if isinstance(gain, str):
        if gain not in ("linear", "exponential"):
            raise ValueError(f"the gain is {gain!r}; expected 'linear', 'exponential' or a list of gains")
        return positive if gain == "linear" else np.exp2(positive) - 1.0
    level = positive.astype(np.int64)
    if (missing := np.flatnonzero((level != positive) | (level >= len(gain)))).size:
        raise ValueError(
            f"found label {positive[missing[0]]:g}, but gains for the labels 0 to {len(gain) - 1} only: {list(gain)}; "
            "give one gain for each label from 0 on"
        )
    listed: NDArray[np.float64] = np.asarray(gain, np.float64)[level]
    return listed
