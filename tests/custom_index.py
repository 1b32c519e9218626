"""Custom vector indexes, as an application would write them: exact ones in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feedrank.engine.types import Matrix, Rows, Scores, Vector


class BuiltAtStart:
    """An exact index by dot product that is not saved."""

    built = 0

    def __init__(self, vectors: Matrix, metric: str, shift: float = 0.0) -> None:
        if metric != "dot":
            raise ValueError(f"found the metric {metric!r}, expected dot")
        type(self).built += 1
        self._vectors, self._shift = np.array(vectors), np.float32(shift)

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return the k best rows and their scores."""
        scores = self._vectors @ vector + self._shift
        best = np.argsort(-scores, kind="stable")[:k]
        return best.astype(np.int32), scores[best]


class Saved(BuiltAtStart):
    """The same index, saved with the bundle as one npz file."""

    built = loaded = 0

    def save(self, folder: Path) -> None:
        """Write the vectors."""
        np.savez(folder / "vectors.npz", vectors=self._vectors)

    @classmethod
    def load(cls, folder: Path, vectors: Matrix, metric: str, shift: float = 0.0) -> Saved:
        """Read the vectors."""
        index = cls.__new__(cls)
        with np.load(folder / "vectors.npz", allow_pickle=False) as file:
            index._vectors, index._shift = file["vectors"], np.float32(shift)
        assert index._vectors.shape == vectors.shape
        assert metric == "dot"
        cls.loaded += 1
        return index


class SavesNothing(Saved):
    """An index whose save writes no file."""

    def save(self, folder: Path) -> None:
        """Write nothing."""


class KeepsItsFolder(Saved):
    """An index that depends on the folder it was saved in, which moves later."""

    def save(self, folder: Path) -> None:
        """Write the vectors and the folder."""
        super().save(folder)
        (folder / "folder.txt").write_text(str(folder))

    @classmethod
    def load(cls, folder: Path, vectors: Matrix, metric: str, shift: float = 0.0) -> Saved:
        """Read from the stored folder."""
        return super().load(Path((folder / "folder.txt").read_text()), vectors, metric, shift)


class LoadsSomethingElse(Saved):
    """An index that returns other rows after loading."""

    @classmethod
    def load(cls, folder: Path, vectors: Matrix, metric: str, shift: float = 0.0) -> Saved:
        """Read the vectors in another order."""
        index = super().load(folder, vectors, metric, shift)
        index._vectors = index._vectors[::-1]
        return index


class OnlySaves(BuiltAtStart):
    """An index with save and without load."""

    def save(self, folder: Path) -> None:
        """Write the vectors."""
        np.savez(folder / "vectors.npz", vectors=self._vectors)


class PadsWithMinusOne(BuiltAtStart):
    """An index that always returns k rows, padded with -1, as FAISS does."""

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """The k best rows, then -1."""
        rows, scores = super().search(vector, k)
        missing = (0, max(0, k - len(rows)))
        return np.pad(rows, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf)


def no_index(vectors: Matrix, metric: str) -> None:
    """Build nothing."""


NOT_CALLABLE = 7
