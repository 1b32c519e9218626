"""Logged features: the feature rows stored with a ranking event at serving time, and read back for training."""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW, Matrix, Offsets, Scores


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """The feature rows of one ranking as its event holds them: little-endian float32, row by row, in base64."""

    fingerprint: str
    """Digest of the feature list."""
    rows: int
    """Number of rows, one per item shown."""
    data: str

    @classmethod
    def encode(cls, fingerprint: str, matrix: Matrix) -> LoggedRows:
        """Encode (n, F) feature rows."""
        return cls(fingerprint, len(matrix), b64encode(np.ascontiguousarray(matrix, "<f4").tobytes()).decode("ascii"))

    @classmethod
    def from_json(cls, features: Mapping[str, Any] | None, n_items: int) -> LoggedRows | None:
        """Read the object `features` of a ranking with `n_items` items; None if it is absent or of another shape."""
        if features is None or features.get("rows") != n_items:
            return None
        fingerprint, data = features.get("fingerprint"), features.get("data")
        return cls(fingerprint, n_items, data) if isinstance(fingerprint, str) and isinstance(data, str) else None

    def to_json(self) -> dict[str, object]:
        """Return the object `features` of a ranking event."""
        return {"fingerprint": self.fingerprint, "rows": self.rows, "data": self.data}

    def to_bytes(self) -> bytes | None:
        """Decode the bytes of the rows; None if they are damaged."""
        try:
            data = b64decode(self.data, validate=True)
        except (Base64Error, ValueError):
            return None
        return data if len(data) % 4 == 0 else None

    def decode(self, n_features: int) -> Matrix | None:
        """Decode the (rows, n_features) matrix; None if the data is damaged or has another number of features."""
        data = self.to_bytes()
        if data is None or len(data) != 4 * self.rows * n_features:
            return None
        return np.frombuffer(data, "<f4").reshape(self.rows, n_features).astype(np.float32)


def encode_scores(scores: Scores) -> str:
    """Encode scores for a ranking event: little-endian float32 in base64."""
    return b64encode(np.ascontiguousarray(scores, "<f4").tobytes()).decode("ascii")


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

    def add(self, logged: LoggedRows | None) -> None:
        """Add the logged features of a ranking; None and damaged rows count as none."""
        data = None if logged is None else logged.to_bytes()
        if logged is None or data is None:
            self._codes.append(UNKNOWN_ROW)
            self._value_offsets.append(self._value_offsets[-1])
            return
        self._file = self._file or TemporaryFile(prefix="feedrank-logged-features-")  # noqa: SIM115  # held while it grows
        self._file.write(data)
        self._codes.append(self._fingerprints.add(logged.fingerprint))
        self._value_offsets.append(self._value_offsets[-1] + len(data) // 4)

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
