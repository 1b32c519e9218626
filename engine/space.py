"""The one vector space of people and items: scaled views side by side, `[text | co-click | follows]`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engine.types import NOBODY, Matrix, Rows, Scores, Vector


@dataclass(frozen=True, slots=True)
class View:
    """A slice of the dimensions, and how much it weighs."""

    name: str
    start: int
    stop: int
    weight: float
    """Share of the view in a dot product; the vectors carry its square root."""

    @property
    def slice(self) -> slice:
        """The view's dimensions."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, eq=False, slots=True)
class Space:
    """Item vectors and the rule that makes a person's vector of them.

    A view that does not tell a direction apart has the same rows on both sides; in one that does (follows),
    `sources` says where an item leads and `targets` what leads to it.
    """

    views: tuple[View, ...]
    targets: Matrix
    """(n, d) item vectors, each view of length about sqrt(weight), or 0 where nothing is known."""
    sources: Matrix
    """(n, d) what an item adds to the vector of a person who touched it."""
    decay: float
    """Weight of each older touch relative to the next younger one, in (0, 1]."""
    depth: int = 50
    """How many of the latest touches count."""
    _last: tuple[bytes, Vector] | None = field(default=None, init=False, repr=False)
    """The person asked for last, by the rows of their touches."""

    def __post_init__(self) -> None:
        if self.targets.shape != self.sources.shape or self.targets.shape[1] != self.views[-1].stop:
            raise ValueError(f"targets {self.targets.shape}, sources {self.sources.shape}, views {self.views}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it must be above 0 and at most 1")

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self.targets.shape[1])

    def view(self, name: str) -> View:
        """The view of that name."""
        for view in self.views:
            if view.name == name:
                return view
        raise KeyError(f"no view {name!r}; there are {', '.join(view.name for view in self.views)}")

    @property
    def reads_queries(self) -> bool:
        """Whether an embedded text can be looked for: the text view is there, and has a weight."""
        return any(view.name == "text" and view.stop > view.start and view.weight > 0 for view in self.views)

    def person(self, history: Rows) -> Vector:
        """The vector (d,) of somebody who touched these items, latest first; zeros where nothing is known.

        Each view is the decayed sum of the items' source vectors, scaled to the length sqrt(weight).
        """
        rows = history[: self.depth]
        rows = rows[rows != NOBODY]
        last, key = self._last, rows.tobytes()
        if last is not None and last[0] == key:  # recall asks first, and the features of the same request next
            return last[1]
        vector = np.zeros(self.dimensions, np.float32)
        if len(rows):
            weights = np.power(self.decay, np.arange(len(rows)), dtype=np.float64).astype(np.float32)
            # an ordered sum, not a matrix product: the same bits whatever the batch
            summed = np.add.reduce(self.sources[rows] * weights[:, None], axis=0)
            for view in self.views:
                vector[view.slice] = _scaled(summed[view.slice], view.weight)
        vector.flags.writeable = False
        object.__setattr__(self, "_last", (key, vector))
        return vector

    def query(self, text_vector: Vector) -> Vector:
        """The vector (d,) of an embedded text: its dot product with an item is the cosine of the texts."""
        vector = np.zeros(self.dimensions, np.float32)
        view = self.view("text")
        if view.weight > 0:
            vector[view.slice] = _scaled(text_vector, 1 / view.weight)
        return vector

    def scores(self, vector: Vector, rows: Rows) -> Scores:
        """(len(rows),) dot products of a vector with item vectors."""
        return np.asarray(self.targets[rows] @ vector, np.float32)


def assemble(views: dict[str, tuple[Matrix, Matrix]], weights: dict[str, float], decay: float, depth: int) -> Space:
    """A space of named (targets, sources) pairs of (n, d) matrices, scaled by the square root of each view's share.

    A view is taken as it is: its rows should be of length 1, or 1 on average where length carries meaning.
    """
    shares = sum(weights[name] for name in views)
    placed: list[View] = []
    start = 0
    for name, (targets, _) in views.items():
        placed.append(View(name, start, start + targets.shape[1], weights[name] / shares))
        start = placed[-1].stop
    targets, sources = (
        np.concatenate(
            [pair[side] * np.float32(np.sqrt(view.weight)) for pair, view in zip(views.values(), placed, strict=True)],
            axis=1,
        ).astype(np.float32)
        for side in (0, 1)
    )
    return Space(tuple(placed), targets, sources, decay, depth)


def unit_rows(matrix: Matrix) -> Matrix:
    """Rows scaled to length 1; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    return (matrix / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)


def _scaled(vector: Vector, weight: float) -> Vector:
    length = float(np.sqrt(np.add.reduce(np.square(vector, dtype=np.float64))))
    return vector * np.float32(np.sqrt(weight) / length) if length > 0 else vector
