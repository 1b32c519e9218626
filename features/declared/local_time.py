"""Parts of a moment on the clock of a time zone: the hour, the weekday, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Times
from feedrank.features.declared.encoders import utc_offset_s

_DAY_S = 86_400


def parts(part: str, local: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (R,) one of PARTS of the seconds since 1970 that local clocks show; NaN: unknown."""
    part_of = PARTS[part]
    return np.array([part_of(clock) if clock == clock else np.nan for clock in local.tolist()], np.float64)


def local_seconds(at: Times, zones: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (R,) the seconds since 1970 of local clocks. zones: codes of `encoders.zone_code`; NaN: unknown."""
    offsets = [
        utc_offset_s(int(code), int(moment // 900)) if code == code else np.nan
        for moment, code in zip(at.tolist(), zones.tolist(), strict=True)
    ]
    return at + np.array(offsets, np.float64)


def _of_date(part: Callable[[np.datetime64], float]) -> Callable[[float], float]:
    return lambda local: part(np.datetime64(int(local // 1), "s"))


PARTS: Mapping[str, Callable[[float], float]] = {
    "hour": lambda local: local % _DAY_S / 3_600,
    "second": lambda local: local % 60,
    "weekday": lambda local: (local // _DAY_S + 3) % 7,  # 1970 began on a Thursday; Monday is 0
    "is_weekend": lambda local: float((local // _DAY_S + 3) % 7 >= 5),
    "day": _of_date(lambda date: float((date.astype("M8[D]") - date.astype("M8[M]")).astype(int) + 1)),
    "month": _of_date(lambda date: float(date.astype("M8[M]").astype(int) % 12 + 1)),
    "year": _of_date(lambda date: float(date.astype("M8[Y]").astype(int) + 1970)),
    "timestamp": float,
}
