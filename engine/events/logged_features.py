"""Logged features: the feature rows stored with a ranking event at serving time, and read back for training."""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.events import Event, RankingEvent
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW, Matrix, Offsets, Scores


def encode_features(fingerprint: str, matrix: Matrix) -> dict[str, object]:
    """Encode (n, F) feature rows for a ranking event: little-endian float32, row by row, in base64."""
    data = b64encode(np.ascontiguousarray(matrix, "<f4").tobytes()).decode("ascii")
    return {"fingerprint": fingerprint, "rows": len(matrix), "data": data}


def encode_scores(scores: Scores) -> str:
    """Encode scores for a ranking event: little-endian float32 in base64."""
    return b64encode(np.ascontiguousarray(scores, "<f4").tobytes()).decode("ascii")


def is_own_ranking(event: Event) -> TypeGuard[RankingEvent]:
    """Return True for a ranking that this service logged itself: it has a bundle, scores and a source."""
    if not isinstance(event, RankingEvent):
        return False
    return {"bundle", "scores"} <= event.extra.keys() and "source" in event.fields


@dataclass(frozen=True, eq=False, slots=True)
class LoggedFeatures:
    """The logged feature rows of R rankings, memory-mapped from disk because a log may hold more than memory."""

    fingerprints: Vocabulary
    """The feature-list fingerprints; a code is a row of this vocabulary."""
    fingerprint_codes: NDArray[np.int32]
    """(R,) fingerprint code of each ranking, UNKNOWN_ROW where no rows were logged."""
    value_offsets: NDArray[np.int64]
    """(R + 1,) offsets of each ranking's rows in `values`."""
    values: NDArray[np.float32]
    """All rows, flattened and concatenated."""

    def fill(
        self, out: Matrix, impressions: NDArray[np.int64], impression_offsets: Offsets, fingerprint: str
    ) -> NDArray[np.bool_]:
        """Overwrite rows of `out` (N, F) with the rows logged under this fingerprint; return the (N,) mask of those.

        impressions: (N,) index of each row among the impressions of all rankings. impression_offsets: (R + 1,).
        """
        ranking = np.searchsorted(impression_offsets, impressions, "right") - 1
        sizes = np.diff(self.value_offsets) == np.diff(impression_offsets) * out.shape[1]
        code = self.fingerprints.row(fingerprint)
        logged = (
            (self.fingerprint_codes[ranking] == code) & sizes[ranking]
            if code != UNKNOWN_ROW
            else np.zeros(len(impressions), np.bool_)
        )
        first = self.value_offsets[ranking] + (impressions - impression_offsets[ranking]) * out.shape[1]
        out[logged] = self.values[first[logged, None] + np.arange(out.shape[1])]
        return logged


class LoggedFeaturesBuilder:
    """Builds `LoggedFeatures` one ranking at a time; its temporary file is deleted with the last reference to it."""

    def __init__(self) -> None:
        self._fingerprints = Vocabulary()
        self._codes = array("i")
        self._value_offsets = array("q", [0])
        self._file: IO[bytes] | None = None

    def add(self, features: Mapping[str, Any] | None, n_items: int) -> None:
        """Add the logged features of a ranking with `n_items` items; incomplete or invalid rows count as none."""
        code, data = UNKNOWN_ROW, b""
        if features is not None and features.get("rows") == n_items:
            try:
                data = b64decode(features.get("data", ""), validate=True)
                code = self._fingerprints.add(str(features["fingerprint"])) if len(data) % 4 == 0 else UNKNOWN_ROW
            except (Base64Error, KeyError, TypeError, ValueError):
                code = UNKNOWN_ROW
        if code != UNKNOWN_ROW:
            self._file = self._file or TemporaryFile(prefix="feedrank-served-")  # noqa: SIM115  # held while it grows
            self._file.write(data)
        self._codes.append(code)
        self._value_offsets.append(self._value_offsets[-1] + (len(data) // 4 if code != UNKNOWN_ROW else 0))

    def build(self) -> LoggedFeatures:
        """Return the features added so far."""
        values: NDArray[np.float32] = np.empty(0, np.float32)
        if self._file is not None and self._value_offsets[-1]:
            self._file.flush()
            values = np.memmap(self._file, "<f4", "r")
        return LoggedFeatures(
            self._fingerprints,
            np.frombuffer(self._codes, np.int32),
            np.frombuffer(self._value_offsets, np.int64),
            values,
        )
