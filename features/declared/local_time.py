"""Parts of a moment on the clock of a time zone: the hour, the weekday, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Times
from feedrank.features.declared.encoders import utc_offset_s

_DAY_S = 86_400


def parts(part: str, at: Times, zones: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (R,) one of PARTS of moments in unix seconds. zones: codes of `encoders.zone_code`; NaN: unknown."""
    part_of = PARTS[part]
    return np.array(
        [part_of(moment, zone) for moment, zone in zip(at.tolist(), zones.tolist(), strict=True)], np.float64
    )


def _local_seconds(at: float, code: float) -> float:
    """Return the seconds since 1970 of the local clock; NaN without a time zone."""
    return at + utc_offset_s(int(code), int(at // 900)) if code == code else float("nan")


def _of_date(part: Callable[[np.datetime64], float]) -> Callable[[float, float], float]:
    def of(at: float, code: float) -> float:
        local = _local_seconds(at, code)
        return part(np.datetime64(int(local // 1), "s")) if local == local else float("nan")

    return of


PARTS: Mapping[str, Callable[[float, float], float]] = {
    "hour": lambda at, code: _local_seconds(at, code) % _DAY_S / 3_600,
    "second": lambda at, code: _local_seconds(at, code) % 60,
    "weekday": lambda at, code: (_local_seconds(at, code) // _DAY_S + 3) % 7,  # 1970 began on a Thursday; Monday is 0
    "is_weekend": lambda at, code: _is_weekend(_local_seconds(at, code)),
    "day": _of_date(lambda date: float((date.astype("M8[D]") - date.astype("M8[M]")).astype(int) + 1)),
    "month": _of_date(lambda date: float(date.astype("M8[M]").astype(int) % 12 + 1)),
    "year": _of_date(lambda date: float(date.astype("M8[Y]").astype(int) + 1970)),
}


def _is_weekend(local: float) -> float:
    return float((local // _DAY_S + 3) % 7 >= 5) if local == local else float("nan")
